/* SPDX-License-Identifier: Apache-2.0
 *
 * Who holds a file lock: for the message of who is refused because of it.
 */
#ifndef MR_STORAGE_BASE_LOCK_OWNER_H
#define MR_STORAGE_BASE_LOCK_OWNER_H

#include <sys/types.h>

#define MR_COMM_TEXT 16 /* proc_pid_comm(5): at most 15 bytes and a NUL */

/* Another process that has a lock (flock(2), POSIX or open file description lock,
 * fcntl(2)) on the file of fd (O_PATH will do; nothing is locked or unlocked), of several
 * the first that is found. From /proc/locks, which knows neither owners of open file
 * descriptions nor who inherited one, and then from the fdinfo of all processes:
 * proc_locks(5), proc_pid_fdinfo(5). comm: its command name. Returns 0, -ENOENT when
 * there is no such process or it is not visible (another pid namespace, a file system
 * such as btrfs whose stat(2) does not show the device that the kernel shows there), or
 * another negative errno. Reads /proc only. */
int mr_lock_owner(int fd, pid_t *ret_pid, char comm[MR_COMM_TEXT]);

#endif
