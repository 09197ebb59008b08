/* SPDX-License-Identifier: Apache-2.0
 *
 * Fault points: places where a test can tell the process to die, to stop or to fail.
 * Compiled in with the build option MR_FAULTS only (preset asan); never in what is
 * installed.
 *
 * A point named P is armed by the file $MOORING_FAULTS/P holding "die" (SIGKILL to
 * itself), "stop" (SIGSTOP to itself, goes on after SIGCONT) or "fail ERRNO" (a number).
 * The process that gets there first renames it to P.hit.PID and obeys: each file works
 * once. Names: worker.COMMAND.before|inside|after (flush: the syncfs of an unmount),
 * core.STEP.begin|reply (undo.STEP for the undo of an attach),
 * journal.EVENT.before|after. They come from tables of ours, never from what a request or
 * a message says.
 */
#ifndef MR_STORAGE_BASE_FAULT_H
#define MR_STORAGE_BASE_FAULT_H

#include "storage/base/err.h"

/* The environment variable that names the directory: children of the agent get it too. */
#define MR_FAULT_ENV "MOORING_FAULTS"

#ifdef MR_FAULTS
/* The point's name is the parts joined by dots; a part may be NULL (left out), and one
 * with other characters than a-z, 0-9, _ and - is no point. 0 to go on, or a negative
 * errno to fail with. Any thread; costs one failed rename(2) when the environment
 * variable is set, nothing else otherwise. */
int mr_fault(const char *place, const char *what, const char *when);
/* The same; a failure is MR_E_INTERNAL and names the point. */
int mr_fault_fail(const char *place, const char *what, const char *when,
                  struct mr_err *err);
#else
static inline int mr_fault(const char *place, const char *what, const char *when)
{
    (void)place;
    (void)what;
    (void)when;
    return 0;
}
static inline int mr_fault_fail(const char *place, const char *what, const char *when,
                                struct mr_err *err)
{
    (void)err;
    return mr_fault(place, what, when);
}
#endif

#endif
