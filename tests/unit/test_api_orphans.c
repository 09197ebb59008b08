/* SPDX-License-Identifier: Apache-2.0
 *
 * What is left over in the kernel: listing it, adopting it and taking it down, and
 * reconciling.
 */
#include "api_env.h"

#define ZEROS "0000000000000000000000000000000"
#define HELD "/orphans/orphan-0" ZEROS
#define LOSSY "/orphans/orphan-1" ZEROS
#define LATE "/orphans/orphan-2" ZEROS
#define PLAIN "/orphans/orphan-a" ZEROS
#define ENDLESS "/orphans/orphan-f" ZEROS

/* fake_engine.h: how surveys go as long as this volume is there. */
static void set_survey(const char *id, bool there)
{
    char target[64];
    (void)snprintf(target, sizeof(target), "/volumes/%s", id);
    if (there)
        assert_int_equal(ask("PUT", target, "", SPEC), 201);
    else
        assert_int_equal(ask("DELETE", target, "", NULL), 200);
}

/* The orphan of this id in the last answer: its kind, or NULL. */
static const char *kind_of(struct json_object *page, const char *id)
{
    struct json_object *items = mr_json_get(page, "items");
    for (size_t i = 0; i < json_object_array_length(items); i++) {
        struct json_object *item = json_object_array_get_idx(items, i);
        if (strcmp(mr_json_get_string(item, "id"), id) == 0)
            return mr_json_get_string(item, "kind");
    }
    return NULL;
}

static void expect_kind(const char *id, const char *kind)
{
    assert_int_equal(ask("GET", "/orphans", "", NULL), 200);
    MR_AUTO_JSON struct json_object *page = json_tokener_parse(answer.body);
    const char *found = kind_of(page, id);
    if (kind ? !found || strcmp(found, kind) != 0 : found != NULL)
        fail_msg("'%s' is not %s: %s", id, kind ? kind : "absent", answer.text);
}

/* --- the list --- */

static void test_list_has_forgotten_and_unknown_ones(void **state)
{
    (void)state;
    held("held-l");
    assert_int_equal(ask("POST", "/volumes/held-l/forget", "", NULL), 200);
    assert_int_equal(ask("GET", "/v1/orphans", "", NULL), 200);
    MR_AUTO_JSON struct json_object *page = json_tokener_parse(answer.body);
    assert_string_equal(kind_of(page, "held-l"), "forgotten");
    assert_string_equal(kind_of(page, "orphan-a" ZEROS), "unknown");
    assert_int_equal(json_object_array_length(mr_json_get(page, "items")), 5);
    assert_false(mr_json_get_bool(page, "complete", true));
    expect_text("searched_at", "2026-11-22T10:14:00.000Z");
    assert_non_null(strstr(answer.body, "\"next_page_token\":null"));
    assert_int_equal(ask("DELETE", "/orphans/held-l", "", NULL), 200);
}

static void test_pages_have_each_orphan_once(void **state)
{
    (void)state;
    static const char digits[] = "012a";
    char target[128] = "/orphans?limit=1";
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(ask("GET", target, "", NULL), 200);
        MR_AUTO_JSON struct json_object *page = json_tokener_parse(answer.body);
        struct json_object *items = mr_json_get(page, "items");
        char id[64];
        (void)snprintf(id, sizeof(id), "orphan-%c" ZEROS, digits[i]);
        assert_int_equal(json_object_array_length(items), 1);
        assert_non_null(kind_of(page, id));
        assert_false(mr_json_get_bool(page, "complete", true));
        const char *token = mr_json_get_string(page, "next_page_token");
        if (i == 3)
            assert_null(token);
        else
            assert_string_equal(token, id);
        (void)snprintf(target, sizeof(target), "/orphans?limit=1&page_token=%s", id);
    }
    assert_int_equal(ask("GET", "/orphans?page_token=z", "", NULL), 200);
    assert_non_null(strstr(answer.body, "\"items\":[]"));
    /* One that is there no more is as good a place to go on from. */
    assert_int_equal(ask("GET", "/orphans?limit=2&page_token=orphan-00", "", NULL), 200);
    expect_text("next_page_token", "orphan-1" ZEROS);
}

static void test_wrong_page_is_refused_without_a_search(void **state)
{
    (void)state;
    static const char *const bad[] = {"limit=0", "limit=201", "limit=x",
                                      "page_token=", "page_token=a/b"};
    char target[64];
    set_survey("survey-broken", true);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        (void)snprintf(target, sizeof(target), "/orphans?%s", bad[i]);
        if (ask("GET", target, "", NULL) != 400)
            fail_msg("%s: %s", bad[i], answer.text);
        expect_code("invalid-request");
    }
    set_survey("survey-broken", false);
}

/* --- taking one down --- */

static void test_unknown_orphan_is_adopted_then_taken_down(void **state)
{
    (void)state;
    assert_int_equal(ask("DELETE", "/v1" PLAIN, "Prefer: wait=9\r\n", NULL), 200);
    expect_text("volume", "orphan-a" ZEROS);
    assert_true(has_field("Vary: Prefer"));
    assert_true(has_field("Preference-Applied: wait=9"));
    expect_kind("orphan-a" ZEROS, NULL);
    assert_int_equal(ask("DELETE", PLAIN, "", NULL), 404);
    expect_code("volume-not-found");
    assert_int_equal(ask("DELETE", "/volumes/orphan-a" ZEROS, "", NULL), 200);
    expect_text("volume", "orphan-a" ZEROS);
}

static void test_held_orphan_is_waited_for_and_joined(void **state)
{
    (void)state;
    char location[128];
    int64_t start = mr_now_ns();
    assert_int_equal(ask("DELETE", "/v1" HELD, "Prefer: wait=1\r\n", NULL), 202);
    assert_in_range(mr_now_ns() - start, MR_NS_PER_S, 3 * MR_NS_PER_S);
    expect_text("state", "detaching");
    assert_true(has_field("Retry-After: 1"));
    const char *found = strstr(answer.text, "\r\nLocation: /v1/operations/op-");
    assert_non_null(found);
    assert_int_equal(sscanf(found, "\r\nLocation: %127s", location), 1);
    /* Known now, with who asked for it. */
    expect_kind("orphan-0" ZEROS, "forgotten");
    assert_non_null(strstr(answer.body, "\"via\":\"unix\""));
    /* Every wait gives its place back: there are 64. */
    for (int i = 0; i < 70; i++) {
        if (ask("DELETE", "/v1" HELD, "Prefer: respond-async\r\n", NULL) != 202)
            fail_msg("request %d: %s", i, answer.text);
        assert_non_null(strstr(answer.text, location));
    }
}

static void test_half_closed_client_is_told_that_it_goes_on(void **state)
{
    (void)state;
    static const char text[] = "DELETE " HELD " HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int64_t start = mr_now_ns();
    int fd = open_unix();
    say(fd, text, sizeof(text) - 1);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    listen_to(fd, false);
    assert_int_equal(answer.status, 202);
    assert_in_range(mr_now_ns() - start, 0, 5 * MR_NS_PER_S);
    (void)close(fd);
}

static void test_loss_must_be_accepted(void **state)
{
    (void)state;
    assert_int_equal(ask("DELETE", LOSSY "?accept_data_loss=perhaps", "", NULL), 400);
    expect_kind("orphan-1" ZEROS, "unknown"); /* nothing was begun */
    assert_int_equal(ask("DELETE", LOSSY, "", NULL), 409);
    expect_code("data-not-written");
    assert_true(has_field("Vary: Prefer"));
    expect_kind("orphan-1" ZEROS, "forgotten");
    assert_int_equal(ask("DELETE", LOSSY "?accept_data_loss=false", "", NULL), 409);
    assert_int_equal(ask("DELETE", LOSSY "?accept_data_loss=true", "", NULL), 200);
    expect_kind("orphan-1" ZEROS, NULL);
}

static void test_adoption_that_fails_is_a_problem(void **state)
{
    (void)state;
    static const struct {
        char digit;
        int status;
        const char *code;
    } bad[] = {{'b', 503, "journal-unavailable"},
               {'c', 404, "volume-not-found"},
               {'d', 502, "device-error"},
               {'e', 500, "internal"}};
    char target[64];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        (void)snprintf(target, sizeof(target), "/orphans/orphan-%c" ZEROS, bad[i].digit);
        assert_int_equal(ask("DELETE", target, "", NULL), bad[i].status);
        expect_code(bad[i].code);
        expect_text("volume", target + strlen("/orphans/"));
        assert_true(has_field("Vary: Prefer"));
        assert_int_equal(has_field("Retry-After: 1"), bad[i].status == 503);
    }
}

/* Those that are no "orphan-TOKEN" can only be volumes: no kernel is searched. */
static void test_other_ids_are_not_adopted(void **state)
{
    (void)state;
    static const char *const ids[] = {
        "orphan-a",       "orphan-a" ZEROS "0", "orphan-A" ZEROS,   "orphan-g" ZEROS,
        "Orphan-a" ZEROS, "orphan_a" ZEROS,     "a00" ZEROS "1234", "orphan-",
    };
    char target[64];
    set_survey("survey-memory", true);
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        (void)snprintf(target, sizeof(target), "/orphans/%s", ids[i]);
        assert_int_equal(ask("DELETE", target, "", NULL), 404);
        expect_code("volume-not-found");
    }
    assert_int_equal(ask("DELETE", LATE, "", NULL), 500);
    expect_code("internal");
    set_survey("survey-memory", false);
}

static void test_adoption_goes_on_when_its_client_hangs_up(void **state)
{
    (void)state;
    static const char text[] = "DELETE " LATE " HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fd = open_unix();
    say(fd, text, sizeof(text) - 1);
    (void)poll(NULL, 0, 50);
    (void)close(fd);
    expect_kind("orphan-2" ZEROS, "unknown");
    for (int64_t end = mr_now_ns() + 5 * MR_NS_PER_S;
         ask("GET", "/volumes/orphan-2" ZEROS, "", NULL) != 200 && mr_now_ns() < end;)
        (void)poll(NULL, 0, 10);
    expect_kind("orphan-2" ZEROS, "forgotten");
    assert_int_equal(ask("GET", "/volumes/orphan-2" ZEROS, "", NULL), 200);
    expect_text("state", "orphan"); /* what was not accepted is not begun */
    assert_int_equal(ask("DELETE", LATE, "", NULL), 200);
}

/* --- reconciling --- */

static void test_reconcile_answers_with_what_it_found(void **state)
{
    (void)state;
    static const char *const good[] = {NULL, "{}", " {\n} "};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(ask("POST", "/v1/reconcile", "", good[i]), 200);
        assert_true(has_field("Content-Type: application/json"));
        assert_non_null(strstr(answer.body, "\"looked\":2,\"orphans\":4"));
    }
}

static void test_reconcile_takes_no_fields(void **state)
{
    (void)state;
    assert_int_equal(ask("POST", "/reconcile", "", "{\"volumes\":[\"a\"]}"), 422);
    expect_code("unknown-field");
    expect_text("pointer", "/volumes");
    expect_text("remedy", "send no body, or {}");
    assert_int_equal(ask("POST", "/reconcile", "", "[]"), 422);
    expect_code("invalid-spec");
    assert_int_equal(ask("POST", "/reconcile", "", "{"), 400);
    assert_int_equal(ask("POST", "/reconcile", "Content-Encoding: gzip\r\n", "{}"), 415);
    assert_int_equal(ask("POST", "/reconcile?volume=a", "", NULL), 400);
    assert_int_equal(ask("GET", "/reconcile", "", NULL), 405);
    assert_true(has_field("Allow: POST"));
}

/* --- what can go wrong with all of them --- */

static void test_failing_survey_is_a_problem(void **state)
{
    (void)state;
    static const char *const faults[] = {"survey-broken", "survey-memory", "survey-odd"};
    for (size_t i = 0; i < 3; i++) {
        bool odd = i == 2; /* has no items: only a list can miss them */
        set_survey(faults[i], true);
        assert_int_equal(ask("GET", "/orphans", "", NULL), 500);
        expect_code("internal");
        assert_int_equal(ask("POST", "/reconcile", "", NULL), odd ? 200 : 500);
        set_survey(faults[i], false);
    }
    assert_int_equal(ask("GET", "/orphans", "", NULL), 200);
}

static void test_nothing_is_said_before_recovery_ends(void **state)
{
    (void)state;
    (void)kill(server, SIGUSR1);
    while (ask("GET", "/readyz", "", NULL) == 200) /* until the signal is there */
        (void)poll(NULL, 0, 1);
    assert_int_equal(ask("GET", "/orphans", "", NULL), 503);
    expect_code("recovering");
    assert_int_equal(ask("POST", "/reconcile", "", NULL), 503);
    expect_code("recovering");
    assert_int_equal(ask("DELETE", LATE, "", NULL), 503);
    expect_code("recovering");
    assert_true(has_field("Retry-After: 1"));
    (void)kill(server, SIGUSR1);
    while (ask("GET", "/readyz", "", NULL) != 200)
        (void)poll(NULL, 0, 1);
}

static int start_asking(const char *line)
{
    char text[256];
    int fd = open_unix();
    (void)snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: localhost\r\n\r\n", line);
    say(fd, text, strlen(text));
    return fd;
}

static void test_clients_that_hang_up_free_their_places(void **state)
{
    (void)state;
    enum {
        CLIENTS = 64
    };
    static const char *const lines[] = {"GET /orphans", "POST /reconcile",
                                        "DELETE " ENDLESS};
    int fds[CLIENTS];
    set_survey("survey-slow", true);
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = start_asking(lines[i % 3]);
    assert_int_equal(ask("GET", "/livez", "", NULL), 200);
    for (size_t i = 0; i < 3; i++) {
        int fd = start_asking(lines[i]);
        listen_to(fd, false);
        assert_int_equal(answer.status, 503);
        expect_code("too-many-requests");
        (void)close(fd);
    }
    for (int i = 0; i < CLIENTS; i++)
        (void)close(fds[i]);
    (void)poll(NULL, 0, 50);
    set_survey("survey-slow", false);
    assert_int_equal(ask("GET", "/orphans", "", NULL), 200);
}

static void test_stop_answers_those_who_wait(void **state)
{
    int fds[4];
    assert_int_equal(stop_server(state), 0);
    assert_int_equal(start_server(state), 0); /* all orphans are there again */
    set_survey("survey-slow", true);
    fds[0] = start_asking("GET /orphans");
    fds[1] = start_asking("POST /reconcile");
    fds[2] = start_asking("DELETE " ENDLESS); /* in its first wait */
    fds[3] = start_asking("DELETE " HELD);    /* in its second */
    (void)poll(NULL, 0, 150);
    (void)kill(server, SIGTERM);
    for (size_t i = 0; i < 4; i++) {
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
        cmocka_unit_test(test_list_has_forgotten_and_unknown_ones),
        cmocka_unit_test(test_pages_have_each_orphan_once),
        cmocka_unit_test(test_wrong_page_is_refused_without_a_search),
        cmocka_unit_test(test_unknown_orphan_is_adopted_then_taken_down),
        cmocka_unit_test(test_held_orphan_is_waited_for_and_joined),
        cmocka_unit_test(test_half_closed_client_is_told_that_it_goes_on),
        cmocka_unit_test(test_loss_must_be_accepted),
        cmocka_unit_test(test_adoption_that_fails_is_a_problem),
        cmocka_unit_test(test_other_ids_are_not_adopted),
        cmocka_unit_test(test_adoption_goes_on_when_its_client_hangs_up),
        cmocka_unit_test(test_reconcile_answers_with_what_it_found),
        cmocka_unit_test(test_reconcile_takes_no_fields),
        cmocka_unit_test(test_failing_survey_is_a_problem),
        cmocka_unit_test(test_nothing_is_said_before_recovery_ends),
        cmocka_unit_test(test_clients_that_hang_up_free_their_places),
        cmocka_unit_test(test_stop_answers_those_who_wait),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
