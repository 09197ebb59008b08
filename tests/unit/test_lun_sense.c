/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>

#include "storage/lun/sense.h"

/* SAM-5 section 5.3.1 and libiscsi's own codes above 0xff. */
#define GOOD 0x00
#define CHECK_CONDITION 0x02
#define CONDITION_MET 0x04
#define BUSY 0x08
#define RESERVATION_CONFLICT 0x18
#define TASK_SET_FULL 0x28
#define ACA_ACTIVE 0x30
#define TASK_ABORTED 0x40
#define CANCELLED 0x0f000000

static void check(int status, unsigned key, unsigned asc, enum mr_answer_kind kind,
                  int errnum)
{
    struct mr_answer answer = mr_answer_classify(status, key, asc);

    assert_int_equal(answer.kind, kind);
    assert_int_equal(answer.errnum, errnum);
}

static void test_statuses_become_answers(void **state)
{
    (void)state;
    check(GOOD, 0, 0, MR_ANSWER_GOOD, 0);
    check(CONDITION_MET, 0, 0, MR_ANSWER_GOOD, 0);
    check(BUSY, 0, 0, MR_ANSWER_RETRY_LATER, EIO);
    check(TASK_SET_FULL, 0, 0, MR_ANSWER_RETRY_LATER, EIO);
    check(TASK_ABORTED, 0, 0, MR_ANSWER_RETRY_LATER, EIO);
    check(RESERVATION_CONFLICT, 0, 0, MR_ANSWER_FAILED, EBADE);
    check(ACA_ACTIVE, 0, 0, MR_ANSWER_FAILED, EIO);
    check(CANCELLED, 0, 0, MR_ANSWER_FAILED, EIO);
    check(0x7f, 0, 0, MR_ANSWER_FAILED, EIO);
    check(-1, 0, 0, MR_ANSWER_FAILED, EIO);
}

static void test_sense_becomes_errno(void **state)
{
    (void)state;
    check(CHECK_CONDITION, 0x1, 0x1700, MR_ANSWER_GOOD, 0);
    check(CHECK_CONDITION, 0x2, 0x0401, MR_ANSWER_RETRY_LATER, EIO);
    check(CHECK_CONDITION, 0x2, 0x0402, MR_ANSWER_FAILED, EIO);
    check(CHECK_CONDITION, 0x3, 0x1100, MR_ANSWER_FAILED, EIO);
    check(CHECK_CONDITION, 0x4, 0x4400, MR_ANSWER_FAILED, EIO);
    check(CHECK_CONDITION, 0x5, 0x2000, MR_ANSWER_FAILED, EREMOTEIO);
    check(CHECK_CONDITION, 0x6, 0x2900, MR_ANSWER_RETRY, EIO);
    check(CHECK_CONDITION, 0x7, 0x2700, MR_ANSWER_FAILED, EROFS);
    check(CHECK_CONDITION, 0x7, 0x2707, MR_ANSWER_FAILED, ENOSPC);
    check(CHECK_CONDITION, 0xb, 0x0000, MR_ANSWER_RETRY_LATER, EIO);
    check(CHECK_CONDITION, 0xb, 0x1001, MR_ANSWER_FAILED, EIO);
    check(CHECK_CONDITION, 0x0, 0x0000, MR_ANSWER_FAILED, EIO);
    check(CHECK_CONDITION, 0xf, 0x0000, MR_ANSWER_FAILED, EIO);
}

static void test_some_answers_ask_for_attention(void **state)
{
    (void)state;
    assert_int_equal(mr_answer_attention(GOOD, 0, 0), 0);
    assert_int_equal(mr_answer_attention(RESERVATION_CONFLICT, 0, 0),
                     MR_ATTENTION_RESERVATION);
    for (unsigned asc = 0x2a03; asc <= 0x2a05; asc++)
        assert_int_equal(mr_answer_attention(CHECK_CONDITION, 0x6, asc),
                         MR_ATTENTION_RESERVATION);
    assert_int_equal(mr_answer_attention(CHECK_CONDITION, 0x6, 0x2a09),
                     MR_ATTENTION_CAPACITY);
    assert_int_equal(mr_answer_attention(CHECK_CONDITION, 0x6, 0x2900),
                     MR_ATTENTION_RESET | MR_ATTENTION_ABORTED);
    assert_int_equal(mr_answer_attention(CHECK_CONDITION, 0x6, 0x2904),
                     MR_ATTENTION_RESET | MR_ATTENTION_ABORTED);
    assert_int_equal(mr_answer_attention(CHECK_CONDITION, 0x6, 0x2f00),
                     MR_ATTENTION_ABORTED);
    for (unsigned asc = 0x3f00; asc <= 0x3f11; asc++)
        assert_int_equal(
            mr_answer_attention(CHECK_CONDITION, 0x6, asc),
            asc == 0x3f03 || asc == 0x3f05 || asc == 0x3f0e ? MR_ATTENTION_IDENTITY : 0);
    assert_int_equal(mr_answer_attention(CHECK_CONDITION, 0x5, 0x2500),
                     MR_ATTENTION_IDENTITY);
    assert_int_equal(mr_answer_attention(CHECK_CONDITION, 0x5, 0x3f0e), 0);
    assert_int_equal(mr_answer_attention(CHECK_CONDITION, 0x6, 0x2a01), 0);
    assert_int_equal(mr_answer_attention(CHECK_CONDITION, 0x5, 0x2900), 0);
    assert_int_equal(mr_answer_attention(BUSY, 0x6, 0x2900), 0);
}

static void test_sense_about_an_earlier_command_is_told_apart(void **state)
{
    (void)state;
    assert_true(mr_sense_is_deferred(0x71) && mr_sense_is_deferred(0x73));
    assert_false(mr_sense_is_deferred(0x70) || mr_sense_is_deferred(0x72));
    assert_false(mr_sense_is_deferred(0));
}

static void test_login_status_is_found_in_the_text(void **state)
{
    (void)state;
    assert_int_equal(
        mr_login_status(
            "Failed to log in to target. Status: Authentication failure(513)"),
        MR_LOGIN_AUTHENTICATION);
    assert_int_equal(mr_login_status("Failed. Status: Target not found(515)"),
                     MR_LOGIN_TARGET_NOT_FOUND);
}

static void test_text_without_a_login_status_gives_none(void **state)
{
    (void)state;
    assert_int_equal(mr_login_status(""), 0);
    assert_int_equal(mr_login_status("socket error Connection refused(111)"), 0);
    assert_int_equal(mr_login_status("Status: "), 0);
    assert_int_equal(mr_login_status("Status: x("), 0);
    assert_int_equal(mr_login_status("Status: x(513"), 0);
    assert_int_equal(mr_login_status("Status: x(66049)"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses_become_answers),
        cmocka_unit_test(test_sense_becomes_errno),
        cmocka_unit_test(test_some_answers_ask_for_attention),
        cmocka_unit_test(test_sense_about_an_earlier_command_is_told_apart),
        cmocka_unit_test(test_login_status_is_found_in_the_text),
        cmocka_unit_test(test_text_without_a_login_status_gives_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
