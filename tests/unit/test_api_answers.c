/* SPDX-License-Identifier: Apache-2.0
 *
 * Giving up and orphans, history, and the places of those who wait for an answer.
 */
#include "api_env.h"

/* --- forgetting, and what is left of it --- */

static void test_forget_ends_the_wait_and_leaves_an_orphan(void **state)
{
    (void)state;
    static const char text[] =
        "DELETE /volumes/held-f HTTP/1.1\r\nHost: localhost\r\n\r\n";
    held("held-f");
    int waiter = open_unix();
    say(waiter, text, sizeof(text) - 1);
    (void)poll(NULL, 0, 50);
    assert_int_equal(ask("POST", "/v1/volumes/held-f/forget", "",
                         "{\"reason\":\"disk \\u00e9changed\"}"),
                     200);
    expect_text("state", "orphan");
    expect_text("id", "held-f");
    listen_to(waiter, false);
    assert_int_equal(answer.status, 409);
    expect_code("orphan");
    (void)close(waiter);
    assert_int_equal(ask("DELETE", "/volumes/held-f", "", NULL), 409);
    expect_code("orphan");
    assert_int_equal(ask("POST", "/volumes/held-f/forget", "", NULL), 409);
    expect_code("not-detaching");
    assert_int_equal(ask("GET", "/v1/orphans", "", NULL), 200);
    assert_non_null(strstr(answer.body, "\"id\":\"held-f\""));
    assert_non_null(strstr(answer.body, "\"reason\":\"disk \xc3\xa9"
                                        "changed\""));
    assert_non_null(strstr(answer.body, "\"via\":\"unix\""));
    assert_int_equal(ask("DELETE", "/orphans/held-f", "", NULL), 200);
    expect_text("volume", "held-f");
    assert_true(has_field("Vary: Prefer"));
    assert_int_equal(ask("GET", "/orphans", "", NULL), 200);
    assert_null(strstr(answer.body, "held-f"));
    assert_int_equal(ask("DELETE", "/orphans/held-f", "", NULL), 404);
    expect_code("volume-not-found");
}

static void test_forget_takes_no_body_an_empty_one_or_a_reason(void **state)
{
    (void)state;
    static const char *const good[] = {NULL, "{}", "{\"reason\":\"r\"}"};
    static const char *const bad[] = {
        "{\"reason\":\"\"}",          "{\"reason\":7}",
        "{\"reason\":null}",          "{\"why\":\"x\"}",
        "{\"reason\":\"a\\u0085b\"}", "{\"reason\":\"a\\nb\"}",
        "{\"reason\":\"a\\u007fb\"}", "[]",
    };
    char id[32];
    char target[64];
    char body[400];
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(id, sizeof(id), "held-ok%zu", i);
        (void)snprintf(target, sizeof(target), "/volumes/%s/forget", id);
        held(id);
        assert_int_equal(ask("POST", target, "", good[i]), 200);
    }
    held("held-bad2");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (ask("POST", "/volumes/held-bad2/forget", "", bad[i]) != 422)
            fail_msg("%s: %s", bad[i], answer.text);
    assert_int_equal(ask("POST", "/volumes/held-bad2/forget", "", "{\"reason\":\"x\n\"}"),
                     400);
    (void)snprintf(body, sizeof(body), "{\"reason\":\"%0257d\"}", 0);
    assert_int_equal(ask("POST", "/volumes/held-bad2/forget", "", body), 422);
    expect_text("pointer", "/reason");
    (void)snprintf(body, sizeof(body), "{\"reason\":\"%0256d\"}", 0);
    assert_int_equal(
        ask("POST", "/volumes/held-bad2/forget", "Content-Encoding: gzip\r\n", body),
        415);
    assert_int_equal(ask("POST", "/volumes/held-bad2/forget", "", body), 200);
    assert_int_equal(ask("POST", "/volumes/nobody/forget", "", NULL), 404);
    assert_int_equal(ask("POST", "/volumes/%2F/forget", "", NULL), 400);
}

static void test_orphans_are_paged_and_taken_down_by_their_own_verb(void **state)
{
    (void)state;
    static const char *const ids[] = {"held-o1", "held-o2", "held-lossy"};
    char target[64];
    for (size_t i = 0; i < 3; i++) {
        held(ids[i]);
        (void)snprintf(target, sizeof(target), "/volumes/%s/forget", ids[i]);
        assert_int_equal(ask("POST", target, "", NULL), 200);
    }
    assert_int_equal(ask("GET", "/orphans?limit=1&page_token=held-o", "", NULL), 200);
    expect_text("next_page_token", "held-o1");
    assert_int_equal(ask("GET", "/orphans?page_token=held-o1", "", NULL), 200);
    assert_non_null(strstr(answer.body, "held-o2"));
    assert_null(strstr(answer.body, "held-o1"));
    assert_non_null(strstr(answer.body, "\"next_page_token\":null"));
    assert_int_equal(ask("GET", "/orphans?limit=201", "", NULL), 400);
    assert_int_equal(ask("DELETE", "/orphans/held-lossy", "", NULL), 409);
    expect_code("data-not-written");
    assert_int_equal(
        ask("DELETE", "/orphans/held-lossy?accept_data_loss=perhaps", "", NULL), 400);
    assert_int_equal(ask("DELETE", "/v1/orphans/held-lossy?accept_data_loss=true",
                         "Prefer: respond-async\r\n", NULL),
                     202);
    assert_non_null(strstr(answer.text, "\r\nLocation: /v1/operations/op-"));
    assert_int_equal(ask("DELETE", "/orphans/-x", "", NULL), 400);
}

/* --- reading --- */

static void test_history_is_paged_by_sequence_number(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "limit=0",       "limit=1001",      "limit=",
        "page_token=",   "page_token=-1",   "page_token=0x1",
        "page_token=1+", "page_token=%201", "page_token=9223372036854775808"};
    char target[128];
    assert_int_equal(ask("PUT", "/volumes/hist", "", SPEC), 201);
    assert_int_equal(ask("GET", "/v1/volumes/hist/history", "", NULL), 200);
    assert_non_null(strstr(answer.body, "\"limit\":200"));
    assert_non_null(strstr(answer.body, "\"next_page_token\":null"));
    assert_int_equal(ask("GET", "/volumes/hist/history?limit=2", "", NULL), 200);
    expect_text("next_page_token", "2");
    assert_int_equal(
        ask("GET", "/volumes/hist/history?limit=1000&page_token=2", "", NULL), 200);
    assert_non_null(strstr(answer.body, "\"items\":[{\"seq\":3},{\"seq\":4}"));
    assert_non_null(strstr(answer.body, "\"limit\":1000"));
    assert_int_equal(
        ask("GET", "/volumes/hist/history?page_token=9223372036854775806", "", NULL),
        200);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        (void)snprintf(target, sizeof(target), "/volumes/hist/history?%s", bad[i]);
        if (ask("GET", target, "", NULL) != 400)
            fail_msg("%s: %s", bad[i], answer.text);
    }
    assert_int_equal(ask("GET", "/volumes/nobody/history", "", NULL), 404);
    assert_int_equal(ask("GET", "/volumes/-x/history", "", NULL), 400);
}

static void test_failing_answer_is_a_problem(void **state)
{
    (void)state;
    assert_int_equal(ask("PUT", "/volumes/broken", "", SPEC), 201);
    assert_int_equal(ask("GET", "/volumes/broken/history", "", NULL), 503);
    expect_code("journal-unavailable");
    assert_true(has_field("Retry-After: 1"));
    assert_int_equal(ask("GET", "/volumes/broken/holders", "", NULL), 503);
}

static void test_nothing_is_said_before_recovery_ends(void **state)
{
    (void)state;
    held("held-rec");
    (void)kill(server, SIGUSR1);
    while (ask("GET", "/readyz", "", NULL) == 200) /* until the signal is there */
        (void)poll(NULL, 0, 1);
    assert_int_equal(ask("GET", "/volumes/held-rec/history", "", NULL), 503);
    expect_code("recovering");
    assert_int_equal(ask("POST", ACTIONS("held-rec"), "", SIGNAL), 503);
    assert_int_equal(ask("POST", "/volumes/held-rec/forget", "", NULL), 503);
    assert_int_equal(ask("DELETE", "/orphans/held-rec", "", NULL), 503);
    (void)kill(server, SIGUSR1);
    while (ask("GET", "/readyz", "", NULL) != 200)
        (void)poll(NULL, 0, 1);
}

/* --- places, and the end --- */

static void test_answers_have_places_of_their_own(void **state)
{
    (void)state;
    enum {
        CLIENTS = 70
    };
    static const char text[] =
        "GET /volumes/slow-q/holders HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fds[CLIENTS];
    unsigned refused = 0;

    assert_int_equal(ask("PUT", "/volumes/slow-q", "Prefer: respond-async\r\n", SPEC),
                     202);
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = open_unix();
        say(fds[i], text, sizeof(text) - 1);
    }
    assert_int_equal(ask("GET", "/livez", "", NULL), 200);
    for (int i = 0; i < CLIENTS; i++) {
        struct pollfd pollfd = {.fd = fds[i], .events = POLLIN};
        if (poll(&pollfd, 1, 0) != 1)
            continue;
        listen_to(fds[i], false);
        assert_int_equal(answer.status, 503);
        expect_code("too-many-requests");
        assert_true(has_field("Retry-After: 1"));
        refused++;
    }
    assert_int_equal(refused, CLIENTS - 64);
    assert_int_equal(ask("GET", "/volumes/slow-q/history", "", NULL), 503);
    /* The places of clients that went away are free again, at once. */
    for (int i = 0; i < CLIENTS; i++)
        (void)close(fds[i]);
    (void)poll(NULL, 0, 50);
    assert_int_equal(ask("PUT", "/volumes/after-q", "", SPEC), 201);
    assert_int_equal(ask("GET", "/volumes/after-q/holders", "", NULL), 200);
}

static void test_stop_answers_those_who_wait(void **state)
{
    static const char *const targets[] = {"/volumes/slow-s/history",
                                          "/volumes/slow-s/holders"};
    int fds[3];
    assert_int_equal(ask("PUT", "/volumes/slow-s", "Prefer: respond-async\r\n", SPEC),
                     202);
    held("held-long-s");
    for (size_t i = 0; i < 2; i++) {
        char text[128];
        fds[i] = open_unix();
        (void)snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: a\r\n\r\n",
                       targets[i]);
        say(fds[i], text, strlen(text));
    }
    fds[2] = post_unix(ACTIONS("held-long-s"), SIGNAL);
    (void)poll(NULL, 0, 100);
    (void)kill(server, SIGTERM);
    for (size_t i = 0; i < 3; i++) {
        listen_to(fds[i], false);
        assert_int_equal(answer.status, 503);
        expect_code("shutting-down");
        assert_true(has_field("Retry-After: 1"));
        assert_true(is_closed(fds[i]));
        (void)close(fds[i]);
    }
    assert_int_equal(stop_server(state), 0);
    assert_int_equal(start_server(state), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forget_ends_the_wait_and_leaves_an_orphan),
        cmocka_unit_test(test_forget_takes_no_body_an_empty_one_or_a_reason),
        cmocka_unit_test(test_orphans_are_paged_and_taken_down_by_their_own_verb),
        cmocka_unit_test(test_history_is_paged_by_sequence_number),
        cmocka_unit_test(test_failing_answer_is_a_problem),
        cmocka_unit_test(test_nothing_is_said_before_recovery_ends),
        cmocka_unit_test(test_answers_have_places_of_their_own),
        cmocka_unit_test(test_stop_answers_those_who_wait),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
