/* SPDX-License-Identifier: Apache-2.0
 *
 * A detach that is called off: by a PUT of the same spec, which brings the volume back,
 * or by giving up, which leaves an orphan.
 */
#include "tests/unit/engine_env.h"

#include <errno.h>

static struct mr_operation *start_held(struct env *env, const char *command,
                                       const char *replies)
{
    script(env, command, replies);
    struct mr_operation *op = del(env, "v");
    run_until(env, held);
    (void)asked(env);
    return op;
}

static void expect_cancelled(struct mr_operation *op)
{
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(mr_operation_error(op)->code, MR_E_DETACH_CANCELLED);
}

static void test_put_in_a_busy_unmount_leaves_the_mount(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = start_held(env, "unmount", "[{'result':'busy'}]");
    struct mr_operation *back = put(env, "v");
    assert_ptr_equal(put(env, "v"), back);
    run_to_end(env, back);
    expect_cancelled(op);
    assert_int_equal(mr_operation_ended(back), 1);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_null(strstr(asked(env), " mount"));
    assert_int_equal(v(env)->mount.mount.id, 77);
}

static void test_put_while_draining_mounts_again_without_mapping(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = start_held(env, "claim", "[{'result':'busy'}]");
    script(env, "inspect", FOUND_UNMOUNTED);
    struct mr_operation *back = put(env, "v");
    run_to_end(env, back);
    expect_cancelled(op);
    assert_int_equal(mr_operation_ended(back), 1);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_string_equal(asked(env), "inspect keep identify check mount");
    assert_int_equal(v(env)->identity.diskseq, 42);
}

static void test_put_after_a_put_off_unmap_takes_it_back(void **state)
{
    struct env *env = *state;
    struct mr_operation *op =
        start_held(env, "unmap", "[{'result':'bound','evidence':{}}]");
    assert_true(op->unmap_asked);
    script(env, "inspect", FOUND_UNMOUNTED);
    struct mr_operation *back = put(env, "v");
    run_to_end(env, back);
    expect_cancelled(op);
    assert_string_equal(asked(env), "inspect keep identify check mount");
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
}

static void test_device_that_went_before_it_could_be_kept_is_mapped_again(void **state)
{
    struct env *env = *state;
    (void)start_held(env, "unmap", "[{'result':'bound','evidence':{}}]");
    script(env, "inspect", FOUND_UNMOUNTED);
    script(env, "keep", "[{'result':'gone'}]");
    struct mr_operation *back = put(env, "v");
    run_to_end(env, back);
    assert_int_equal(mr_operation_ended(back), 1);
    assert_string_equal(asked(env), "inspect keep map identify check mount");
}

static void test_put_during_the_unmap_attaches_afresh_when_it_is_gone(void **state)
{
    struct env *env = *state;
    char token[MR_TOKEN_TEXT];
    memcpy(token, v(env)->token, sizeof(token));
    script(env, "unmap", "[{'sleep_ms':200,'result':'gone','evidence':{}}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, unmapping);
    struct mr_operation *back = put(env, "v");
    assert_int_equal(mr_operation_ended(op), 0);
    run_to_end(env, back);
    assert_int_equal(mr_operation_ended(op), 1); /* it was released: that stays true */
    assert_non_null(mr_operation_proof(op));
    assert_int_equal(mr_operation_ended(back), 1);
    assert_true(mr_operation_created(back));
    assert_string_not_equal(v(env)->token, token);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
}

static void test_put_during_an_unmap_that_is_put_off_takes_it_back(void **state)
{
    struct env *env = *state;
    script(env, "unmap", "[{'sleep_ms':200,'result':'bound','evidence':{}}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, unmapping);
    script(env, "inspect", FOUND_UNMOUNTED);
    struct mr_operation *back = put(env, "v");
    run_to_end(env, back);
    expect_cancelled(op);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
}

static void test_delete_behind_a_queued_put_is_pending(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    struct mr_err err;
    script(env, "unmap", "[{'sleep_ms':200,'result':'gone','evidence':{}}]");
    (void)del(env, "v");
    run_until(env, unmapping);
    struct mr_operation *back = put(env, "v");
    assert_true(mr_engine_detach(env->engine, "v", NULL, false, &op, &proof, &err) < 0);
    assert_int_equal(err.code, MR_E_OPERATION_PENDING);
    run_to_end(env, back);
}

static void test_put_of_another_spec_does_not_cancel(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = start_held(env, "claim", "[{'result':'busy'}]");
    struct mr_operation *back = NULL;
    struct mr_err err;
    assert_true(
        mr_engine_attach(env->engine, "v", spec_at(env, "other", "v"), &back, &err) < 0);
    assert_int_equal(err.code, MR_E_SPEC_CONFLICT);
    assert_int_equal(mr_operation_ended(op), 0);
}

static void test_put_while_an_undo_waits_brings_it_back(void **state)
{
    struct env *env = *state;
    struct mr_operation *op;
    (void)start_held(env, "claim", "[{'result':'busy'}]");
    script(env, "inspect", FOUND_UNMOUNTED);
    script(env, "mount", "[{'exit':3}]");
    op = put(env, "v"); /* mends, and dies of it: the start undoes that */
    run_to_end(env, op);
    v(env)->state = MR_STATE_ATTACHING;
    mr_volume_record(v(env), "as after a crash", NULL, NULL, NULL);
    env_stop(env);
    env_start(env);
    run_until(env, held);
    assert_true(v(env)->op->undoing);
    env_write(env, "mount", "");
    (void)asked(env);
    op = put(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_null(strstr(asked(env), "unmap"));
}

static void test_agent_may_stop_between_cancel_and_attach(void **state)
{
    struct env *env = *state;
    char id[MR_OPERATION_ID_TEXT];
    (void)start_held(env, "claim", "[{'result':'busy'}]");
    (void)snprintf(id, sizeof(id), "%s", mr_operation_id(put(env, "v")));
    env_stop(env);
    script(env, "inspect", FOUND_UNMOUNTED);
    (void)asked(env);
    env_start(env);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHING);
    assert_string_equal(mr_operation_id(v(env)->op), id); /* what the caller was told */
    run_to_end(env, v(env)->op);                          /* the last word was PUT */
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_null(strstr(asked(env), "unmap"));
}

/* --- giving up --- */

static struct json_object *document;
static struct mr_err failure;
static bool came;

static void on_answer(void *ctx, struct json_object *json, const struct mr_err *err)
{
    (void)ctx;
    came = true;
    (void)json_object_put(document);
    document = json_object_get(json);
    if (err)
        failure = *err;
}

static bool answered(struct env *env)
{
    (void)env;
    return came;
}

static void forget(struct env *env)
{
    struct json_object *caller = parse_json("{'uid':7}");
    struct mr_err err;
    came = false;
    assert_non_null(
        mr_engine_forget(env->engine, "v", "node dies", caller, on_answer, NULL, &err));
    (void)json_object_put(caller);
    run_until(env, answered);
}

static void test_forget_leaves_all_mapped_and_lists_an_orphan(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = start_held(env, "claim", "[{'result':'busy'}]");
    forget(env);
    assert_string_equal(mr_json_get_string(document, "state"), "orphan");
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(mr_operation_error(op)->code, MR_E_ORPHAN);
    assert_null(strstr(asked(env), "unmap"));
    assert_int_equal(v(env)->identity.diskseq, 42);
    assert_ptr_equal(mr_engine_next_orphan(env->engine, NULL), v(env));
    struct json_object *orphan = mr_orphan_document(v(env));
    assert_string_equal(mr_json_get_string(orphan, "reason"), "node dies");
    assert_int_equal(mr_json_get_int(mr_json_get(orphan, "forgotten_by"), "uid", 0), 7);
    (void)json_object_put(orphan);
}

static void test_orphan_keeps_its_id_and_source(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    struct mr_err err;
    (void)start_held(env, "claim", "[{'result':'busy'}]");
    forget(env);
    assert_true(mr_engine_detach(env->engine, "v", NULL, false, &op, &proof, &err) < 0);
    assert_int_equal(err.code, MR_E_ORPHAN);
    assert_null(proof);
    assert_true(mr_engine_attach(env->engine, "v", spec_at(env, "v", "v"), &op, &err) <
                0);
    assert_int_equal(err.code, MR_E_ORPHAN);
    assert_true(mr_engine_attach(env->engine, "w", spec_at(env, "v", "w"), &op, &err) <
                0);
    assert_int_equal(err.code, MR_E_SOURCE_IN_USE);
}

static void test_orphan_survives_a_restart_and_is_taken_down_on_request(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct mr_err err;
    (void)start_held(env, "claim", "[{'result':'busy'}]");
    forget(env);
    env_stop(env);
    env_start(env);
    assert_int_equal(v(env)->state, MR_STATE_ORPHAN);
    assert_ptr_equal(mr_engine_next_orphan(env->engine, NULL), v(env));
    assert_string_equal(asked(env), "");
    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    assert_int_equal(mr_engine_detach_orphan(env->engine, "v", false, &op, &err), 0);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_null(mr_engine_next_orphan(env->engine, NULL));
    assert_int_equal(v(env)->state, MR_STATE_ABSENT);
    assert_true(mr_engine_detach_orphan(env->engine, "v", false, &op, &err) < 0);
    assert_int_equal(err.code, MR_E_VOLUME_NOT_FOUND);
}

static void test_orphan_whose_detach_fails_stays_one(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct mr_err err;
    (void)start_held(env, "claim", "[{'result':'busy'}]");
    forget(env);
    script(env, "claim", "[{'error':{'code':'device-error','message':'EIO'}}]");
    assert_int_equal(mr_engine_detach_orphan(env->engine, "v", false, &op, &err), 0);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(v(env)->state, MR_STATE_ORPHAN);
    assert_ptr_equal(mr_engine_next_orphan(env->engine, NULL), v(env));
}

static void test_only_a_wait_can_be_given_up(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    assert_null(mr_engine_forget(env->engine, "v", NULL, NULL, on_answer, NULL, &err));
    assert_int_equal(err.code, MR_E_NOT_DETACHING);
    assert_null(mr_engine_forget(env->engine, "x", NULL, NULL, on_answer, NULL, &err));
    assert_int_equal(err.code, MR_E_VOLUME_NOT_FOUND);
}

static int drop_answer(void **state)
{
    (void)json_object_put(document);
    document = NULL;
    return teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup_attached, drop_answer)
        T(test_put_in_a_busy_unmount_leaves_the_mount),
        T(test_put_while_draining_mounts_again_without_mapping),
        T(test_put_after_a_put_off_unmap_takes_it_back),
        T(test_device_that_went_before_it_could_be_kept_is_mapped_again),
        T(test_put_during_the_unmap_attaches_afresh_when_it_is_gone),
        T(test_put_during_an_unmap_that_is_put_off_takes_it_back),
        T(test_delete_behind_a_queued_put_is_pending),
        T(test_put_of_another_spec_does_not_cancel),
        T(test_put_while_an_undo_waits_brings_it_back),
        T(test_agent_may_stop_between_cancel_and_attach),
        T(test_forget_leaves_all_mapped_and_lists_an_orphan),
        T(test_orphan_keeps_its_id_and_source),
        T(test_orphan_survives_a_restart_and_is_taken_down_on_request),
        T(test_orphan_whose_detach_fails_stays_one),
        T(test_only_a_wait_can_be_given_up),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
