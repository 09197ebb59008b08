/* SPDX-License-Identifier: Apache-2.0
 *
 * What is gathered in a turn: replies, and the answers of a deep queue. */
#include "lun_io_env.h"

#include "storage/base/clock.h"

#define US (MR_NS_PER_MS / 1000)

static void test_a_gathered_reply_keeps_its_data(void **state)
{
    (void)state;
    uint64_t read;

    env_run();
    read = env_read(0, 4096);
    env_turn(0);
    env_good(0, 0x11);
    (void)env_write(4096, 4096, 0x22); /* is read into what is free */
    env_expect(read, 0);
    assert_int_equal(env.replies[0].first, 0x11);
    assert_int_equal(env.replies[0].last, 0x11);
}

/* So many small reads as long as that under way, after some that took latency_us. */
static void load(unsigned depth, int64_t latency_us)
{
    env_run();
    for (unsigned i = 0; i < 200; i++) {
        (void)env_read(0, 4096);
        env.io.now_ns += latency_us * US;
        env_good(i, 0);
        env_turn(0);
    }
    for (unsigned i = 0; i < depth; i++)
        (void)env_read(i * 4096ull, 4096);
}

static void
test_answers_of_a_deep_queue_gather_for_a_small_part_of_their_time(void **state)
{
    (void)state;
    int64_t rest_ns;

    load(32, 400);
    rest_ns = mr_io_rest_ns(&env.io);
    assert_in_range(rest_ns, 30 * US, 60 * US);
}

static void test_the_time_to_gather_is_bounded(void **state)
{
    (void)state;
    load(200, 50000);
    assert_in_range(mr_io_rest_ns(&env.io), 1, 100 * US);
}

static void test_a_quick_target_is_not_waited_for(void **state)
{
    (void)state;
    load(32, 50);
    assert_int_equal(mr_io_rest_ns(&env.io), 0);
}

static void test_a_shallow_queue_does_not_wait(void **state)
{
    (void)state;
    load(4, 400);
    assert_int_equal(mr_io_rest_ns(&env.io), 0);
}

/* They come in pieces, and the target asks for theirs. */
static void test_with_large_requests_nothing_waits(void **state)
{
    (void)state;
    load(32, 400);
    (void)env_write(0, ENV_LARGE, 1);
    assert_int_equal(mr_io_rest_ns(&env.io), 0);
}

static void test_without_a_session_nothing_waits(void **state)
{
    (void)state;
    load(32, 400);
    env_lose(true);
    assert_int_equal(mr_io_rest_ns(&env.io), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, env_set_up, env_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_gathered_reply_keeps_its_data),
        TEST(test_answers_of_a_deep_queue_gather_for_a_small_part_of_their_time),
        TEST(test_the_time_to_gather_is_bounded),
        TEST(test_a_quick_target_is_not_waited_for),
        TEST(test_a_shallow_queue_does_not_wait),
        TEST(test_with_large_requests_nothing_waits),
        TEST(test_without_a_session_nothing_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
