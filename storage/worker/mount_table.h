/* SPDX-License-Identifier: Apache-2.0
 *
 * The mount table of one namespace, as proc_pid_mountinfo(5) shows it: who is mounted
 * where, and on what. The text can be shaped by other people (mount points, options).
 */
#ifndef MR_STORAGE_WORKER_MOUNT_TABLE_H
#define MR_STORAGE_WORKER_MOUNT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "storage/worker/scan_parse.h"

struct mr_mount_table {
    char *text; /* what the entries point into */
    struct mr_mountinfo *entries;
    size_t count;
};

/* Reads "mountinfo" in task_dir, a directory of /proc. 0 or a negative errno; in both
 * cases the table can be cleared. */
int mr_mount_table_read(int task_dir, struct mr_mount_table *ret);
void mr_mount_table_clear(struct mr_mount_table *table);
#define MR_AUTO_TABLE __attribute__((cleanup(mr_mount_table_clear)))

/* NULL when there is none with this id. */
const struct mr_mountinfo *mr_mount_table_find(const struct mr_mount_table *table,
                                               uint64_t id);

/* Is it mounted, at any depth, on a mount of the device (or on a mount on that)? */
bool mr_mount_is_inside(const struct mr_mount_table *table,
                        const struct mr_mountinfo *entry, dev_t dev);

/* Does it hide `own`, or one of the mounts that lead to it? So does what is stacked on
 * such a mount. */
bool mr_mount_covers(const struct mr_mount_table *table, const struct mr_mountinfo *entry,
                     const struct mr_mountinfo *own);

#endif
