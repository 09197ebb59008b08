/* SPDX-License-Identifier: Apache-2.0
 *
 * Fencing by persistent reservation (SPC-4 section 5.12): the commands. A volume that
 * asks for it registers a key of its own and reserves the LUN "write exclusive,
 * registrants only", so that a node that takes it over can shut us out at the target.
 * What the registrations mean is decided in fence_judge.h.
 *
 * All calls wait in the session (question.h), never beyond the asker's deadline. *state
 * is the caller's record: it must outlive sessions and servers, and is written as a whole
 * before a call returns. A registration belongs to one session at some targets (tgtd), to
 * the initiator's name and ISID at others; both are dealt with. Nothing here reserves or
 * registers again once we were fenced.
 */
#ifndef MR_STORAGE_LUN_FENCE_H
#define MR_STORAGE_LUN_FENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/lun/fence_judge.h"
#include "storage/lun/page.h"
#include "storage/lun/question.h"

struct mr_fence_ask {
    uint64_t key;
    bool preempt; /* an explicit request: take the LUN from preempt_key */
    uint64_t preempt_key;
};

/* After the first login. Keys of our own node are left over from a server that is dead
 * (the lock of the source proves it) and are taken over. Errors:
 * -EBUSY with SOURCE_IN_USE that names the key in the way; nothing was changed (or, when
 *   another node was faster, nothing of ours is left);
 * -EOPNOTSUPP with DEVICE_ERROR: the LUN knows no persistent reservations;
 * others: as mr_ask(), or a target that contradicts itself. */
int mr_fence_acquire(const struct mr_asker *a, const struct mr_fence_ask *ask,
                     struct mr_page_fence *state, struct mr_err *err);

/* Does a reservation keep a session from writing that asks for none itself? Looks only. 0
 * (also when the LUN cannot tell), or -EBUSY with SOURCE_IN_USE. */
int mr_fence_in_the_way(const struct mr_asker *a, struct mr_err *err);

/* Would mr_fence_acquire() be refused now? Looks only. 0, or its errors. */
int mr_fence_would(const struct mr_asker *a, const struct mr_fence_ask *ask,
                   struct mr_err *err);

/* After each further login, before anything is replayed. 0: ours; registered in this
 * session, old registrations of ours are gone, the reservation was seen. -ESTALE with
 * FENCED: fenced, for ever; nothing of ours was left behind by this call. Others: not
 * known; the session is of no use, try again later. */
int mr_fence_check(const struct mr_asker *a, struct mr_page_fence *state,
                   struct mr_err *err);

/* Reads keys and reservation into *state, for a session that is up: on request, or after
 * a unit attention 2A/03-05 or a RESERVATION CONFLICT. 0: still ours as far as the target
 * lists it (a conflict that comes nevertheless needs a new session and
 * mr_fence_check()); -ESTALE with FENCED; others: could not be read. Somebody who joined
 * is no reason here: nothing is replayed. */
int mr_fence_look(const struct mr_asker *a, struct mr_page_fence *state,
                  struct mr_err *err);

/* At the end: releases and unregisters all of our key, and proves it. 0 also when nothing
 * of ours was there. After a failure the key may be left at the target; our node's next
 * attach takes it over, another node must preempt it. */
int mr_fence_release(const struct mr_asker *a, struct mr_page_fence *state,
                     struct mr_err *err);

#endif
