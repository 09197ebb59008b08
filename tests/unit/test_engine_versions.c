/* SPDX-License-Identifier: Apache-2.0
 *
 * A journal that a newer mooringd has written, as after an upgrade that was taken back:
 * its volumes can be looked at and detached, and what is not understood is kept.
 */
#include "tests/unit/engine_link_env.h"

#define NEWER                                                                            \
    "UPDATE volume SET doc = json_set(doc, '$.spec.source.lanes', 4,"                    \
    " '$.spec.filesystem.quota', json('{\"user\":true}'), '$.spec.filesystem.format',"   \
    " 'always', '$.spec.tags', NULL)"

/* Starts again with a journal to which this was done. */
static void restart_after(struct env *env, const char *sql)
{
    env_stop(env);
    run_sql(env, sql);
    env_start(env);
    run_until(env, recovered);
}

static void assert_shows_newer(struct env *env)
{
    MR_AUTO_JSON struct json_object *document = mr_volume_document(v(env));
    struct json_object *spec = mr_json_get(document, "spec");
    struct json_object *filesystem = mr_json_get(spec, "filesystem");
    assert_int_equal(mr_json_get_int(mr_json_get(spec, "source"), "lanes", 0), 4);
    assert_true(mr_json_get_bool(mr_json_get(filesystem, "quota"), "user", false));
    assert_string_equal(mr_json_get_string(filesystem, "format"), "always");
    assert_true(json_object_object_get_ex(spec, "tags", NULL));
}

static void test_what_is_unknown_is_kept_and_shown(void **state)
{
    struct env *env = *state;
    restart_after(env, NEWER);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_shows_newer(env);
    script(env, "claim", "[{'error':{'code':'device-error','message':'EIO'}}]");
    run_to_end(env, del(env, "v")); /* the row is written again */
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    restart_after(env, "SELECT 1");
    assert_shows_newer(env);
}

static void test_it_can_be_detached(void **state)
{
    struct env *env = *state;
    restart_after(env, NEWER);
    struct mr_operation *op = del(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_string_equal(asked(env), "inspect unmount claim unmap");
}

static void test_a_cut_off_detach_goes_on(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    (void)del(env, "v");
    run_until(env, held);
    env_stop(env);
    run_sql(env, NEWER);
    script(env, "claim", "[]");
    env_start(env);
    struct mr_operation *op = v(env)->op;
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(v(env)->state, MR_STATE_ABSENT);
}

/* A detach that a PUT has taken back: what is unknown here would be left out. */
static void test_a_cut_off_mend_does_not_go_on(void **state)
{
    struct env *env = *state;
    script(env, "inspect", FOUND_UNMOUNTED);
    script(env, "claim", "[{'result':'busy'}]");
    (void)del(env, "v");
    run_until(env, held);
    (void)put(env, "v");
    env_stop(env);
    run_sql(env, NEWER);
    (void)asked(env);
    env_start(env);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHING);
    struct mr_operation *op = v(env)->op;
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_non_null(strstr(mr_operation_error(op)->message, "newer"));
    assert_string_equal(asked(env), "inspect");
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_shows_newer(env);
    script(env, "claim", "[]");
    run_to_end(env, del(env, "v"));
    assert_int_equal(v(env)->state, MR_STATE_ABSENT);
}

/* What was asked for cannot be said here: nobody may claim that it is so. */
static void test_no_put_is_of_the_same_spec(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct mr_err err;
    restart_after(env, "UPDATE volume SET doc = json_set(doc, '$.spec.source.lanes', 4)");
    assert_true(mr_engine_attach(env->engine, "v", spec_at(env, "v", "v"), &op, &err) <
                0);
    assert_int_equal(err.code, MR_E_SPEC_CONFLICT);
    restart_after(env, "UPDATE volume SET doc = json_remove(doc, '$.spec.source.lanes')");
    op = put(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

/* Without these nothing can be done with it: that is said, and no row is touched. */
static void test_what_cannot_be_detached_is_named(void **state)
{
    struct env *env = *state;
    static const struct {
        const char *sql;
        const char *said;
    } rows[] = {
        {"UPDATE volume SET state = 'hovering'", "unknown state 'hovering'"},
        {"UPDATE volume SET doc = json_set(doc, '$.spec.source.driver', 'nvme')",
         "/source/driver"},
        {"UPDATE volume SET state = 'attached',"
         " doc = json_set(doc, '$.spec.source.driver', 'file', '$.spec.mount_path', 5)",
         "/mount_path"},
        {"UPDATE volume SET doc = json_remove(doc, '$.spec')", "no spec"},
    };
    env_stop(env);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct mr_err err = {0};
        run_sql(env, rows[i].sql);
        if (i == 1)
            run_sql(env, "UPDATE volume SET state = 'attached'");
        assert_int_equal(mr_loop_new(&env->loop, NULL), 0);
        assert_true(mr_engine_new(env->loop, &env->config, &env->engine, &err) < 0);
        assert_int_equal(err.code, MR_E_JOURNAL_UNAVAILABLE);
        assert_non_null(strstr(err.message, "volume 'v'"));
        assert_non_null(strstr(err.message, rows[i].said));
        assert_non_null(strstr(err.remedy, "newer"));
        mr_loop_free(env->loop);
    }
    run_sql(env, "DELETE FROM operation; DELETE FROM history; DELETE FROM volume");
    env_start(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup_attached, teardown)
        T(test_what_is_unknown_is_kept_and_shown), T(test_it_can_be_detached),
        T(test_a_cut_off_detach_goes_on),          T(test_no_put_is_of_the_same_spec),
        T(test_what_cannot_be_detached_is_named),  T(test_a_cut_off_mend_does_not_go_on),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
