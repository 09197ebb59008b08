/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands PERSISTENT RESERVE IN and OUT (SPC-4 sections 6.16 and 6.17), each asked
 * until it has a final answer (question.h) and never beyond the asker's deadline. When
 * and why they are sent is decided in fence.c.
 */
#ifndef MR_STORAGE_LUN_PR_H
#define MR_STORAGE_LUN_PR_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/lun/question.h"
#include "storage/lun/reservation.h"

/* Keys and reservation of one generation: ret->known. Errors: -EOPNOTSUPP with
 * DEVICE_ERROR when the LUN has no persistent reservations; DEVICE_ERROR for an answer
 * that cannot be used; those of mr_ask(). */
int mr_pr_look(const struct mr_asker *a, struct mr_reservation *ret, struct mr_err *err);
/* Do registrations survive a loss of power? No when the target does not say. */
int mr_pr_keeps_over_power_loss(const struct mr_asker *a, bool *ret, struct mr_err *err);

/* Errors of these: -EBADE with DEVICE_ERROR: refused because of a reservation, or because
 * a key is not (any more) there; those of mr_ask(). */

/* REGISTER AND IGNORE EXISTING KEY for this session; 0 unregisters it. */
int mr_pr_register(const struct mr_asker *a, uint64_t key, bool ptpl, struct mr_err *err);
int mr_pr_reserve(const struct mr_asker *a, uint64_t key, struct mr_err *err);
int mr_pr_release(const struct mr_asker *a, uint64_t key, struct mr_err *err);
/* Removes all registrations of the key `other` but this session's. A reservation held
 * under it is this session's from then on. Another node's commands in flight are aborted
 * where the target can do that. */
int mr_pr_remove(const struct mr_asker *a, uint64_t key, uint64_t other,
                 struct mr_err *err);

/* DEVICE_ERROR about this LUN. -EIO. */
int mr_pr_fail(const struct mr_asker *a, const char *what, struct mr_err *err);

#endif
