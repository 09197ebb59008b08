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
        env_sense(at, 6, 0x2900);
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
        env_good(at, (uint8_t)any(256));
        break;
    }
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
        any_answer();
        any_answer();
        if (any(20) == 0)
            env_turn(any(50));
        if (any(30) == 0)
            env.queue_full = !env.queue_full;
        if (any(100) == 0 || env.session.lost) {
            if (env.io.mode == MR_IO_RUNNING)
                env_lose(any(2));
            if (any(8) == 0)
                mr_io_refuse(&env.io);
        }
        if (env.io.mode != MR_IO_RUNNING && any(10) == 0)
            env_run();
        if (env.command_count > ENV_COMMANDS / 2)
            forget_closed_commands();
        (void)env_replies(0);
    }
    if (env.io.mode == MR_IO_RUNNING)
        env_lose(true);
    mr_io_refuse(&env.io);
    for (uint64_t unique = 1; unique <= env.unique; unique++)
        assert_int_equal(env_replies(unique), 1);
    assert_int_equal(env.reply_count, env.unique);
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
