/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests and plans: what starts, what is refused, in which order workers are asked.
 */
#include "tests/unit/engine_env.h"

static enum mr_state state_of(struct env *env, const char *id)
{
    return mr_engine_lookup(env->engine, id)->state;
}

static void attach_v(struct env *env)
{
    struct mr_operation *op = put(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(state_of(env, "v"), MR_STATE_ATTACHED);
    (void)asked(env);
    script(env, "inspect", FOUND);
}

static void test_attach_runs_its_plan_and_formats_a_blank_device(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = put(env, "v");

    assert_int_equal(state_of(env, "v"), MR_STATE_ATTACHING);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_true(mr_operation_created(op));
    assert_string_equal(asked(env), "map identify check format mount");
    assert_int_equal(state_of(env, "v"), MR_STATE_ATTACHED);
}

static void test_content_that_is_unknown_is_never_formatted(void **state)
{
    struct env *env = *state;
    script(env, "check", "[{'content':'unknown','detail':'non-zero byte at offset 5'}]");
    script(env, "inspect", FOUND_UNMOUNTED);
    struct mr_operation *op = put(env, "v");

    run_to_end(env, op);
    assert_int_equal(mr_operation_error(op)->code, MR_E_NOT_BLANK);
    assert_string_equal(asked(env), "map identify check inspect claim unmap");
}

static void test_failed_mount_is_undone_and_says_so(void **state)
{
    struct env *env = *state;
    script(env, "mount", "[{'error':{'code':'mount-path-busy','message':'not empty'}}]");
    script(env, "inspect", FOUND_UNMOUNTED);
    struct mr_operation *op = put(env, "v");

    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(mr_operation_error(op)->code, MR_E_MOUNT_PATH_BUSY);
    assert_int_equal(mr_operation_error(op)->residue, MR_RESIDUE_NONE);
    assert_string_equal(mr_operation_error(op)->step, "mount");
    assert_string_equal(asked(env),
                        "map identify check format mount inspect claim unmap");
    assert_int_equal(state_of(env, "v"), MR_STATE_FAILED);
    assert_false(mr_volume_has_residue(mr_engine_lookup(env->engine, "v")));
}

static void test_dead_worker_in_attach_is_undone_by_a_new_one(void **state)
{
    struct env *env = *state;
    script(env, "mount", "[{'exit':1}]");
    script(env, "inspect", FOUND_UNMOUNTED);
    struct mr_operation *op = put(env, "v");

    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(mr_operation_error(op)->residue, MR_RESIDUE_NONE);
    assert_string_equal(asked(env),
                        "map identify check format mount inspect claim unmap");
}

static void test_same_put_joins_and_then_verifies(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = put(env, "v");

    assert_ptr_equal(put(env, "v"), op);
    run_to_end(env, op);
    (void)asked(env);
    script(env, "inspect", FOUND);
    op = put(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_false(mr_operation_created(op));
    assert_string_equal(asked(env), "inspect");
}

static bool mounting(struct env *env)
{
    return env->awaited->step == MR_STEP_MOUNT && env->awaited->busy;
}

static void test_crash_while_it_is_mounted_again_leaves_nothing_unfound(void **state)
{
    struct env *env = *state;
    attach_v(env);
    script(env, "inspect", FOUND_UNMOUNTED);
    script_same_content(env);
    script(env, "mount", "[{'sleep_ms':300}]");
    env->awaited = put(env, "v");
    run_until(env, mounting);
    assert_int_equal(state_of(env, "v"), MR_STATE_ATTACHING);
    env_stop(env);
    (void)asked(env);
    /* The worker finished the mount: it is found by its place, for no id of it was
     * recorded. */
    script(env, "inspect",
           "[{'found':true," DEVICE(
               42) ",'mounted':'present','on_top':true,'mount':{'id':78,"
                   "'unique':true,'major':7,'minor':9,'root':'/"
                   "r','path':'v','created':1}}]");
    env_start(env);
    struct mr_volume *v = mr_engine_lookup(env->engine, "v");
    assert_int_equal(v->mount.mount.id, 0);
    run_to_end(env, v->op);
    assert_string_equal(asked(env), "inspect");
    assert_int_equal(v->state, MR_STATE_ATTACHED);
    assert_int_equal(v->mount.mount.id, 78);
}

static void test_put_of_an_unmounted_volume_mounts_it_again(void **state)
{
    struct env *env = *state;
    attach_v(env);
    script(env, "inspect", FOUND_UNMOUNTED);
    script_same_content(env);
    struct mr_operation *op = put(env, "v");

    run_to_end(env, op);
    assert_true(mr_operation_created(op));
    assert_string_equal(asked(env), "inspect keep identify check mount");
}

static void test_put_of_a_covered_volume_is_refused_and_changes_nothing(void **state)
{
    struct env *env = *state;
    attach_v(env);
    script(env, "inspect",
           "[{'found':true," DEVICE(42) ",'mounted':'present','on_top':false}]");
    struct mr_operation *op = put(env, "v");

    run_to_end(env, op);
    assert_int_equal(mr_operation_error(op)->code, MR_E_MOUNT_PATH_BUSY);
    assert_int_equal(state_of(env, "v"), MR_STATE_ATTACHED);
}

static void test_look_that_fails_leaves_the_volume_attached(void **state)
{
    struct env *env = *state;
    attach_v(env);
    script(env, "inspect", "[{'exit':1}]");
    struct mr_operation *op = put(env, "v");

    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(state_of(env, "v"), MR_STATE_ATTACHED);
    script(env, "inspect", "[{'found':true," DEVICE(42) ",'mounted':'unknown'}]");
    op = put(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_string_equal(asked(env), "inspect inspect");
}

static bool mapping(struct env *env)
{
    return env->awaited->step == MR_STEP_MAP && env->awaited->busy;
}

static void test_crash_while_a_gone_device_is_mapped_again_is_recovered_from(void **state)
{
    struct env *env = *state;
    char same[256];
    attach_v(env);
    (void)snprintf(same, sizeof(same),
                   "[{'content':'formatted','fs_type':'xfs','fs_uuid':'%s'}]",
                   mr_engine_lookup(env->engine, "v")->identity.fs_uuid);
    script(env, "inspect", NOT_FOUND);
    script(env, "map", "[{'sleep_ms':300," DEVICE(43) "}]");
    env->awaited = put(env, "v");
    run_until(env, mapping);
    env_stop(env);
    /* The worker finished the map before it saw that the agent is gone. */
    script(env, "inspect", "[{'found':true," DEVICE(43) ",'mounted':'absent'}]");
    (void)asked(env);
    env_start(env);
    struct mr_volume *v = mr_engine_lookup(env->engine, "v");
    assert_int_equal(v->state, MR_STATE_ATTACHING);
    script(env, "identify", "[{" DEVICE(43) "}]");
    script(env, "check", same);
    run_to_end(env, v->op);
    assert_string_equal(asked(env), "inspect keep identify check mount");
    assert_int_equal(v->state, MR_STATE_ATTACHED);
    assert_int_equal(v->identity.diskseq, 43);
}

static void test_crash_in_a_mend_does_not_forget_what_was_attached(void **state)
{
    struct env *env = *state;
    attach_v(env);
    script(env, "inspect", NOT_FOUND);
    script(env, "map", "[{'sleep_ms':300," DEVICE(43) "}]");
    env->awaited = put(env, "v");
    run_until(env, mapping);
    env_stop(env);
    script(env, "inspect", "[{'found':true," DEVICE(43) ",'mounted':'absent'}]");
    (void)asked(env);
    env_start(env);
    struct mr_volume *v = mr_engine_lookup(env->engine, "v");
    run_to_end(env, v->op); /* the fake's device is blank */
    assert_null(strstr(asked(env), "format"));
    assert_int_equal(v->state, MR_STATE_FAILED);
}

static void test_other_source_under_the_same_name_is_never_formatted(void **state)
{
    struct env *env = *state;
    attach_v(env);
    script(env, "inspect", NOT_FOUND);
    struct mr_operation *op = put(env, "v"); /* the fake's device is blank */

    run_to_end(env, op);
    assert_int_equal(mr_operation_error(op)->code, MR_E_DEVICE_MISMATCH);
    assert_string_equal(asked(env), "inspect map identify check");
}

static void assert_refused(struct env *env, const char *id, struct mr_spec *spec,
                           enum mr_code code)
{
    struct mr_operation *op = NULL;
    struct mr_err err;
    assert_true(mr_engine_attach(env->engine, id, spec, &op, &err) < 0);
    assert_int_equal(err.code, code);
    assert_null(op);
}

static void test_conflicts_are_refused_before_anything_is_touched(void **state)
{
    struct env *env = *state;
    attach_v(env);
    assert_refused(env, "v", spec_at(env, "v", "elsewhere"), MR_E_SPEC_CONFLICT);
    assert_refused(env, "w", spec_at(env, "v", "w"), MR_E_SOURCE_IN_USE);
    assert_refused(env, "w", spec_at(env, "w", "v"), MR_E_MOUNT_PATH_BUSY);
    assert_refused(env, "w", spec_at(env, "w", "v/inside"), MR_E_MOUNT_PATH_BUSY);
    assert_string_equal(asked(env), "");
    assert_null(mr_engine_lookup(env->engine, "w"));
}

static void test_device_of_another_volume_is_refused_after_mapping(void **state)
{
    struct env *env = *state;
    attach_v(env); /* the fake maps every path to file:1:2:3 */
    script(env, "inspect", FOUND_UNMOUNTED);
    struct mr_operation *op = put(env, "w");

    run_to_end(env, op);
    assert_int_equal(mr_operation_error(op)->code, MR_E_SOURCE_IN_USE);
    assert_string_equal(mr_operation_error(op)->volume, "v");
    assert_string_equal(asked(env), "map identify inspect claim unmap");
}

static void test_a_root_may_be_named_as_configured_or_resolved(void **state)
{
    struct env *env = *state;
    static char given[] = "/link";
    env->config.mount_roots.given[0] = given;
    attach_v(env); /* at /r/v */
    struct mr_spec *spec = spec_at(env, "w", "w");
    mr_json_set_string(spec->full, "mount_path", "/link/v");
    struct json_object *json = json_object_get(spec->full);
    mr_spec_free(spec);
    assert_int_equal(mr_spec_decode(json, "w", "/r", &spec, NULL), 0);
    (void)json_object_put(json);
    assert_refused(env, "w", spec, MR_E_MOUNT_PATH_BUSY);
}

static void test_delete_of_an_unknown_volume_is_not_found(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    struct mr_err err;
    assert_true(mr_engine_detach(env->engine, "v", NULL, false, &op, &proof, &err) < 0);
    assert_int_equal(err.code, MR_E_VOLUME_NOT_FOUND);
}

static void test_delete_again_gives_the_same_proof(void **state)
{
    struct env *env = *state;
    attach_v(env);
    struct mr_operation *op = del(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_string_equal(asked(env), "inspect unmount claim unmap");

    struct json_object *proof = NULL;
    struct mr_operation *again = NULL;
    assert_int_equal(
        mr_engine_detach(env->engine, "v", NULL, false, &again, &proof, NULL), 0);
    assert_null(again);
    assert_true(json_object_equal(proof, mr_operation_proof(op)));
    assert_true(
        mr_json_get_bool(mr_json_get(proof, "evidence"), "exclusive_open", false));
    (void)json_object_put(proof);
}

static void test_guard_on_another_mount_path_changes_nothing(void **state)
{
    struct env *env = *state;
    attach_v(env);
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    struct mr_err err;
    assert_true(mr_engine_detach(env->engine, "v", "/r/w", false, &op, &proof, &err) < 0);
    assert_int_equal(err.code, MR_E_SPEC_CONFLICT);
    assert_int_equal(state_of(env, "v"), MR_STATE_ATTACHED);
    assert_string_equal(asked(env), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_attach_runs_its_plan_and_formats_a_blank_device, setup, teardown),
        cmocka_unit_test_setup_teardown(test_content_that_is_unknown_is_never_formatted,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_mount_is_undone_and_says_so, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_dead_worker_in_attach_is_undone_by_a_new_one,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_put_joins_and_then_verifies, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_crash_while_it_is_mounted_again_leaves_nothing_unfound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_put_of_an_unmounted_volume_mounts_it_again,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_put_of_a_covered_volume_is_refused_and_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_look_that_fails_leaves_the_volume_attached,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_crash_in_a_mend_does_not_forget_what_was_attached, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_crash_while_a_gone_device_is_mapped_again_is_recovered_from, setup,
            teardown),
        cmocka_unit_test_setup_teardown(
            test_other_source_under_the_same_name_is_never_formatted, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_conflicts_are_refused_before_anything_is_touched, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_device_of_another_volume_is_refused_after_mapping, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_a_root_may_be_named_as_configured_or_resolved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_delete_of_an_unknown_volume_is_not_found,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_delete_again_gives_the_same_proof, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_guard_on_another_mount_path_changes_nothing,
                                        setup, teardown),
    };
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
