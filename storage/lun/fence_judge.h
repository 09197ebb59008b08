/* SPDX-License-Identifier: Apache-2.0
 *
 * What a LUN's registrations mean for us: is it still ours, may we take it, who is in the
 * way. Unknown is never "ours". Pure; the commands are in fence.h.
 *
 * Why the table below is safe. The reservation is established under our key once, when
 * the volume is attached. After that we register again (new session) and move the
 * reservation from an old registration of our own to the new one, but never reserve
 * again. So "held under our key" is an unbroken chain: whoever took the LUN from us,
 * wrote, and gave it back, left it unheld or held under another key. The generation alone
 * proves nothing, for our own registrations move it too, and targets count differently.
 *
 *   our key   holder, type                   foreign keys      verdict
 *   absent    any                            some, or held     PREEMPTED
 *   absent    none                           none              FORGOTTEN
 *   listed    none                           any               RELEASED
 *   listed    another key or another type    any               TAKEN
 *   listed    ours                           some, new ones    JOINED
 *   listed    ours                           none, or as when
 *                                            we last looked    OURS
 *   not known, or nothing remembered                           UNKNOWN
 *
 * FORGOTTEN is a target that restarted and keeps nothing over a loss of power (PTPL 0),
 * or a foreign CLEAR, or a preemption by a node that is done by now: they look alike, and
 * in the last two somebody may have written since. Fail-safe: fenced. On such a target a
 * restart therefore ends an attachment that asked for fencing; one with persistence
 * (where we register with APTPL) keeps our key and goes on.
 * JOINED: "new ones" is a generation other than the remembered one. In a write-exclusive,
 * registrants-only reservation every registrant may write, so what we would replay may be
 * older than what is there.
 */
#ifndef MR_STORAGE_LUN_FENCE_JUDGE_H
#define MR_STORAGE_LUN_FENCE_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/lun/page.h"
#include "storage/lun/reservation.h"

#define MR_FENCE_TYPE 5 /* write exclusive, registrants only (SPC-4 table 52) */

enum mr_fence_verdict {
    MR_FENCE_UNKNOWN = 0, /* ask again later; neither ours nor fenced */
    MR_FENCE_OURS,
    MR_FENCE_JOINED,
    MR_FENCE_PREEMPTED,
    MR_FENCE_FORGOTTEN,
    MR_FENCE_RELEASED,
    MR_FENCE_TAKEN,
};

/* The table. Of remembered it takes registered, key and generation. */
enum mr_fence_verdict mr_fence_judge(const struct mr_reservation *seen,
                                     const struct mr_page_fence *remembered);

/* All but UNKNOWN and OURS: nothing may be replayed any more. */
bool mr_fence_verdict_fenced(enum mr_fence_verdict verdict);
/* For messages: "its key was removed by another node" ... */
const char *mr_fence_verdict_text(enum mr_fence_verdict verdict);

/* High 32 bits: the node, by its initiator name; low 32: the attachment, by its token.
 * Neither half is 0. Two nodes with one initiator name count as one: the iSCSI name must
 * be unique anyway (RFC 7143 section 4.2.7.1). */
uint64_t mr_fence_key(const char *initiator_name, const char *token);

/* The key that stands in the way of taking the LUN: the holder's, else that of any
 * registrant, which is neither of our node nor preempt (0: none named). 0: nobody's. */
uint64_t mr_fence_obstacle(const struct mr_reservation *seen, uint64_t key,
                           uint64_t preempt);

/* A registration to be removed when we take the LUN: the named one, an old one of our
 * node, or our own when it is there more than once (a new session registers beside the
 * old one). 0: none is left. */
uint64_t mr_fence_superseded(const struct mr_reservation *seen, uint64_t key,
                             uint64_t preempt);

#endif
