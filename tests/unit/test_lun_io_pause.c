/* SPDX-License-Identifier: Apache-2.0
 *
 * A session that is still there, but into which nothing may be sent. */
#include "lun_io_env.h"

#include <errno.h>

/* Fenced: what was answered is answered, nothing else reaches the LUN. */
static void test_nothing_more_goes_into_a_paused_session(void **state)
{
    (void)state;
    uint64_t at_target, busy, late;

    env_run();
    at_target = env_write(0, 512, 1);
    busy = env_write(512, 512, 1);
    env_turn(0);
    env_answer(1, SCSI_STATUS_BUSY);
    mr_io_pause(&env.io);
    late = env_write(1024, 512, 1);
    env_turn(0);
    env_turn(1000);
    env_turn(0);
    env_good(0, 0);
    assert_int_equal(env.command_count, 2);
    env_expect(at_target, 0);
    env_expect_none(busy);
    env_lose(true);
    mr_io_refuse(&env.io);
    env_expect(busy, -EIO);
    env_expect(late, -EIO);
    mr_io_pause(&env.io);
    env_expect(env_write(0, 512, 1), -EIO);
}

/* The LUN had to prove itself. */
static void test_what_waited_during_a_pause_goes_out_once(void **state)
{
    (void)state;
    uint64_t at_target, busy, late, answered;

    env_run();
    at_target = env_write(0, 512, 1);
    busy = env_write(512, 512, 2);
    answered = env_read(4096, 512);
    env_turn(0);
    env_answer(1, SCSI_STATUS_BUSY);
    mr_io_pause(&env.io);
    late = env_write(1024, 512, 3);
    env_good(2, 9);
    env_expect(answered, 0);
    env_turn(1000);
    assert_int_equal(env.command_count, 3);
    mr_io_resume(&env.io);
    env_turn(0);
    env_turn(0);
    assert_int_equal(env.command_count, 5);
    assert_int_equal(env.commands[3].lba + env.commands[4].lba, 1 + 2);
    assert_true(env.page.counters.replayed == 0);
    env_good_all();
    env_expect(at_target, 0);
    env_expect(busy, 0);
    env_expect(late, 0);
}

static void test_a_session_lost_during_a_pause_gets_nothing_when_it_ends(void **state)
{
    (void)state;
    uint64_t late;

    env_run();
    mr_io_pause(&env.io);
    late = env_write(0, 512, 1);
    env.session.lost = true;
    mr_io_resume(&env.io);
    env_turn(0);
    assert_int_equal(env.command_count, 0);
    env_lose(true);
    env_run();
    env_good_all();
    env_expect(late, 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, env_set_up, env_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_more_goes_into_a_paused_session),
        TEST(test_what_waited_during_a_pause_goes_out_once),
        TEST(test_a_session_lost_during_a_pause_gets_nothing_when_it_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
