/* SPDX-License-Identifier: Apache-2.0
 *
 * Facts of one time, from a LUN that says that it changes while it is asked. */
#include "tests/unit/unit.h"

#include <errno.h>

#include "storage/lun/identify.h"
#include "storage/lun/question.h"

static struct {
    unsigned asked;
    unsigned at; /* the question that meets the attention, and every one after it */
    unsigned times;
    unsigned attention;
    uint32_t last_block;
} lun;

static struct mr_session session;

static void answer_capacity(struct mr_reply *ret)
{
    const uint32_t block_size = 512;

    ret->len = 32;
    for (unsigned i = 0; i < 4; i++) {
        ret->data[4 + i] = (uint8_t)(lun.last_block >> (24 - 8 * i));
        ret->data[8 + i] = (uint8_t)(block_size >> (24 - 8 * i));
    }
}

/* Each change makes the LUN larger. */
int mr_ask(const struct mr_asker *a, const struct mr_question *question,
           struct mr_reply *ret, struct mr_err *err)
{
    (void)err;
    memset(ret, 0, sizeof(*ret));
    ret->answer.kind = MR_ANSWER_GOOD;
    if (++lun.asked >= lun.at && lun.times > 0) {
        lun.times--;
        lun.last_block += 8;
        a->s->attention |= lun.attention;
    }
    if (strcmp(question->name, "READ CAPACITY(16)") == 0)
        answer_capacity(ret);
    else
        ret->len = 36;
    return 0;
}

int mr_ask_failed(const struct mr_asker *a, const struct mr_reply *reply,
                  const char *name, struct mr_err *err)
{
    (void)a, (void)reply;
    return mr_fail(err, MR_E_DEVICE_ERROR, 0, "%s", name);
}

void mr_session_answer(struct iscsi_context *iscsi, int status, void *command_data,
                       void *private_data)
{
    (void)iscsi, (void)status, (void)command_data, (void)private_data;
}

static int identify(unsigned at, unsigned times, unsigned attention,
                    struct mr_lun_facts *ret)
{
    struct mr_err err = {0};

    memset(&lun, 0, sizeof(lun));
    lun.at = at;
    lun.times = times;
    lun.attention = attention;
    lun.last_block = 2047;
    session = (struct mr_session){.lun = 1};
    return mr_lun_identify(&session, "t", INT64_MAX, ret, &err);
}

static void test_facts_are_those_after_the_last_change(void **state)
{
    (void)state;
    const unsigned kinds[] = {MR_ATTENTION_CAPACITY, MR_ATTENTION_IDENTITY};

    for (size_t kind = 0; kind < 2; kind++) {
        for (unsigned at = 1; at <= 7; at++) {
            struct mr_lun_facts facts;

            assert_int_equal(identify(at, 1, kinds[kind], &facts), 0);
            assert_true(facts.size_bytes == (2048 + 8) * 512ull);
            assert_int_equal(session.attention, 0);
        }
    }
}

static void test_what_the_first_question_is_told_costs_nothing(void **state)
{
    (void)state;
    struct mr_lun_facts facts;
    unsigned asked;

    assert_int_equal(identify(1, 0, MR_ATTENTION_IDENTITY, &facts), 0);
    asked = lun.asked;
    assert_int_equal(identify(1, 1, MR_ATTENTION_IDENTITY, &facts), 0);
    assert_int_equal(lun.asked, asked);
}

static void test_other_attentions_are_left_to_the_owner(void **state)
{
    (void)state;
    struct mr_lun_facts facts;

    assert_int_equal(
        identify(3, 1, MR_ATTENTION_RESERVATION | MR_ATTENTION_RESET, &facts), 0);
    assert_int_equal(session.attention, MR_ATTENTION_RESERVATION | MR_ATTENTION_RESET);
}

static void test_a_lun_that_does_not_stop_changing_is_an_error(void **state)
{
    (void)state;
    struct mr_lun_facts facts;

    assert_int_equal(identify(1, 1000, MR_ATTENTION_IDENTITY, &facts), -EAGAIN);
    assert_in_range(lun.asked, 7, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts_are_those_after_the_last_change),
        cmocka_unit_test(test_what_the_first_question_is_told_costs_nothing),
        cmocka_unit_test(test_other_attentions_are_left_to_the_owner),
        cmocka_unit_test(test_a_lun_that_does_not_stop_changing_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
