/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/base/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"

#define MR_LOOP_BATCH 64

struct mr_io {
    struct mr_loop *loop;
    int fd; /* -1: removed, freed at the end of the turn */
    mr_io_fn fn;
    void *ctx;
    struct mr_io *next_dead;
};

struct mr_loop {
    int epoll_fd;
    int timer_fd;
    bool running;
    int64_t armed_ns; /* what timer_fd is set to, 0 = disarmed */
    int64_t turn_ns;  /* while timers run: what is due later than this waits for the next
                         turn */
    struct mr_io *timer_io;
    struct mr_io *dead;
    struct mr_timer **heap; /* 1-based min-heap by at_ns */
    size_t heap_count;
    size_t heap_size;
};

/* --- timers: a binary heap; each timer knows its place --- */

static void heap_put(struct mr_loop *loop, size_t at, struct mr_timer *timer)
{
    loop->heap[at] = timer;
    timer->heap_index = at;
}

static void heap_up(struct mr_loop *loop, size_t at)
{
    struct mr_timer *timer = loop->heap[at];
    while (at > 1 && loop->heap[at / 2]->at_ns > timer->at_ns) {
        heap_put(loop, at, loop->heap[at / 2]);
        at /= 2;
    }
    heap_put(loop, at, timer);
}

static void heap_down(struct mr_loop *loop, size_t at)
{
    struct mr_timer *timer = loop->heap[at];
    for (;;) {
        size_t child = 2 * at;
        if (child > loop->heap_count)
            break;
        if (child < loop->heap_count &&
            loop->heap[child + 1]->at_ns < loop->heap[child]->at_ns)
            child++;
        if (loop->heap[child]->at_ns >= timer->at_ns)
            break;
        heap_put(loop, at, loop->heap[child]);
        at = child;
    }
    heap_put(loop, at, timer);
}

void mr_timer_init(struct mr_timer *timer, struct mr_loop *loop, mr_timer_fn fn,
                   void *ctx)
{
    *timer = (struct mr_timer){.loop = loop, .fn = fn, .ctx = ctx};
}

void mr_timer_cancel(struct mr_timer *timer)
{
    size_t at = timer->heap_index;
    if (at == 0)
        return;
    struct mr_loop *loop = timer->loop;
    struct mr_timer *last = loop->heap[loop->heap_count--];
    timer->heap_index = 0;
    if (last == timer)
        return;
    heap_put(loop, at, last);
    heap_up(loop, at);
    heap_down(loop, last->heap_index);
}

void mr_timer_set(struct mr_timer *timer, int64_t at_ns)
{
    struct mr_loop *loop = timer->loop;

    mr_timer_cancel(timer);
    if (loop->heap_count + 1 >= loop->heap_size) {
        size_t size = loop->heap_size ? 2 * loop->heap_size : 64;
        struct mr_timer **heap = realloc(loop->heap, size * sizeof(struct mr_timer *));
        if (!heap)
            abort(); /* a lost timer would be a lost operation; 8 bytes per timer */
        loop->heap = heap;
        loop->heap_size = size;
    }
    timer->at_ns = at_ns > loop->turn_ns ? at_ns : loop->turn_ns + 1;
    heap_put(loop, ++loop->heap_count, timer);
    heap_up(loop, loop->heap_count);
}

static void on_timer_fd(void *ctx, uint32_t events)
{
    struct mr_loop *loop = ctx;
    uint64_t expirations;
    (void)events;
    if (read(loop->timer_fd, &expirations, sizeof(expirations)) > 0)
        loop->armed_ns = 0;
}

static void run_timers(struct mr_loop *loop)
{
    /* Timers that these callbacks set run in the next turn, so that I/O is not starved.
     */
    loop->turn_ns = mr_now_ns();
    while (loop->heap_count > 0 && loop->heap[1]->at_ns <= loop->turn_ns) {
        struct mr_timer *timer = loop->heap[1];
        mr_timer_cancel(timer);
        timer->fn(timer->ctx);
    }
    loop->turn_ns = 0;
}

/* Arms the timerfd only when the first deadline moved: no system call in the common turn.
 */
static void arm(struct mr_loop *loop)
{
    int64_t want = loop->heap_count > 0 ? loop->heap[1]->at_ns : 0;
    if (loop->heap_count > 0 && want <= 0)
        want = 1;
    if (want == loop->armed_ns)
        return;
    struct itimerspec spec = {
        .it_value = {.tv_sec = want / MR_NS_PER_S, .tv_nsec = want % MR_NS_PER_S},
    };
    (void)timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
    loop->armed_ns = want;
}

/* --- fds --- */

int mr_loop_add(struct mr_loop *loop, int fd, uint32_t events, mr_io_fn fn, void *ctx,
                struct mr_io **ret, struct mr_err *err)
{
    struct mr_io *io = malloc(sizeof(*io));
    if (!io)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "watch an fd");
    *io = (struct mr_io){.loop = loop, .fd = fd, .fn = fn, .ctx = ctx};
    struct epoll_event event = {.events = events, .data.ptr = io};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        int cause = errno;
        free(io);
        return mr_fail(err, MR_E_INTERNAL, cause, "watch fd %d", fd);
    }
    *ret = io;
    return 0;
}

void mr_io_remove(struct mr_io *io)
{
    if (!io || io->fd < 0)
        return;
    (void)epoll_ctl(io->loop->epoll_fd, EPOLL_CTL_DEL, io->fd, NULL);
    io->fd = -1;
    /* The batch being handled may still point to it. */
    io->next_dead = io->loop->dead;
    io->loop->dead = io;
}

static void bury(struct mr_loop *loop)
{
    while (loop->dead) {
        struct mr_io *io = loop->dead;
        loop->dead = io->next_dead;
        free(io);
    }
}

int mr_loop_new(struct mr_loop **ret, struct mr_err *err)
{
    struct mr_loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "create the event loop");
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int rc = 0;
    if (loop->epoll_fd < 0 || loop->timer_fd < 0)
        rc = mr_fail(err, MR_E_INTERNAL, errno, "create the event loop");
    else
        rc = mr_loop_add(loop, loop->timer_fd, EPOLLIN, on_timer_fd, loop,
                         &loop->timer_io, err);
    if (rc < 0) {
        mr_loop_free(loop);
        return rc;
    }
    *ret = loop;
    return 0;
}

void mr_loop_free(struct mr_loop *loop)
{
    if (!loop)
        return;
    mr_io_remove(loop->timer_io);
    bury(loop);
    if (loop->timer_fd >= 0)
        (void)close(loop->timer_fd);
    if (loop->epoll_fd >= 0)
        (void)close(loop->epoll_fd);
    free(loop->heap);
    free(loop);
}

int mr_loop_run(struct mr_loop *loop, struct mr_err *err)
{
    struct epoll_event events[MR_LOOP_BATCH];

    loop->running = true;
    while (loop->running) {
        arm(loop);
        int count = epoll_wait(loop->epoll_fd, events, MR_LOOP_BATCH, -1);
        if (count < 0 && errno != EINTR)
            return mr_fail(err, MR_E_INTERNAL, errno, "epoll_wait");
        for (int i = 0; i < count; i++) {
            struct mr_io *io = events[i].data.ptr;
            if (io->fd >= 0)
                io->fn(io->ctx, events[i].events);
        }
        run_timers(loop);
        bury(loop);
    }
    return 0;
}

void mr_loop_stop(struct mr_loop *loop)
{
    loop->running = false;
}
