/* SPDX-License-Identifier: Apache-2.0
 *
 * What runs while the journal cannot be written: it waits, says so, loses nothing, and
 * other requests still find a way.
 */
#include "tests/unit/engine_faults_env.h"

static const char *error_code(struct env *env)
{
    static char code[64];
    struct json_object *document = mr_volume_document(v(env));
    const char *text = mr_json_get_string(mr_json_get(document, "error"), "code");
    (void)snprintf(code, sizeof(code), "%s", text ? text : "none");
    (void)json_object_put(document);
    return code;
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

/* --- what waits --- */

static void test_unmap_waits_for_its_record(void **state)
{
    struct env *env = *state;
    fail_records(env, "unmapping");
    struct mr_operation *op = del(env, "v");
    run_until(env, waiting);
    assert_string_equal(asked(env), "inspect unmount claim");
    assert_int_equal(mr_operation_ended(op), 0);
    assert_string_equal(error_code(env), "journal-unavailable");
    int64_t released_ns = op->released_ns;
    /* Not the next try, but the first write that works ends the wait. */
    mr_timer_set(&env->engine->unsaved, mr_now_ns() + 3600 * MR_NS_PER_S);
    fail_records(env, "none");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_string_equal(asked(env), "unmap");
    assert_true(op->released_ns == released_ns);
    run_until(env, all_is_well);
}

static void test_unmap_that_waited_looks_for_new_openers(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'claimed','unmap':'immediate'}]");
    script(env, "scan", "[{'complete':true,'holders':[]}]");
    fail_records(env, "unmapping");
    struct mr_operation *op = del(env, "v");
    run_until(env, waiting);
    script(env, "scan",
           "[{'complete':true,'holders':[{'id':'d4','kind':'raw-device','certain':true,"
           "'pid':9,'start_time':1}]}]");
    fail_records(env, "none");
    run_until(env, held);
    assert_null(strstr(asked(env), "unmap "));
    script(env, "scan", "[{'complete':true,'holders':[]}]");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static void test_put_brings_back_what_waits_for_its_unmap(void **state)
{
    struct env *env = *state;
    fail_records(env, "unmapping");
    struct mr_operation *op = del(env, "v");
    run_until(env, waiting);
    script(env, "inspect", FOUND_UNMOUNTED);
    struct mr_operation *back = put(env, "v");
    run_to_end(env, back);
    assert_int_equal(mr_operation_error(op)->code, MR_E_DETACH_CANCELLED);
    assert_int_equal(mr_operation_ended(back), 1);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_null(strstr(asked(env), "unmap"));
}

static void test_forget_of_what_waits_for_its_unmap_leaves_an_orphan(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    fail_records(env, "unmapping");
    (void)del(env, "v");
    run_until(env, waiting);
    came = false;
    assert_non_null(
        mr_engine_forget(env->engine, "v", NULL, NULL, on_answer, NULL, &err));
    run_until(env, answered);
    assert_int_equal(v(env)->state, MR_STATE_ORPHAN);
    assert_null(strstr(asked(env), "unmap"));
    env_stop(env);
    assert_string_equal(ask_sql(env, STATE_OF_V), "orphan");
    env_start(env);
}

static void test_end_of_a_detach_waits_and_keeps_its_times(void **state)
{
    struct env *env = *state;
    char unmapped_at[64];
    fail_records(env, "released");
    struct mr_operation *op = del(env, "v");
    run_until(env, waiting);
    assert_int_equal(mr_operation_ended(op), 0);
    assert_int_equal(v(env)->state, MR_STATE_DETACHING);
    assert_string_equal(error_code(env), "journal-unavailable");
    (void)snprintf(unmapped_at, sizeof(unmapped_at), "%s",
                   mr_json_get_string(op->proof, "unmapped_at"));
    int64_t ended_at_ms = op->ended_at_ms;
    mr_sleep_ns(30 * MR_NS_PER_MS);
    mend_quietly(env); /* tried again within seconds */
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(op->ended_at_ms, ended_at_ms);
    assert_string_equal(mr_json_get_string(mr_operation_proof(op), "unmapped_at"),
                        unmapped_at);
    run_until(env, all_is_well);
    env_stop(env);
    env_start(env);
    assert_string_equal(mr_json_get_string(v(env)->proof, "unmapped_at"), unmapped_at);
}

static void test_put_behind_an_end_that_waits_attaches_afresh(void **state)
{
    struct env *env = *state;
    fail_records(env, "released");
    struct mr_operation *op = del(env, "v");
    run_until(env, waiting);
    struct mr_operation *back = put(env, "v");
    fail_records(env, "none");
    run_to_end(env, back);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(mr_operation_ended(back), 1);
    assert_true(mr_operation_created(back));
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
}

static bool ending(struct env *env)
{
    return v(env)->op && v(env)->op->ending;
}

static void test_announcement_behind_an_end_does_not_undo_it(void **state)
{
    struct env *env = *state;
    (void)del(env, "v");
    run_until(env, ending);
    (void)put(env, "v"); /* its record goes behind that of the end */
    assert_true(ending(env));
    env_stop(env);
    assert_string_equal(ask_sql(env, STATE_OF_V), "absent");
    env_start(env);
}

static bool awaited_waits(struct env *env)
{
    return env->awaited->unwritten;
}

static void test_end_of_an_attach_waits(void **state)
{
    struct env *env = *state;
    script(env, "map", MAP_W);
    fail_records(env, "attached");
    struct mr_operation *op = put(env, "w");
    struct mr_volume *w = mr_engine_lookup(env->engine, "w");
    env->awaited = op;
    run_until(env, awaited_waits);
    assert_int_equal(w->state, MR_STATE_ATTACHING);
    fail_records(env, "none");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(w->state, MR_STATE_ATTACHED);
}

static void test_mend_waits_for_its_record(void **state)
{
    struct env *env = *state;
    script(env, "inspect", FOUND_UNMOUNTED);
    fail_records(env, "mend_intent");
    struct mr_operation *op = put(env, "v");
    run_until(env, waiting);
    assert_string_equal(asked(env), "inspect");
    fail_records(env, "none");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_string_equal(asked(env), "inspect keep identify check mount");
}

static void test_stop_writes_what_waits(void **state)
{
    struct env *env = *state;
    fail_records(env, "released");
    (void)del(env, "v");
    run_until(env, waiting);
    mend_quietly(env);
    env_stop(env);
    assert_string_equal(ask_sql(env, STATE_OF_V), "absent");
    assert_string_equal(ask_sql(env, "SELECT json_extract(doc, '$.state') FROM operation "
                                     "ORDER BY updated_at DESC"),
                        "done");
    env_start(env);
    assert_non_null(mr_json_get(v(env)->proof, "released_at"));
}

static bool restarting(struct env *env)
{
    return !v(env)->op->worker && !v(env)->op->unwritten;
}

static void test_dead_worker_while_the_record_waits_starts_anew(void **state)
{
    struct env *env = *state;
    fail_records(env, "unmapping");
    struct mr_operation *op = del(env, "v");
    run_until(env, waiting);
    (void)asked(env);
    script(env, "inspect", FOUND_UNMOUNTED);
    assert_int_equal(kill(mr_worker_pid(op->worker), SIGKILL), 0);
    run_until(env, restarting);
    fail_records(env, "none");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_string_equal(asked(env), "inspect claim unmap");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup_faults, teardown)
        T(test_unmap_waits_for_its_record),
        T(test_unmap_that_waited_looks_for_new_openers),
        T(test_put_brings_back_what_waits_for_its_unmap),
        T(test_forget_of_what_waits_for_its_unmap_leaves_an_orphan),
        T(test_end_of_a_detach_waits_and_keeps_its_times),
        T(test_put_behind_an_end_that_waits_attaches_afresh),
        T(test_announcement_behind_an_end_does_not_undo_it),
        T(test_end_of_an_attach_waits),
        T(test_mend_waits_for_its_record),
        T(test_stop_writes_what_waits),
        T(test_dead_worker_while_the_record_waits_starts_anew),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
