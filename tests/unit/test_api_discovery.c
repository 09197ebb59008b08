/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking before attaching: what is asked gets through, what is malformed does not.
 */
#include "api_env.h"

static void test_discovery_is_asked_with_its_timeout(void **state)
{
    (void)state;
    assert_int_equal(ask("GET", "/discovery?driver=iscsi&portal=h:3260", "", NULL), 200);
    expect_text("portal", "h:3260");
    assert_non_null(strstr(answer.body, "\"timeout_ms\":10000"));
    assert_int_equal(
        ask("GET", "/v1/discovery?timeout_s=60&portal=%5B::1%5D&driver=iscsi", "", NULL),
        200);
    expect_text("portal", "[::1]");
    assert_non_null(strstr(answer.body, "\"timeout_ms\":60000"));
    assert_int_equal(ask("HEAD", "/discovery?driver=iscsi&portal=h", "", NULL), 200);
}

static void test_malformed_discovery_is_refused(void **state)
{
    (void)state;
    static const char *const queries[] = {
        "",
        "?driver=iscsi",
        "?portal=h",
        "?driver=file&portal=h",
        "?driver=iscsi&portal=",
        "?driver=iscsi&portal=a,b",
        "?driver=iscsi&portal=h&timeout_s=0",
        "?driver=iscsi&portal=h&timeout_s=61",
        "?driver=iscsi&portal=h&timeout_s=-5",
        "?driver=iscsi&portal=h&timeout_s=+5",
        "?driver=iscsi&portal=h&timeout_s=",
        "?driver=iscsi&portal=h&timeout_s=5s",
        "?driver=iscsi&portal=h&timeout_s=99999999999999999999",
        "?driver=iscsi&portal=h&portal=i",
        "?driver=iscsi&portal=h&password=p",
    };
    char target[128];

    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
        (void)snprintf(target, sizeof(target), "/discovery%s", queries[i]);
        if (ask("GET", target, "", NULL) != 400)
            fail_msg("'%s': %s", target, answer.text);
        expect_code("invalid-request");
    }
    assert_int_equal(ask("POST", "/discovery?driver=iscsi&portal=h", "", "{}"), 405);
}

static void test_failures_of_a_discovery_keep_their_status(void **state)
{
    (void)state;
    assert_int_equal(ask("GET", "/discovery?driver=iscsi&portal=silent", "", NULL), 504);
    expect_code("target-timeout");
    assert_int_equal(ask("GET", "/discovery?driver=iscsi&portal=many", "", NULL), 503);
    expect_code("too-many-requests");
    assert_true(has_field("Retry-After: 1"));
}

static void test_client_may_leave_a_discovery(void **state)
{
    (void)state;
    int fd = open_unix();
    static const char request[] =
        "GET /discovery?driver=iscsi&portal=slow HTTP/1.1\r\nHost: localhost\r\n\r\n";

    say(fd, request, sizeof(request) - 1);
    assert_int_equal(ask("GET", "/discovery?driver=iscsi&portal=h", "", NULL), 200);
    (void)close(fd);
    assert_int_equal(ask("GET", "/livez", "", NULL), 200);
}

static void test_dry_run_attaches_nothing(void **state)
{
    (void)state;
    assert_int_equal(ask("PUT", "/volumes/dry?dry_run=true", "", SPEC), 200);
    expect_text("would", "format");
    expect_text("volume", "dry");
    expect_text("mount_path", "/volumes-root/dry");
    assert_true(has_field("Vary: Prefer"));
    assert_int_equal(ask("GET", "/volumes/dry", "", NULL), 404);
    assert_int_equal(ask("PUT", "/volumes/dry?dry_run=false", "", SPEC), 201);
    assert_int_equal(ask("DELETE", "/volumes/dry", "", NULL), 200);
}

static void test_dry_run_is_validated_as_an_attach(void **state)
{
    (void)state;
    assert_int_equal(ask("PUT", "/volumes/dry?dry_run=true", "", "{\"bogus\":1}"), 422);
    expect_code("unknown-field");
    assert_int_equal(ask("PUT", "/volumes/dry?dry_run=true", "", "{"), 400);
    assert_int_equal(ask("PUT", "/volumes/dry?dry_run=true", "", NULL), 400);
    assert_int_equal(ask("PUT", "/volumes/.dry?dry_run=true", "", SPEC), 400);
    assert_int_equal(ask("PUT", "/volumes/dry?dry_run=1", "", SPEC), 400);
    expect_code("invalid-request");
    assert_int_equal(ask("PUT", "/volumes/dry?dry_run", "", SPEC), 400);
    assert_int_equal(ask("PUT", "/volumes/pending?dry_run=true", "", SPEC), 422);
    expect_code("path-not-allowed");
    assert_int_equal(ask("PUT", "/volumes/broken?dry_run=true", "", SPEC), 500);
    expect_code("internal");
    assert_int_equal(ask("GET", "/volumes/dry?dry_run=true", "", NULL), 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_discovery_is_asked_with_its_timeout),
        cmocka_unit_test(test_malformed_discovery_is_refused),
        cmocka_unit_test(test_failures_of_a_discovery_keep_their_status),
        cmocka_unit_test(test_client_may_leave_a_discovery),
        cmocka_unit_test(test_dry_run_attaches_nothing),
        cmocka_unit_test(test_dry_run_is_validated_as_an_attach),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
