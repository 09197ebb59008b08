/* SPDX-License-Identifier: Apache-2.0
 *
 * Naming a mount so that another one is never taken for it: the unique mount id (statx(2)
 * STATX_MNT_ID_UNIQUE, Linux 6.8), on older kernels the reusable id of mountinfo together
 * with major:minor. Asks the mount table, never the file system: does not block on a dead
 * device.
 */
#ifndef MR_STORAGE_BASE_MOUNTID_H
#define MR_STORAGE_BASE_MOUNTID_H

#include <stdbool.h>
#include <stdint.h>

struct mr_mount_id {
    uint64_t id;    /* 0: none */
    bool unique;    /* STATX_MNT_ID_UNIQUE; else the id field of mountinfo */
    uint32_t major; /* of the mounted device, as mountinfo shows it */
    uint32_t minor;
};

enum mr_presence {
    MR_PRESENCE_UNKNOWN = 0,
    MR_PRESENT,
    MR_ABSENT_NOW,
};

/* The mount that the path (relative to dirfd, not followed if a symlink, "" = dirfd
 * itself) is on; with the path of a mount point: the topmost mount there. Uses
 * AT_STATX_DONT_SYNC. Returns 0 or a negative errno. Major and minor come from statx
 * (right for xfs and ext4, not for btrfs). */
int mr_mount_id_at(int dirfd, const char *path, struct mr_mount_id *ret);

/* Is this mount in our own mount namespace's table? statmount(2) (Linux 6.8), else
 * mountinfo. Safe in the core. */
enum mr_presence mr_mount_present(const struct mr_mount_id *id);

/* The reusable id that mountinfo shows for this mount of our own namespace. 0 (then *ret
 * is 0 when id names none), -ENOENT when the mount is not there any more, or another
 * negative errno when that cannot be told. */
int mr_mount_old_id(const struct mr_mount_id *id, uint64_t *ret);

#endif
