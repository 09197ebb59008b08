/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands that a reset by another initiator has ended at the target, which says nothing
 * of them: each is sent again, and none as long as the target may still carry it out. */
#include "lun_io_env.h"

#include <errno.h>

#include "storage/base/clock.h"

#define DONE ISCSI_TMR_FUNC_COMPLETE
#define NO_TASK ISCSI_TMR_TASK_DOES_NOT_EXIST

static struct {
    unsigned asked;
    uint32_t itt; /* of the last one asked for */
    iscsi_command_cb answered;
    void *ctx;
    unsigned forgotten; /* by libiscsi */
    bool cannot;
    bool unknown;
} tmf;

/* libiscsi numbers them in the order of its calls. */
static uint32_t itt_of(unsigned command)
{
    return 100 + command;
}

static void number(void)
{
    for (unsigned i = 0; i < env.command_count; i++) {
        if (env.commands[i].open)
            env.commands[i].task->itt = itt_of(i);
    }
}

int iscsi_task_mgmt_abort_task_async(struct iscsi_context *iscsi, struct scsi_task *task,
                                     iscsi_command_cb cb, void *private_data)
{
    (void)iscsi;
    if (tmf.cannot)
        return -1;
    assert_null(tmf.answered); /* one at a time */
    tmf.asked++;
    tmf.itt = task->itt;
    tmf.answered = cb;
    tmf.ctx = private_data;
    return 0;
}

int iscsi_scsi_cancel_task(struct iscsi_context *iscsi, struct scsi_task *task)
{
    if (tmf.unknown)
        return -1;
    for (unsigned i = 0; i < env.command_count; i++) {
        struct env_command *command = &env.commands[i];

        if (!command->open || command->task != task)
            continue;
        command->open = false;
        command->done(iscsi, SCSI_STATUS_CANCELLED, NULL, command->ctx);
        tmf.forgotten++;
        return 0;
    }
    fail_msg("not a command that is out");
    return -1;
}

static void respond(int status, uint32_t response)
{
    iscsi_command_cb cb = tmf.answered;

    assert_non_null(cb);
    tmf.answered = NULL;
    cb(NULL, status, status == SCSI_STATUS_GOOD ? &response : NULL, tmf.ctx);
}

static void turn(int64_t ms)
{
    env_turn(ms);
    number();
}

/* The attention as the link passes it on, in the turn that brought it. */
static void reset_by_another(unsigned command)
{
    env.io.now_ns += MR_NS_PER_MS;
    env_sense(command, SCSI_SENSE_UNIT_ATTENTION, 0x2900);
    assert_true(env.io.attention & MR_ATTENTION_ABORTED);
    mr_io_doubt(&env.io);
    turn(0);
}

static void test_a_command_ended_without_a_word_is_sent_again(void **state)
{
    (void)state;
    const uint32_t responses[] = {DONE, NO_TASK};

    for (unsigned i = 0; i < 2; i++) {
        uint64_t lost, told;

        env_run();
        env.command_count = 0;
        tmf.asked = 0;
        tmf.forgotten = 0;
        lost = env_write(0, 512, 7);
        turn(1);
        told = env_write(512, 512, 8);
        turn(0);
        reset_by_another(1); /* 2: the second write again */
        env_good(2, 0);
        env_expect(told, 0);
        turn(500);
        assert_int_equal(tmf.asked, 0);
        turn(600);
        turn(0);
        assert_int_equal(tmf.asked, 1);
        assert_int_equal(tmf.itt, itt_of(0));
        turn(5000);
        assert_int_equal(env.command_count, 3); /* it may still be carried out */
        respond(SCSI_STATUS_GOOD, responses[i]);
        for (int n = 0; n < 10; n++)
            turn(100);
        assert_int_equal(tmf.forgotten, 1);
        assert_int_equal(env.command_count, 4);
        assert_int_equal(env_last()->lba, 0);
        assert_int_equal(((uint8_t *)env_last()->iov[0].iov_base)[0], 7);
        env_expect_none(lost);
        env_good(3, 0);
        env_expect(lost, 0);
        turn(60000);
        assert_int_equal(tmf.asked, 1);
        assert_false(env.session.lost);
        env_lose(true);
    }
}

static void test_nobody_is_aborted_without_a_reset(void **state)
{
    (void)state;
    env_run();
    (void)env_write(0, 512, 7);
    turn(5000);
    turn(5000);
    assert_int_equal(tmf.asked, 0);
}

static void test_commands_sent_after_the_attention_are_not_in_doubt(void **state)
{
    (void)state;
    env_run();
    (void)env_write(0, 512, 7);
    (void)env_write(512, 512, 7);
    turn(0);
    reset_by_another(1); /* 2: the second write again */
    (void)env_write(1024, 512, 7);
    turn(1);
    turn(5000);
    assert_int_equal(tmf.itt, itt_of(0));
    env_good(0, 0);
    respond(SCSI_STATUS_GOOD, NO_TASK);
    turn(0);
    turn(5000);
    turn(5000);
    assert_int_equal(tmf.asked, 1);
}

static void test_one_that_is_answered_meanwhile_is_not_sent_again(void **state)
{
    (void)state;
    uint64_t late;

    env_run();
    late = env_write(0, 512, 7);
    turn(1);
    mr_io_doubt(&env.io);
    turn(1500);
    turn(0);
    assert_int_equal(tmf.asked, 1);
    env_good(0, 0);
    env_expect(late, 0);
    (void)env_write(0, 512, 9); /* in the same slot */
    turn(0);
    respond(SCSI_STATUS_GOOD, NO_TASK);
    turn(0);
    turn(1000);
    assert_int_equal(env.command_count, 2);
    assert_int_equal(tmf.forgotten, 0);
}

static void test_all_of_them_come_back_one_after_the_other(void **state)
{
    (void)state;
    uint64_t lost[5];

    env_run();
    for (unsigned i = 0; i < 5; i++)
        lost[i] = env_write(i * 512ull, 512, (uint8_t)i);
    turn(1);
    mr_io_doubt(&env.io);
    turn(1500);
    for (unsigned i = 0; i < 5; i++) {
        turn(0);
        assert_int_equal(tmf.asked, i + 1);
        respond(SCSI_STATUS_GOOD, DONE);
        turn(0);
    }
    for (unsigned i = 0; i < 10; i++)
        turn(100);
    assert_int_equal(env.command_count, 10);
    env_good_all();
    for (unsigned i = 0; i < 5; i++)
        env_expect(lost[i], 0);
    assert_int_equal(tmf.asked, 5);
}

/* ABORT TASK would overtake it, and the target take it for one that it does not have. */
static void test_one_that_may_not_have_been_sent_is_not_aborted(void **state)
{
    (void)state;
    env.queue_full = true;
    env_run();
    (void)env_write(0, 512, 7);
    turn(1);
    mr_io_doubt(&env.io);
    for (unsigned i = 0; i < 5; i++)
        turn(1000);
    assert_int_equal(tmf.asked, 0);
    (void)env_write(512, 512, 8);
    turn(1);
    env_good(1, 0); /* so the one before is at the target, too */
    turn(1000);
    turn(0);
    assert_int_equal(tmf.asked, 1);
    env.queue_full = false;
}

/* Its data may still be queued. */
static void test_memory_is_kept_until_nothing_refers_to_it(void **state)
{
    (void)state;
    uint64_t lost, late;

    env_run();
    lost = env_write(0, 512, 7);
    turn(1);
    mr_io_doubt(&env.io);
    turn(1500);
    turn(0);
    env.queue_full = true;
    env.pending = true;
    respond(SCSI_STATUS_GOOD, DONE);
    turn(0);
    turn(1000);
    assert_int_equal(env.tasks, 1);
    assert_int_equal(env.command_count, 1);
    env.queue_full = false;
    turn(0);
    turn(0);
    turn(100);
    assert_int_equal(env.command_count, 2);
    late = env_read(0, 512);
    env_good_all();
    env_expect(lost, 0);
    env_expect(late, 0);
}

static void test_a_target_that_cannot_abort_is_left_to_the_age_limit(void **state)
{
    (void)state;
    const bool queued[] = {true, false};

    for (unsigned i = 0; i < 2; i++) {
        env_run();
        env.command_count = 0;
        tmf.cannot = !queued[i];
        (void)env_write(0, 512, 7);
        turn(1);
        mr_io_doubt(&env.io);
        turn(1500);
        turn(0);
        if (queued[i])
            respond(SCSI_STATUS_GOOD, ISCSI_TMR_TMF_NOT_SUPPORTED);
        turn(0);
        turn(20000);
        assert_false(env.session.lost);
        assert_int_equal(env.command_count, 1);
        turn(20000);
        assert_true(env.session.lost);
        env_lose(true);
        mr_io_refuse(&env.io);
    }
    tmf.cannot = false;
}

static void check_end_of_session(bool callback)
{
    uint64_t lost;

    env_run();
    lost = env_write(0, 512, 7);
    turn(1);
    mr_io_doubt(&env.io);
    turn(1500);
    turn(0);
    if (callback)
        respond(SCSI_STATUS_CANCELLED, 0);
    tmf.answered = NULL;
    env_lose(true);
    env.command_count = 0;
    env_run();
    turn(5000); /* the doubt was about the old session */
    assert_int_equal(tmf.asked, 1);
    assert_int_equal(env.command_count, 1);
    mr_io_doubt(&env.io);
    turn(0);
    assert_int_equal(tmf.asked, 2);
    env_good_all();
    respond(SCSI_STATUS_GOOD, DONE);
    env_expect(lost, 0);
}

static void test_a_session_that_ends_meanwhile_replays_once(void **state)
{
    (void)state;
    check_end_of_session(true);
}

static void test_a_lost_answer_to_the_abort_is_of_its_session(void **state)
{
    (void)state;
    check_end_of_session(false);
}

static void test_a_command_that_libiscsi_does_not_know_costs_the_session(void **state)
{
    (void)state;
    env_run();
    (void)env_write(0, 512, 7);
    turn(1);
    mr_io_doubt(&env.io);
    turn(1500);
    turn(0);
    tmf.unknown = true;
    respond(SCSI_STATUS_GOOD, DONE);
    turn(0);
    assert_true(env.session.lost);
    env_lose(true);
    env_run();
}

/* Else a target could keep a request waiting for ever. */
static void test_patience_ends(void **state)
{
    (void)state;
    uint64_t lost;
    unsigned rounds = 0;

    env_run();
    lost = env_write(0, 512, 7);
    while (env_replies(lost) == 0 && rounds++ < 100) {
        turn(1);
        mr_io_doubt(&env.io);
        turn(1500);
        turn(0);
        if (tmf.answered)
            respond(SCSI_STATUS_GOOD, DONE);
    }
    env_expect(lost, -EIO);
    assert_in_range(rounds, 10, 20); /* 20 s */
}

static int set_up(void **state)
{
    memset(&tmf, 0, sizeof(tmf));
    return env_set_up(state);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, env_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_command_ended_without_a_word_is_sent_again),
        TEST(test_nobody_is_aborted_without_a_reset),
        TEST(test_commands_sent_after_the_attention_are_not_in_doubt),
        TEST(test_one_that_is_answered_meanwhile_is_not_sent_again),
        TEST(test_all_of_them_come_back_one_after_the_other),
        TEST(test_one_that_may_not_have_been_sent_is_not_aborted),
        TEST(test_memory_is_kept_until_nothing_refers_to_it),
        TEST(test_a_target_that_cannot_abort_is_left_to_the_age_limit),
        TEST(test_a_session_that_ends_meanwhile_replays_once),
        TEST(test_a_lost_answer_to_the_abort_is_of_its_session),
        TEST(test_a_command_that_libiscsi_does_not_know_costs_the_session),
        TEST(test_patience_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
