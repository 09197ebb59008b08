/* SPDX-License-Identifier: Apache-2.0
 *
 * The volume's lock file: one worker per volume at a time, also across restarts of the
 * agent. The file is never unlinked. flock(2) belongs to the open file: mkfs and fsck
 * inherit it and keep the volume locked when the worker was killed.
 */
#ifndef MR_STORAGE_WORKER_LOCK_H
#define MR_STORAGE_WORKER_LOCK_H

#include "storage/base/err.h"

/* Waits for the lock as long as the other end of channel_fd is open. Returns 0 and
 * *ret_fd (close-on-exec, closing it unlocks), -ECANCELED when the channel was closed
 * meanwhile, or another negative errno. Blocks; uses SIGALRM and the real interval timer
 * while it waits, so: single-threaded processes only. */
int mr_lock_take(const char *path, int channel_fd, int *ret_fd, struct mr_err *err);

#endif
