/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests, answers, losses and refusals at random, always the same ones. */
#include "lun_io_env.h"

#include <fcntl.h>
#include <linux/falloc.h>

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static unsigned any(unsigned below)
{
    static uint64_t state = 0x9e3779b97f4a7c15ull;

    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (unsigned)((state * 0x2545f4914f6cdd1dull) >> 33) % below;
}

static struct {
    iscsi_command_cb answered; /* ABORT TASK is out */
    void *ctx;
    unsigned done; /* commands that were ended by it */
} tmf;

/* What the target sent last for each READ. */
static uint8_t sent[ENV_REPLIES];

int iscsi_task_mgmt_abort_task_async(struct iscsi_context *iscsi, struct scsi_task *task,
                                     iscsi_command_cb cb, void *private_data)
{
    (void)iscsi;
    assert_null(tmf.answered);
    tmf.answered = cb;
    tmf.ctx = private_data;
    (void)task;
    return 0;
}

int iscsi_scsi_cancel_task(struct iscsi_context *iscsi, struct scsi_task *task)
{
    for (unsigned i = 0; i < env.command_count; i++) {
        struct env_command *command = &env.commands[i];

        if (!command->open || command->task != task)
            continue;
        command->open = false;
        command->done(iscsi, SCSI_STATUS_CANCELLED, NULL, command->ctx);
        tmf.done++;
        return 0;
    }
    fail_msg("not a command that is out");
    return -1;
}

/* Task tags: no two commands have the same. */
static void number(void)
{
    static uint32_t itt;

    for (unsigned i = 0; i < env.command_count; i++) {
        if (env.commands[i].open && env.commands[i].task->itt == 0)
            env.commands[i].task->itt = ++itt;
    }
}

static void turn(int64_t ms)
{
    env_turn(ms);
    number();
}

/* The command is answered already, or never will be. */
static void respond(void)
{
    iscsi_command_cb cb = tmf.answered;
    uint32_t response = any(2) ? ISCSI_TMR_FUNC_COMPLETE : ISCSI_TMR_TASK_DOES_NOT_EXIST;

    if (!cb || env.session.lost)
        return;
    tmf.answered = NULL;
    cb(NULL, SCSI_STATUS_GOOD, &response, tmf.ctx);
    turn(0);
}

static void lose(void)
{
    iscsi_command_cb cb = tmf.answered;

    tmf.answered = NULL;
    if (cb && any(2))
        cb(NULL, SCSI_STATUS_CANCELLED, NULL, tmf.ctx);
    env_lose(any(2));
}

static void good(unsigned at)
{
    const struct mr_slot *slot = env.commands[at].ctx;
    const uint8_t fill = (uint8_t)any(256);

    if (env.commands[at].what == ENV_READ)
        sent[slot->request.unique] = fill;
    env_good(at, fill);
}

static void any_request(void)
{
    uint32_t bytes = any(4) ? 4096 : ENV_LARGE;

    if (!mr_io_ready(&env.io))
        return;
    switch (any(5)) {
    case 0:
    case 1:
        (void)env_read(any(100) * 4096ull, bytes);
        break;
    case 2:
        (void)env_write(any(100) * 4096ull, bytes, (uint8_t)any(256));
        break;
    case 3:
        (void)env_fallocate(PUNCH, any(100) * 4096ull, (1 + any(8)) * 4096ull);
        break;
    default:
        (void)env_sync();
        break;
    }
}

static void any_answer(void)
{
    unsigned at = any(env.command_count + 1);

    if (at == env.command_count || !env.commands[at].open || env.session.lost)
        return;
    switch (any(12)) {
    case 0:
        env_sense(at, 6, any(20) ? 0x2900 : 0x3f0e);
        break;
    case 1:
        env_answer(at, SCSI_STATUS_BUSY);
        break;
    case 2:
        env_sense(at, 3, 0x1100);
        break;
    case 3:
        if (any(10) == 0)
            env_answer(at, SCSI_STATUS_ERROR);
        break;
    default:
        good(at);
        break;
    }
}

/* As the link does it. */
static void any_attention(void)
{
    if (env.io.attention & MR_ATTENTION_ABORTED)
        mr_io_doubt(&env.io);
    env.io.attention = 0;
    if (any(100) == 0 && env.io.mode == MR_IO_RUNNING)
        mr_io_pause(&env.io);
    else if (any(20) == 0 && env.io.mode == MR_IO_HOLDING && env.io.session)
        mr_io_resume(&env.io);
    number();
    if (any(20) == 0)
        respond();
}

static void forget_closed_commands(void)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < env.command_count; i++) {
        if (env.commands[i].open)
            env.commands[kept++] = env.commands[i];
    }
    env.command_count = kept;
}

static void test_every_request_gets_one_reply_whatever_happens(void **state)
{
    (void)state;
    enum {
        REQUESTS = 3000
    };

    while (env.unique < REQUESTS) {
        any_request();
        number();
        any_answer();
        any_answer();
        any_attention();
        if (any(20) == 0)
            turn(any(4) ? any(50) : 1100);
        if (any(30) == 0)
            env.queue_full = !env.queue_full;
        if (any(200) == 0 || env.session.lost) {
            if (env.io.session)
                lose();
            if (any(8) == 0)
                mr_io_refuse(&env.io);
        }
        if (!env.io.session && any(10) == 0)
            env_run();
        if (env.command_count > ENV_COMMANDS / 2)
            forget_closed_commands();
        if (any(3) == 0)
            (void)env_replies(0);
    }
    if (env.io.session)
        env_lose(true);
    mr_io_refuse(&env.io);
    assert_true(tmf.done > 10);
    for (uint64_t unique = 1; unique <= env.unique; unique++)
        assert_int_equal(env_replies(unique), 1);
    assert_int_equal(env.reply_count, env.unique);
    for (unsigned i = 0; i < env.reply_count; i++) {
        if (env.replies[i].bytes < 512)
            continue; /* no data */
        assert_int_equal(env.replies[i].first, sent[env.replies[i].unique]);
        assert_int_equal(env.replies[i].last, sent[env.replies[i].unique]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_every_request_gets_one_reply_whatever_happens, env_set_up,
            env_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
