/* SPDX-License-Identifier: Apache-2.0
 *
 * The break-glass of a FUSE connection: its "abort" file in a fusectl mount of our own,
 * attached nowhere. Every request then fails, waiting ones included, and nobody has to
 * answer anything. fs/fuse/control.c.
 */
#ifndef MR_STORAGE_LUN_FUSE_ABORT_H
#define MR_STORAGE_LUN_FUSE_ABORT_H

#include <stdint.h>

/* mount_fd is on the FUSE file system, which is not asked. *ret_connection is the
 * number of its connection; *ret_fd stays with the caller. 0 or a negative errno; the
 * number is known then, too, unless it is 0. */
int mr_fuse_abort_open(int mount_fd, uint32_t *ret_connection, int *ret_fd);
/* 0 or a negative errno. */
int mr_fuse_abort(int abort_fd);

#endif
