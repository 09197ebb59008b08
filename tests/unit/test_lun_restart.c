/* SPDX-License-Identifier: Apache-2.0
 *
 * When a server that crashed is followed by another one, and when it is enough.
 */
#include "tests/unit/unit.h"

#include "storage/base/clock.h"
#include "storage/lun/restart.h"

#define START_NS (1000 * MR_NS_PER_S)

static void test_server_that_did_nothing_is_followed_with_a_growing_delay(void **state)
{
    struct mr_restart restart = {0};

    (void)state;
    for (int i = 0; i < MR_RESTART_IDLE_MAX; i++)
        assert_int_equal(mr_restart_after(&restart, START_NS + i, false),
                         i * 100 * MR_NS_PER_MS);
    assert_int_equal(mr_restart_after(&restart, START_NS + 100, false), -1);
}

static void test_server_that_served_is_followed_at_once(void **state)
{
    struct mr_restart restart = {0};

    (void)state;
    for (int i = 0; i < MR_RESTART_MAX; i++)
        assert_int_equal(mr_restart_after(&restart, START_NS + i, true), 0);
    assert_int_equal(mr_restart_after(&restart, START_NS + MR_RESTART_MAX, true), -1);
}

static void test_old_crashes_are_forgotten(void **state)
{
    struct mr_restart restart = {0};

    (void)state;
    for (int i = 0; i < 10 * MR_RESTART_MAX; i++)
        assert_int_equal(
            mr_restart_after(&restart,
                             START_NS + i * (MR_RESTART_WINDOW_S / MR_RESTART_IDLE_MAX) *
                                            MR_NS_PER_S,
                             false) == -1,
            0);
}

static void test_those_that_served_do_not_count_as_those_that_did_not(void **state)
{
    struct mr_restart restart = {0};

    (void)state;
    for (int i = 0; i < 10; i++)
        assert_int_equal(mr_restart_after(&restart, START_NS + i, true), 0);
    assert_int_equal(mr_restart_after(&restart, START_NS + 20, false), 0);
    assert_int_equal(mr_restart_after(&restart, START_NS + 30, false),
                     100 * MR_NS_PER_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server_that_did_nothing_is_followed_with_a_growing_delay),
        cmocka_unit_test(test_server_that_served_is_followed_at_once),
        cmocka_unit_test(test_old_crashes_are_forgotten),
        cmocka_unit_test(test_those_that_served_do_not_count_as_those_that_did_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
