/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "api/problem.h"
#include "storage/base/json.h"

static void test_every_code_has_a_status(void **state)
{
    (void)state;
    for (unsigned code = 0; code < MR_CODE_COUNT; code++) {
        unsigned status = mr_problem_status((enum mr_code)code);
        assert_in_range(status, 400, 504);
        if (status == 503)
            assert_true(mr_problem_retry_after_s((enum mr_code)code) > 0);
    }
}

static void test_status_follows_the_rule(void **state)
{
    (void)state;
    static const struct {
        enum mr_code code;
        unsigned status;
    } rule[] = {
        {MR_E_INVALID_REQUEST, 400},
        {MR_E_UNKNOWN_FIELD, 422},
        {MR_E_INVALID_SPEC, 422},
        {MR_E_PATH_NOT_ALLOWED, 422},
        {MR_E_FILESYSTEM_UNSUPPORTED, 422},
        {MR_E_NOT_FOUND, 404},
        {MR_E_VOLUME_NOT_FOUND, 404},
        {MR_E_OPERATION_NOT_FOUND, 404},
        {MR_E_METHOD_NOT_ALLOWED, 405},
        {MR_E_BODY_TOO_LARGE, 413},
        {MR_E_UNSUPPORTED_MEDIA_TYPE, 415},
        {MR_E_SPEC_CONFLICT, 409},
        {MR_E_SOURCE_IN_USE, 409},
        {MR_E_MOUNT_PATH_BUSY, 409},
        {MR_E_OPERATION_PENDING, 409},
        {MR_E_NOT_BLANK, 409},
        {MR_E_WRONG_FILESYSTEM, 409},
        {MR_E_DATA_NOT_WRITTEN, 409},
        {MR_E_DEVICE_MISMATCH, 409},
        {MR_E_DEVICE_HELD, 409},
        {MR_E_ORPHAN, 409},
        {MR_E_DETACH_CANCELLED, 409},
        {MR_E_WEDGED, 409},
        {MR_E_FENCED, 409},
        {MR_E_CHAP_REFUSED, 502},
        {MR_E_TARGET_NOT_FOUND, 502},
        {MR_E_LUN_NOT_FOUND, 502},
        {MR_E_PORTAL_UNREACHABLE, 502},
        {MR_E_DEVICE_ERROR, 502},
        {MR_E_TARGET_TIMEOUT, 504},
        {MR_E_RECOVERING, 503},
        {MR_E_JOURNAL_UNAVAILABLE, 503},
        {MR_E_SHUTTING_DOWN, 503},
        {MR_E_NOT_DETACHING, 409},
        {MR_E_HOLDER_NOT_FOUND, 409},
        {MR_E_LOSS_NOT_ACCEPTED, 409},
        {MR_E_ACTION_UNSUPPORTED, 422},
        {MR_E_TOO_MANY_REQUESTS, 503},
        {MR_E_INTERNAL, 500},
    };
    assert_int_equal(sizeof(rule) / sizeof(rule[0]), MR_CODE_COUNT);
    for (size_t i = 0; i < MR_CODE_COUNT; i++)
        assert_int_equal(mr_problem_status(rule[i].code), rule[i].status);
    assert_int_equal(mr_problem_retry_after_s(MR_E_OPERATION_PENDING), 1);
    assert_int_equal(mr_problem_retry_after_s(MR_E_SPEC_CONFLICT), 0);
}

static void test_document_has_what_applies_only(void **state)
{
    (void)state;
    struct mr_err err;
    struct mr_problem_context context = {.volume = "a"};
    (void)mr_fail(&err, MR_E_SPEC_CONFLICT, 0, "another spec");
    MR_AUTO_JSON struct json_object *problem = mr_problem_document(&err, &context);
    assert_string_equal(mr_json_get_string(problem, "type"), "/problems/spec-conflict");
    assert_string_equal(mr_json_get_string(problem, "code"), "spec-conflict");
    assert_int_equal(mr_json_get_int(problem, "status", 0), 409);
    assert_string_equal(mr_json_get_string(problem, "detail"), "another spec");
    assert_string_equal(mr_json_get_string(problem, "volume"), "a");
    assert_false(mr_json_get_bool(problem, "retryable", true));
    static const char *const absent[] = {"step",    "pointer", "remedy",  "operation",
                                         "residue", "holders", "progress"};
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
        assert_null(mr_json_get(problem, absent[i]));
}

static void test_document_has_all_that_applies(void **state)
{
    (void)state;
    struct mr_err err;
    MR_AUTO_JSON struct json_object *holders = parse_json("[{'pid': 1}]");
    MR_AUTO_JSON struct json_object *progress = parse_json("{'done': 1}");
    struct mr_problem_context context = {.volume = "a",
                                         .operation = "op-1",
                                         .holders = holders,
                                         .progress = progress,
                                         .residue = true};
    (void)mr_fail_at(&err, MR_E_DEVICE_HELD, "/source", "held");
    (void)mr_err_remedy(&err, 0, "wait");
    strcpy(err.step, "drain");
    strcpy(err.volume, "other");
    MR_AUTO_JSON struct json_object *problem = mr_problem_document(&err, &context);
    assert_string_equal(mr_json_get_string(problem, "step"), "drain");
    assert_string_equal(mr_json_get_string(problem, "pointer"), "/source");
    assert_string_equal(mr_json_get_string(problem, "remedy"), "wait");
    assert_string_equal(mr_json_get_string(problem, "volume"), "other");
    assert_string_equal(mr_json_get_string(problem, "operation"), "op-1");
    assert_string_equal(mr_json_get_string(problem, "residue"), "unknown");
    assert_int_equal(json_object_array_length(mr_json_get(problem, "holders")), 1);
    assert_int_equal(mr_json_get_int(mr_json_get(problem, "progress"), "done", 0), 1);
}

static void test_text_cut_inside_a_character_stays_utf8(void **state)
{
    (void)state;
    struct mr_err err;
    struct mr_problem_context context = {0};
    (void)mr_fail_at(&err, MR_E_UNKNOWN_FIELD, "/\xc3",
                     "\xff"
                     "a\xe2\x82\xac\xc3");
    MR_AUTO_JSON struct json_object *problem = mr_problem_document(&err, &context);
    assert_string_equal(mr_json_get_string(problem, "detail"), "?a\xe2\x82\xac?");
    assert_string_equal(mr_json_get_string(problem, "pointer"), "/?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_has_a_status),
        cmocka_unit_test(test_status_follows_the_rule),
        cmocka_unit_test(test_document_has_what_applies_only),
        cmocka_unit_test(test_document_has_all_that_applies),
        cmocka_unit_test(test_text_cut_inside_a_character_stays_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
