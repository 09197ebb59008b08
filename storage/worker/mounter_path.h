/* SPDX-License-Identifier: Apache-2.0
 *
 * Walking below a configured root with openat2(2): RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
 * | RESOLVE_NO_MAGICLINKS, so that no symlink and no ".." leads out of it. A place is the
 * parent directory of a mount point, held by fd, and the name in it. May block (the root
 * may be on anything).
 */
#ifndef MR_STORAGE_WORKER_MOUNTER_PATH_H
#define MR_STORAGE_WORKER_MOUNTER_PATH_H

#include <stdbool.h>

#include "storage/base/cleanup.h"
#include "storage/base/err.h"
#include "storage/base/mountid.h"

struct mr_place {
    int root_fd;
    int parent_fd;
    const char *name; /* the last part of the path it was opened with, borrowed */
};

#define MR_PLACE_NONE                                                                    \
    (struct mr_place)                                                                    \
    {                                                                                    \
        .root_fd = -1, .parent_fd = -1                                                   \
    }

static inline void mr_place_close(struct mr_place *place)
{
    mr_close(&place->parent_fd);
    mr_close(&place->root_fd);
}

#define MR_AUTO_PLACE __attribute__((cleanup(mr_place_close)))

/* openat2(2), beneath dirfd, no links of any kind; O_CLOEXEC is added. An fd or a
 * negative errno. */
int mr_open_beneath(int dirfd, const char *path, int flags);

/* Relative, not empty, shorter than PATH_MAX, no empty part, no "." and no "..". */
bool mr_relative_path_valid(const char *path);

/* The place of root/path; nothing is made. 0, -ENOENT when a part is missing, or another
 * negative errno. */
int mr_place_open(const char *root, const char *path, struct mr_place *ret,
                  struct mr_err *err);

/* The same, after making the missing directories (0755), the last one included.
 * *ret_created is the number of trailing parts that this call made. Undone on failure. */
int mr_place_create(const char *root, const char *path, struct mr_place *ret,
                    unsigned *ret_created, struct mr_err *err);

/* Removes the last `count` parts of the path by rmdir, deepest first; stops at the first
 * that does not go (not empty, mounted on). Best effort. Only when nothing can be mounted
 * there in any mount namespace: rmdir takes the mounts of all others away with the
 * directory (fs/namei.c vfs_rmdir() calls detach_mounts()). */
void mr_place_remove(int root_fd, const char *path, unsigned count);

/* The topmost mount at the place. 0 and *ret, -ENOENT when no mount is there, or a
 * negative errno. */
int mr_place_mount(const struct mr_place *place, struct mr_mount_id *ret);

/* umount2(2) of the topmost mount at the place, which the caller has just looked at, with
 * UMOUNT_NOFOLLOW and `flags`. The working directory is "/" afterwards. 0 or a negative
 * errno. */
int mr_place_umount(const struct mr_place *place, int flags);

#endif
