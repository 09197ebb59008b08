/* SPDX-License-Identifier: Apache-2.0
 *
 * Holders that are mounts without a namespace, or mounts that others made on, below or
 * above of the volume.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "agent/selftest/hold.h"
#include "storage/base/cleanup.h"
#include "storage/base/fd.h"

/* --- in an fd --- */

static int clone_tree(const struct mr_hold_site *site, int *ret_fd, struct mr_err *err)
{
    *ret_fd = open_tree(AT_FDCWD, site->mount_path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (*ret_fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "open_tree '%s'", site->mount_path);
    return 0;
}

static int tree_fd(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    int rc = clone_tree(site, &fd, err);
    if (rc == 0)
        mr_hold_wait("");
    return rc;
}

static int tree_in_flight(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    int rc = clone_tree(site, &fd, err);
    return rc < 0 ? rc : mr_hold_in_flight(&fd, err);
}

static int mount_fd(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    int rc = mr_hold_join(site->node, mr_hold_fs_type(site->mount_path), &fd, err);
    if (rc == 0)
        mr_hold_wait("");
    return rc;
}

static int context_fd(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = fspick(AT_FDCWD, site->mount_path, FSPICK_CLOEXEC);
    if (fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "fspick '%s'", site->mount_path);
    mr_hold_wait("");
    return 0;
}

static int frozen(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int root = open(site->mount_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || ioctl(root, FIFREEZE, 0) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "freeze '%s'", site->mount_path);
    mr_close(&root); /* it would make the umount busy */
    mr_hold_wait("");
    return mr_hold_thaw(site->node, err);
}

/* --- in our own namespace --- */

static int hold_bind(const struct mr_hold_site *site, const char *from,
                     struct mr_err *err)
{
    char to[PATH_MAX];

    int rc = mr_hold_make_dir(site->dir, "bind", to, err);
    if (rc < 0)
        return rc;
    if (mount(from, to, NULL, MS_BIND, NULL) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "bind '%s' on '%s'", from, to);
    mr_hold_wait("");
    return mr_hold_unmount(to, err);
}

static int bind_whole(const struct mr_hold_site *site, struct mr_err *err)
{
    return hold_bind(site, site->mount_path, err);
}

static int bind_part(const struct mr_hold_site *site, struct mr_err *err)
{
    char from[PATH_MAX];
    int rc = mr_hold_make_dir(site->mount_path, "part", from, err);
    return rc < 0 ? rc : hold_bind(site, from, err);
}

/* Takes away what we mounted, and never a mount of the volume. */
static int unmount_tmpfs(const char *path, struct mr_err *err)
{
    struct statfs fs;

    if (statfs(path, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
        return 0;
    return mr_hold_unmount(path, err);
}

static int hold_tmpfs(const char *path, struct mr_err *err)
{
    if (mount("tmpfs", path, "tmpfs", 0, "size=64k") < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "mount on '%s'", path);
    mr_hold_wait("");
    return unmount_tmpfs(path, err);
}

static int nested(const struct mr_hold_site *site, struct mr_err *err)
{
    char path[PATH_MAX];
    int rc = mr_hold_make_dir(site->mount_path, "nested", path, err);
    return rc < 0 ? rc : hold_tmpfs(path, err);
}

static int covering(const struct mr_hold_site *site, struct mr_err *err)
{
    return hold_tmpfs(site->mount_path, err);
}

/* --- overlays --- */

static int hold_overlay(const struct mr_hold_site *site, const char *lower,
                        const char *writable, struct mr_err *err)
{
    char upper[PATH_MAX];
    char work[PATH_MAX];
    char merged[PATH_MAX];
    char options[3 * PATH_MAX + 64];

    int rc = mr_hold_make_dir(writable, "upper", upper, err);
    if (rc == 0)
        rc = mr_hold_make_dir(writable, "work", work, err);
    if (rc == 0)
        rc = mr_hold_make_dir(site->dir, "merged", merged, err);
    if (rc < 0)
        return rc;
    (void)snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s,workdir=%s", lower,
                   upper, work);
    if (mount("overlay", merged, "overlay", 0, options) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "mount an overlay on '%s'", merged);
    mr_hold_wait("");
    return mr_hold_unmount(merged, err);
}

static int overlay_lower(const struct mr_hold_site *site, struct mr_err *err)
{
    return hold_overlay(site, site->mount_path, site->dir, err);
}

static int overlay_upper(const struct mr_hold_site *site, struct mr_err *err)
{
    char lower[PATH_MAX];
    int rc = mr_hold_make_dir(site->dir, "lower", lower, err);
    return rc < 0 ? rc : hold_overlay(site, lower, site->mount_path, err);
}

static const struct mr_hold_kind kinds[] = {
    {"open-tree",
     "a detached copy in an fd: open_tree(2)",
     MR_HOLD_DRAIN,
     {"detached-mount"},
     tree_fd},
    {"fsmount",
     "a detached mount in an fd: fsmount(2)",
     MR_HOLD_DRAIN,
     {"detached-mount"},
     mount_fd},
    {"tree-in-flight",
     "such an fd under way in a socket",
     MR_HOLD_DRAIN,
     {"in-flight-fd"},
     tree_in_flight},
    {"fs-context",
     "a file system context: fspick(2)",
     MR_HOLD_DRAIN,
     {"fs-context"},
     context_fd},
    {"bind",
     "a bind mount made by somebody else",
     MR_HOLD_DRAIN,
     {"mount-copy"},
     bind_whole},
    {"bind-part",
     "a bind mount of a directory of it",
     MR_HOLD_DRAIN,
     {"mount-copy"},
     bind_part},
    {"overlay",
     "an overlay with its lower layer on it",
     MR_HOLD_DRAIN,
     {"overlay"},
     overlay_lower},
    {"overlay-upper",
     "an overlay with its upper layer on it",
     MR_HOLD_DRAIN,
     {"overlay"},
     overlay_upper},
    {"frozen", "a frozen file system", MR_HOLD_DRAIN, {"frozen"}, frozen},
    {"nested-mount",
     "another file system mounted inside",
     MR_HOLD_UNMOUNT,
     {"nested-mount"},
     nested},
    {"covering-mount",
     "another file system mounted on top",
     MR_HOLD_UNMOUNT,
     {"covering-mount"},
     covering},
};

const struct mr_hold_family mr_hold_mounts = {"mounts and layers", kinds,
                                              sizeof(kinds) / sizeof(kinds[0])};
