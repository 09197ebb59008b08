/* SPDX-License-Identifier: Apache-2.0
 *
 * What becomes of requests when sessions and servers end under them. */
#include "lun_io_env.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/socket.h>
#include <unistd.h>

#include "storage/base/clock.h"

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static void test_requests_wait_for_a_session(void **state)
{
    (void)state;
    uint64_t read = env_read(0, 512);
    uint64_t write = env_write(512, ENV_LARGE, 1);

    env_turn(100);
    assert_int_equal(env.command_count, 0);
    assert_int_equal(mr_io_in_flight(&env.io), 2);
    assert_true(mr_io_oldest(&env.io) > 0);
    env_turn(2000);
    env_run();
    assert_int_equal(env.command_count, 2);
    assert_true(env.page.counters.replayed == 0);
    assert_true(env.page.counters.stalls_ns_max >= 2000u * MR_NS_PER_MS);
    env_good_all();
    env_expect(read, 0);
    env_expect(write, 0);
    assert_true(mr_io_oldest(&env.io) == 0);
}

static void check_replay(bool callbacks)
{
    uint64_t unique[5];

    env_run();
    for (unsigned i = 0; i < 5; i++)
        unique[i] = env_write(i * 512ull, 512, (uint8_t)i);
    env_good(1, 0);
    env_answer(2, SCSI_STATUS_BUSY);
    env_turn(0); /* 2 waits for its next try */
    env_lose(callbacks);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(env_replies(unique[i]), i == 1);
    assert_int_equal(env.tasks, 0);
    env.command_count = 0;
    env_run();
    assert_int_equal(env.command_count, 4);
    assert_true(env.page.counters.replayed == 4);
    for (unsigned i = 1; i < 4; i++)
        assert_true(env.commands[i - 1].lba < env.commands[i].lba);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(((uint8_t *)env.commands[i].iov[0].iov_base)[0],
                         env.commands[i].lba);
    env_good_all();
    for (unsigned i = 0; i < 5; i++)
        env_expect(unique[i], 0);
}

static void test_a_new_session_gets_everything_in_order_of_arrival(void **state)
{
    (void)state;
    check_replay(true);
}

/* libiscsi drops some on its error paths. */
static void test_a_lost_callback_loses_no_request(void **state)
{
    (void)state;
    check_replay(false);
}

static void test_zeroing_starts_again_in_a_new_session(void **state)
{
    (void)state;
    uint64_t unique;

    env_run();
    unique = env_fallocate(PUNCH, 0, 3ull * 16 * ENV_BLOCK);
    env_good(0, 0);
    env_turn(0);
    env_turn(0);
    assert_int_equal(env_last()->lba, 16);
    env_lose(true);
    env_run();
    assert_int_equal(env_last()->lba, 0);
    env_expect_none(unique);
    env_lose(true);
}

static void test_refusing_answers_all_until_there_is_a_session(void **state)
{
    (void)state;
    uint64_t held, at_target, late;

    env_run();
    at_target = env_write(0, 512, 1);
    env_lose(true);
    held = env_read(0, ENV_LARGE);
    mr_io_refuse(&env.io);
    env_expect(at_target, -EIO);
    env_expect(held, -EIO);
    late = env_sync();
    env_expect(late, -EIO);
    assert_true(env.page.counters.errors == 3);
    assert_int_equal(mr_io_in_flight(&env.io), 0);
    env_run();
    late = env_read(0, 512);
    env_good_all();
    env_expect(late, 0);
}

static void test_nothing_goes_into_a_session_that_is_lost(void **state)
{
    (void)state;
    uint64_t unique;

    env_run();
    unique = env_read(0, 512);
    env_answer(0, SCSI_STATUS_CANCELLED);
    assert_true(env.session.lost);
    (void)env_read(0, 512);
    env_turn(0);
    assert_int_equal(env.command_count, 1);
    env_expect_none(unique);
    env_lose(true);
    env_run();
    assert_int_equal(env.command_count, 3);
}

static void test_a_request_that_costs_sessions_is_given_up(void **state)
{
    (void)state;
    uint64_t poison, other;

    env_run();
    poison = env_write(0, 512, 1);
    other = env_write(512, 512, 1);
    for (int i = 0; i < 3; i++) {
        env_expect_none(poison);
        env_answer(env.command_count - 2, SCSI_STATUS_ERROR);
        assert_true(env.session.lost);
        env_lose(true);
        env_run();
    }
    env_expect(poison, -EIO);
    env_expect_none(other);
    env_good_all();
    env_expect(other, 0);
}

/* Slots are used again and again. */
static void test_a_request_does_not_pay_for_an_earlier_one(void **state)
{
    (void)state;
    uint64_t unique = 0;

    for (int i = 0; i < 4; i++) {
        env_run();
        unique = env_read(0, 512);
        env_answer(env.command_count - 1, SCSI_STATUS_ERROR);
        env_lose(true);
        env_run();
        env_good(env.command_count - 1, 1);
        env_expect(unique, 0);
        env_lose(true);
    }
    assert_true(env.page.counters.replayed == 4);
    unique = env_read(0, 512);
    env_run();
    env_good_all();
    env_expect(unique, 0);
    assert_true(env.page.counters.replayed == 4);
}

static void test_a_command_that_cannot_be_queued_loses_the_session(void **state)
{
    (void)state;
    uint64_t unique;

    env_run();
    env.cannot = true;
    unique = env_read(0, 512);
    assert_true(env.session.lost);
    env_expect_none(unique);
    env.cannot = false;
    env_lose(true);
    env_run();
    env_good_all();
    env_expect(unique, 0);
}

static void test_a_command_without_an_answer_loses_the_session(void **state)
{
    (void)state;
    int64_t next;

    env_run();
    (void)env_read(0, 512);
    next = mr_io_check(&env.io);
    assert_true(next == env.io.now_ns + 40 * MR_NS_PER_S);
    env_turn(20000);
    (void)env_read(0, 512); /* the target answers others */
    env_good(1, 0);
    env_turn(19999);
    assert_false(env.session.lost);
    env_turn(1);
    assert_true(env.session.lost);
    env_lose(true);
    env_turn(100000); /* no session: no limit */
    assert_true(mr_io_check(&env.io) == INT64_MAX);
    env_run();
    assert_true(mr_io_check(&env.io) == env.io.now_ns + 40 * MR_NS_PER_S);
}

static uint64_t init(uint32_t flags, uint32_t flags2)
{
    struct fuse_init_in in = {.major = 7, .minor = 44, .flags = flags, .flags2 = flags2};

    return env_send(FUSE_INIT, &in, sizeof(in));
}

static unsigned resends(void)
{
    unsigned count = 0;

    (void)env_replies(0);
    for (unsigned i = 0; i < env.reply_count; i++)
        count +=
            env.replies[i].unique == 0 && env.replies[i].error == MR_FUSE_NOTIFY_RESEND;
    return count;
}

static void test_a_second_server_asks_once_for_what_the_first_had(void **state)
{
    (void)state;

    env_restart(); /* before INIT there is nothing to be had */
    assert_int_equal(resends(), 0);
    env_expect(init(FUSE_INIT_EXT, MR_FUSE_HAS_RESEND >> 32), 0);
    assert_true(atomic_load(&env.page.initialised) && atomic_load(&env.page.can_resend));
    env_run();
    (void)env_write(0, 512, 1);
    env_restart();
    assert_int_equal(resends(), 1);
    env_run();
    env_lose(true);
    env_run();
    assert_int_equal(resends(), 1);
    env.unique = MR_FUSE_UNIQUE_RESEND; /* the kernel gives it again */
    (void)env_write(0, 512, 1);
    assert_true(env.page.counters.resent == 1);
    env_good_all();
    env_expect(env.unique, 0); /* the bit is part of the id */
}

/* What the first server wrote and did not flush, the second one must flush. */
static void test_a_second_server_flushes_before_it_says_so(void **state)
{
    (void)state;
    uint64_t unique;

    env_run();
    (void)env_write(0, 512, 1);
    env_good_all();
    env_turn(0);
    env_restart();
    unique = env_sync();
    env_expect_none(unique);
    env_run();
    assert_int_equal(env_last()->what, ENV_SYNC);
    env_good_all();
    env_expect(unique, 0);
}

static void test_an_older_kernel_is_not_asked(void **state)
{
    (void)state;

    env_expect(init(0, UINT32_MAX), 0);
    assert_true(atomic_load(&env.page.initialised));
    assert_false(atomic_load(&env.page.can_resend));
    env_restart();
    assert_int_equal(resends(), 0);
}

static void test_opens_are_counted(void **state)
{
    (void)state;
    struct fuse_open_in open = {.flags = O_RDWR};
    struct fuse_release_in release = {0};

    (void)env_send(FUSE_OPEN, &open, sizeof(open));
    (void)env_send(FUSE_OPEN, &open, sizeof(open));
    assert_int_equal(atomic_load(&env.page.opens), 2);
    env_restart();
    env_expect(env_send(FUSE_RELEASE, &release, sizeof(release)), 0);
    assert_int_equal(atomic_load(&env.page.opens), 1);
    (void)env_send(FUSE_RELEASE, &release, sizeof(release));
    (void)env_send(FUSE_RELEASE, &release, sizeof(release));
    assert_int_equal(atomic_load(&env.page.opens), 0);
}

static void test_a_grown_lun_is_told_to_the_kernel(void **state)
{
    (void)state;
    uint64_t unique;

    assert_int_equal(mr_io_resized(&env.io, ENV_SIZE - 512), -EINVAL);
    assert_int_equal(mr_io_resized(&env.io, 2 * ENV_SIZE), 0);
    assert_int_equal(env_replies(0), 2);
    assert_int_equal(env.replies[0].error, FUSE_NOTIFY_STORE);
    assert_int_equal(env.replies[1].error, FUSE_NOTIFY_INVAL_INODE);
    assert_true(atomic_load(&env.page.size_bytes) == 2 * ENV_SIZE);
    env_restart(); /* the next server knows too */
    env_run();
    unique = env_write(2 * ENV_SIZE - 512, 512, 1);
    env_good_all();
    env_expect(unique, 0);
}

/* The first server died between its two steps. */
static void test_a_size_that_the_kernel_may_not_know_is_told_again(void **state)
{
    (void)state;

    atomic_store(&env.page.size_bytes, 2 * ENV_SIZE);
    env_restart();
    assert_int_equal(mr_io_resized(&env.io, 2 * ENV_SIZE), 0);
    assert_int_equal(env_replies(0), 2);
    assert_int_equal(env.replies[0].error, FUSE_NOTIFY_STORE);
    assert_int_equal(env.replies[1].error, FUSE_NOTIFY_INVAL_INODE);
}

static void test_a_drain_leaves_requests_with_the_kernel(void **state)
{
    (void)state;
    uint64_t unique;

    env_run();
    env.io.drain = true;
    unique = env_read(0, 512);
    env_turn(0);
    assert_int_equal(env.command_count, 0);
    assert_int_equal(mr_io_poll(&env.io).events, 0);
    mr_io_receive(&env.io);
    assert_false(env.io.gone);
    env_expect_none(unique);
}

static void test_the_end_of_the_connection_is_seen_without_room(void **state)
{
    (void)state;

    env.io.drain = true;
    (void)shutdown(env.kernel_fd, SHUT_RDWR);
    mr_io_receive(&env.io);
    assert_true(env.io.gone);
    assert_int_equal(mr_io_poll(&env.io).fd, -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, env_set_up, env_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_requests_wait_for_a_session),
        TEST(test_a_new_session_gets_everything_in_order_of_arrival),
        TEST(test_a_lost_callback_loses_no_request),
        TEST(test_zeroing_starts_again_in_a_new_session),
        TEST(test_refusing_answers_all_until_there_is_a_session),
        TEST(test_nothing_goes_into_a_session_that_is_lost),
        TEST(test_a_request_that_costs_sessions_is_given_up),
        TEST(test_a_request_does_not_pay_for_an_earlier_one),
        TEST(test_a_command_that_cannot_be_queued_loses_the_session),
        TEST(test_a_command_without_an_answer_loses_the_session),
        TEST(test_a_second_server_asks_once_for_what_the_first_had),
        TEST(test_a_second_server_flushes_before_it_says_so),
        TEST(test_an_older_kernel_is_not_asked),
        TEST(test_opens_are_counted),
        TEST(test_a_grown_lun_is_told_to_the_kernel),
        TEST(test_a_size_that_the_kernel_may_not_know_is_told_again),
        TEST(test_a_drain_leaves_requests_with_the_kernel),
        TEST(test_the_end_of_the_connection_is_seen_without_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
