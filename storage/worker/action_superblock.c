/* SPDX-License-Identifier: Apache-2.0
 *
 * examine, thaw, shutdown: what needs a way into the super block when no mount of it is
 * left that we could use. fsopen(2) of a device that has a live super block joins that
 * one, and fsmount(2) gives a mount of it that is in no namespace; it is let go as soon
 * as the work is done.
 *
 * The race: when the super block dies between our look and FSCONFIG_CMD_CREATE, that
 * makes a fresh one (which replays the log), because the kernel has no "join only". Then
 * the inode number of /sys/fs/TYPE/DEVICE has changed: nothing is done to such a one, and
 * it is let go at once. Nothing is lost by that, and the device becomes free a moment
 * later.
 */
#include "storage/worker/action.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/worker/device.h"
#include "storage/worker/mounter.h"

#define THAW_LIMIT_MS 5000
#define SYNC_LIMIT_MS 5000
#define SHUTDOWN_LIMIT_MS 5000

/* XFS_IOC_GOINGDOWN and EXT4_IOC_SHUTDOWN (fs/xfs/libxfs/xfs_fs.h, fs/ext4/ext4.h). */
#define MR_IOC_SHUTDOWN _IOR('X', 125, __u32)
#define MR_SHUTDOWN_NOLOGFLUSH 2

/* One in the life of a super block; 0 when there is none. */
static ino_t super_block(const struct mr_act *act)
{
    char path[96];
    struct stat st;

    if (!*act->fs_type || mr_format(path, sizeof(path), "/sys/fs/%s/%s", act->fs_type,
                                    act->identity.node + sizeof("/dev/") - 1) < 0)
        return 0;
    return stat(path, &st) == 0 ? st.st_ino : 0;
}

/* A detached mount, or a negative errno. Read-only has to be as it is (fs/super.c
 * get_tree_bdev()), else EBUSY. */
static int mount_detached(const struct mr_act *act, bool read_only)
{
    MR_AUTO_CLOSE int context = fsopen(act->fs_type, FSOPEN_CLOEXEC);

    if (context < 0 ||
        fsconfig(context, FSCONFIG_SET_STRING, "source", act->identity.node, 0) < 0 ||
        (read_only && fsconfig(context, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0) ||
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    int fd = fsmount(context, FSMOUNT_CLOEXEC,
                     MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    return fd < 0 ? -errno : fd;
}

static bool is_of_device(int fd, const struct mr_identity *identity)
{
    struct statx sx;

    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &sx) == 0 &&
           sx.stx_dev_major == identity->major && sx.stx_dev_minor == identity->minor;
}

/* The root of a detached mount of the live super block, O_PATH. -ENOENT: it is not alive;
 * -EBUSY: somebody else has claimed the device; -ESTALE: it had just died. */
static int join(const struct mr_act *act)
{
    ino_t before = super_block(act);

    if (before == 0)
        return -ENOENT;
    MR_AUTO_CLOSE int fd = mount_detached(act, act->read_only);
    /* An error may have made it read-only. */
    if (fd == -EBUSY && !act->read_only)
        fd = mount_detached(act, true);
    if (fd < 0)
        return fd;
    if (super_block(act) != before || !is_of_device(fd, &act->identity) ||
        mr_device_check(&act->identity, act->device_fd, NULL) < 0)
        return -ESTALE;
    return mr_take_fd(&fd);
}

static const char *join_failure(int errnum)
{
    switch (errnum) {
    case ENOENT:
    case ESTALE:
        return "the file system is not alive on the device any more";
    case EBUSY:
        return "the device is claimed by something else than the file system";
    case ENOSYS:
        return "this kernel cannot join a super block (fsopen)";
    default:
        return strerrorname_np(errnum);
    }
}

/* The root directory, opened: of our own mount when it is within reach, else of a
 * detached one. */
static int open_root(const struct mr_act *act)
{
    int fd = -ENOENT;

    if (act->has_mount)
        fd = mr_mounter_open_root(&act->mount, O_RDONLY, NULL);
    if (fd != -ENOENT)
        return fd;
    MR_AUTO_CLOSE int mount_fd = join(act);
    if (mount_fd < 0)
        return mount_fd;
    fd = openat(mount_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* --- in children: each of these can wait for the device --- */

static void thaw(void *ctx, struct mr_outcome *ret)
{
    MR_AUTO_CLOSE int fd = open_root(ctx);

    if (fd < 0)
        mr_outcome(ret, false, "%s", join_failure(-fd));
    else if (ioctl(fd, FITHAW, 0) == 0)
        mr_outcome(ret, true, "thawed");
    else if (errno == EINVAL)
        mr_outcome(ret, false, "it was not frozen");
    else
        mr_outcome(ret, false, "FITHAW: %s", strerrorname_np(errno));
}

static void sync_all(void *ctx, struct mr_outcome *ret)
{
    MR_AUTO_CLOSE int fd = open_root(ctx);

    if (fd < 0)
        mr_outcome(ret, false, "not synced: %s", join_failure(-fd));
    else if (syncfs(fd) < 0)
        mr_outcome(ret, false, "syncfs said %s: data was lost", strerrorname_np(errno));
    else
        mr_outcome(ret, true, "all data was written before");
}

static void shut_down(void *ctx, struct mr_outcome *ret)
{
    MR_AUTO_CLOSE int fd = open_root(ctx);
    __u32 how = MR_SHUTDOWN_NOLOGFLUSH;

    if (fd == -EIO || fd == -EUCLEAN) /* XFS opens nothing after a shutdown */
        mr_outcome(ret, true, "shut down already");
    else if (fd < 0)
        mr_outcome(ret, false, "not shut down: %s", join_failure(-fd));
    else if (ioctl(fd, MR_IOC_SHUTDOWN, &how) < 0)
        mr_outcome(ret, false, "not shut down: %s", strerrorname_np(errno));
    else
        mr_outcome(ret, true, "shut down");
}

void mr_act_thaw(const struct mr_act *act, struct mr_outcome *ret)
{
    struct mr_act copy = *act;

    (void)mr_act_in_child(act, thaw, &copy, THAW_LIMIT_MS, ret);
}

void mr_act_shutdown(const struct mr_act *act, struct mr_outcome *ret)
{
    struct mr_act copy = *act;
    struct mr_outcome synced;
    struct mr_outcome down;

    if (!mr_act_in_child(act, sync_all, &copy, SYNC_LIMIT_MS, &synced))
        mr_outcome(&synced, false,
                   "syncfs did not end within %d s: what was not written is lost",
                   SYNC_LIMIT_MS / 1000);
    if (!mr_act_in_child(act, shut_down, &copy, SHUTDOWN_LIMIT_MS, &down))
        mr_outcome(&down, false,
                   "the shutdown did not end within %d s: the device does not answer",
                   SHUTDOWN_LIMIT_MS / 1000);
    mr_outcome(ret, down.done, "%.90s; %.100s", down.detail, synced.detail);
}

/* --- examine --- */

/* reconfigure_super() answers EBUSY when it is frozen, before it does anything
 * (fs/super.c). When it is not frozen, the rest must change nothing: even without any
 * parameter ext4 would turn a read-only super block read-write, and XFS inode32 into
 * inode64. So there is one that the file system refuses before it acts
 * (fs/xfs/xfs_super.c xfs_fs_validate_params(), fs/ext4/super.c
 * ext4_check_opt_consistency()), and "ro" as it is. */
static const char *frozen(const struct mr_act *act, int mount_fd)
{
    bool xfs = strcmp(act->fs_type, "xfs") == 0;
    MR_AUTO_CLOSE int context = fspick(mount_fd, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC);
    struct statvfs fs;

    if (context < 0 || fstatvfs(mount_fd, &fs) < 0 ||
        ((fs.f_flag & ST_RDONLY) &&
         fsconfig(context, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0) ||
        fsconfig(context, FSCONFIG_SET_STRING, xfs ? "logbufs" : "debug_want_extra_isize",
                 xfs ? "1" : "65532", 0) < 0)
        return "unknown";
    if (fsconfig(context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) == 0 ||
        errno == EINVAL)
        return "no";
    return errno == EBUSY ? "yes" : "unknown";
}

/* As mr_mounter_arm(), on the detached mount. */
static int arm(const struct mr_act *act, int mount_fd, struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *event = json_object_new_object();
    char path[32];

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", mount_fd);
    int wd = inotify_add_watch(act->inotify_fd, path, IN_UNMOUNT);
    if (wd < 0)
        return 0; /* the core polls, too */
    mr_json_set_string(event, "event", "armed");
    mr_json_set_int(event, "wd", wd);
    return mr_msg_send(act->channel_fd, event, -1, 0, err);
}

int mr_act_examine(const struct mr_act *act, struct json_object *reply,
                   struct mr_err *err)
{
    MR_AUTO_CLOSE int mount_fd = join(act);
    int r = 0;

    if (mount_fd >= 0)
        r = arm(act, mount_fd, err);
    mr_json_set_string(reply, "frozen",
                       mount_fd >= 0 && r == 0 ? frozen(act, mount_fd) : "unknown");
    if (mount_fd < 0)
        mr_json_set_string(reply, "detail", join_failure(-mount_fd));
    return r;
}
