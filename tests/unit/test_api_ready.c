/* SPDX-License-Identifier: Apache-2.0
 *
 * Does the agent live, is it ready, and if not: why, and how far is it?
 */
#include "api_env.h"

static void set_recovering(bool recovering)
{
    (void)kill(server, SIGUSR1);
    while ((ask("GET", "/orphans", "", NULL) == 503) != recovering)
        (void)poll(NULL, 0, 1); /* until the signal is there */
}

static void expect_progress(void)
{
    MR_AUTO_JSON struct json_object *problem = json_tokener_parse(answer.body);
    struct json_object *progress = mr_json_get(problem, "progress");
    expect_code("recovering");
    assert_int_equal(mr_json_get_int(progress, "done", -1), 3);
    assert_int_equal(mr_json_get_int(progress, "total", -1), 7);
    assert_int_equal(json_object_object_length(progress), 2);
    assert_true(has_field("Retry-After: 1"));
}

static void test_ready_when_all_is_well(void **state)
{
    (void)state;
    assert_int_equal(ask("GET", "/v1/readyz", "", NULL), 200);
    expect_text("status", "ready");
    assert_int_equal(ask("HEAD", "/readyz", "", NULL), 200);
    assert_int_equal(ask("GET", "/livez", "", NULL), 200);
    expect_text("status", "alive");
}

static void test_recovering_says_how_far(void **state)
{
    (void)state;
    set_recovering(true);
    assert_int_equal(ask("GET", "/readyz", "", NULL), 503);
    expect_progress();
    assert_int_equal(ask("PUT", "/volumes/a", "", SPEC), 503);
    expect_progress();
    assert_int_equal(ask("GET", "/volumes/a", "", NULL), 503);
    expect_progress();
    assert_int_equal(ask("GET", "/livez", "", NULL), 200);
    set_recovering(false);
    assert_int_equal(ask("GET", "/volumes/a", "", NULL), 404);
    assert_null(strstr(answer.body, "progress"));
}

static void test_journal_that_cannot_be_written_is_said_with_remedy(void **state)
{
    (void)state;
    assert_int_equal(ask("PUT", "/volumes/journal-full", "", SPEC), 201);
    assert_int_equal(ask("GET", "/readyz", "", NULL), 503);
    expect_code("journal-unavailable");
    assert_non_null(strstr(answer.body, "write journal '/fake.db'"));
    expect_text("remedy", "free space on '/fake'");
    assert_null(strstr(answer.body, "progress"));
    assert_true(has_field("Retry-After: 1"));
    assert_int_equal(ask("GET", "/livez", "", NULL), 200);
    /* What is there can be looked at. */
    assert_int_equal(ask("GET", "/volumes", "", NULL), 200);
    assert_int_equal(ask("GET", "/volumes/journal-full/holders", "", NULL), 200);
    set_recovering(true);
    assert_int_equal(ask("GET", "/readyz", "", NULL), 503);
    expect_progress();
    set_recovering(false);
    assert_int_equal(ask("DELETE", "/volumes/journal-full", "", NULL), 200);
    assert_int_equal(ask("GET", "/readyz", "", NULL), 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ready_when_all_is_well),
        cmocka_unit_test(test_recovering_says_how_far),
        cmocka_unit_test(test_journal_that_cannot_be_written_is_said_with_remedy),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
