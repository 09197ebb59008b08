/* SPDX-License-Identifier: Apache-2.0
 *
 * What the reconnect decides, without doing it: when to try again, where, when to stop
 * waiting, and whether the LUN that answers is the one that we lost. Pure. Times are
 * CLOCK_MONOTONIC in nanoseconds.
 */
#ifndef MR_STORAGE_LUN_POLICY_H
#define MR_STORAGE_LUN_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/lun/inquiry.h"

/* From the start of one round of logins to that of the next: half a second, more the
 * longer it lasts (a sixtieth of it), at most 3 s, each +-20 % by random; 5 s after
 * refused credentials, so that nobody locks our account. */
int64_t mr_policy_pause(int64_t down_ns, bool refused, uint32_t random);

/* When requests stop waiting for a session that was lost at since_ns. INT64_MAX: never
 * (replacement_ms -1). */
int64_t mr_policy_patience(int64_t since_ns, int64_t replacement_ms);

/* The same for a session that ended with its server: that is not the target's fault, so
 * what waits is given at least the time that a target may take for an answer. */
int64_t mr_policy_patience_restarted(int64_t since_ns, int64_t replacement_ms,
                                     int64_t timeout_ms);

/* Which portal the try number n of a round goes to: the last good one first. */
size_t mr_policy_portal(size_t good, size_t n, size_t count);

/* A new session has proved itself: it answered all that waited for it, or it lasts.
 * Otherwise one that comes and goes would start the patience anew each time. oldest_ns:
 * arrival of the oldest unanswered request, 0: none. */
bool mr_policy_outage_over(int64_t oldest_ns, int64_t up_ns, int64_t now_ns,
                           int64_t timeout_ns);

enum mr_same_lun {
    MR_LUN_UNPROVEN =
        0, /* it lacks an identity that the other one had: ask again later */
    MR_LUN_SAME,
    MR_LUN_LARGER, /* the same one, grown */
    MR_LUN_OTHER,  /* another one, or a smaller one */
};

/* Is the LUN of two identifications the same? why (of size bytes) says what differs, for
 * people; "" for MR_LUN_SAME and MR_LUN_LARGER. */
enum mr_same_lun mr_policy_compare(const struct mr_lun_facts *was,
                                   const struct mr_lun_facts *is, char *why, size_t size);

#endif
