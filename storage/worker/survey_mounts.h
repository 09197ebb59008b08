/* SPDX-License-Identifier: Apache-2.0
 *
 * Our own mount table, read once for many questions: which mount does a path lead to? By
 * the table alone: no file system is asked, and none can make it hang.
 */
#ifndef MR_STORAGE_WORKER_SURVEY_MOUNTS_H
#define MR_STORAGE_WORKER_SURVEY_MOUNTS_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/base/mountid.h"
#include "storage/identity.h"
#include "storage/worker/mount_table.h"

struct mr_mount_view {
    struct mr_mount_table table;
    const struct mr_mountinfo **by_place; /* sorted by parent and mount point */
    uint64_t root_id;                     /* the mount that our "/" is on */
};

/* 0, or a negative errno; in both cases the view can be cleared. */
int mr_mount_view_read(struct mr_mount_view *ret, struct mr_err *err);
void mr_mount_view_clear(struct mr_mount_view *view);
#define MR_AUTO_VIEW __attribute__((cleanup(mr_mount_view_clear)))

/* As mr_mounter_present(). */
enum mr_presence mr_mount_view_present(const struct mr_mount_view *view,
                                       const struct mr_mount_record *record,
                                       bool *ret_on_top);

#endif
