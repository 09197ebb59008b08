/* SPDX-License-Identifier: Apache-2.0
 *
 * Ways to hold a file system without an open file: io_uring, sockets, fanotify, mounts
 * that are nowhere. Used by the program of test_scan_hold.h.
 */
#ifndef MR_TESTS_UNIT_TEST_SCAN_HOLD_KERNEL_H
#define MR_TESTS_UNIT_TEST_SCAN_HOLD_KERNEL_H

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define HOLD_MANY 30

/* A file in the fixed table of a ring, its fd closed. */
static inline bool hold_ring(const char *path)
{
    struct io_uring_params params = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 4U, &params);
    int pipes[2];

    if (ring < 0 || pipe2(pipes, O_CLOEXEC) < 0)
        return false;
    const int files[] = {pipes[0], open(path, O_RDONLY | O_CLOEXEC)};
    bool ok = files[1] >= 0 &&
              syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES, files, 2U) == 0;
    (void)close(files[1]);
    return ok;
}

/* Sends the fd into a socket that nobody reads, and closes it. */
static inline bool hold_send(int fd)
{
    union {
        struct cmsghdr head;
        char data[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char byte = 'x';
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    const struct msghdr message = {.msg_iov = &iov,
                                   .msg_iovlen = 1,
                                   .msg_control = control.data,
                                   .msg_controllen = sizeof(control.data)};
    int pair[2];

    if (fd < 0 || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) < 0)
        return false;
    control.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
                                    .cmsg_level = SOL_SOCKET,
                                    .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
    bool ok = sendmsg(pair[0], &message, 0) == 1;
    (void)close(fd);
    return ok;
}

static inline bool hold_in_flight(const char *path, int times)
{
    bool ok = true;

    while (ok && times-- > 0)
        ok = hold_send(open(path, O_RDONLY | O_CLOEXEC));
    return ok;
}

static inline int hold_bind(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
    (void)unlink(path);
    if (bind(fd, (const void *)&name, sizeof(name)) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

/* flags: of fanotify_init(2). Then one event, that nobody reads, unless it is idle. */
static inline bool hold_fanotify(const char *path, unsigned flags, unsigned mark,
                                 bool idle)
{
    int group = fanotify_init(flags | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY);
    bool ok = group >= 0 && fanotify_mark(group, FAN_MARK_ADD | mark,
                                          FAN_OPEN | FAN_ONDIR, AT_FDCWD, path) == 0;

    if (!ok || idle)
        return ok;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && close(fd) == 0;
}

static inline bool hold_context(const char *path)
{
    return fspick(AT_FDCWD, path, FSPICK_CLOEXEC) >= 0;
}

/* The device, mounted nowhere. */
static inline bool hold_new_mount(const char *node)
{
    int fs = fsopen("ext4", FSOPEN_CLOEXEC);

    return fs >= 0 && fsconfig(fs, FSCONFIG_SET_STRING, "source", node, 0) == 0 &&
           fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0 &&
           fsmount(fs, FSMOUNT_CLOEXEC, 0) >= 0 && close(fs) == 0;
}

static inline bool hold_trees(const char *path)
{
    return open_tree(AT_FDCWD, path,
                     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE) >= 0;
}

static inline bool hold_space_nested(const char *path)
{
    return unshare(CLONE_NEWNS) == 0 && mount("none", path, "tmpfs", 0, NULL) == 0;
}

static const char *hold_unmount_path;

static inline void hold_unmount(int signal)
{
    (void)signal;
    (void)umount2(hold_unmount_path, 0);
}

/* Unmounts its copy when it gets SIGUSR1. */
static inline bool hold_space_to_unmount(const char *path)
{
    hold_unmount_path = path;
    return unshare(CLONE_NEWNS) == 0 && signal(SIGUSR1, hold_unmount) != SIG_ERR;
}

/* Not known by this name: errno is EINVAL. */
static inline bool hold_by_kernel(const char *kind, const char *path)
{
    if (strcmp(kind, "ring") == 0)
        return hold_ring(path);
    if (strcmp(kind, "in-flight") == 0)
        return hold_in_flight(path, 1);
    if (strcmp(kind, "in-flight-many") == 0)
        return hold_in_flight(path, HOLD_MANY);
    if (strcmp(kind, "socket") == 0)
        return hold_bind(path) >= 0;
    if (strcmp(kind, "socket-in-net") == 0)
        return unshare(CLONE_NEWNET) == 0 && hold_bind(path) >= 0;
    if (strcmp(kind, "socket-in-flight") == 0)
        return hold_send(hold_bind(path));
    if (strcmp(kind, "fanotify") == 0)
        return hold_fanotify(path, FAN_CLASS_NOTIF, FAN_MARK_FILESYSTEM, false);
    if (strcmp(kind, "fanotify-mount") == 0)
        return hold_fanotify(path, FAN_CLASS_NOTIF, FAN_MARK_MOUNT, false);
    if (strcmp(kind, "fanotify-inode") == 0)
        return hold_fanotify(path, FAN_CLASS_NOTIF, 0, false);
    if (strcmp(kind, "fanotify-idle") == 0)
        return hold_fanotify(path, FAN_CLASS_NOTIF, FAN_MARK_FILESYSTEM, true);
    if (strcmp(kind, "fanotify-fid") == 0)
        return hold_fanotify(path, FAN_REPORT_FID, FAN_MARK_FILESYSTEM, false);
    if (strcmp(kind, "context") == 0)
        return hold_context(path);
    if (strcmp(kind, "new-mount") == 0)
        return hold_new_mount(path);
    if (strcmp(kind, "trees") == 0)
        return hold_trees(path);
    if (strcmp(kind, "space-nested") == 0)
        return hold_space_nested(path);
    if (strcmp(kind, "space-to-unmount") == 0)
        return hold_space_to_unmount(path);
    errno = EINVAL;
    return false;
}

#endif
