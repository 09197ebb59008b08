/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "storage/lun/login_text.h"

static struct mr_login_answers after(const char *const *lines)
{
    struct mr_login_answers answers = {0};

    for (; *lines; lines++)
        mr_login_take_line(&answers, *lines);
    return answers;
}

static void test_answers_are_found_in_the_log(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "login successful [iqn.x]",
        "TargetLoginReply: AuthMethod=CHAP [iqn.x]",
        "TargetLoginReply: CHAP_R=0x00112233445566778899aabbccddeeff [iqn.x]",
        "TargetLoginReply: HeaderDigest=CRC32C [iqn.x]",
        "TargetLoginReply: InitialR2T=No [iqn.x]",
        NULL,
    };
    const struct mr_login_answers answers = after(lines);

    assert_true(answers.wants_chap);
    assert_true(answers.proof);
    assert_true(answers.header_digest);
}

static void test_what_only_looks_like_an_answer_is_none(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "",
        "TargetLoginReply: ",
        "TargetLoginReply: AuthMethod",
        "TargetLoginReply: AuthMethod=None [iqn.x]",
        "TargetLoginReply: AuthMethod=CHAPS [iqn.x]",
        "TargetLoginReply: CHAP_RX=0x00 [iqn.x]",
        "TargetLoginReply: XCHAP_R=0x00 [iqn.x]",
        "TargetLoginReply: HeaderDigest=CRC32C,None [iqn.x]",
        "TargetLoginReply: HeaderDigest=None [HeaderDigest=CRC32C]",
        "TargetLoginReply: TargetAlias=CHAP_R=0x00 [iqn.x]",
        "HeaderDigest=CRC32C",
        "connecting to portal TargetLoginReply: HeaderDigest=CRC32C",
        NULL,
    };
    const struct mr_login_answers answers = after(lines);

    assert_false(answers.wants_chap);
    assert_false(answers.proof);
    assert_false(answers.header_digest);
}

static void test_the_last_word_on_a_digest_counts(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "TargetLoginReply: HeaderDigest=CRC32C [iqn.x]",
        "TargetLoginReply: HeaderDigest=None [iqn.x]",
        NULL,
    };

    assert_false(after(lines).header_digest);
}

static void test_a_failed_proof_is_told_from_our_own_refusal(void **state)
{
    (void)state;
    assert_true(mr_login_proof_failed(
        "Authentication failed. Invalid CHAP_R response from the target"));
    assert_true(mr_login_proof_failed(
        "Failed to log in to target. Wrong CHAP targetname received: other"));
    assert_true(mr_login_proof_failed(
        "Failed to log in to target. It did not return CHAP_N during SECNEG."));
    assert_true(mr_login_proof_failed(
        "Failed to log in to target. It did not return CHAP_R during SECNEG."));
    assert_true(mr_login_proof_failed("Wrong size of CHAP_R received from target."));
    assert_false(mr_login_proof_failed(
        "Failed to log in to target. Status: Authentication failure(513)"));
    assert_false(mr_login_proof_failed("No CHAP challenge found"));
    assert_false(mr_login_proof_failed(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_found_in_the_log),
        cmocka_unit_test(test_what_only_looks_like_an_answer_is_none),
        cmocka_unit_test(test_the_last_word_on_a_digest_counts),
        cmocka_unit_test(test_a_failed_proof_is_told_from_our_own_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
