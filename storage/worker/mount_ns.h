/* SPDX-License-Identifier: Apache-2.0
 *
 * Mount namespaces, found by inode number and walked in the kernel's own list. An fd on a
 * namespace keeps all its mounts alive: every caller closes it at once. nsfs(7)
 * ioctl_nsfs(2), include/uapi/linux/nsfs.h of Linux 6.12.
 */
#ifndef MR_STORAGE_WORKER_MOUNT_NS_H
#define MR_STORAGE_WORKER_MOUNT_NS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The 64-bit id of the namespace behind fd, for listmount(2) and statmount(2). 0, -ENOTTY
 * before Linux 6.12, or another negative errno. */
int mr_mount_ns_id(int fd, uint64_t *ret_id);

/* The namespace next to that of fd in the kernel's list. A new fd, and its id in *ret_id;
 * -ENOENT at the end, -EPERM outside of the first pid namespace, -ENOTTY before
 * Linux 6.12. */
int mr_mount_ns_next(int fd, bool backwards, uint64_t *ret_id);

/* Opens the namespace with this inode number: that of thread tid (0: none) or process pid
 * (0: none) when it is the one, else any in the list. An fd, -ENOENT when there is none
 * any more, or another negative errno when that cannot be told. */
int mr_mount_ns_open(uint64_t inode, pid_t pid, pid_t tid);

/* Is it owned by another user namespace than ours? Mounts that were copied into such a
 * one are locked (mount_namespaces(7)). False when it cannot be told. */
bool mr_mount_ns_foreign(int fd);

#endif
