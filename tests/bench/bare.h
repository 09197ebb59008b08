/* SPDX-License-Identifier: Apache-2.0
 *
 * The baselines of the benches: what the bare system calls cost, by one process, without
 * an agent. Each mode takes its orders line by line from stdin, answers each with one
 * line on stdout, and ends with stdin, so that none outlives the bench. Any failure ends
 * the program with the reason on stderr; what it leaves behind then, the bench clears.
 */
#ifndef MR_TESTS_BENCH_BARE_H
#define MR_TESTS_BENCH_BARE_H

#include <stdbool.h>
#include <stdint.h>

#define MR_BACKOFF_FIRST_NS 100000 /* the same as that of the claim: x1.5 up to 20 ms */
#define MR_BACKOFF_CAP_NS 20000000
#define MR_GIVE_UP_NS 20000000000

/* CLOCK_MONOTONIC. */
int64_t mr_bare_now_ns(void);
void mr_bare_sleep_ns(int64_t ns);

/* One line to stdout, at once. */
void mr_bare_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Reads an order; false at the end of stdin. The text is valid until the next call. */
bool mr_bare_order(const char **ret);

/* True when stdin is closed, or an order is there, within this time; -1 waits for it. */
bool mr_bare_asked(int timeout_ms);

/* Says "ready" and waits for the end of stdin. */
void mr_bare_hold(void);

/* What the loop device is bound to. dst holds 512 bytes; "" when nothing can be read. */
void mr_bare_backing(const char *node, char dst[512]);

/* Is the loop device not bound to this any more? The folder loop/ in sysfs goes last. */
bool mr_bare_gone(const char *node, const char *backing);

/* The modes; each gets its arguments, see the table in bare.c. */
void mr_bare_volume(char **argument);
void mr_bare_at_once(char **argument);
void mr_bare_release(char **argument);
void mr_bare_mounts(char **argument);
void mr_bare_churn(char **argument);
void mr_bare_reader(char **argument);
void mr_bare_events(char **argument);
void mr_bare_sleepers(char **argument);
void mr_bare_stats(char **argument);
void mr_bare_iscsi(char **argument);

#endif
