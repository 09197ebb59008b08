/* SPDX-License-Identifier: Apache-2.0
 *
 * The mounts of any namespace by listmount(2) and statmount(2), Linux 6.11: no process in
 * there is needed, and also those are seen that no path leads to from its root directory.
 * Asks the kernel's own structures, never a file system.
 */
#ifndef MR_STORAGE_WORKER_MOUNT_LIST_H
#define MR_STORAGE_WORKER_MOUNT_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/base/statmount.h"

/* size is how much of *ret and of the text behind it the kernel may fill. Text may stay
 * away (a mount point out of reach), the basics may not. 0 or a negative errno. */
int mr_mount_ask(uint64_t ns_id, uint64_t mount, uint64_t mask, size_t size,
                 struct mr_statmount *ret);

/* Calls fn with the basics of every mount of the namespace, until it answers false. 0, or
 * a negative errno when some were not seen; -ENOENT: the namespace has ended. */
typedef bool (*mr_mount_fn)(void *ctx, const struct mr_statmount *mount);
int mr_mount_list(uint64_t ns_id, mr_mount_fn fn, void *ctx);

/* Is a mount with this mountinfo id in the namespace? 1, 0, or a negative errno when that
 * cannot be told. */
int mr_mount_is_listed(uint64_t ns_id, uint64_t old_id);

#endif
