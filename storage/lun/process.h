/* SPDX-License-Identifier: Apache-2.0
 *
 * Makes a process fit to stand below a file system: its memory is there before the first
 * request, it asks for no more under memory pressure, and no signal or closed pipe ends
 * it. For the keeper and the server.
 */
#ifndef MR_STORAGE_LUN_PROCESS_H
#define MR_STORAGE_LUN_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Small: requests on the control socket (base/msg.h), their answers, start messages. */
#define MR_PROCESS_KEEPER_HEAP ((size_t)768 * 1024)
/* libiscsi's tasks and PDUs for a full pool of writes that the target takes in 8 KiB
 * pieces; the pool itself is allocated by itself. */
#define MR_PROCESS_SERVER_HEAP ((size_t)3 * 1024 * 1024)

/* What was granted. */
struct mr_process_protection {
    bool locked;        /* mlockall(2) */
    bool io_flusher;    /* PR_SET_IO_FLUSHER */
    bool oom_protected; /* oom_score_adj -1000 */
};

/* Signals, working directory, umask, no core dumps, and an environment that only makes
 * the resolver quick: variables named LIBISCSI_* would change the session behind our
 * back. Call first. */
void mr_process_isolate(void);

/* Keeps an fd of our mount namespace open until the end. When all who live in it are
 * killed, whoever is the last to end unmounts the volume, and its file system still wants
 * to write: to the very process that is ending, with its /dev/fuse closed but not yet
 * released. The fd is released together with that one, and the mounts go only after both
 * (kernel/task_work.c, task_work_run(); fs/namespace.c, mntput_no_expire()): the FUSE
 * connection is aborted by then. Best effort. */
void mr_process_hold_mounts(void);

/* Ends with the parent, wherever it is then. False when that has ended already. The
 * channel is the socket that the parent made: it tells who that is. */
bool mr_process_follow(int channel_fd);

/* Allocator settings, a warm heap of that size, locked memory, PR_SET_IO_FLUSHER,
 * oom_score_adj. Best effort. Call after the buffers are allocated. */
void mr_process_protect(size_t heap_bytes, struct mr_process_protection *ret);

/* Lets go of stderr: the I/O loop must not wait for its reader, nor keep the reader of an
 * agent that is long gone from seeing the end. What happens from here on is told by the
 * control socket. */
void mr_process_quiet(void);

/* Bounds the address space to a little more than what is in use: after everything was set
 * up. For the server. */
void mr_process_limit(void);

/* Called in each turn of the server's loop: a turn that uses 10 s of CPU time ends the
 * process by SIGPROF (setitimer(2) ITIMER_PROF). libiscsi 1.19 trusts the lengths of a
 * target: one R2T of 4 GiB would keep it busy for ever, and with it everybody who waits
 * for the volume. The keeper starts no other server after that: it would do the same.
 * Suspend and SIGSTOP use no CPU time. */
void mr_process_watchdog(int64_t now_ns);

/* The timeout for a poll(2) that shall end at until_ns (INT64_MAX: with an event only),
 * or earlier. */
int mr_process_poll_ms(int64_t now_ns, int64_t until_ns);

#endif
