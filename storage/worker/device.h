/* SPDX-License-Identifier: Apache-2.0
 *
 * Is this node still the very device that the journal recorded? Compares major:minor and
 * diskseq on the fd itself, and reads sysfs. A loop number is bound again at once to
 * another file: only diskseq tells (block/genhd.c inc_diskseq(), Linux 5.15).
 */
#ifndef MR_STORAGE_WORKER_DEVICE_H
#define MR_STORAGE_WORKER_DEVICE_H

#include "storage/base/err.h"
#include "storage/identity.h"

/* Opens the node with these flags (O_CLOEXEC and O_NOFOLLOW are added) and checks the fd.
 * Returns 0 and *ret_fd (the caller closes it), or a negative errno: MR_E_DEVICE_MISMATCH
 * when it is another device
 * (-ESTALE), MR_E_DEVICE_ERROR when it could not be opened or asked. May block. */
int mr_device_open(const struct mr_identity *identity, int flags, int *ret_fd,
                   struct mr_err *err);

/* The check alone. 0, -ESTALE with MR_E_DEVICE_MISMATCH, or another negative errno. */
int mr_device_check(const struct mr_identity *identity, int fd, struct mr_err *err);

/* mr_device_present() of claim.h and why: *ret_why (never NULL, constant text) is what
 * sysfs showed, such as "diskseq changed". Opens no device. */
enum mr_presence mr_device_state(const struct mr_identity *identity,
                                 const char **ret_why);

/* flock(LOCK_EX) on a whole-disk node keeps udev from opening it (systemd,
 * BLOCK_DEVICE_LOCKING). Tries for at most 5 s; best effort: a missing lock costs time,
 * not safety. */
void mr_device_lock(int fd);

#endif
