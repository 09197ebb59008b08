/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/fuse_dev.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/lun/fuse_proto.h"

int mr_fuse_open(int *ret_fd, struct mr_err *err)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    int r;

    if (fd < 0) {
        r = mr_fail(err, MR_E_INTERNAL, errno, "open '/dev/fuse'");
        return mr_err_remedy(err, r, "load the kernel module fuse");
    }
    *ret_fd = fd;
    return 0;
}

int mr_fuse_mount(int fuse_fd, const char *source, uint32_t max_read, int *ret_mount_fd,
                  struct mr_err *err)
{
    char fd_text[16];
    char read_text[16];
    const char *const options[][2] = {
        {"source", source}, {"fd", fd_text},   {"rootmode", "100600"},
        {"user_id", "0"},   {"group_id", "0"}, {"max_read", read_text},
    };
    MR_AUTO_CLOSE int fs = fsopen("fuse", FSOPEN_CLOEXEC);
    int mount_fd;

    if (fs < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "fsopen fuse");
    (void)snprintf(fd_text, sizeof(fd_text), "%d", fuse_fd);
    (void)snprintf(read_text, sizeof(read_text), "%u", max_read);
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        if (fsconfig(fs, FSCONFIG_SET_STRING, options[i][0], options[i][1], 0) < 0)
            return mr_fail(err, MR_E_INTERNAL, errno, "fuse option %s=%s", options[i][0],
                           options[i][1]);
    }
    if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create fuse super block");
    mount_fd = fsmount(fs, FSMOUNT_CLOEXEC,
                       MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    if (mount_fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "fsmount fuse");
    *ret_mount_fd = mount_fd;
    return 0;
}

/* One message to the kernel: the header, and what is behind it. */
static int send_message(int fuse_fd, struct fuse_out_header *head,
                        const struct iovec *body, int count)
{
    struct iovec iov[1 + MR_FUSE_PIECES] = {{head, sizeof(*head)}};
    size_t len = sizeof(*head);
    ssize_t n;

    for (int i = 0; i < count && i < MR_FUSE_PIECES; i++) {
        iov[1 + i] = body[i];
        len += body[i].iov_len;
    }
    head->len = (uint32_t)len;
    do
        n = writev(fuse_fd, iov, 1 + count);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int mr_fuse_reply(int fuse_fd, uint64_t unique, int error, const struct iovec *body,
                  int count)
{
    struct fuse_out_header head = {.error = error, .unique = unique};

    return send_message(fuse_fd, &head, body, error ? 0 : count);
}

int mr_fuse_resend(int fuse_fd)
{
    struct fuse_out_header head = {.error = MR_FUSE_NOTIFY_RESEND};

    return send_message(fuse_fd, &head, NULL, 0);
}

/* fs/fuse/dev.c, fuse_notify_store(): the only message that sets i_size for sure. What
 * GETATTR answers is dropped by the kernel when a write has ended meanwhile
 * (fs/fuse/inode.c, fuse_change_attributes()), and loop(4) reads nothing behind i_size.
 */
static int store_last_byte(int fuse_fd, uint64_t size_bytes)
{
    struct fuse_out_header head = {.error = FUSE_NOTIFY_STORE};
    struct fuse_notify_store_out out = {
        .nodeid = FUSE_ROOT_ID,
        .offset = size_bytes - 1,
        .size = 1,
    };
    char byte = 0;
    const struct iovec body[] = {{&out, sizeof(out)}, {&byte, sizeof(byte)}};

    return send_message(fuse_fd, &head, body, 2);
}

int mr_fuse_grow(int fuse_fd, uint64_t size_bytes)
{
    struct fuse_out_header head = {.error = FUSE_NOTIFY_INVAL_INODE};
    /* The page that the byte is in, and the attributes. */
    struct fuse_notify_inval_inode_out out = {
        .ino = FUSE_ROOT_ID,
        .off = (int64_t)(size_bytes - 1),
        .len = 1,
    };
    const struct iovec body = {&out, sizeof(out)};
    int r = store_last_byte(fuse_fd, size_bytes);

    if (r == 0)
        r = send_message(fuse_fd, &head, &body, 1);
    return r == -ENOENT ? 0 : r;
}
