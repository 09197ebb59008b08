/* SPDX-License-Identifier: Apache-2.0
 *
 * Liveness, by a clock of our own: session.c with a library that only looks like
 * libiscsi. A byte in the socket is a PDU of the target: 'n' answers our NOP-Out, 'p' is
 * its own, anything else answers a command. */
#include "tests/unit/unit.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/lun/session.h"

#define S MR_NS_PER_S

static struct library {
    int ours;
    int theirs;
    bool logged_in;
    const char *answer; /* to each NOP-Out, at once; NULL: none */
    bool pong_queued;
    iscsi_command_cb nop_cb;
    void *nop_ctx;
    unsigned nops;
    unsigned pongs;
    unsigned reads;
} lib;

static void arrives(const char *pdus)
{
    assert_int_equal(send(lib.theirs, pdus, strlen(pdus), 0), (ssize_t)strlen(pdus));
}

static struct iscsi_context *const context = (struct iscsi_context *)&lib;

int iscsi_get_fd(struct iscsi_context *iscsi)
{
    (void)iscsi;
    return lib.ours;
}

int iscsi_which_events(struct iscsi_context *iscsi)
{
    (void)iscsi;
    return POLLIN | (lib.pong_queued ? POLLOUT : 0);
}

int iscsi_out_queue_length(struct iscsi_context *iscsi)
{
    (void)iscsi;
    return lib.pong_queued;
}

/* One PDU at a time, as libiscsi does when no answer is awaited. */
int iscsi_service(struct iscsi_context *iscsi, int revents)
{
    char pdu;

    if (revents & POLLIN) {
        lib.reads++;
        if (recv(lib.ours, &pdu, 1, MSG_DONTWAIT) != 1)
            return -1;
        if (pdu == 'n' && lib.nop_cb)
            lib.nop_cb(iscsi, SCSI_STATUS_GOOD, NULL, lib.nop_ctx);
        lib.pong_queued = lib.pong_queued || pdu == 'p';
    }
    if ((revents & POLLOUT) && lib.pong_queued) {
        lib.pong_queued = false;
        lib.pongs++;
    }
    return 0;
}

int iscsi_is_logged_in(struct iscsi_context *iscsi)
{
    (void)iscsi;
    return lib.logged_in;
}

int iscsi_nop_out_async(struct iscsi_context *iscsi, iscsi_command_cb cb,
                        unsigned char *data, int len, void *private_data)
{
    (void)iscsi;
    (void)data;
    (void)len;
    lib.nop_cb = cb;
    lib.nop_ctx = private_data;
    lib.nops++;
    if (lib.answer)
        arrives(lib.answer);
    return 0;
}

int iscsi_logout_async(struct iscsi_context *iscsi, iscsi_command_cb cb,
                       void *private_data)
{
    (void)iscsi;
    (void)cb;
    (void)private_data;
    return -1;
}

int iscsi_task_mgmt_lun_reset_async(struct iscsi_context *iscsi, uint32_t lun,
                                    iscsi_command_cb cb, void *private_data)
{
    (void)iscsi;
    (void)lun;
    (void)cb;
    (void)private_data;
    return -1;
}

const char *iscsi_get_error(struct iscsi_context *iscsi)
{
    (void)iscsi;
    return "";
}

int iscsi_destroy_context(struct iscsi_context *iscsi)
{
    (void)iscsi;
    return 0;
}

void scsi_free_scsi_task(struct scsi_task *task)
{
    (void)task;
}

static struct mr_session session;

static int set_up(void **state)
{
    int pair[2];

    (void)state;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    lib = (struct library){.ours = pair[0], .theirs = pair[1], .logged_in = true};
    session = (struct mr_session){
        .iscsi = context,
        .up = true,
        .watch_fd = -1,
        .timeout_ns = 10 * S,
        .last_rx_ns = 100 * S,
    };
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)close(lib.ours);
    if (lib.theirs >= 0)
        (void)close(lib.theirs);
    return 0;
}

/* One turn of the loop as serve.c has it, by a clock that jumps: sleeps until the next
 * event or the next time. Returns the time after it. */
static int64_t turn(int64_t now_ns, int64_t oldest_ns, int64_t until_ns)
{
    int64_t next_ns = mr_session_check(&session, oldest_ns, now_ns);
    struct pollfd fd = {.fd = lib.ours, .events = mr_session_events(&session)};

    if (next_ns > until_ns)
        next_ns = until_ns;
    if (poll(&fd, 1, 0) > 0)
        mr_session_service(&session, fd.revents, now_ns);
    else if (next_ns > now_ns)
        now_ns = next_ns;
    return now_ns;
}

static void test_an_idle_session_wakes_up_once_per_interval(void **state)
{
    (void)state;
    unsigned turns = 0;

    lib.answer = "n"; /* nobody needs to wake up for it */
    for (int64_t now = 100 * S; now < 200 * S && turns < 100; turns++)
        now = turn(now, 0, 200 * S);
    assert_false(session.lost);
    assert_in_range(turns, 19, 21);
    assert_in_range(lib.nops, 18, 20);
}

static void test_a_target_that_dies_idle_is_noticed_in_bounded_time(void **state)
{
    (void)state;
    for (int64_t dies = 120 * S; dies < 131 * S; dies += S / 2) {
        int64_t now = 100 * S;

        while (!session.lost && now < 200 * S) {
            lib.answer = now < dies ? "n" : NULL;
            now = turn(now, 0, now < dies ? dies : 200 * S);
        }
        assert_true(session.lost);
        assert_in_range(now, dies, dies + 15 * S);
        (void)tear_down(NULL);
        assert_int_equal(set_up(NULL), 0);
    }
}

static void test_a_command_without_an_answer_ends_the_session_in_time(void **state)
{
    (void)state;
    int64_t now = 100 * S;

    while (!session.lost && now < 200 * S)
        now = turn(now, 103 * S < now ? 103 * S : 0, 103 * S < now ? 200 * S : now + S);
    assert_true(session.lost);
    assert_in_range(now, 113 * S, 114 * S);
    assert_non_null(strstr(session.down_reason, "silent for 10000 ms"));
}

static void test_an_answering_target_may_take_its_time_for_one_command(void **state)
{
    (void)state;
    lib.answer = "n";
    for (int64_t now = 100 * S; now < 200 * S && !session.lost;)
        now = turn(now, 100 * S, 200 * S);
    assert_false(session.lost);
    assert_in_range(lib.nops, 18, 21);
}

static void test_answers_to_commands_are_waited_for(void **state)
{
    (void)state;
    (void)mr_session_check(&session, 0, 101 * S);
    assert_int_equal(mr_session_events(&session) & POLLIN, 0);
    (void)mr_session_check(&session, 101 * S, 101 * S);
    assert_int_not_equal(mr_session_events(&session) & POLLIN, 0);
    (void)mr_session_check(&session, 0, 102 * S);
    assert_int_equal(mr_session_events(&session) & POLLIN, 0);
    session.waiting = true;
    assert_int_not_equal(mr_session_events(&session) & POLLIN, 0);
}

static void test_the_targets_own_ping_is_answered_within_one_interval(void **state)
{
    (void)state;
    int64_t now = 100 * S;

    (void)turn(now, 0, now);
    arrives("p"); /* before our first NOP-Out */
    now = turn(now, 0, 200 * S);
    (void)turn(now, 0, now);
    assert_in_range(now, 100 * S, 105 * S);
    assert_int_equal(lib.pongs, 1);
    arrives("n");
    lib.answer = "np"; /* behind its answer */
    while (now < 130 * S && !session.lost)
        now = turn(now, 0, 130 * S);
    assert_in_range(lib.pongs, lib.nops - 1, lib.nops + 1);
    assert_false(session.lost);
}

static void test_a_closed_connection_is_noticed_at_once_also_when_idle(void **state)
{
    (void)state;
    int64_t now = 101 * S;

    (void)close(lib.theirs);
    lib.theirs = -1;
    now = turn(now, 0, 200 * S);
    assert_true(session.lost);
    assert_int_equal(now, 101 * S);
    assert_int_equal(mr_session_check(&session, 0, now), now); /* to be torn down */
    mr_session_close(&session);
    assert_int_equal(mr_session_check(&session, 0, now), INT64_MAX);
}

static void test_a_logout_by_the_target_is_a_loss(void **state)
{
    (void)state;
    lib.logged_in = false;
    arrives("x");
    mr_session_service(&session, POLLIN, 101 * S);
    assert_true(session.lost);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_idle_session_wakes_up_once_per_interval,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_a_target_that_dies_idle_is_noticed_in_bounded_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_a_command_without_an_answer_ends_the_session_in_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_an_answering_target_may_take_its_time_for_one_command, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(test_answers_to_commands_are_waited_for, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            test_the_targets_own_ping_is_answered_within_one_interval, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_a_closed_connection_is_noticed_at_once_also_when_idle, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(test_a_logout_by_the_target_is_a_loss, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
