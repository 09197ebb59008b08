/* SPDX-License-Identifier: Apache-2.0
 *
 * Discards and zeroes, which become WRITE SAME, and what a target cannot do. */
#include "lun_io_env.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)
#define ILLEGAL_REQUEST 0x5
#define MIB (1ull << 20)

static void test_zeroing_is_split_by_the_targets_limit(void **state)
{
    (void)state;
    const uint64_t limit = 16ull * ENV_BLOCK;
    uint64_t unique;

    env_run();
    unique = env_fallocate(PUNCH, 4096, 2 * limit + 512);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(env.command_count, i + 1);
        assert_int_equal(env.commands[i].what, ENV_SAME_UNMAP);
        assert_true(env.commands[i].lba == 8 + i * 16ull);
        assert_true(env.commands[i].bytes == (i < 2 ? limit : 512));
        env_expect_none(unique);
        env_good(i, 0);
        env_turn(0);
        env_turn(0);
    }
    env_expect(unique, 0);
    assert_int_equal(env.command_count, 3);
    (void)env_fallocate(ZERO, 0, 512);
    assert_int_equal(env_last()->what, ENV_SAME);
}

static void test_what_the_target_cannot_do_has_a_fallback(void **state)
{
    (void)state;
    uint64_t punch, sync;

    env_run();
    punch = env_fallocate(PUNCH, 0, 512);
    env_sense(0, ILLEGAL_REQUEST, 0x2000);
    env_expect(punch, -EOPNOTSUPP);
    sync = env_sync(); /* the cache may be on: that is no fallback */
    env_sense(1, ILLEGAL_REQUEST, 0x2000);
    env_expect(sync, -EIO);
    env.io.write_cache = MR_WRITE_CACHE_OFF;
    sync = env_sync();
    env_sense(2, ILLEGAL_REQUEST, 0x2000);
    env_expect(sync, 0);
}

static void test_a_limit_that_was_not_said_is_found(void **state)
{
    (void)state;
    uint64_t unique;

    env_run();
    env.io.write_same_bytes = 64 * MIB;
    unique = env_fallocate(ZERO, 0, 5 * MIB);
    assert_true(env_last()->bytes == 5 * MIB);
    env_sense(0, ILLEGAL_REQUEST, 0x2400);
    env_expect_none(unique);
    for (unsigned i = 1; i <= 3; i++) {
        env_turn(0);
        env_turn(0);
        assert_int_equal(env.command_count, i + 1);
        assert_true(env_last()->bytes == (i < 3 ? 2 : 1) * MIB);
        assert_true(env_last()->lba == (i - 1) * 2 * MIB / ENV_BLOCK);
        env_good(i, 0);
    }
    env_expect(unique, 0);
    (void)env_fallocate(PUNCH, 0, 5 * MIB);
    assert_true(env_last()->bytes == 2 * MIB);
}

static void test_a_target_that_knows_no_write_same_is_asked_twice(void **state)
{
    (void)state;
    uint64_t unique;

    env_run();
    env.io.write_same_bytes = 64 * MIB;
    unique = env_fallocate(ZERO, 0, 5 * MIB);
    env_sense(0, ILLEGAL_REQUEST, 0x2000);
    env_turn(0);
    env_turn(0);
    env_sense(1, ILLEGAL_REQUEST, 0x2000);
    env_expect(unique, -EOPNOTSUPP);
    assert_int_equal(env.command_count, 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, env_set_up, env_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_zeroing_is_split_by_the_targets_limit),
        TEST(test_what_the_target_cannot_do_has_a_fallback),
        TEST(test_a_limit_that_was_not_said_is_found),
        TEST(test_a_target_that_knows_no_write_same_is_asked_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
