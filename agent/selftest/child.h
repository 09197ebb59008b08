/* SPDX-License-Identifier: Apache-2.0
 *
 * A holder's process, seen from the self test. Main thread only; nothing here waits for
 * long.
 */
#ifndef MR_AGENT_SELFTEST_CHILD_H
#define MR_AGENT_SELFTEST_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "agent/selftest/hold.h"
#include "storage/base/err.h"

struct mr_child {
    pid_t pid;      /* 0: none, or reaped */
    int stdin_fd;   /* it lets go when this closes */
    int stdout_fd;  /* non-blocking */
    char line[256]; /* what it said */
    size_t used;
    bool said;  /* the line is complete, or it ended without one */
    int status; /* wait status, once reaped */
};

/* Zeroed child. program: mooring-selftest. */
int mr_child_start(struct mr_child *child, const char *program,
                   const struct mr_hold_kind *kind, const struct mr_hold_site *site,
                   struct mr_err *err);
/* For mr_rig_wait(), ctx the child. */
bool mr_child_has_spoken(void *ctx);
bool mr_child_has_ended(void *ctx);
/* For a child that has spoken: does it hold? */
bool mr_child_holds(const struct mr_child *child);
/* Why it cannot be built here, in its own words, borrowed; NULL when it did not say so:
 * then it failed. */
const char *mr_child_cannot(const struct mr_child *child);
/* Tells it to let go. */
void mr_child_let_go(struct mr_child *child);
/* Frees everything; a process that is still there is killed and reaped (blocks). */
void mr_child_done(struct mr_child *child);

#endif
