/* SPDX-License-Identifier: Apache-2.0
 *
 * What the engine makes of what scans and examinations say: since when, until when, who;
 * and that an unmap that asks nobody waits for a complete look that finds nobody.
 */
#include "tests/unit/engine_env.h"

#include <errno.h>

#define ROW(id, kind, pid)                                                               \
    "{'id':'" id "','kind':'" kind "','certain':true,'pid':" pid                         \
    ",'start_time':5,'comm':'c','path':'/p'}"
#define SEEN(rows) "[{'complete':true,'holders':[" rows "]}]"

static struct json_object *row_of_kind(struct json_object *rows, const char *kind)
{
    size_t count = rows ? json_object_array_length(rows) : 0;
    for (size_t i = 0; i < count; i++) {
        struct json_object *row = json_object_array_get_idx(rows, i);
        if (strcmp(mr_json_get_string(row, "kind"), kind) == 0)
            return row;
    }
    return NULL;
}

static bool names_file(struct env *env)
{
    return row_of_kind(v(env)->holders, "open-file") != NULL;
}

static bool names_raw(struct env *env)
{
    return row_of_kind(v(env)->holders, "raw-device") != NULL;
}

static bool names_frozen(struct env *env)
{
    return row_of_kind(v(env)->holders, "frozen") != NULL;
}

static bool names_nobody(struct env *env)
{
    return row_of_kind(v(env)->holders, "unowned") != NULL;
}

/* --- answers on their way --- */

struct answer {
    bool came;
    struct json_object *document;
    struct mr_err err;
    bool has_err;
};

static struct answer answer;

static void on_answer(void *ctx, struct json_object *document, const struct mr_err *err)
{
    struct answer *a = ctx;
    a->came = true;
    a->document = json_object_get(document);
    a->has_err = err != NULL;
    if (err)
        a->err = *err;
}

static bool answered(struct env *env)
{
    (void)env;
    return answer.came;
}

static void forget_answer(void)
{
    (void)json_object_put(answer.document);
    memset(&answer, 0, sizeof(answer));
}

static void run_to_answer(struct env *env, struct mr_pending *pending)
{
    assert_non_null(pending);
    run_until(env, answered);
}

/* The history's events as one line. */
static const char *events(struct env *env, const char *only)
{
    static char line[1024];
    struct mr_err err;
    forget_answer();
    run_to_answer(env,
                  mr_engine_history(env->engine, "v", 0, 1000, on_answer, &answer, &err));
    struct json_object *items = mr_json_get(answer.document, "items");
    line[0] = '\0';
    for (size_t i = 0; i < json_object_array_length(items); i++) {
        const char *event =
            mr_json_get_string(json_object_array_get_idx(items, i), "event");
        if (!only || strcmp(event, only) == 0)
            (void)snprintf(line + strlen(line), sizeof(line) - strlen(line), "%s%s",
                           line[0] ? " " : "", event);
    }
    return line;
}

/* --- tests --- */

static void test_proof_says_when_each_holder_was_seen_and_left(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    script(env, "scan",
           SEEN(ROW("a1", "mount-copy", "1") "," ROW("b2", "open-file", "2")));
    struct mr_operation *op = del(env, "v");
    run_until(env, names_file);
    struct json_object *row = row_of_kind(v(env)->holders, "open-file");
    assert_non_null(mr_json_get_string(row, "first_seen"));
    assert_null(mr_json_get(row, "gone_at"));

    /* One of the two leaves; the next scan no longer sees it. */
    script(env, "scan", SEEN(ROW("a1", "mount-copy", "1")));
    forget_answer();
    run_to_answer(env, mr_engine_holders(env->engine, v(env), on_answer, &answer));
    assert_string_equal(mr_json_get_string(answer.document, "held"), "held");
    assert_false(names_file(env));
    struct json_object *left = row_of_kind(op->waited_for, "open-file");
    assert_non_null(mr_json_get_string(left, "gone_at"));
    assert_null(mr_json_get(row_of_kind(op->waited_for, "mount-copy"), "gone_at"));

    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    mr_detach_look_again(op);
    run_to_end(env, op);
    struct json_object *waited_for = mr_json_get(mr_operation_proof(op), "waited_for");
    assert_int_equal(json_object_array_length(waited_for), 2);
    for (size_t i = 0; i < 2; i++) {
        row = json_object_array_get_idx(waited_for, i);
        assert_non_null(mr_json_get_string(row, "gone_at"));
        assert_true(strcmp(mr_json_get_string(row, "first_seen"),
                           mr_json_get_string(row, "gone_at")) <= 0);
        assert_true(mr_json_get_int(row, "seen_for_ms", -1) >= 0);
    }
    assert_string_equal(events(env, "holders"), "holders holders holders");
    forget_answer();
}

static void test_who_left_before_the_detach_was_not_waited_for(void **state)
{
    struct env *env = *state;
    script(env, "scan", SEEN(ROW("z9", "cwd", "3")));
    forget_answer();
    run_to_answer(env, mr_engine_holders(env->engine, v(env), on_answer, &answer));
    assert_non_null(row_of_kind(v(env)->holders, "cwd"));
    script(env, "claim", "[{'result':'busy'}]");
    script(env, "scan", SEEN(ROW("b2", "open-file", "2")));
    struct mr_operation *op = del(env, "v");
    run_until(env, names_file);
    assert_int_equal(json_object_array_length(op->waited_for), 1);
    forget_answer();
}

static void test_one_who_comes_back_has_not_gone(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    script(env, "scan", SEEN(ROW("b2", "open-file", "2")));
    struct mr_operation *op = del(env, "v");
    run_until(env, names_file);
    script(env, "scan", SEEN(""));
    forget_answer();
    run_to_answer(env, mr_engine_holders(env->engine, v(env), on_answer, &answer));
    assert_true(names_nobody(env));
    script(env, "scan", SEEN(ROW("b2", "open-file", "2")));
    forget_answer();
    run_to_answer(env, mr_engine_holders(env->engine, v(env), on_answer, &answer));
    assert_null(mr_json_get(row_of_kind(op->waited_for, "open-file"), "gone_at"));
    forget_answer();
}

static void test_candidates_alone_leave_the_hold_unowned(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    script(env, "scan",
           SEEN("{'id':'c3','kind':'in-flight-fd','certain':false,'pid':7}"));
    (void)del(env, "v");
    run_until(env, names_nobody);
    assert_non_null(row_of_kind(v(env)->holders, "in-flight-fd"));
}

static void test_frozen_file_system_is_found_when_nobody_is_named(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    script(env, "examine", "[{'frozen':'yes'}]");
    (void)del(env, "v");
    run_until(env, names_frozen);
    assert_null(row_of_kind(v(env)->holders, "unowned"));
    struct json_object *actions =
        mr_json_get(row_of_kind(v(env)->holders, "frozen"), "actions");
    assert_string_equal(json_object_to_json_string_ext(actions, JSON_C_TO_STRING_PLAIN),
                        "[\"thaw\",\"shutdown\"]");
}

static void test_immediate_unmap_waits_for_openers(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'claimed','unmap':'immediate'}]");
    script(env, "scan", SEEN(ROW("d4", "raw-device", "9")));
    struct mr_operation *op = del(env, "v");
    run_until(env, names_raw);
    assert_true(held(env));
    assert_null(strstr(asked(env), "unmap"));
    script(env, "scan", SEEN(""));
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    struct json_object *evidence = mr_json_get(mr_operation_proof(op), "evidence");
    assert_int_equal(mr_json_get_int(evidence, "openers", -1), 0);
    assert_int_equal(mr_json_get_int(evidence, "stacked_loops", -1), 0);
}

static void test_immediate_unmap_does_not_take_an_incomplete_look_for_free(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'claimed','unmap':'immediate'}]");
    script(env, "scan", "[{'complete':false,'holders':[]}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, names_nobody);
    assert_true(held(env));
    assert_null(strstr(asked(env), "unmap"));
    script(env, "scan", SEEN(""));
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static void test_claim_that_does_not_tell_its_kind_is_gated(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'claimed'}]");
    script(env, "scan", SEEN(ROW("d4", "raw-device", "9")));
    (void)del(env, "v");
    run_until(env, names_raw);
    assert_null(strstr(asked(env), "unmap"));
}

/* --- actions --- */

static struct json_object *ids(const char *text)
{
    return parse_json(text);
}

static void expect_refusal(struct env *env, const struct mr_action_request *request,
                           enum mr_code code)
{
    struct mr_err err;
    assert_null(mr_engine_act(env->engine, "v", request, on_answer, &answer, &err));
    assert_string_equal(mr_code_slug(err.code), mr_code_slug(code));
    assert_true(err.remedy[0]);
}

static void test_actions_are_refused_unless_the_volume_is_being_detached(void **state)
{
    struct env *env = *state;
    const struct mr_action_request thaw = {.action = MR_ACTION_THAW};
    expect_refusal(env, &thaw, MR_E_NOT_DETACHING);
    assert_string_equal(asked(env), "");
}

static void start_held(struct env *env)
{
    script(env, "claim", "[{'result':'busy'}]");
    script(env, "scan",
           SEEN(ROW("a1", "mount-copy", "1") "," ROW("b2", "open-file", "2")));
    (void)del(env, "v");
    run_until(env, names_file);
    (void)asked(env);
}

static void test_actions_take_only_ids_of_the_last_scan_and_fitting_kinds(void **state)
{
    struct env *env = *state;
    start_held(env);
    struct mr_action_request request = {.action = MR_ACTION_SIGNAL,
                                        .holders = ids("['nope']")};
    expect_refusal(env, &request, MR_E_HOLDER_NOT_FOUND);
    (void)json_object_put(request.holders);
    request = (struct mr_action_request){.action = MR_ACTION_UNMOUNT_COPIES,
                                         .holders = ids("['a1','b2']")};
    expect_refusal(env, &request, MR_E_ACTION_UNSUPPORTED);
    (void)json_object_put(request.holders);
    assert_string_equal(asked(env), "");
    assert_string_equal(events(env, "action"), "");
    forget_answer();
}

static void test_loss_must_be_accepted(void **state)
{
    struct env *env = *state;
    start_held(env);
    struct mr_action_request request = {.action = MR_ACTION_SHUTDOWN};
    expect_refusal(env, &request, MR_E_LOSS_NOT_ACCEPTED);
    assert_string_equal(asked(env), "");
    assert_false(v(env)->op->accept_data_loss);
}

static struct mr_pending *act(struct env *env, struct mr_action_request request)
{
    struct mr_err err;
    forget_answer();
    struct mr_pending *pending =
        mr_engine_act(env->engine, "v", &request, on_answer, &answer, &err);
    if (!pending)
        fail_msg("%s", err.message);
    (void)json_object_put(request.holders);
    (void)json_object_put(request.caller);
    return pending;
}

static void test_action_is_journalled_with_its_caller_then_done(void **state)
{
    struct env *env = *state;
    start_held(env);
    script(env, "act",
           "[{'results':[{'holder':'a1','done':true,'detail':'unmounted'}]}]");
    struct mr_pending *pending =
        act(env, (struct mr_action_request){.action = MR_ACTION_UNMOUNT_COPIES,
                                            .holders = ids("['a1']"),
                                            .caller = ids("{'uid':7}")});
    /* A second one has to wait. */
    const struct mr_action_request thaw = {.action = MR_ACTION_THAW};
    expect_refusal(env, &thaw, MR_E_OPERATION_PENDING);
    /* Before the act a1 is still seen, after it not. */
    script(env, "scan",
           "[{'complete':true,'holders':[" ROW("a1", "mount-copy", "1") "," ROW(
               "b2", "open-file",
               "2") "]},{'complete':true,'holders':[" ROW("b2", "open-file", "2") "]}]");
    run_to_answer(env, pending);
    assert_false(answer.has_err);
    struct json_object *results = mr_json_get(answer.document, "results");
    struct json_object *result = json_object_array_get_idx(results, 0);
    assert_string_equal(mr_json_get_string(result, "kind"), "mount-copy");
    assert_true(mr_json_get_bool(result, "done", false));
    struct json_object *remaining = mr_json_get(answer.document, "remaining");
    assert_int_equal(json_object_array_length(mr_json_get(remaining, "holders")), 1);
    assert_non_null(strstr(asked(env), "act"));
    assert_string_equal(events(env, "action"), "action");
    assert_string_equal(events(env, "action_done"), "action_done");
    forget_answer();
}

static void test_nothing_is_done_to_who_let_go_meanwhile(void **state)
{
    struct env *env = *state;
    start_held(env);
    script(env, "scan", SEEN(ROW("a1", "mount-copy", "1")));
    run_to_answer(env, act(env, (struct mr_action_request){.action = MR_ACTION_SIGNAL,
                                                           .holders = ids("['b2']")}));
    struct json_object *result =
        json_object_array_get_idx(mr_json_get(answer.document, "results"), 0);
    assert_string_equal(mr_json_get_string(result, "holder"), "b2");
    assert_string_equal(mr_json_get_string(result, "detail"),
                        "does not hold it any more; nothing was done");
    forget_answer();
}

static void test_nothing_is_done_to_who_only_might_hold(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    script(env, "scan",
           SEEN("{'id':'c3','kind':'in-flight-fd','certain':false,'pid':7,"
                "'actions':['signal']}"));
    (void)del(env, "v");
    run_until(env, names_nobody);
    struct json_object *row = row_of_kind(v(env)->holders, "in-flight-fd");
    assert_int_equal(json_object_array_length(mr_json_get(row, "actions")), 0);
    const struct mr_action_request request = {.action = MR_ACTION_SIGNAL,
                                              .holders = ids("['c3']")};
    expect_refusal(env, &request, MR_E_ACTION_UNSUPPORTED);
    (void)json_object_put(request.holders);
}

static void test_action_cut_off_by_a_stop_is_told_after_the_start(void **state)
{
    struct env *env = *state;
    start_held(env);
    script(env, "act", "[{'sleep_ms':300}]");
    (void)act(env, (struct mr_action_request){.action = MR_ACTION_THAW});
    env_stop(env);
    env_start(env);
    assert_string_equal(events(env, "action"), "action");
    assert_string_equal(events(env, "action_lost"), "action_lost");
    env_stop(env);
    env_start(env);
    assert_string_equal(events(env, "action_lost"), "action_lost");
    forget_answer();
}

static void test_restart_does_not_make_a_hold_younger(void **state)
{
    struct env *env = *state;
    start_held(env);
    struct json_object *row = row_of_kind(v(env)->holders, "open-file");
    char first[MR_TIME_TEXT];
    (void)snprintf(first, sizeof(first), "%s", mr_json_get_string(row, "first_seen"));
    env_stop(env);
    env_start(env);
    run_until(env, names_file);
    row = row_of_kind(v(env)->holders, "open-file");
    assert_string_equal(mr_json_get_string(row, "first_seen"), first);
    assert_true(mr_json_get_int(row, "seen_for_ms", 0) > 0);
}

static bool no_action(struct env *env)
{
    return v(env)->act == NULL;
}

static void test_action_goes_on_when_its_client_has_gone(void **state)
{
    struct env *env = *state;
    start_held(env);
    mr_pending_cancel(act(env, (struct mr_action_request){.action = MR_ACTION_THAW}));
    forget_answer();
    run_until(env, no_action);
    assert_string_equal(events(env, "action_done"), "action_done");
    forget_answer();
}

static void test_action_whose_worker_dies_says_so(void **state)
{
    struct env *env = *state;
    start_held(env);
    script(env, "act", "[{'exit':3}]");
    run_to_answer(env, act(env, (struct mr_action_request){.action = MR_ACTION_THAW}));
    assert_true(answer.has_err);
    assert_null(v(env)->act);
    assert_string_equal(events(env, "action_failed"), "action_failed");
    forget_answer();
}

static void test_agent_may_stop_while_an_action_runs(void **state)
{
    struct env *env = *state;
    start_held(env);
    script(env, "act", "[{'sleep_ms':300}]");
    (void)act(env, (struct mr_action_request){.action = MR_ACTION_THAW});
    env_stop(env);
    assert_true(answer.came);
    assert_null(answer.document);
    assert_false(answer.has_err);
    env_start(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup_attached, teardown)
        T(test_proof_says_when_each_holder_was_seen_and_left),
        T(test_who_left_before_the_detach_was_not_waited_for),
        T(test_one_who_comes_back_has_not_gone),
        T(test_candidates_alone_leave_the_hold_unowned),
        T(test_frozen_file_system_is_found_when_nobody_is_named),
        T(test_immediate_unmap_waits_for_openers),
        T(test_immediate_unmap_does_not_take_an_incomplete_look_for_free),
        T(test_claim_that_does_not_tell_its_kind_is_gated),
        T(test_actions_are_refused_unless_the_volume_is_being_detached),
        T(test_actions_take_only_ids_of_the_last_scan_and_fitting_kinds),
        T(test_loss_must_be_accepted),
        T(test_action_is_journalled_with_its_caller_then_done),
        T(test_nothing_is_done_to_who_let_go_meanwhile),
        T(test_nothing_is_done_to_who_only_might_hold),
        T(test_action_cut_off_by_a_stop_is_told_after_the_start),
        T(test_restart_does_not_make_a_hold_younger),
        T(test_action_goes_on_when_its_client_has_gone),
        T(test_action_whose_worker_dies_says_so),
        T(test_agent_may_stop_while_an_action_runs),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
