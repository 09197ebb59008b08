/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_state.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include "storage/base/cleanup.h"
#include "storage/worker/scan_parse.h"

#define MR_SOCKET_NAME_MAX 109 /* sun_path and a NUL */

static void note_socket(struct mr_scan *scan, struct mr_scan_target *target,
                        uint32_t inode, char *path)
{
    struct mr_scan_socket *sockets =
        reallocarray(scan->sockets, scan->socket_count + 1, sizeof(*sockets));

    if (!sockets || !path) {
        scan->complete = false;
        free(path);
    }
    if (sockets)
        scan->sockets = sockets;
    if (!sockets || !path)
        return;
    sockets[scan->socket_count++] =
        (struct mr_scan_socket){.inode = inode, .target = target, .path = path};
}

/* sock_diag(7): UNIX_DIAG_VFS says where the bound name lies, UNIX_DIAG_NAME what it
 * was called. A connection that was accepted has both from its listener. */
static void look_at_socket(struct mr_scan *scan, const struct nlmsghdr *message)
{
    const struct unix_diag_msg *diag = NLMSG_DATA(message);
    const struct rtattr *attr = (const void *)(diag + 1);
    unsigned len = message->nlmsg_len - (unsigned)NLMSG_LENGTH(sizeof(*diag));
    struct mr_scan_target *target = NULL;
    char name[MR_SOCKET_NAME_MAX] = "";

    if (message->nlmsg_len < NLMSG_LENGTH(sizeof(*diag)))
        return;
    for (; RTA_OK(attr, len); attr = RTA_NEXT(attr, len)) {
        size_t size = RTA_PAYLOAD(attr);
        struct unix_diag_vfs vfs;
        if (attr->rta_type == UNIX_DIAG_VFS && size >= sizeof(vfs)) {
            memcpy(&vfs, RTA_DATA(attr), sizeof(vfs));
            target = mr_scan_find_dev(scan, mr_kernel_dev(vfs.udiag_vfs_dev));
        } else if (attr->rta_type == UNIX_DIAG_NAME && size < sizeof(name)) {
            memcpy(name, RTA_DATA(attr), size);
            name[size] = '\0';
        }
    }
    if (target)
        note_socket(scan, target, diag->udiag_ino, strdup(name));
}

/* 1 when more is to come, 0 at the end, or a negative errno. */
static int look_at_batch(struct mr_scan *scan, const struct nlmsghdr *message, size_t len)
{
    for (; NLMSG_OK(message, len); message = NLMSG_NEXT(message, len)) {
        const struct nlmsgerr *error = NLMSG_DATA(message);
        if (message->nlmsg_type == NLMSG_DONE)
            return 0;
        if (message->nlmsg_type == NLMSG_ERROR)
            return error->error < 0 ? error->error : -EIO;
        if (message->nlmsg_type == SOCK_DIAG_BY_FAMILY)
            look_at_socket(scan, message);
    }
    return 1;
}

/* The sockets of the network namespace that we are in. 0 or a negative errno. */
static int list_sockets(struct mr_scan *scan)
{
    static _Alignas(struct nlmsghdr) char buffer[32 * 1024];
    const struct {
        struct nlmsghdr head;
        struct unix_diag_req request;
    } ask = {
        .head = {.nlmsg_len = sizeof(ask),
                 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .request = {.sdiag_family = AF_UNIX,
                    .udiag_states = UINT32_MAX,
                    .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS},
    };
    MR_AUTO_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

    if (fd < 0 || send(fd, &ask, sizeof(ask), 0) < 0)
        return -errno;
    int rc = 1;
    while (rc > 0 && !mr_scan_late(scan)) {
        ssize_t len = recv(fd, buffer, sizeof(buffer), 0);
        if (len <= 0)
            return len < 0 ? -errno : -EIO;
        rc = look_at_batch(scan, (const void *)buffer, (size_t)len);
    }
    return rc < 0 ? rc : 0;
}

/* True when it is new. */
static bool note_space(struct mr_scan *scan, uint64_t inode)
{
    for (size_t i = 0; i < scan->net_space_count; i++)
        if (scan->net_spaces[i] == inode)
            return false;
    uint64_t *spaces =
        reallocarray(scan->net_spaces, scan->net_space_count + 1, sizeof(*spaces));
    if (!spaces) {
        scan->complete = false;
        return false;
    }
    scan->net_spaces = spaces;
    spaces[scan->net_space_count++] = inode;
    return true;
}

/* We are alone in this process, so we may go there ourselves. */
static void visit(struct mr_scan *scan, int task_dir)
{
    MR_AUTO_CLOSE int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    MR_AUTO_CLOSE int there = openat(task_dir, "ns/net", O_RDONLY | O_CLOEXEC);

    if (own < 0 || there < 0 || setns(there, CLONE_NEWNET) < 0) {
        mr_scan_missed(scan, errno);
        return;
    }
    if (list_sockets(scan) < 0)
        scan->complete = false;
    if (setns(own, CLONE_NEWNET) < 0)
        scan->complete = false;
}

void mr_scan_net_space(struct mr_scan *scan, int task_dir)
{
    struct statx sx;

    int rc = mr_scan_statx(task_dir, "ns/net", &sx);
    if (rc < 0)
        mr_scan_missed(scan, -rc);
    else if (note_space(scan, sx.stx_ino))
        visit(scan, task_dir);
}

void mr_scan_socket_fd(struct mr_scan_process *process, int fd_dir, const char *name)
{
    struct mr_scan *scan = process->scan;
    struct statx sx;

    if (mr_scan_statx(fd_dir, name, &sx) < 0 ||
        makedev(sx.stx_dev_major, sx.stx_dev_minor) != scan->sockfs)
        return;
    for (size_t i = 0; i < scan->socket_count; i++) {
        struct mr_scan_socket *socket = &scan->sockets[i];
        if (socket->inode != (uint32_t)sx.stx_ino) /* sock_diag cuts it */
            continue;
        socket->owned = true;
        mr_scan_add_process(process, socket->target, MR_HOLDER_UNIX_SOCKET, socket->path);
    }
}

void mr_scan_unowned_sockets(struct mr_scan *scan)
{
    for (size_t i = 0; i < scan->socket_count; i++) {
        struct mr_scan_socket *socket = &scan->sockets[i];
        const struct mr_holder row = {.kind = MR_HOLDER_UNIX_SOCKET,
                                      .path = socket->path};
        if (!socket->owned)
            mr_scan_add(socket->target, &row);
    }
}
