/* SPDX-License-Identifier: Apache-2.0
 *
 * Who holds these devices: one pass over /proc, sysfs and the loop table for all targets.
 * Names users, proves nothing: proof is the claim. Foreign fds are looked at with
 * statx(AT_STATX_DONT_SYNC) only (a mute FUSE server would hang a stat for ever). What
 * cannot be read sets complete = false.
 *
 * Blind spots, where the kernel shows nothing to look at:
 * - a bound AF_UNIX socket whose maker has left its network namespace since, when no task
 *   is in there any more;
 * - an io_uring whose fd was closed after it was registered (IORING_REGISTER_RING_FDS):
 *   neither the ring nor its fixed files are in any fd table.
 * They hold nevertheless, so the claim fails, and the device is held by nobody in sight.
 */
#ifndef MR_STORAGE_WORKER_SCAN_H
#define MR_STORAGE_WORKER_SCAN_H

/* Reads the one scan command from channel_fd, answers, returns the exit status
 * (protocol.h). fanotify_fd: the group that gets marks, or -1. */
int mr_scan_main(int channel_fd, int fanotify_fd);

#endif
