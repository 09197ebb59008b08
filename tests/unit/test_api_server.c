/* SPDX-License-Identifier: Apache-2.0
 *
 * What the API answers, and when.
 */
#include "api_env.h"

static void test_attach_waits_for_the_end(void **state)
{
    (void)state;
    assert_int_equal(ask("PUT", "/volumes/a", "", SPEC), 201);
    assert_true(has_field("Vary: Prefer"));
    expect_text("state", "attached");
    assert_non_null(strstr(answer.body, "\"mount_path\":\"/volumes-root/a\""));
    assert_int_equal(ask("PUT", "/v1/volumes/a", "Prefer: wait=5\r\n", SPEC), 200);
    assert_true(has_field("Preference-Applied: wait=5"));
    assert_int_equal(ask("PUT", "/volumes/a", "", SPEC2), 409);
    expect_code("spec-conflict");
    expect_text("volume", "a");
}

static void test_wait_runs_out_with_202(void **state)
{
    (void)state;
    int64_t start = mr_now_ns();
    assert_int_equal(ask("PUT", "/v1/volumes/slow", "Prefer: wait=1\r\n", SPEC), 202);
    assert_in_range(mr_now_ns() - start, MR_NS_PER_S, 3 * MR_NS_PER_S);
    expect_text("state", "attaching");
    assert_true(has_field("Retry-After: 1"));
    assert_non_null(strstr(answer.text, "\r\nLocation: /v1/operations/op-"));
    assert_int_equal(ask("PUT", "/volumes/slow", "Prefer: respond-async\r\n", SPEC), 202);
    assert_true(has_field("Preference-Applied: respond-async"));
    const char *location = strstr(answer.text, "\r\nLocation: /operations/op-");
    assert_non_null(location);
    char target[64];
    assert_int_equal(sscanf(location, "\r\nLocation: %63s", target), 1);
    start = mr_now_ns();
    assert_int_equal(ask("GET", target, "Prefer: wait=1\r\n", NULL), 200);
    assert_in_range(mr_now_ns() - start, MR_NS_PER_S, 3 * MR_NS_PER_S);
    expect_text("state", "running");
    start = mr_now_ns();
    assert_int_equal(ask("GET", target, "", NULL), 200);
    assert_in_range(mr_now_ns() - start, 0, MR_NS_PER_S / 2);
}

static void test_accepted_is_said_of_what_is_in_the_journal(void **state)
{
    (void)state;
    int64_t start = mr_now_ns();
    assert_int_equal(ask("PUT", "/volumes/slowdisk", "Prefer: respond-async\r\n", SPEC),
                     202);
    assert_in_range(mr_now_ns() - start, MR_NS_PER_S / 3, 3 * MR_NS_PER_S);
    expect_text("state", "attaching");
}

static void test_failed_operation_becomes_a_problem(void **state)
{
    (void)state;
    assert_int_equal(ask("PUT", "/volumes/fail", "", SPEC), 502);
    expect_code("device-error");
    expect_text("step", "check");
    expect_text("residue", "none");
    expect_text("remedy", "look at the kernel log");
    MR_AUTO_JSON struct json_object *problem = json_tokener_parse(answer.body);
    char target[64];
    (void)snprintf(target, sizeof(target), "/operations/%s",
                   mr_json_get_string(problem, "operation"));
    assert_int_equal(ask("GET", target, "", NULL), 200);
    expect_text("state", "failed");
}

static void test_detach_answers_with_the_proof(void **state)
{
    (void)state;
    assert_int_equal(ask("PUT", "/volumes/d", "", SPEC), 201);
    assert_int_equal(ask("DELETE", "/volumes/d?mount_path=/other", "", NULL), 409);
    expect_code("spec-conflict");
    assert_int_equal(ask("DELETE", "/volumes/d?mount_path=/volumes-root/d", "", NULL),
                     200);
    expect_text("volume", "d");
    assert_int_equal(ask("DELETE", "/volumes/d", "", NULL), 200);
    expect_text("volume", "d");
    assert_int_equal(ask("GET", "/volumes/d", "", NULL), 404);
    expect_code("volume-not-found");
    assert_int_equal(ask("DELETE", "/volumes/never", "", NULL), 404);
    assert_int_equal(ask("PUT", "/volumes/held", "", SPEC), 201);
    assert_int_equal(ask("DELETE", "/volumes/held", "Prefer: wait=1\r\n", NULL), 202);
    expect_text("state", "detaching");
}

static void test_refusals_carry_retry_after(void **state)
{
    (void)state;
    assert_int_equal(ask("PUT", "/volumes/pending", "", SPEC), 409);
    expect_code("operation-pending");
    assert_true(has_field("Retry-After: 1"));
    (void)kill(server, SIGUSR1);
    while (ask("GET", "/readyz", "", NULL) == 200) /* until the signal is there */
        (void)poll(NULL, 0, 1);
    expect_code("recovering");
    assert_int_equal(ask("GET", "/livez", "", NULL), 200);
    assert_int_equal(ask("PUT", "/volumes/a", "", SPEC), 503);
    assert_true(has_field("Retry-After: 1"));
    /* What is not known yet is not said to be absent. */
    assert_int_equal(ask("GET", "/volumes/unheard-of", "", NULL), 503);
    assert_int_equal(ask("GET", "/operations/unheard-of", "", NULL), 503);
    (void)kill(server, SIGUSR1);
    while (ask("GET", "/readyz", "", NULL) != 200)
        (void)poll(NULL, 0, 1);
    assert_int_equal(ask("GET", "/operations/unheard-of", "", NULL), 404);
    expect_code("operation-not-found");
}

static void test_etag_changes_with_the_document(void **state)
{
    (void)state;
    char etag[128];
    char field[192];
    assert_int_equal(ask("PUT", "/volumes/e", "", SPEC), 201);
    assert_int_equal(ask("GET", "/volumes/e", "", NULL), 200);
    assert_int_equal(sscanf(strstr(answer.text, "ETag: "), "ETag: %127s", etag), 1);
    assert_int_equal(ask("GET", "/volumes/e", "", NULL), 200); /* from the cache */
    expect_text("id", "e");
    assert_int_equal(ask("HEAD", "/volumes/e", "", NULL), 200);
    assert_non_null(strstr(answer.text, etag));
    (void)snprintf(field, sizeof(field), "If-None-Match: \"x\", W/%s\r\n", etag);
    assert_int_equal(ask("GET", "/volumes/e", field, NULL), 304);
    assert_non_null(strstr(answer.text, etag));
    assert_int_equal(ask("PUT", "/volumes/e", "", SPEC), 200);
    assert_int_equal(ask("GET", "/volumes/e", "", NULL), 200);
    assert_null(strstr(answer.text, etag));
}

static void test_list_is_paged(void **state)
{
    (void)state;
    static const char *const ids[] = {"p1", "p2", "p3"};
    char target[64];
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(target, sizeof(target), "/volumes/%s", ids[i]);
        assert_int_equal(ask("PUT", target, "", SPEC), 201);
    }
    assert_int_equal(ask("GET", "/volumes?limit=2&page_token=p", "", NULL), 200);
    expect_text("next_page_token", "p2");
    assert_non_null(strstr(answer.body, "\"id\":\"p1\""));
    assert_null(strstr(answer.body, "\"id\":\"p3\""));
    assert_int_equal(ask("GET", "/volumes?page_token=p2", "", NULL), 200);
    assert_non_null(strstr(answer.body, "\"id\":\"p3\""));
    assert_int_equal(ask("GET", "/volumes?limit=0", "", NULL), 400);
    assert_int_equal(ask("GET", "/volumes?limit=201", "", NULL), 400);
    assert_int_equal(ask("GET", "/volumes?limit=99999999999999999999", "", NULL), 400);
    assert_int_equal(ask("GET", "/volumes?limit=", "", NULL), 400);
    assert_int_equal(ask("GET", "/volumes?page_token=a/b", "", NULL), 400);
}

static void test_bodies_are_checked(void **state)
{
    (void)state;
    assert_int_equal(ask("PUT", "/volumes/b", "", "{"), 400);
    expect_code("invalid-request");
    assert_int_equal(ask("PUT", "/volumes/b", "", "{\"nonsense\":1}"), 422);
    expect_code("unknown-field");
    expect_text("pointer", "/nonsense");
    assert_int_equal(ask("PUT", "/volumes/b", "", NULL), 400);
    assert_int_equal(ask("PUT", "/volumes/b", "Content-Encoding: gzip\r\n", SPEC), 415);
    assert_int_equal(ask("PUT", "/volumes/-b", "", SPEC), 400);
    assert_int_equal(ask("DELETE", "/volumes/b", "", SPEC), 400);
    assert_int_equal(ask("GET", "/volumes/b", "", NULL), 404);
}

static void test_waiters_do_not_use_up_the_connections(void **state)
{
    (void)state;
    static const char text[] =
        "PUT /volumes/slow-many HTTP/1.1\r\nHost: a\r\nPrefer: wait=600\r\n"
        "Content-Type: application/json\r\nContent-Length: 72\r\n\r\n" SPEC;
    enum {
        CLIENTS = 420
    };
    static int fds[CLIENTS];
    unsigned at_once = 0;

    assert_int_equal(sizeof(SPEC) - 1, 72);
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = open_unix();
        say(fds[i], text, sizeof(text) - 1);
    }
    assert_int_equal(ask("GET", "/livez", "", NULL), 200);
    for (int i = 0; i < CLIENTS; i++) {
        struct pollfd pollfd = {.fd = fds[i], .events = POLLIN};
        if (poll(&pollfd, 1, 0) == 1) {
            listen_to(fds[i], false);
            assert_int_equal(answer.status, 202);
            at_once++;
        }
    }
    assert_int_equal(at_once, CLIENTS - 384);
    /* The places of clients that went away are free again. */
    for (int i = 0; i < CLIENTS; i++)
        (void)close(fds[i]);
    int64_t start = mr_now_ns();
    assert_int_equal(ask("PUT", "/volumes/slow-many", "Prefer: wait=1\r\n", SPEC), 202);
    assert_true(mr_now_ns() - start >= MR_NS_PER_S);
}

static void test_half_closed_client_is_answered_at_once(void **state)
{
    (void)state;
    static const char text[] =
        "PUT /volumes/slow-half HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        "Content-Length: 72\r\n\r\n" SPEC;
    int fd = open_unix();
    int64_t start = mr_now_ns();
    say(fd, text, sizeof(text) - 1);
    (void)poll(NULL, 0, 50);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    listen_to(fd, false);
    assert_int_equal(answer.status, 202);
    assert_in_range(mr_now_ns() - start, 0, 5 * MR_NS_PER_S);
    (void)close(fd);
}

static void test_stop_answers_those_who_wait(void **state)
{
    static const char put[] =
        "PUT /volumes/slow-stop HTTP/1.1\r\nHost: a\r\n"
        "Content-Type: application/json\r\nContent-Length: 72\r\n\r\n" SPEC;
    static const char scan[] =
        "GET /volumes/slow-stop/holders HTTP/1.1\r\nHost: a\r\n\r\n";
    int one = open_unix();
    int two = open_unix();

    say(one, put, sizeof(put) - 1);
    while (ask("GET", "/volumes/slow-stop", "", NULL) != 200)
        (void)poll(NULL, 0, 1);
    say(two, scan, sizeof(scan) - 1);
    assert_int_equal(ask("GET", "/livez", "", NULL), 200);
    (void)poll(NULL, 0, 50);
    (void)kill(server, SIGTERM);
    listen_to(one, false);
    assert_int_equal(answer.status, 503);
    expect_code("shutting-down");
    assert_true(has_field("Retry-After: 1"));
    listen_to(two, false);
    assert_int_equal(answer.status, 503);
    assert_true(is_closed(one));
    (void)close(one);
    (void)close(two);
    assert_int_equal(stop_server(state), 0);
    assert_int_equal(start_server(state), 0);
}

static void test_holders_come_from_a_scan(void **state)
{
    (void)state;
    assert_int_equal(ask("PUT", "/volumes/h", "", SPEC), 201);
    assert_int_equal(ask("GET", "/v1/volumes/h/holders", "", NULL), 200);
    expect_text("held", "free");
    assert_int_equal(ask("GET", "/volumes/nobody/holders", "", NULL), 404);
}

static void test_contract_is_served(void **state)
{
    (void)state;
    assert_int_equal(ask("GET", "/openapi.yaml", "", NULL), 200);
    assert_true(has_field("Content-Type: application/yaml"));
    assert_memory_equal(answer.body, "openapi: 3", 10);
    assert_int_equal(ask("DELETE", "/openapi.yaml", "", NULL), 405);
    assert_true(has_field("Allow: GET, HEAD"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attach_waits_for_the_end),
        cmocka_unit_test(test_wait_runs_out_with_202),
        cmocka_unit_test(test_accepted_is_said_of_what_is_in_the_journal),
        cmocka_unit_test(test_failed_operation_becomes_a_problem),
        cmocka_unit_test(test_detach_answers_with_the_proof),
        cmocka_unit_test(test_refusals_carry_retry_after),
        cmocka_unit_test(test_etag_changes_with_the_document),
        cmocka_unit_test(test_list_is_paged),
        cmocka_unit_test(test_bodies_are_checked),
        cmocka_unit_test(test_waiters_do_not_use_up_the_connections),
        cmocka_unit_test(test_half_closed_client_is_answered_at_once),
        cmocka_unit_test(test_holders_come_from_a_scan),
        cmocka_unit_test(test_contract_is_served),
        cmocka_unit_test(test_stop_answers_those_who_wait),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
