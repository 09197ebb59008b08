/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/selftest/features.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/statmount.h"

/* include/uapi/linux/nsfs.h of Linux 6.12 */
struct mnt_ns_info {
    uint32_t size;
    uint32_t mounts;
    uint64_t id;
};
#ifndef NS_MNT_GET_NEXT
#define NS_MNT_GET_NEXT _IOR(0xb7, 11, struct mnt_ns_info)
#endif
/* include/uapi/linux/fanotify.h of Linux 6.15 */
#ifndef FAN_REPORT_MNT
#define FAN_REPORT_MNT 0x00004000
#endif

static bool unmount_event(void)
{
    char path[64];
    char event[sizeof(struct inotify_event) + NAME_MAX + 1];

    MR_AUTO_CLOSE int context = fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return false;
    MR_AUTO_CLOSE int mount_fd = fsmount(context, FSMOUNT_CLOEXEC, 0);
    MR_AUTO_CLOSE int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", mount_fd);
    if (mount_fd < 0 || watch < 0 || inotify_add_watch(watch, path, IN_UNMOUNT) < 0)
        return false;
    mr_close(&context);
    mr_close(&mount_fd); /* the last reference: the file system ends here */
    return read(watch, event, sizeof(event)) > 0;
}

static bool mount_list(void)
{
    uint64_t ids[4];
    struct mr_mnt_id_req req = {.size = MR_MNT_ID_REQ_SIZE_VER0, .mnt_id = MR_LSMT_ROOT};
    return syscall(SYS_listmount, &req, ids, sizeof(ids) / sizeof(ids[0]), 0) >= 0;
}

static bool foreign_mount_lists(void)
{
    struct mnt_ns_info info = {.size = sizeof(info)};
    MR_AUTO_CLOSE int own = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    MR_AUTO_CLOSE int next = own < 0 ? -1 : ioctl(own, NS_MNT_GET_NEXT, &info);
    return next >= 0 || (own >= 0 && errno == ENOENT); /* ours is the last one */
}

static bool mount_events(void)
{
    MR_AUTO_CLOSE int group =
        fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_MNT | FAN_CLOEXEC, O_RDONLY);
    return group >= 0;
}

static bool process_fds(void)
{
    MR_AUTO_CLOSE int fd = (int)syscall(SYS_pidfd_open, getpid(), 0U);
    return fd >= 0;
}

static bool loop_configure(void)
{
    const struct loop_config nothing = {.fd = UINT32_MAX};
    char node[32];

    MR_AUTO_CLOSE int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    (void)snprintf(node, sizeof(node), "/dev/loop%d", number);
    MR_AUTO_CLOSE int loop = number < 0 ? -1 : open(node, O_RDWR | O_CLOEXEC);
    /* A kernel that knows the call complains about the fd. */
    return loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &nothing) < 0 && errno == EBADF;
}

bool mr_feature_exclusive_open(const char *mounted_node)
{
    MR_AUTO_CLOSE int fd = open(mounted_node, O_RDONLY | O_EXCL | O_CLOEXEC);
    return fd < 0 && errno == EBUSY;
}

static const struct mr_feature features[] = {
    {"the end of a file system as an event: IN_UNMOUNT", "looked for by timers",
     unmount_event},
    {"loop devices in one step: LOOP_CONFIGURE", "no volumes on files", loop_configure},
    {"processes as fds: pidfd_open(2)", "the agent does not run", process_fds},
    {"the list of mounts: listmount(2), statmount(2)", "read from mountinfo", mount_list},
    {"the same of every mount namespace", "copies without a process are not named",
     foreign_mount_lists},
    {"mounts as events: FAN_REPORT_MNT", "looked for by timers", mount_events},
};

const struct mr_feature *mr_feature(size_t index)
{
    return index < sizeof(features) / sizeof(features[0]) ? &features[index] : NULL;
}
