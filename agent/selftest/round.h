/* SPDX-License-Identifier: Apache-2.0
 *
 * One holder's round: attach, build the holder, detach, look at the device while it is
 * held, ask who holds it, let go, measure. What is seen here decides; the engine's own
 * records do not.
 */
#ifndef MR_AGENT_SELFTEST_ROUND_H
#define MR_AGENT_SELFTEST_ROUND_H

#include <stdint.h>

#include "agent/selftest/hold.h"
#include "agent/selftest/volume.h"

enum mr_verdict {
    MR_VERDICT_UNKNOWN = 0, /* interrupted */
    MR_VERDICT_PASSED,
    MR_VERDICT_FAILED,
    MR_VERDICT_SKIPPED, /* the holder cannot be built here */
};

struct mr_round {
    struct mr_trial *trial;
    const struct mr_hold_kind *kind; /* NULL: nobody holds it, for comparison */
    int64_t hold_ms;                 /* for how long to hold it at least */

    /* --- what came of it --- */
    enum mr_verdict verdict;
    bool broken;        /* the promise: unmapped, or said to be free, while held */
    char why[300];      /* not passed: why */
    char named[64];     /* how the engine names it; "": it does not */
    const char *step;   /* "unmount" or "drain"; "" when it did not wait */
    int64_t noticed_ms; /* from letting go (nobody: from the request) to the end */
};

/* trial, kind and hold_ms set, the rest zero. Ends with the volume detached, unless the
 * engine fails to do it. */
void mr_round_run(struct mr_round *round);

#endif
