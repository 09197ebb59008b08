/* SPDX-License-Identifier: Apache-2.0
 *
 * May this mount be taken down for the volume's sake? Decides by the mount tables alone,
 * right before the act: is it what the row says, can it be tied to the volume, and does
 * it leave the mounts that are ours alone? What cannot be told is refused.
 */
#ifndef MR_STORAGE_WORKER_ACTION_MOUNT_H
#define MR_STORAGE_WORKER_ACTION_MOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/worker/action.h"
#include "storage/worker/mount_table.h"

/* All ids as mountinfo shows them. */
struct mr_mount_case {
    const struct mr_act *act;
    const struct mr_target_row *row;
    bool own_ns;    /* the row's namespace is ours */
    uint64_t *ours; /* the volume's own mount (0: none), then the spares */
    size_t ours_count;
    int unknown;                 /* errno: not all of ours could be found; 0: they were */
    struct mr_mount_table here;  /* our own namespace */
    struct mr_mount_table there; /* the row's */
};

/* Fills `ours`, to be freed by the caller; in our own namespace only. False when out of
 * memory, *ret says so. */
bool mr_mount_find_ours(struct mr_mount_case *look, struct mr_outcome *ret);

/* entry is in the table `there`. False: *ret says why not. */
bool mr_mount_may_go(const struct mr_mount_case *look, const struct mr_mountinfo *entry,
                     struct mr_outcome *ret);

#endif
