/* SPDX-License-Identifier: Apache-2.0
 *
 * A journal that cannot be written for a while: what is new is refused and leaves no
 * trace, what could not be written is written late, and nobody is told what is not
 * durable.
 */
#include "tests/unit/engine_faults_env.h"

static void expect_refused(const struct mr_operation *op)
{
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(mr_operation_error(op)->code, MR_E_JOURNAL_UNAVAILABLE);
}

static struct mr_operation *start_held(struct env *env)
{
    script(env, "claim", "[{'result':'busy'}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, held);
    (void)asked(env);
    return op;
}

static void let_go(struct env *env)
{
    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    if (v(env)->op)
        mr_detach_look_again(v(env)->op);
}

/* --- intents --- */

static bool retention_looked(struct env *env)
{
    return env->engine->retention.heap_index == 0;
}

static bool forgotten_again(struct env *env)
{
    return mr_engine_lookup(env->engine, "w") == NULL;
}

static void test_new_attach_is_refused_and_leaves_nothing(void **state)
{
    struct env *env = *state;
    run_until(env, retention_looked);
    fail_records(env, "all");
    struct mr_operation *op = put(env, "w");
    run_to_end(env, op);
    expect_refused(op);
    assert_int_equal(mr_operation_error(op)->residue, MR_RESIDUE_NONE);
    assert_string_equal(asked(env), "");
    assert_null(mr_engine_find(env->engine, "w"));
    fail_records(env, "none");
    run_until(env, forgotten_again);
    run_until(env, all_is_well);
    env_stop(env);
    assert_string_equal(ask_sql(env, "SELECT id FROM volume WHERE id = 'w'"), "");
    env_start(env);
}

static void test_refused_attach_leaves_a_failed_volume_as_it_was(void **state)
{
    struct env *env = *state;
    struct mr_spec *other;
    struct mr_operation *op = NULL;
    struct mr_err err;
    char token[MR_TOKEN_TEXT];
    script(env, "map", MAP_W);
    script(env, "check", "[{'content':'unknown','detail':'junk'}]");
    script(env, "inspect", NOT_FOUND);
    run_to_end(env, put(env, "w"));
    struct mr_volume *w = mr_engine_lookup(env->engine, "w");
    assert_int_equal(w->error.code, MR_E_NOT_BLANK);
    memcpy(token, w->token, sizeof(token));
    fail_records(env, "all");
    other = spec_at(env, "another", "elsewhere");
    assert_int_equal(mr_engine_attach(env->engine, "w", other, &op, &err), 0);
    run_to_end(env, op);
    expect_refused(op);
    assert_int_equal(w->state, MR_STATE_FAILED);
    assert_true(w->has_error);
    assert_int_equal(w->error.code, MR_E_NOT_BLANK);
    assert_string_equal(w->token, token);
    assert_string_equal(w->spec->mount_path, "/r/w");
}

static void test_refused_detach_leaves_it_attached(void **state)
{
    struct env *env = *state;
    fail_records(env, "all");
    struct mr_operation *op = del(env, "v");
    run_to_end(env, op);
    expect_refused(op);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_string_equal(asked(env), "");
    fail_records(env, "none");
    run_until(env, all_is_well);
    env_stop(env);
    assert_string_equal(ask_sql(env, STATE_OF_V), "attached");
    env_start(env);
}

static void test_refused_mend_leaves_it_failed(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'error':{'code':'device-error','message':'EIO'}}]");
    run_to_end(env, del(env, "v"));
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    (void)asked(env);
    fail_records(env, "all");
    struct mr_operation *op = put(env, "v");
    run_to_end(env, op);
    expect_refused(op);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_int_equal(v(env)->error.code, MR_E_DEVICE_ERROR);
    assert_string_equal(asked(env), "");
}

static void test_refused_end_of_a_lost_volume_leaves_its_boot(void **state)
{
    struct env *env = *state;
    env_stop(env);
    run_sql(env, "UPDATE volume SET doc = json_set(doc, '$.boot_id', 'other')");
    env_start(env);
    run_until(env, recovered);
    assert_int_equal(v(env)->state, MR_STATE_LOST_BY_REBOOT);
    fail_records(env, "all");
    struct mr_operation *op = del(env, "v");
    run_to_end(env, op);
    expect_refused(op);
    assert_int_equal(v(env)->state, MR_STATE_LOST_BY_REBOOT);
    op = put(env, "v");
    run_to_end(env, op);
    expect_refused(op);
    assert_int_equal(v(env)->state, MR_STATE_LOST_BY_REBOOT);
    assert_string_equal(v(env)->boot_id, "other");
    assert_null(v(env)->proof);
    fail_records(env, "none");
    op = del(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_string_equal(
        mr_json_get_string(mr_json_get(mr_operation_proof(op), "evidence"),
                           "attach_boot_id"),
        "other");
}

static void test_refused_cancel_leaves_the_detach_waiting(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = start_held(env);
    fail_records(env, "all");
    struct mr_operation *back = put(env, "v");
    run_to_end(env, back);
    expect_refused(back);
    run_until(env, held); /* by a new worker */
    assert_int_equal(mr_operation_ended(op), 0);
    assert_int_equal(v(env)->state, MR_STATE_DETACHING);
    assert_null(strstr(asked(env), "unmap"));
    fail_records(env, "none");
    let_go(env);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_non_null(mr_operation_proof(op));
}

static void test_put_whose_announcement_fails_is_refused_alone(void **state)
{
    struct env *env = *state;
    script(env, "unmap", "[{'sleep_ms':300,'result':'gone','evidence':{}}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, unmapping);
    fail_records(env, "queued");
    struct mr_operation *back = put(env, "v");
    run_to_end(env, back);
    expect_refused(back);
    assert_int_equal(mr_operation_ended(op), 0);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(v(env)->state, MR_STATE_ABSENT);
}

static void test_unannounced_put_is_written_when_it_starts(void **state)
{
    struct env *env = *state;
    char sql[128];
    (void)start_held(env);
    script(env, "inspect", FOUND_UNMOUNTED);
    fail_records(env, "queued");
    struct mr_operation *back = put(env, "v");
    run_to_end(env, back);
    assert_int_equal(mr_operation_ended(back), 1);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    (void)snprintf(sql, sizeof(sql),
                   "SELECT event FROM history WHERE operation = '%s' ORDER BY seq",
                   mr_operation_id(back));
    env_stop(env);
    assert_string_equal(ask_sql(env, sql), "mend_asked");
    env_start(env);
}

static struct mr_err failure;
static bool came;

static void on_answer(void *ctx, struct json_object *document, const struct mr_err *err)
{
    (void)ctx;
    (void)document;
    came = true;
    memset(&failure, 0, sizeof(failure));
    if (err)
        failure = *err;
}

static bool answered(struct env *env)
{
    (void)env;
    return came;
}

static void test_refused_forget_leaves_the_detach_waiting(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = start_held(env);
    struct mr_err err;
    came = false;
    fail_records(env, "all");
    assert_non_null(mr_engine_forget(env->engine, "v", "r", NULL, on_answer, NULL, &err));
    run_until(env, answered);
    assert_int_equal(failure.code, MR_E_JOURNAL_UNAVAILABLE);
    run_until(env, held);
    assert_int_equal(mr_operation_ended(op), 0);
    assert_null(v(env)->forgotten);
    fail_records(env, "none");
    let_go(env);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static void test_refused_action_forces_nothing(void **state)
{
    struct env *env = *state;
    const struct mr_action_request request = {.action = MR_ACTION_CUT_TRANSPORT,
                                              .accept_data_loss = true};
    struct mr_err err;
    (void)start_held(env);
    came = false;
    fail_records(env, "all");
    assert_non_null(mr_engine_act(env->engine, "v", &request, on_answer, NULL, &err));
    run_until(env, answered);
    assert_int_equal(failure.code, MR_E_JOURNAL_UNAVAILABLE);
    assert_false(v(env)->forced);
    fail_records(env, "none");
    run_until(env, all_is_well);
    env_stop(env);
    assert_string_equal(ask_sql(env, "SELECT json_extract(doc, '$.forced') FROM volume"),
                        "0");
    env_start(env);
}

/* --- in the middle of a fresh attach --- */

static bool at_check(struct env *env)
{
    return env->awaited->step == MR_STEP_CHECK;
}

static bool w_is_saved(struct env *env)
{
    return all_is_well(env) && !mr_engine_lookup(env->engine, "w")->unsaved;
}

static void test_fresh_attach_is_undone_and_written_late(void **state)
{
    struct env *env = *state;
    script(env, "map", MAP_W);
    script(env, "check", "[{'sleep_ms':200,'content':'blank'}]");
    script(env, "inspect",
           "[{'found':true,'identity':{'node':'/dev/loop8','major':7,'minor':8,"
           "'diskseq':43},'mounted':'absent'}]");
    struct mr_operation *op = put(env, "w");
    env->awaited = op;
    run_until(env, at_check);
    fail_records(env, "all");
    run_to_end(env, op);
    expect_refused(op);
    assert_int_equal(mr_operation_error(op)->residue, MR_RESIDUE_NONE);
    assert_non_null(strstr(asked(env), "claim unmap"));
    struct mr_volume *w = mr_engine_lookup(env->engine, "w");
    assert_int_equal(w->state, MR_STATE_FAILED);
    assert_true(w->unsaved);
    mend_quietly(env); /* the agent finds out by itself */
    run_until(env, w_is_saved);
    env_stop(env);
    assert_string_equal(ask_sql(env, "SELECT state FROM volume WHERE id = 'w'"),
                        "failed");
    assert_string_equal(ask_sql(env, "SELECT event FROM history ORDER BY seq DESC"),
                        "state_saved_late");
    env_start(env);
}

static void test_end_that_failed_is_said_and_written_late(void **state)
{
    struct env *env = *state;
    script(env, "map", MAP_W);
    script(env, "check", "[{'content':'unknown','detail':'junk'}]");
    script(env, "inspect", NOT_FOUND);
    fail_records(env, "undone");
    struct mr_operation *op = put(env, "w");
    run_to_end(env, op);
    assert_int_equal(mr_operation_error(op)->code, MR_E_NOT_BLANK);
    fail_records(env, "none");
    run_until(env, w_is_saved);
    env_stop(env);
    assert_string_equal(ask_sql(env, "SELECT state FROM volume WHERE id = 'w'"),
                        "failed");
    env_start(env);
}

/* --- rows that nobody waits for --- */

static void test_row_that_failed_is_written_late_and_as_it_is_then(void **state)
{
    struct env *env = *state;
    fail_records(env, "all");
    v(env)->data_not_written = true;
    mr_volume_record(v(env), "something", NULL, NULL, NULL);
    run_until(env, journal_is_bad);
    assert_true(v(env)->unsaved);
    v(env)->data_not_written = false; /* newer than what could not be written */
    v(env)->forced = true;
    mend_quietly(env);
    run_until(env, all_is_well);
    env_stop(env);
    assert_string_equal(ask_sql(env, "SELECT json_extract(doc, '$.data_not_written') || "
                                     "json_extract(doc, '$.forced') FROM volume"),
                        "01");
    env_start(env);
}

static void test_start_finds_out_before_anybody_asks(void **state)
{
    struct env *env = *state;
    char away[PATH_MAX];
    char path[PATH_MAX];
    env_stop(env);
    env_start(env);
    journal_path(env, path);
    (void)snprintf(away, sizeof(away), "%s/away", env->dir);
    assert_int_equal(rename(path, away), 0); /* what is written there is lost */
    run_until(env, journal_is_bad);
    assert_int_equal(rename(away, path), 0);
    run_until(env, all_is_well);
}

static void test_the_agent_says_why_and_sleeps_when_all_is_well(void **state)
{
    struct env *env = *state;
    assert_null(mr_engine_journal_error(env->engine));
    fail_records(env, "all");
    run_to_end(env, put(env, "w"));
    const struct mr_err *err = mr_engine_journal_error(env->engine);
    assert_non_null(err);
    assert_int_equal(err->code, MR_E_JOURNAL_UNAVAILABLE);
    assert_non_null(strstr(err->message, "disk is full"));
    assert_int_not_equal(env->engine->unsaved.heap_index, 0);
    mend_quietly(env);
    run_until(env, all_is_well);
    /* Nothing is unsaved: a probe finds out. */
    const struct mr_err full = {.code = MR_E_JOURNAL_UNAVAILABLE};
    mr_unsaved_result(env->engine, -ENOSPC, &full);
    assert_true(journal_is_bad(env));
    run_until(env, all_is_well);
    assert_int_equal(env->engine->unsaved_after_ns, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup_faults, teardown)
        T(test_new_attach_is_refused_and_leaves_nothing),
        T(test_refused_attach_leaves_a_failed_volume_as_it_was),
        T(test_refused_detach_leaves_it_attached),
        T(test_refused_mend_leaves_it_failed),
        T(test_refused_end_of_a_lost_volume_leaves_its_boot),
        T(test_refused_cancel_leaves_the_detach_waiting),
        T(test_put_whose_announcement_fails_is_refused_alone),
        T(test_unannounced_put_is_written_when_it_starts),
        T(test_refused_forget_leaves_the_detach_waiting),
        T(test_refused_action_forces_nothing),
        T(test_fresh_attach_is_undone_and_written_late),
        T(test_end_that_failed_is_said_and_written_late),
        T(test_row_that_failed_is_written_late_and_as_it_is_then),
        T(test_start_finds_out_before_anybody_asks),
        T(test_the_agent_says_why_and_sleeps_when_all_is_well),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
