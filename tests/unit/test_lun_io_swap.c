/* SPDX-License-Identifier: Apache-2.0
 *
 * A target that says that another LUN, or none, is where ours was. */
#include "lun_io_env.h"

#include <errno.h>

#define ILLEGAL_REQUEST 0x5
#define UNIT_ATTENTION 0x6

static void expect_nothing_more_but_a_new_session(unsigned key, unsigned asc)
{
    uint64_t told, late;

    env_run();
    told = env_write(0, 512, 1);
    env_sense(0, key, asc);
    assert_true(env.session.lost);
    late = env_write(512, 512, 2);
    env_turn(0);
    assert_int_equal(env.command_count, 1);
    env_expect_none(told);
    env_lose(true);
    env_run(); /* it was the same LUN */
    assert_int_equal(env.command_count, 3);
    assert_true(env.commands[1].lba == 0 && env.commands[2].lba == 1);
    env_good_all();
    env_expect(told, 0);
    env_expect(late, 0);
}

static void test_changed_luns_get_nothing_more(void **state)
{
    (void)state;
    expect_nothing_more_but_a_new_session(UNIT_ATTENTION, 0x3f0e);
    assert_true(env.page.counters.unit_attentions == 1);
}

static void test_changed_inquiry_data_gets_nothing_more(void **state)
{
    (void)state;
    expect_nothing_more_but_a_new_session(UNIT_ATTENTION, 0x3f03);
}

static void test_a_lun_that_is_gone_is_waited_for(void **state)
{
    (void)state;
    expect_nothing_more_but_a_new_session(ILLEGAL_REQUEST, 0x2500);
}

static void test_a_lun_that_is_gone_for_one_request_only_fails_it(void **state)
{
    (void)state;
    uint64_t unique;

    env_run();
    unique = env_write(0, 512, 1);
    for (int i = 0; i < 3; i++) {
        env_expect_none(unique);
        env_sense(env.command_count - 1, ILLEGAL_REQUEST, 0x2500);
        env_lose(true);
        env_run();
    }
    env_expect(unique, -EIO);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, env_set_up, env_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_changed_luns_get_nothing_more),
        TEST(test_changed_inquiry_data_gets_nothing_more),
        TEST(test_a_lun_that_is_gone_is_waited_for),
        TEST(test_a_lun_that_is_gone_for_one_request_only_fails_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
