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
#define HOLD_FLOOD 8000
#define HOLD_ROOTFS_FIRST "/mooring-test-1"
#define HOLD_ROOTFS_SECOND "/mooring-test-2"

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

static inline bool hold_private_space(void)
{
    return unshare(CLONE_NEWNS) == 0 &&
           mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

/* An overlay at PATH/merged with its layers in PATH, too. */
static inline bool hold_overlay(const char *path)
{
    static const char *const names[] = {"one", "two", "merged"};
    char dir[300];
    char options[700];

    for (int i = 0; i < 3; i++) {
        (void)snprintf(dir, sizeof(dir), "%s/%s", path, names[i]);
        if (mkdir(dir, 0755) < 0 && errno != EEXIST)
            return false;
    }
    (void)snprintf(options, sizeof(options), "lowerdir=%s/one:%s/two", path, path);
    return mount("overlay", dir, "overlay", MS_RDONLY, options) == 0;
}

/* The same path, another file system. */
static inline bool hold_overlay_elsewhere(const char *path)
{
    return hold_private_space() && umount2(path, 0) == 0 &&
           mount("none", path, "tmpfs", 0, NULL) == 0 && hold_overlay(path);
}

/* Thousands of copies of PATH. */
static inline bool hold_flood(const char *path, bool stacked)
{
    char point[4096];
    char name[251];
    size_t len;

    if (!hold_private_space() || mount("none", "/mnt", "tmpfs", 0, NULL) < 0)
        return false;
    memset(name, 'a', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    (void)snprintf(point, sizeof(point), "/mnt");
    for (int i = 0; i < 14; i++) {
        len = strlen(point);
        (void)snprintf(point + len, sizeof(point) - len, "/%s", name);
        if (mkdir(point, 0755) < 0)
            return false;
    }
    len = strlen(point);
    for (int i = 0; i < (stacked ? HOLD_FLOOD / 4 : HOLD_FLOOD); i++) {
        (void)snprintf(point + len, sizeof(point) - len, "/%d", i);
        if (!stacked && mkdir(point, 0755) < 0)
            return false;
        if (mount(path, stacked ? path : point, NULL, MS_BIND, NULL) < 0)
            return false;
    }
    return true;
}

/* Only rootfs is left of the tree, and on it there are two mounts: the second, and
 * younger one, is a copy of PATH. See hold_clean_rootfs(). */
static inline bool hold_on_rootfs(const char *path)
{
    int space = -1;
    int tree = -1;
    int copy = -1;

    if (!hold_private_space() ||
        (space = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC)) < 0 ||
        (tree = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)) < 0 ||
        umount2("/", MNT_DETACH) < 0 || setns(space, CLONE_NEWNS) < 0)
        return false;
    (void)mkdir(HOLD_ROOTFS_FIRST, 0755);
    (void)mkdir(HOLD_ROOTFS_SECOND, 0755);
    if (mount("none", HOLD_ROOTFS_FIRST, "tmpfs", 0, NULL) < 0 ||
        move_mount(tree, "", AT_FDCWD, HOLD_ROOTFS_SECOND, MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
        (copy = open_tree(AT_FDCWD, HOLD_ROOTFS_SECOND,
                          OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)) < 0 ||
        close(tree) < 0 || umount2(HOLD_ROOTFS_SECOND, 0) < 0)
        return false;
    return move_mount(copy, "", AT_FDCWD, HOLD_ROOTFS_SECOND, MOVE_MOUNT_F_EMPTY_PATH) ==
               0 &&
           close(copy) == 0 && close(space) == 0;
}

static inline bool hold_clean_rootfs(void)
{
    int space = -1;

    return hold_private_space() &&
           (space = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC)) >= 0 &&
           umount2("/", MNT_DETACH) == 0 && setns(space, CLONE_NEWNS) == 0 &&
           rmdir(HOLD_ROOTFS_FIRST) == 0 && rmdir(HOLD_ROOTFS_SECOND) == 0;
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
    if (strcmp(kind, "overlay-on-copy") == 0)
        return hold_private_space() && hold_overlay(path);
    if (strcmp(kind, "overlay-elsewhere") == 0)
        return hold_overlay_elsewhere(path);
    if (strcmp(kind, "flood") == 0)
        return hold_flood(path, false);
    if (strcmp(kind, "flood-stacked") == 0)
        return hold_flood(path, true);
    if (strcmp(kind, "on-rootfs") == 0)
        return hold_on_rootfs(path);
    if (strcmp(kind, "clean-rootfs") == 0)
        return hold_clean_rootfs();
    if (strcmp(kind, "space-to-unmount") == 0)
        return hold_space_to_unmount(path);
    errno = EINVAL;
    return false;
}

#endif
