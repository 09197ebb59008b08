/* SPDX-License-Identifier: Apache-2.0
 *
 * A mark in the lock file of a source (MR_LUN_LOCK_FD), which outlives attachments, but
 * not the boot: has the last one ended without the target's word that nothing of it is
 * still to be done? Set while a LUN can be written, cleared by a logout with nothing
 * under way; what dies leaves it.
 */
#ifndef MR_STORAGE_LUN_UNCLEAN_H
#define MR_STORAGE_LUN_UNCLEAN_H

#include <stdbool.h>

/* True also when it cannot be read. lock_fd -1: there is none, so no. */
bool mr_unclean_read(int lock_fd);
/* Best effort. */
void mr_unclean_write(int lock_fd, bool unclean);

#endif
