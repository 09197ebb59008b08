/* SPDX-License-Identifier: Apache-2.0
 *
 * The claim: an exclusive open of the very device that this attachment mapped. It
 * succeeds only when no file system, swap, dm, md or other claimer uses the device; kept
 * open it stops them from starting. open(2) O_EXCL on block devices; block/bdev.c
 * bd_prepare_to_claim().
 */
#ifndef MR_STORAGE_WORKER_CLAIM_H
#define MR_STORAGE_WORKER_CLAIM_H

#include <stdint.h>

#include "storage/base/err.h"
#include "storage/identity.h"

enum mr_claim_result {
    MR_CLAIM_UNKNOWN = 0, /* could not tell: err says why. Never "free" */
    MR_CLAIM_BUSY,        /* somebody holds it */
    MR_CLAIM_GONE,        /* the recorded device does not exist any more (no such disk, or
                             another diskseq) */
    MR_CLAIM_OK,
};

/* Tries O_RDONLY|O_EXCL until it works or budget_ms is over (0: one try), back-off 0.1 ms
 * x1.5 up to 20 ms. On MR_CLAIM_OK *ret_fd is the claim, major:minor and diskseq verified
 * on the fd itself, and flock(LOCK_EX) taken against udev (best effort, at most 5 s;
 * systemd's BLOCK_DEVICE_LOCKING). *ret_tries counts the opens. */
enum mr_claim_result mr_claim(const struct mr_identity *identity, int64_t budget_ms,
                              int *ret_fd, unsigned *ret_tries, struct mr_err *err);

/* Three-valued: is the recorded device gone? By sysfs: no disk, nothing bound, or another
 * diskseq. */
enum mr_presence mr_device_present(const struct mr_identity *identity);

#endif
