/* SPDX-License-Identifier: Apache-2.0
 *
 * Ending a hold: what reaches the engine, from whom, and what is refused before.
 */
#include "api_env.h"

static int actions_done(const char *volume)
{
    assert_int_equal(ask("GET", volume, "", NULL), 200);
    MR_AUTO_JSON struct json_object *document = json_tokener_parse(answer.body);
    return (int)mr_json_get_int(document, "actions_done", -1);
}

/* --- actions --- */

static void test_action_reaches_the_engine_as_asked(void **state)
{
    (void)state;
    held("held-act");
    assert_int_equal(
        ask("POST", "/v1" ACTIONS("held-act"), "",
            "{\"action\":\"signal\",\"holders\":[\"a1\",\"b2\"],\"signal\":\"KILL\","
            "\"accept_data_loss\":true}"),
        200);
    expect_text("action", "signal");
    expect_text("volume", "held-act");
    expect_text("signal", "KILL");
    assert_non_null(strstr(answer.body, "\"holders\":[\"a1\",\"b2\"]"));
    assert_non_null(strstr(answer.body, "\"accept_data_loss\":true"));
    assert_int_equal(ask("POST", ACTIONS("held-act"), "", SIGNAL), 200);
    assert_non_null(strstr(answer.body, "\"signal\":null"));
    assert_non_null(strstr(answer.body, "\"accept_data_loss\":false"));
    assert_int_equal(ask("POST", ACTIONS("held-act"), "", "{\"action\":\"thaw\"}"), 200);
    expect_text("action", "thaw");
    assert_non_null(strstr(answer.body, "\"holders\":null"));
}

static void test_action_refused_by_the_engine_is_a_problem(void **state)
{
    (void)state;
    assert_int_equal(ask("POST", ACTIONS("nobody"), "", SIGNAL), 404);
    expect_code("volume-not-found");
    expect_text("volume", "nobody");
    assert_int_equal(ask("PUT", "/volumes/idle", "", SPEC), 201);
    assert_int_equal(ask("POST", ACTIONS("idle"), "", SIGNAL), 409);
    expect_code("not-detaching");
    held("held-no");
    assert_int_equal(ask("POST", ACTIONS("held-no"), "",
                         "{\"action\":\"unmount-copies\",\"holders\":[\"gone\"]}"),
                     409);
    expect_code("holder-not-found");
    assert_non_null(strstr(answer.body, "\"holders\":[{\"pid\":42}]")); /* who is there */
    assert_int_equal(ask("POST", ACTIONS("held-no"), "", "{\"action\":\"shutdown\"}"),
                     409);
    expect_code("loss-not-accepted");
    assert_int_equal(ask("POST", ACTIONS("held-no"), "",
                         "{\"action\":\"cut-transport\",\"accept_data_loss\":true}"),
                     422);
    expect_code("action-unsupported");
    assert_int_equal(actions_done("/volumes/held-no"), 0);
}

static void test_nonsensical_action_is_refused_with_pointer(void **state)
{
    (void)state;
    static const struct {
        const char *body, *code, *pointer, *text;
    } bad[] = {
        {"{}", "invalid-spec", "/action", "missing"},
        {"{\"action\":\"reboot\"}", "invalid-spec", "/action", "unmount-copies, signal"},
        {"{\"action\":\"\"}", "invalid-spec", "/action", "expected"},
        {"{\"action\":7}", "invalid-spec", "/action", "got int"},
        {"{\"action\":null}", "invalid-spec", "/action", "got null"},
        {"{\"action\":\"thaw\",\"force\":true}", "unknown-field", "/force",
         "known fields here: action, holders, signal, accept_data_loss"},
        {"{\"action\":\"signal\"}", "invalid-spec", "/holders", "missing"},
        {"{\"action\":\"unmount-copies\"}", "invalid-spec", "/holders",
         "'unmount-copies' among"},
        {"{\"action\":\"unmount-overlay\"}", "invalid-spec", "/holders", "missing"},
        {"{\"action\":\"signal\",\"holders\":[]}", "invalid-spec", "/holders", "1 to"},
        {"{\"action\":\"signal\",\"holders\":null}", "invalid-spec", "/holders", "null"},
        {"{\"action\":\"signal\",\"holders\":\"a\"}", "invalid-spec", "/holders", "1 to"},
        {"{\"action\":\"signal\",\"holders\":[\"a\",7]}", "invalid-spec", "/holders/1",
         "got int"},
        {"{\"action\":\"signal\",\"holders\":[\"a\",\"a\"]}", "invalid-spec",
         "/holders/1", "twice"},
        {"{\"action\":\"signal\",\"holders\":[\"\"]}", "invalid-spec", "/holders/0",
         "ids of holders"},
        {"{\"action\":\"thaw\",\"holders\":[\"a\"]}", "invalid-spec", "/holders",
         "volume as a whole"},
        {"{\"action\":\"shutdown\",\"holders\":[\"a\"]}", "invalid-spec", "/holders",
         "leave /holders out"},
        {"{\"action\":\"signal\",\"holders\":[\"a\"],\"signal\":\"HUP\"}", "invalid-spec",
         "/signal", "TERM or KILL"},
        {"{\"action\":\"signal\",\"holders\":[\"a\"],\"signal\":9}", "invalid-spec",
         "/signal", "TERM or KILL"},
        {"{\"action\":\"thaw\",\"signal\":\"KILL\"}", "invalid-spec", "/signal",
         "leave /signal out"},
        {"{\"action\":\"thaw\",\"accept_data_loss\":\"true\"}", "invalid-spec",
         "/accept_data_loss", "true or false"},
    };
    held("held-bad");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (ask("POST", ACTIONS("held-bad"), "", bad[i].body) != 422 ||
            !strstr(answer.body, bad[i].text))
            fail_msg("%s: %s", bad[i].body, answer.text);
        expect_code(bad[i].code);
        expect_text("pointer", bad[i].pointer);
    }
    assert_int_equal(ask("POST", ACTIONS("held-bad"), "", "[]"), 422);
    assert_int_equal(ask("POST", ACTIONS("held-bad"), "", "{"), 400);
    assert_int_equal(ask("POST", ACTIONS("held-bad"), "", NULL), 400);
    assert_int_equal(ask("POST", ACTIONS("-x"), "", SIGNAL), 400);
    assert_int_equal(ask("GET", ACTIONS("held-bad"), "", NULL), 405);
    assert_true(has_field("Allow: POST"));
    assert_int_equal(actions_done("/volumes/held-bad"), 0);
}

static void test_action_takes_up_to_200_holders(void **state)
{
    (void)state;
    char body[4000] = "{\"action\":\"signal\",\"holders\":[\"h0\"";
    held("held-many");
    for (int i = 1; i < 200; i++)
        (void)snprintf(body + strlen(body), sizeof(body) - strlen(body), ",\"h%d\"", i);
    size_t end = strlen(body);
    (void)snprintf(body + end, sizeof(body) - end, "]}");
    assert_int_equal(ask("POST", ACTIONS("held-many"), "", body), 200);
    (void)snprintf(body + end, sizeof(body) - end, ",\"h200\"]}");
    assert_int_equal(ask("POST", ACTIONS("held-many"), "", body), 422);
    expect_text("pointer", "/holders");
}

static void test_action_goes_on_when_its_client_hangs_up(void **state)
{
    (void)state;
    held("held-long-1");
    int fd = post_unix(ACTIONS("held-long-1"), SIGNAL);
    (void)poll(NULL, 0, 50);
    (void)close(fd);
    assert_int_equal(actions_done("/volumes/held-long-1"), 0);
    for (int64_t end = mr_now_ns() + 5 * MR_NS_PER_S;
         actions_done("/volumes/held-long-1") == 0 && mr_now_ns() < end;)
        (void)poll(NULL, 0, 10);
    assert_int_equal(actions_done("/volumes/held-long-1"), 1);
}

static void test_half_closed_client_gets_its_answer(void **state)
{
    (void)state;
    held("held-long-2");
    int fd = post_unix(ACTIONS("held-long-2"), SIGNAL);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    listen_to(fd, false);
    assert_int_equal(answer.status, 200);
    expect_text("action", "signal");
    (void)close(fd);
}

/* --- who asks --- */

static void test_caller_on_a_unix_socket_is_the_process(void **state)
{
    (void)state;
    struct json_object *caller = NULL;
    held("held-uid");
    assert_int_equal(ask("POST", ACTIONS("held-uid"), "", SIGNAL), 200);
    MR_AUTO_JSON struct json_object *document = json_tokener_parse(answer.body);
    caller = mr_json_get(document, "caller");
    assert_string_equal(mr_json_get_string(caller, "via"), "unix");
    assert_int_equal(mr_json_get_int(caller, "uid", -1), getuid());
    assert_int_equal(mr_json_get_int(caller, "gid", -1), getgid());
    assert_int_equal(mr_json_get_int(caller, "pid", -1), getpid());
    assert_int_equal(json_object_object_length(caller), 4);
}

static void test_caller_on_tcp_is_the_address(void **state)
{
    (void)state;
    struct sockaddr_in own;
    socklen_t bytes = sizeof(own);
    char text[64];
    held("held-tcp");
    int fd =
        post(&tcp_address, sizeof(tcp_address), AF_INET, ACTIONS("held-tcp"), SIGNAL);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &bytes), 0);
    listen_to(fd, false);
    (void)close(fd);
    assert_int_equal(answer.status, 200);
    (void)snprintf(text, sizeof(text), "127.0.0.1:%u", ntohs(own.sin_port));
    MR_AUTO_JSON struct json_object *document = json_tokener_parse(answer.body);
    struct json_object *caller = mr_json_get(document, "caller");
    assert_string_equal(mr_json_get_string(caller, "via"), "tcp");
    assert_string_equal(mr_json_get_string(caller, "address"), text);
    assert_int_equal(json_object_object_length(caller), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_action_reaches_the_engine_as_asked),
        cmocka_unit_test(test_action_refused_by_the_engine_is_a_problem),
        cmocka_unit_test(test_nonsensical_action_is_refused_with_pointer),
        cmocka_unit_test(test_action_takes_up_to_200_holders),
        cmocka_unit_test(test_action_goes_on_when_its_client_hangs_up),
        cmocka_unit_test(test_half_closed_client_gets_its_answer),
        cmocka_unit_test(test_caller_on_a_unix_socket_is_the_process),
        cmocka_unit_test(test_caller_on_tcp_is_the_address),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
