/* SPDX-License-Identifier: Apache-2.0
 *
 * The connection to a mooring-lun: what it says is shown, nobody else's word is, and a
 * connection that fails is no failure of the volume.
 */
#include "tests/unit/engine_link_env.h"

#define RETRIES_MS 250 /* long enough for some */

static bool is_down(struct env *env)
{
    return transport_is(env, "down");
}

static bool unknown(struct env *env)
{
    return !v(env)->transport;
}

static bool was_asked(struct env *env)
{
    (void)env;
    return keeper_count(&keeper, "asked") > 0;
}

static void assert_attached(struct env *env)
{
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_false(v(env)->has_error);
    assert_int_equal(v(env)->transport_end, MR_TRANSPORT_UNKNOWN);
}

/* Now, not when the back-off ends. */
static void connect_afresh(struct env *env)
{
    mr_server_link_stop(v(env));
    mr_server_link_start(v(env));
}

/* Nothing is known, and it was asked so many times and not again. */
static void assert_given_up(struct env *env, int64_t clients)
{
    run_ms(env, RETRIES_MS);
    assert_null(v(env)->transport);
    assert_null(v(env)->fencing);
    assert_transport(env, "unknown");
    assert_attached(env);
    assert_int_equal(keeper_count(&keeper, "clients"), clients);
}

static void test_it_is_asked_once_and_shown(void **state)
{
    struct env *env = *state;
    MR_AUTO_JSON struct json_object *report = keeper_do(&keeper, "report", NULL, NULL);
    struct json_object *question = mr_json_get(report, "question");
    assert_int_equal(mr_json_get_int(question, "version", 0), 3);
    assert_string_equal(mr_json_get_string(question, "cmd"), "watch");
    assert_attached(env);
    MR_AUTO_JSON struct json_object *document = mr_volume_document(v(env));
    struct json_object *transport = mr_json_get(document, "transport");
    assert_string_equal(mr_json_get_string(transport, "state"), "up");
    assert_string_equal(mr_json_get_string(transport, "portal"), "10.0.0.1:3260");
    struct json_object *fencing = mr_json_get(document, "fencing");
    assert_string_equal(mr_json_get_string(fencing, "holder"), KEY);
    run_ms(env, RETRIES_MS);
    assert_int_equal(keeper_count(&keeper, "asked"), 1);
    assert_int_equal(keeper_count(&keeper, "clients"), 1);
}

static void test_a_volume_without_a_server_says_nothing(void **state)
{
    struct env *env = *state;
    MR_AUTO_JSON struct json_object *document = mr_volume_document(v(env));
    struct json_object *value = NULL;
    assert_true(json_object_object_get_ex(document, "transport", &value));
    assert_null(value);
    assert_true(json_object_object_get_ex(document, "fencing", &value));
    assert_null(value);
}

static void test_every_change_comes_by_itself(void **state)
{
    struct env *env = *state;
    uint64_t generation = mr_volume_generation(v(env));
    keeper_says(env, DOWN);
    run_until(env, is_down);
    assert_true(mr_volume_generation(v(env)) > generation);
    assert_string_equal(mr_json_get_string(v(env)->transport, "reason"),
                        "connection reset");
    assert_attached(env);
    keeper_says(env, UP);
    run_until(env, is_up);
    assert_attached(env);
}

static void test_what_is_said_twice_changes_nothing(void **state)
{
    struct env *env = *state;
    uint64_t generation = mr_volume_generation(v(env));
    keeper_says(env, UP);
    run_ms(env, 50);
    assert_int_equal(mr_volume_generation(v(env)), generation);
}

static void test_it_is_asked_again_when_it_hangs_up(void **state)
{
    struct env *env = *state;
    (void)json_object_put(keeper_do(&keeper, "hang_up", NULL, NULL));
    run_until(env, unknown); /* not what it was, once */
    assert_transport(env, "unknown");
    assert_attached(env);
    run_until(env, is_up);
    assert_int_equal(keeper_count(&keeper, "asked"), 2);
}

static void test_a_full_queue_is_tried_again(void **state)
{
    struct env *env = *state;
    char path[PATH_MAX];
    socket_path(env, path);
    (void)json_object_put(keeper_do(&keeper, "be_full", path, status(env, UP)));
    run_ms(env, RETRIES_MS);
    assert_null(v(env)->transport);
    assert_attached(env);
    (void)json_object_put(keeper_do(&keeper, "make_room", NULL, NULL));
    run_until(env, is_up);
}

static void test_another_process_at_the_socket_is_not_believed(void **state)
{
    struct env *env = *state;
    char path[PATH_MAX];
    socket_path(env, path);
    int fd = keeper_bind(path, 8);
    connect_afresh(env);
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    char byte;
    assert_true(client >= 0);
    assert_int_equal(recv(client, &byte, 1, MSG_DONTWAIT), 0); /* and nothing was asked */
    (void)close(client);
    (void)close(fd);
    keeper_listens(env, status(env, UP));
    assert_given_up(env, 0);
}

static void test_an_older_server_is_left_alone(void **state)
{
    struct env *env = *state;
    static const char *const old[] = {
        "{\"ok\":false}",
        "{\"ok\":false,\"version\":2,\"oldest\":1,\"error\":{\"code\":\"internal\"}}",
        "{\"ok\":false,\"version\":9,\"oldest\":4}",
        "{\"ok\":false,\"version\":\"3\"}",
    };
    for (size_t i = 0; i < sizeof(old) / sizeof(old[0]); i++) {
        keeper_listens(env, old[i]);
        connect_afresh(env);
        assert_given_up(env, (int64_t)i + 1);
    }
}

static void test_a_refusal_is_tried_again(void **state)
{
    struct env *env = *state;
    keeper_listens(env, "{\"ok\":false,\"version\":3,\"oldest\":1}");
    run_until(env, was_asked);
    (void)json_object_put(keeper_do(&keeper, "say", NULL, status(env, UP)));
    run_until(env, is_up);
}

static void test_hostile_answers_are_not_taken(void **state)
{
    struct env *env = *state;
    static const char *const wrong[] = {
        "[]",
        "nonsense",
        "{\"ok\":true,\"version\":3}",
        "{\"ok\":true,\"version\":3,\"token\":\"x\",\"pid\":1,"
        "\"transport\":{\"state\":\"fenced\"}}",
    };
    static const char *const ours[] = {
        "'transport':null",
        "'transport':{'state':'elsewhere'}",
        "'state':'up'",
        "'token':'00112233445566778899aabbccddeeff'," UP,
    };
    size_t count = sizeof(wrong) / sizeof(wrong[0]);
    size_t more = sizeof(ours) / sizeof(ours[0]);
    char text[1024];
    for (size_t i = 0; i < count + more + 1; i++) {
        if (i < count)
            keeper_listens(env, wrong[i]);
        else if (i < count + more)
            keeper_listens(env, status(env, ours[i - count]));
        else { /* of another process */
            (void)snprintf(text, sizeof(text), "%s", status(env, FENCED));
            strstr(text, "\"pid\": ")[7] = '9';
            keeper_listens(env, text);
        }
        connect_afresh(env);
        assert_given_up(env, (int64_t)i + 1);
    }
}

static void test_a_state_that_may_pass_is_no_failure(void **state)
{
    struct env *env = *state;
    static const char *const states[] = {
        TRANSPORT("connecting", ""),
        TRANSPORT("down", ""),
        TRANSPORT("failed", ",'reason':'replacement timeout'"),
        TRANSPORT("stopping", ""),
    };
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        keeper_says(env, states[i]);
        run_ms(env, 50);
        assert_false(is_up(env));
        assert_null(v(env)->fencing);
        assert_attached(env);
    }
    keeper_says(env, UP);
    run_until(env, is_up);
    assert_attached(env);
}

static void test_its_end_is_the_end_of_what_it_said(void **state)
{
    struct env *env = *state;
    keeper_end(&keeper);
    run_until(env, is_failed);
    assert_true(v(env)->server_lost);
    assert_null(v(env)->transport);
    assert_null(v(env)->fencing);
    assert_null(v(env)->link);
    assert_transport(env, NULL);
}

static void test_a_detach_ends_the_connection(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = del(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_null(v(env)->link);
    assert_transport(env, NULL);
    run_ms(env, 50);
    MR_AUTO_JSON struct json_object *report = keeper_do(&keeper, "report", NULL, NULL);
    assert_false(mr_json_get_bool(report, "connected", true));
}

static void test_the_next_agent_asks_again(void **state)
{
    struct env *env = *state;
    env_stop(env);
    env_start(env);
    assert_transport(env, "unknown");
    run_until(env, recovered);
    assert_true(is_up(env)); /* the start is not over before that */
    assert_attached(env);
    assert_int_equal(keeper_count(&keeper, "asked"), 2);
}

static void test_who_does_not_answer_is_waited_for_only_a_moment(void **state)
{
    struct env *env = *state;
    (void)json_object_put(keeper_do(&keeper, "say", NULL, ""));
    env_stop(env);
    int64_t start_ns = mr_now_ns();
    env_start(env);
    run_until(env, recovered);
    assert_true(mr_now_ns() - start_ns >= 900 * MR_NS_PER_MS);
    assert_transport(env, "unknown");
    assert_attached(env);
    keeper_says(env, UP); /* when it is better */
    run_until(env, is_up);
    assert_transport(env, "up");
}

#define MUTE(f) cmocka_unit_test_setup_teardown(f, setup_mute, teardown_keeper)
#define LINKED(f) cmocka_unit_test_setup_teardown(f, setup_up, teardown_keeper)

static void test_what_failed_is_asked_after_a_start_too(void **state)
{
    struct env *env = *state;
    script(env, "look", "[{'found':true,'mounted':'absent'}]");
    for (int i = 0; i < 2; i++) { /* found so by the look, then by the journal */
        env_stop(env);
        env_start(env);
        run_until(env, recovered);
        assert_int_equal(v(env)->state, MR_STATE_FAILED);
        run_until(env, is_up);
        assert_int_equal(v(env)->state, MR_STATE_FAILED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LINKED(test_it_is_asked_once_and_shown),
        cmocka_unit_test_setup_teardown(test_a_volume_without_a_server_says_nothing,
                                        setup_attached, teardown),
        LINKED(test_every_change_comes_by_itself),
        LINKED(test_what_is_said_twice_changes_nothing),
        LINKED(test_it_is_asked_again_when_it_hangs_up),
        MUTE(test_a_full_queue_is_tried_again),
        MUTE(test_another_process_at_the_socket_is_not_believed),
        MUTE(test_an_older_server_is_left_alone),
        MUTE(test_a_refusal_is_tried_again),
        MUTE(test_hostile_answers_are_not_taken),
        LINKED(test_a_state_that_may_pass_is_no_failure),
        LINKED(test_its_end_is_the_end_of_what_it_said),
        LINKED(test_a_detach_ends_the_connection),
        LINKED(test_the_next_agent_asks_again),
        LINKED(test_who_does_not_answer_is_waited_for_only_a_moment),
        LINKED(test_what_failed_is_asked_after_a_start_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
