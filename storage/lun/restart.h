/* SPDX-License-Identifier: Apache-2.0
 *
 * Shall a server that crashed be followed by another one? A server that did something
 * before it died has earned that; one that did not will do no better again. Pure.
 */
#ifndef MR_STORAGE_LUN_RESTART_H
#define MR_STORAGE_LUN_RESTART_H

#include <stdbool.h>
#include <stdint.h>

#define MR_RESTART_WINDOW_S 60
/* In a window: crashes of servers that did nothing, and of all. */
#define MR_RESTART_IDLE_MAX 6
#define MR_RESTART_MAX 30

/* All zero at first. */
struct mr_restart {
    struct {
        int64_t at_ns;
        bool idle;
    } crashes[MR_RESTART_MAX]; /* a ring */
    unsigned next;
};

/* A server has crashed now; did it serve requests? Nanoseconds until the next one shall
 * be started: 0, or after one that did nothing 100 ms for each of its kind before it in
 * the last minute; -1: no more. */
int64_t mr_restart_after(struct mr_restart *restart, int64_t now_ns, bool served);

#endif
