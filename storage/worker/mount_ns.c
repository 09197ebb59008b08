/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/mount_ns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "storage/base/cleanup.h"

/* Newer than the headers of Debian 12. */
struct ns_info { /* struct mnt_ns_info */
    uint32_t size;
    uint32_t nr_mounts;
    uint64_t mnt_ns_id;
};
#define MR_NS_MNT_GET_INFO _IOR(0xb7, 10, struct ns_info)
#define MR_NS_MNT_GET_NEXT _IOR(0xb7, 11, struct ns_info)
#define MR_NS_MNT_GET_PREV _IOR(0xb7, 12, struct ns_info)

int mr_mount_ns_id(int fd, uint64_t *ret_id)
{
    struct ns_info info = {.size = sizeof(info)};

    if (ioctl(fd, MR_NS_MNT_GET_INFO, &info) < 0)
        return -errno;
    *ret_id = info.mnt_ns_id;
    return 0;
}

int mr_mount_ns_next(int fd, bool backwards, uint64_t *ret_id)
{
    struct ns_info info = {.size = sizeof(info)};
    int next = ioctl(fd, backwards ? MR_NS_MNT_GET_PREV : MR_NS_MNT_GET_NEXT, &info);

    if (next < 0)
        return -errno;
    *ret_id = info.mnt_ns_id;
    return next;
}

static bool is_inode(int fd, uint64_t inode)
{
    struct stat st;

    return fstat(fd, &st) == 0 && st.st_ino == inode;
}

/* Looks at one link of /proc. An fd, or -ENOENT when it is another namespace. */
static int open_if(const char *path, uint64_t inode)
{
    MR_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

    return fd >= 0 && is_inode(fd, inode) ? mr_take_fd(&fd) : -ENOENT;
}

/* All on one side of ours; at most two fds are open at a time. */
static int walk(int own, bool backwards, uint64_t inode)
{
    MR_AUTO_CLOSE int at = -1;

    for (;;) {
        uint64_t id = 0;
        MR_AUTO_CLOSE int next = mr_mount_ns_next(at < 0 ? own : at, backwards, &id);
        if (next < 0)
            return next;
        if (is_inode(next, inode))
            return mr_take_fd(&next);
        mr_close(&at);
        at = mr_take_fd(&next);
    }
}

int mr_mount_ns_open(uint64_t inode, pid_t pid, pid_t tid)
{
    MR_AUTO_CLOSE int own = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    char path[64];
    int fd = -ENOENT;

    if (own < 0)
        return -errno;
    if (is_inode(own, inode))
        return mr_take_fd(&own);
    if (pid > 0 && tid > 0) {
        (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/ns/mnt", pid, tid);
        fd = open_if(path, inode);
    }
    if (fd < 0 && pid > 0) {
        (void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
        fd = open_if(path, inode);
    }
    if (fd < 0)
        fd = walk(own, false, inode);
    if (fd == -ENOENT)
        fd = walk(own, true, inode);
    return fd;
}

bool mr_mount_ns_foreign(int fd)
{
    MR_AUTO_CLOSE int owner = ioctl(fd, NS_GET_USERNS);
    struct stat own;

    return owner >= 0 && stat("/proc/self/ns/user", &own) == 0 &&
           !is_inode(owner, own.st_ino);
}
