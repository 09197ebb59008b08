/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/base/loop.h"

#define TIMERS 200

struct fixture {
    struct mr_loop *loop;
    struct mr_timer guard; /* ends a hanging test */
    struct mr_io *io[2];
    int fd[2];
    struct mr_timer timers[TIMERS];
    size_t fired[TIMERS];
    size_t count;
    size_t turns;
};

static void on_guard(void *ctx)
{
    (void)ctx;
    fail_msg("the loop did not stop");
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_int_equal(mr_loop_new(&f->loop, NULL), 0);
    mr_timer_init(&f->guard, f->loop, on_guard, f);
    mr_timer_set(&f->guard, mr_now_ns() + 20 * MR_NS_PER_S);
    for (int i = 0; i < 2; i++) {
        f->fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        assert_true(f->fd[i] >= 0);
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        mr_io_remove(f->io[i]);
        (void)close(f->fd[i]);
    }
    mr_timer_cancel(&f->guard);
    mr_loop_free(f->loop);
    free(f);
    return 0;
}

static void run(struct fixture *f)
{
    assert_int_equal(mr_loop_run(f->loop, NULL), 0);
}

static struct fixture *current;

static void note_timer(void *ctx)
{
    const struct mr_timer *timer = ctx;
    current->fired[current->count++] = (size_t)(timer - current->timers);
}

static void stop(void *ctx)
{
    mr_loop_stop(((struct fixture *)ctx)->loop);
}

static void stop_on_event(void *ctx, uint32_t events)
{
    struct fixture *f = ctx;
    assert_true(events & EPOLLIN);
    f->count++;
    mr_loop_stop(f->loop);
}

static void test_a_ready_fd_is_reported(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(
        mr_loop_add(f->loop, f->fd[0], EPOLLIN, stop_on_event, f, &f->io[0], NULL), 0);
    assert_int_equal(eventfd_write(f->fd[0], 1), 0);
    run(f);
    assert_int_equal(f->count, 1);
}

static void test_a_bad_fd_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct mr_err err;
    struct mr_io *io = NULL;
    assert_int_equal(mr_loop_add(f->loop, -1, EPOLLIN, stop_on_event, f, &io, &err),
                     -EBADF);
    assert_null(io);
    assert_int_equal(err.errnum, EBADF);
}

/* Both are ready in one batch; whichever comes first removes the other. */
static void remove_both(void *ctx, uint32_t events)
{
    struct fixture *f = ctx;
    (void)events;
    f->count++;
    for (int i = 0; i < 2; i++) {
        mr_io_remove(f->io[i]);
        f->io[i] = NULL;
    }
}

static void test_a_removed_fd_is_not_called_from_the_same_batch(void **state)
{
    struct fixture *f = *state;
    struct mr_timer end;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            mr_loop_add(f->loop, f->fd[i], EPOLLIN, remove_both, f, &f->io[i], NULL), 0);
        assert_int_equal(eventfd_write(f->fd[i], 1), 0);
    }
    mr_timer_init(&end, f->loop, stop, f);
    mr_timer_set(&end, mr_now_ns() + 20 * MR_NS_PER_MS);
    run(f);
    assert_int_equal(f->count, 1);
}

static void test_timers_fire_in_order_and_not_early(void **state)
{
    struct fixture *f = *state;
    struct mr_timer end;
    int64_t base = mr_now_ns();
    current = f;
    for (size_t i = 0; i < TIMERS; i++) { /* in an order that works the heap */
        size_t n = (i * 73) % TIMERS;
        mr_timer_init(&f->timers[n], f->loop, note_timer, &f->timers[n]);
        mr_timer_set(&f->timers[n], base + (int64_t)(n + 1) * 100000);
    }
    mr_timer_init(&end, f->loop, stop, f);
    mr_timer_set(&end, base + 25 * MR_NS_PER_MS);
    run(f);
    assert_true(mr_now_ns() >= base + 25 * MR_NS_PER_MS);
    assert_int_equal(f->count, TIMERS);
    for (size_t i = 0; i < TIMERS; i++)
        assert_int_equal(f->fired[i], i);
}

static void test_cancelled_timers_do_not_fire(void **state)
{
    struct fixture *f = *state;
    struct mr_timer end;
    int64_t now = mr_now_ns();
    current = f;
    for (size_t i = 0; i < TIMERS; i++) {
        mr_timer_init(&f->timers[i], f->loop, note_timer, &f->timers[i]);
        mr_timer_set(&f->timers[i], now + (int64_t)((i * 37) % TIMERS) * 1000);
    }
    for (size_t i = 0; i < TIMERS; i++)
        if (i % 3 != 0)
            mr_timer_cancel(&f->timers[i]);
    mr_timer_cancel(&f->timers[1]); /* twice is fine */
    mr_timer_init(&end, f->loop, stop, f);
    mr_timer_set(&end, now + 5 * MR_NS_PER_MS);
    run(f);
    assert_int_equal(f->count, (TIMERS + 2) / 3);
    for (size_t i = 0; i < f->count; i++)
        assert_int_equal(f->fired[i] % 3, 0);
}

static void test_setting_again_moves_a_timer(void **state)
{
    struct fixture *f = *state;
    struct mr_timer end;
    int64_t now = mr_now_ns();
    current = f;
    for (size_t i = 0; i < 2; i++) {
        mr_timer_init(&f->timers[i], f->loop, note_timer, &f->timers[i]);
        mr_timer_set(&f->timers[i], now + (int64_t)(i + 1) * MR_NS_PER_MS);
    }
    mr_timer_set(&f->timers[0], now + 3 * MR_NS_PER_MS);
    mr_timer_init(&end, f->loop, stop, f);
    mr_timer_set(&end, now + 6 * MR_NS_PER_MS);
    run(f);
    assert_int_equal(f->count, 2);
    assert_int_equal(f->fired[0], 1);
    assert_int_equal(f->fired[1], 0);
}

/* Cancels another timer that is due in the same turn. */
static void cancel_the_second(void *ctx)
{
    struct fixture *f = ctx;
    mr_timer_cancel(&f->timers[1]);
    f->count++;
}

static void test_a_callback_can_cancel_a_timer_that_is_due(void **state)
{
    struct fixture *f = *state;
    struct mr_timer end;
    int64_t now = mr_now_ns();
    mr_timer_init(&f->timers[0], f->loop, cancel_the_second, f);
    mr_timer_init(&f->timers[1], f->loop, on_guard, f);
    mr_timer_init(&end, f->loop, stop, f);
    mr_timer_set(&f->timers[0], now - 2);
    mr_timer_set(&f->timers[1], now - 1);
    mr_timer_set(&end, now);
    run(f);
    assert_int_equal(f->count, 1);
}

/* Sets itself to the past for ever: must not starve the fd. */
static void set_again(void *ctx)
{
    struct fixture *f = ctx;
    f->turns++;
    assert_true(f->turns < 1000);
    mr_timer_set(&f->timers[0], 1);
}

static void test_a_timer_that_is_always_due_does_not_starve_io(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(
        mr_loop_add(f->loop, f->fd[0], EPOLLIN, stop_on_event, f, &f->io[0], NULL), 0);
    assert_int_equal(eventfd_write(f->fd[0], 1), 0);
    mr_timer_init(&f->timers[0], f->loop, set_again, f);
    mr_timer_set(&f->timers[0], 1);
    run(f);
    assert_int_equal(f->count, 1);
    mr_timer_cancel(&f->timers[0]);
}

static void test_a_zeroed_timer_can_be_cancelled(void **state)
{
    (void)state;
    struct mr_timer timer = {0};
    mr_timer_cancel(&timer);
    assert_int_equal(timer.heap_index, 0);
    mr_io_remove(NULL);
    mr_loop_free(NULL);
}

static void test_the_loop_can_run_again_after_a_stop(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(
        mr_loop_add(f->loop, f->fd[0], EPOLLIN, stop_on_event, f, &f->io[0], NULL), 0);
    assert_int_equal(eventfd_write(f->fd[0], 1), 0);
    run(f);
    run(f);
    assert_int_equal(f->count, 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_ready_fd_is_reported),
        TEST(test_a_bad_fd_is_an_error),
        TEST(test_a_removed_fd_is_not_called_from_the_same_batch),
        TEST(test_timers_fire_in_order_and_not_early),
        TEST(test_cancelled_timers_do_not_fire),
        TEST(test_setting_again_moves_a_timer),
        TEST(test_a_callback_can_cancel_a_timer_that_is_due),
        TEST(test_a_timer_that_is_always_due_does_not_starve_io),
        TEST(test_a_zeroed_timer_can_be_cancelled),
        TEST(test_the_loop_can_run_again_after_a_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
