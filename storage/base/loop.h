/* SPDX-License-Identifier: Apache-2.0
 *
 * The event loop of the core thread: one epoll, one timerfd. Single-threaded; nothing
 * called from it may block. Callbacks may add and remove any source, their own included.
 */
#ifndef MR_STORAGE_BASE_LOOP_H
#define MR_STORAGE_BASE_LOOP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "storage/base/err.h"

struct mr_loop;
struct mr_io;

typedef void (*mr_io_fn)(void *ctx, uint32_t events);
typedef void (*mr_timer_fn)(void *ctx);

/* A timer embedded in its owner. Zeroed memory is not yet usable: mr_timer_init() first.
 */
struct mr_timer {
    struct mr_loop *loop;
    mr_timer_fn fn;
    void *ctx;
    int64_t at_ns;
    size_t heap_index; /* 1-based place in the heap, 0 = not set */
};

int mr_loop_new(struct mr_loop **ret, struct mr_err *err);
void mr_loop_free(struct mr_loop *loop);

/* Watches fd for EPOLL* events. The fd stays the caller's and must be removed before it
 * is closed. */
int mr_loop_add(struct mr_loop *loop, int fd, uint32_t events, mr_io_fn fn, void *ctx,
                struct mr_io **ret, struct mr_err *err);
/* NULL is fine. No callback comes after it, also not from the batch being handled. */
void mr_io_remove(struct mr_io *io);

void mr_timer_init(struct mr_timer *timer, struct mr_loop *loop, mr_timer_fn fn,
                   void *ctx);
/* Fires once at at_ns (CLOCK_MONOTONIC; the past means in this turn). Setting again moves
 * it. */
void mr_timer_set(struct mr_timer *timer, int64_t at_ns);
/* Never fires after this. Fine on a zeroed or unset timer. */
void mr_timer_cancel(struct mr_timer *timer);

/* Runs until mr_loop_stop(). Returns 0 or a negative errno. */
int mr_loop_run(struct mr_loop *loop, struct mr_err *err);
void mr_loop_stop(struct mr_loop *loop);

#endif
