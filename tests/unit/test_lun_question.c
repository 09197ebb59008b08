/* SPDX-License-Identifier: Apache-2.0
 *
 * What a question leaves behind in its session: question.c and session.c with a library
 * that only looks like libiscsi. */
#include "tests/unit/unit.h"

#include <errno.h>

#include "storage/base/clock.h"
#include "storage/lun/question.h"
#include "storage/lun/session.h"

static struct mr_session session;
static struct iscsi_context *const context = (struct iscsi_context *)&session;
static const struct scsi_task *freed; /* the last one */

void scsi_free_scsi_task(struct scsi_task *task)
{
    if (task)
        freed = task;
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

static struct scsi_task tasks[2];
static size_t asked;

static struct scsi_task *answered_at_once(struct mr_session *s, const void *arg)
{
    (void)arg;
    mr_session_answer(context, SCSI_STATUS_GOOD, &tasks[asked], s);
    return &tasks[asked++];
}

/* A target's R2T for it may have made libiscsi queue PDUs that point at its task. */
static void test_the_task_of_a_question_lives_until_the_next_is_answered(void **state)
{
    (void)state;
    const struct mr_asker asker = {&session, "t", INT64_MAX};
    const struct mr_question question = {.name = "Q", .send = answered_at_once};
    struct mr_reply reply;
    struct mr_err err;

    freed = NULL;
    assert_int_equal(mr_ask(&asker, &question, &reply, &err), 0);
    assert_null(freed);
    assert_int_equal(mr_ask(&asker, &question, &reply, &err), 0);
    assert_ptr_equal(freed, &tasks[0]);
    mr_session_close(&session);
    assert_ptr_equal(freed, &tasks[1]);
}

static struct scsi_task *told_twice(struct mr_session *s, const void *arg)
{
    const int *attention = arg;

    tasks[0].sense.key = SCSI_SENSE_UNIT_ATTENTION;
    tasks[0].sense.ascq = *attention;
    mr_session_answer(
        context, asked ? SCSI_STATUS_RESERVATION_CONFLICT : SCSI_STATUS_CHECK_CONDITION,
        &tasks[asked], s);
    return &tasks[asked++];
}

/* It is told once, and the answer that follows is the question's. */
static void test_what_an_attention_told_a_question_is_kept_for_the_owner(void **state)
{
    (void)state;
    static const struct {
        int code;
        unsigned attention;
    } all[] = {
        {0x2a09, MR_ATTENTION_CAPACITY},
        {0x3f0e, MR_ATTENTION_IDENTITY},
        {0x2a05, MR_ATTENTION_RESERVATION},
        {0x2900, MR_ATTENTION_RESET | MR_ATTENTION_ABORTED},
        {0x2a01, 0},
    };
    const struct mr_asker asker = {&session, "t", INT64_MAX};
    struct mr_reply reply;
    struct mr_err err;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        const struct mr_question question = {"Q", told_twice, &all[i].code};

        asked = 0;
        session.attention = 0;
        assert_int_equal(mr_ask(&asker, &question, &reply, &err), 0);
        assert_int_equal(asked, 2);
        assert_int_equal(reply.answer.errnum, EBADE); /* its own to see */
        assert_int_equal(session.attention, all[i].attention);
    }
    assert_int_equal(session.resets, 1);
}

static bool queued;

int iscsi_which_events(struct iscsi_context *iscsi)
{
    (void)iscsi;
    return 0; /* the target takes no more commands now */
}

int iscsi_out_queue_length(struct iscsi_context *iscsi)
{
    (void)iscsi;
    return queued;
}

/* Commands that wait for their turn would go out before the question is asked again. */
static void test_nothing_that_is_queued_goes_to_what_may_be_another_lun(void **state)
{
    (void)state;
    int code = 0x3f0e;
    const struct mr_asker asker = {&session, "t", INT64_MAX};
    const struct mr_question question = {"Q", told_twice, &code};
    struct mr_reply reply;
    struct mr_err err;

    assert_int_equal(mr_ask(&asker, &question, &reply, &err), 0);
    assert_int_equal(asked, 2);
    assert_false(session.lost);
    queued = true;
    asked = 0;
    session.attention = 0;
    assert_int_equal(mr_ask(&asker, &question, &reply, &err), -ECONNRESET);
    assert_int_equal(asked, 1);
    assert_true(session.lost);
    queued = false;
    mr_session_close(&session);
}

/* The logout is sent and never answered. */
int iscsi_logout_async(struct iscsi_context *iscsi, iscsi_command_cb cb,
                       void *private_data)
{
    (void)iscsi, (void)cb, (void)private_data;
    return 0;
}

static int64_t waited_until_ns;

static int mute_turn(void *ctx, int64_t until_ns)
{
    (void)ctx;
    waited_until_ns = until_ns;
    return -ETIMEDOUT;
}

static int64_t leave(int64_t deadline_ns)
{
    session = (struct mr_session){.iscsi = context, .up = true, .turn = mute_turn};
    waited_until_ns = 0;
    mr_session_leave(&session, deadline_ns);
    assert_null(session.iscsi);
    return waited_until_ns;
}

static void test_leaving_waits_for_half_a_second_but_not_past_the_deadline(void **state)
{
    (void)state;
    const int64_t now_ns = mr_now_ns();
    const int64_t soon_ns = now_ns + 400 * MR_NS_PER_MS;

    assert_in_range(leave(now_ns + 100 * MR_NS_PER_S), now_ns, now_ns + 2 * MR_NS_PER_S);
    assert_in_range(leave(soon_ns), soon_ns < mr_now_ns() ? 0 : soon_ns, soon_ns);
    assert_true(leave(now_ns - 1) == 0);
}

static int set_up(void **state)
{
    (void)state;
    session = (struct mr_session){.iscsi = context, .up = true, .watch_fd = -1};
    asked = 0;
    return 0;
}

#define TEST(fn) cmocka_unit_test_setup(fn, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_task_of_a_question_lives_until_the_next_is_answered),
        TEST(test_leaving_waits_for_half_a_second_but_not_past_the_deadline),
        TEST(test_what_an_attention_told_a_question_is_kept_for_the_owner),
        TEST(test_nothing_that_is_queued_goes_to_what_may_be_another_lun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
