/* SPDX-License-Identifier: Apache-2.0
 *
 * Time. Deadlines and waits use the monotonic clock in nanoseconds; what people read is
 * the wall clock in milliseconds since 1970 (UTC).
 */
#ifndef MR_STORAGE_BASE_CLOCK_H
#define MR_STORAGE_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define MR_NS_PER_MS 1000000LL
#define MR_NS_PER_S 1000000000LL

/* "2026-11-22T10:11:12.345Z" and its NUL. */
#define MR_TIME_TEXT 25

int64_t mr_now_ns(void);  /* CLOCK_MONOTONIC */
int64_t mr_wall_ms(void); /* CLOCK_REALTIME */
/* RFC 3339, UTC, milliseconds; dst holds at least MR_TIME_TEXT bytes. Returns dst. */
const char *mr_time_text(int64_t wall_ms, char dst[MR_TIME_TEXT]);
/* Back from such a text, 0 when it is none. */
int64_t mr_time_ms(const char *text);
/* Sleeps (worker and helper processes only, never in the core). */
void mr_sleep_ns(int64_t ns);
/* /proc/sys/kernel/random/boot_id without the newline. Returns 0 or a negative errno. */
int mr_boot_id(char dst[37]);

#endif
