/* SPDX-License-Identifier: Apache-2.0 */
#include "lun_io_env.h"

#include <errno.h>

#include "storage/base/clock.h"

#define UNIT_ATTENTION 0x6

static void test_a_read_gets_the_targets_data_once(void **state)
{
    (void)state;
    uint64_t small, large;

    env_run();
    small = env_read(8192, 4096);
    large = env_read(0, ENV_LARGE);
    assert_int_equal(env.commands[0].lba, 16);
    assert_int_equal(env.commands[0].pieces, 1);
    assert_int_equal(env.commands[1].pieces, 2);
    env_good(1, 0xb1);
    env_good(0, 0xa5);
    env_expect(small, 0);
    env_expect(large, 0);
    assert_int_equal(env.replies[0].bytes, ENV_LARGE);
    assert_true(env.replies[0].first == 0xb1 && env.replies[0].last == 0xb1);
    assert_true(env.replies[1].first == 0xa5 && env.replies[1].last == 0xa5);
    assert_true(env.page.counters.read_bytes == ENV_LARGE + 4096);
}

static void test_a_write_takes_its_data_to_the_target(void **state)
{
    (void)state;
    uint64_t unique;
    const struct env_command *command;

    env_run();
    unique = env_write(512, ENV_LARGE, 0x5a);
    command = env_last();
    assert_true(command->what == ENV_WRITE && command->lba == 1);
    assert_int_equal(command->pieces, 2);
    for (int i = 0; i < 2; i++) {
        const uint8_t *data = command->iov[i].iov_base;

        for (size_t j = 0; j < command->iov[i].iov_len; j++)
            assert_int_equal(data[j], 0x5a);
    }
    env_expect_none(unique);
    env_good(0, 0);
    env_expect(unique, 0);
}

static void test_short_transfers_are_errors(void **state)
{
    (void)state;
    uint64_t read, write;

    env_run();
    read = env_read(0, 4096);
    write = env_write(0, 4096, 1);
    for (unsigned i = 0; i < 2; i++) {
        env.commands[i].task->residual_status = SCSI_RESIDUAL_UNDERFLOW;
        env.commands[i].task->residual = 512;
    }
    env_good(0, 1);
    env_good(1, 1);
    env_expect(read, -EIO);
    env_expect(write, -EIO);
}

/* libiscsi tells nothing about data that was announced and never came. */
static void test_data_that_never_came_is_no_data(void **state)
{
    (void)state;
    uint64_t unique[3];

    env_run();
    unique[0] = env_read(0, 512);
    env_answer(0, SCSI_STATUS_GOOD);
    unique[1] = env_read(0, ENV_LARGE);
    memset(env.commands[1].iov[0].iov_base, 1, env.commands[1].iov[0].iov_len);
    env_answer(1, SCSI_STATUS_GOOD);
    unique[2] = env_read(0, 8192);
    memset(env.commands[2].iov[0].iov_base, 1, 4096);
    env_answer(2, SCSI_STATUS_GOOD);
    for (int i = 0; i < 3; i++)
        env_expect(unique[i], -EIO);
}

static void test_a_flush_covers_what_was_answered(void **state)
{
    (void)state;
    uint64_t unique;

    env_run();
    unique = env_sync(); /* what an earlier server wrote is unknown */
    assert_int_equal(env_last()->what, ENV_SYNC);
    env_good(0, 0);
    env_expect(unique, 0);
    unique = env_sync(); /* nothing happened since */
    assert_int_equal(env.command_count, 1);
    env_expect(unique, 0);
    (void)env_write(0, 512, 1);
    unique = env_sync(); /* the write was not answered: not covered, and not waited for */
    env_expect(unique, 0);
    env_good(1, 0);
    unique = env_sync();
    assert_int_equal(env_last()->what, ENV_SYNC);
    (void)env_write(0, 512, 2);
    env_good(3, 0); /* after the flush went out */
    env_good(2, 0);
    env_expect(unique, 0);
    (void)env_sync();
    assert_int_equal(env.command_count, 5);
}

static void test_a_new_session_makes_the_next_flush_real(void **state)
{
    (void)state;

    env_run();
    (void)env_sync();
    env_good(0, 0);
    env_lose(true);
    env_run();
    (void)env_sync();
    assert_int_equal(env.command_count, 2);
    assert_int_equal(env_last()->what, ENV_SYNC);
}

static void test_unit_attentions_are_retried_and_told(void **state)
{
    (void)state;
    uint64_t unique;
    unsigned n = 0;
    env_run();
    unique = env_read(0, 512);
    env_turn(0); /* sent */
    env_sense(n++, UNIT_ATTENTION, 0x2a09);
    env_turn(0);
    env_sense(n++, UNIT_ATTENTION, 0x2900);
    env_turn(0);
    env_sense(n++, UNIT_ATTENTION, 0x2a03);
    env_turn(0);
    env_expect_none(unique);
    assert_int_equal(env.io.attention, MR_ATTENTION_CAPACITY | MR_ATTENTION_RESET |
                                           MR_ATTENTION_ABORTED |
                                           MR_ATTENTION_RESERVATION);
    assert_true(env.page.counters.power_on_resets == 1);
    while (env_replies(unique) == 0) {
        assert_true(n < 100);
        env_sense(n++, UNIT_ATTENTION, 0x2900);
        env_turn(0);
    }
    env_expect(unique, -EIO);
    env.io.attention = 0;
    unique = env_write(0, 512, 1);
    env_answer(n, SCSI_STATUS_RESERVATION_CONFLICT);
    env_expect(unique, -EBADE);
    assert_int_equal(env.io.attention, MR_ATTENTION_RESERVATION);
}

/* SPC-4 section 4.5.7: the command that tells of an earlier one was not carried out. */
static void test_a_deferred_error_that_was_recovered_is_no_success(void **state)
{
    (void)state;
    const unsigned char deferred[] = {SCSI_SENSE_FIXED_DEFERRED_ERRORS,
                                      SCSI_SENSE_DESCRIPTOR_DEFERRED_ERRORS};
    uint64_t unique;

    env_run();
    unique = env_write(0, 512, 1);
    for (unsigned i = 0; i < 2; i++) {
        env_last()->task->sense.error_type = deferred[i];
        env_sense(i, 0x1, 0x1700);
        env_expect_none(unique);
        env_turn(0); /* settles */
        env_turn(0);
        assert_int_equal(env.command_count, i + 2);
    }
    env_last()->task->sense.error_type = SCSI_SENSE_FIXED_CURRENT;
    env_sense(2, 0x1, 0x1700);
    env_expect(unique, 0);
}

static void test_a_conflict_with_our_own_reservation_is_not_the_last_word(void **state)
{
    (void)state;
    uint64_t unique;

    env.page.fence.reserve = true;
    env_run();
    unique = env_write(0, 512, 1);
    env_answer(0, SCSI_STATUS_RESERVATION_CONFLICT);
    env_turn(0);
    assert_int_equal(env.io.attention, MR_ATTENTION_RESERVATION);
    env_expect_none(unique);
    env_lose(true);
    env_run();
    env_good_all();
    env_expect(unique, 0);
    unique = env_write(0, 512, 1);
    env_answer(env.command_count - 1, SCSI_STATUS_RESERVATION_CONFLICT);
    env_turn(0);
    env_lose(true);
    mr_io_refuse(&env.io); /* we are fenced */
    env_expect(unique, -EIO);
}

static void test_a_busy_target_is_waited_for_as_long_as_an_absent_one(void **state)
{
    (void)state;
    uint64_t unique;
    unsigned n = 0;

    env_run();
    unique = env_write(0, 512, 1);
    for (int64_t ms = 0; ms < 20000; ms += 400) {
        env_answer(n, n % 2 ? SCSI_STATUS_BUSY : SCSI_STATUS_TASK_SET_FULL);
        n++;
        env_turn(0); /* settles */
        env_turn(0);
        assert_int_equal(env.command_count, n);
        env_turn(400); /* longer than any pause */
        assert_int_equal(env.command_count, n + 1);
    }
    env_turn(400);
    env_expect_none(unique);
    env_answer(n, SCSI_STATUS_BUSY);
    env_expect(unique, -EIO);
}

/* The end of a failover: busy for long, then a word about it. */
static void test_a_long_wait_does_not_use_up_the_budget_of_unit_attentions(void **state)
{
    (void)state;
    uint64_t unique;
    unsigned n = 0;

    env_run();
    unique = env_write(0, 512, 1);
    while (n < 40) {
        env_answer(n++, SCSI_STATUS_BUSY);
        env_turn(0); /* settles */
        env_turn(400);
        assert_int_equal(env.command_count, n + 1);
    }
    env_sense(n++, UNIT_ATTENTION, 0x2a06);
    env_expect_none(unique);
    env_turn(0);
    env_turn(0);
    assert_int_equal(env.command_count, n + 1);
    env_good(n, 0);
    env_expect(unique, 0);
}

static void test_memory_is_bounded_and_comes_back(void **state)
{
    (void)state;
    uint64_t last = 0;

    env_run();
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < MR_POOL_BLOCKS; i++)
            (void)env_write(0, ENV_LARGE, 1);
        assert_false(mr_io_ready(&env.io));
        last = env_read(0, 512); /* stays with the kernel */
        assert_int_equal(mr_io_in_flight(&env.io), MR_POOL_BLOCKS);
        env_good_all();
        env_turn(0);
        env_turn(0);
        env_good_all();
        env_turn(0);
        env_expect(last, 0);
        for (unsigned i = 0; i < MR_POOL_SLOTS; i++)
            (void)env_read(0, 512);
        assert_false(mr_io_ready(&env.io));
        assert_int_equal(mr_io_in_flight(&env.io), MR_POOL_SLOTS);
        env_turn(0); /* sent: what is answered now is free at once */
        env_good_all();
        (void)env_replies(0);
        assert_true(mr_io_ready(&env.io));
    }
}

static void test_a_write_answered_early_keeps_its_memory(void **state)
{
    (void)state;
    uint64_t unique;
    const uint8_t *data;

    env_run();
    env.queue_full = true;
    unique = env_write(0, 4096, 0x11);
    data = env.commands[0].iov[0].iov_base;
    env_good(0, 0);
    env_turn(0);
    env_expect(unique, 0);
    assert_int_equal(mr_io_in_flight(&env.io), 0);
    for (int i = 0; i < 8; i++) {
        (void)env_write(0, 4096, 0x22);
        assert_ptr_not_equal(env_last()->iov[0].iov_base, data);
        env_turn(0);
    }
    assert_int_equal(data[0], 0x11);
    assert_int_equal(env.tasks, 9);
    env_good(8, 0);
    env_turn(0);
    assert_int_equal(env.tasks, 9);
    env.queue_full = false;
    env_turn(0);
    assert_int_equal(env.tasks, 7);
    (void)env_write(0, 4096, 0x33);
    (void)env_write(0, 4096, 0x33);
    assert_int_equal(data[0], 0x33);
}

/* A hostile target's R2T for a READ: libiscsi queues a Data-Out that points at the task.
 */
static void test_a_read_answered_early_keeps_its_task(void **state)
{
    (void)state;
    uint64_t read, sync, busy;

    env_run();
    env.queue_full = true;
    read = env_read(0, 4096);
    sync = env_sync();
    busy = env_read(4096, 4096);
    env_turn(0);
    env_good(0, 0x11);
    env_good(1, 0);
    env_answer(2, SCSI_STATUS_BUSY);
    env_expect(read, 0);
    env_expect(sync, 0);
    env_turn(1000);
    env_expect_none(busy);
    assert_int_equal(env.tasks, 3);
    assert_int_equal(env.command_count, 3);
    env.queue_full = false;
    env_turn(0);
    assert_int_equal(env.tasks, 0);
    env_turn(0);
    assert_int_equal(env.command_count, 4);
    env_good(3, 0x22);
    env_expect(busy, 0);
    assert_int_equal(env.tasks, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, env_set_up, env_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_read_gets_the_targets_data_once),
        TEST(test_a_write_takes_its_data_to_the_target),
        TEST(test_short_transfers_are_errors),
        TEST(test_data_that_never_came_is_no_data),
        TEST(test_a_flush_covers_what_was_answered),
        TEST(test_a_new_session_makes_the_next_flush_real),
        TEST(test_unit_attentions_are_retried_and_told),
        TEST(test_a_deferred_error_that_was_recovered_is_no_success),
        TEST(test_a_conflict_with_our_own_reservation_is_not_the_last_word),
        TEST(test_a_busy_target_is_waited_for_as_long_as_an_absent_one),
        TEST(test_a_long_wait_does_not_use_up_the_budget_of_unit_attentions),
        TEST(test_memory_is_bounded_and_comes_back),
        TEST(test_a_write_answered_early_keeps_its_memory),
        TEST(test_a_read_answered_early_keeps_its_task),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
