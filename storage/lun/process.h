/* SPDX-License-Identifier: Apache-2.0
 *
 * Makes the process fit to stand below a file system: its memory is there before the
 * first request, it asks for no more under memory pressure, and no signal or closed pipe
 * ends it.
 */
#ifndef MR_STORAGE_LUN_PROCESS_H
#define MR_STORAGE_LUN_PROCESS_H

#include <stdint.h>

/* Signals, working directory, umask, no core dumps, and an empty environment: variables
 * named LIBISCSI_* would change the session behind our back. Call first. */
void mr_process_isolate(void);

/* Allocator settings, a warm heap, locked memory, PR_SET_IO_FLUSHER, oom_score_adj. Best
 * effort: what is refused is logged once. Call after the buffers are allocated. */
void mr_process_lock(void);

/* Lets go of stderr: the I/O loop must not wait for its reader, nor keep the reader of an
 * agent that is long gone from seeing the end. What happens from here on is told by the
 * control socket. */
void mr_process_quiet(void);

/* Bounds the address space to a little more than what is in use: after everything was set
 * up. */
void mr_process_limit(void);

/* Called in each turn of the loop: a turn that uses 10 s of CPU time ends the process by
 * SIGPROF (setitimer(2) ITIMER_PROF). libiscsi 1.19 trusts the lengths of a target: one
 * R2T of 4 GiB would keep it busy for ever, and with it everybody who waits for the
 * volume; the death of this process is an I/O error. Suspend and SIGSTOP use no CPU time.
 */
void mr_process_watchdog(int64_t now_ns);

#endif
