/* SPDX-License-Identifier: Apache-2.0
 *
 * The wait: no answer of a worker but "claimed" leads to an unmap, and nothing that dies
 * or hangs loses it.
 */
#include "tests/unit/engine_sql_env.h"

#include <errno.h>
#include <signal.h>

static bool wedged(struct env *env)
{
    return v(env)->wedged;
}

static bool settled(struct env *env)
{
    return !mr_engine_recovering(env->engine) && !v(env)->op;
}

static bool at_check(struct env *env)
{
    return env->awaited->step == MR_STEP_CHECK;
}

static void test_busy_claims_are_repeated_and_nothing_is_unmapped(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'},{'result':'busy'},{'result':'claimed'}]");
    struct mr_operation *op = del(env, "v");

    run_until(env, held);
    assert_string_equal(asked(env), "inspect unmount claim");
    assert_int_equal(v(env)->state, MR_STATE_DETACHING);
    assert_int_equal(op->step, MR_STEP_DRAIN);
    run_to_end(env, op);
    assert_string_equal(asked(env), "claim claim unmap");
    assert_int_equal(v(env)->state, MR_STATE_ABSENT);
}

static void test_claim_that_cannot_tell_stops_the_detach(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'error':{'code':'device-error','message':'EIO'}}]");
    struct mr_operation *op = del(env, "v");

    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_string_equal(asked(env), "inspect unmount claim");
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_true(mr_volume_has_residue(v(env)));
}

static void test_claim_without_a_result_counts_as_busy(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{}]");
    (void)del(env, "v");
    run_until(env, held);
    assert_string_equal(asked(env), "inspect unmount claim");
}

static void test_umount_that_is_busy_is_tried_again(void **state)
{
    struct env *env = *state;
    script(env, "unmount",
           "[{'result':'busy'},{'result':'busy'},{'result':'unmounted'}]");
    struct mr_operation *op = del(env, "v");

    run_to_end(env, op);
    assert_string_equal(asked(env), "inspect unmount unmount unmount claim unmap");
}

static void test_bound_device_is_waited_for_and_evidence_kept(void **state)
{
    struct env *env = *state;
    script(env, "unmap",
           "[{'result':'bound','evidence':{'exclusive_open':true,'diskseq':42}}]");
    script(env, "gone",
           "[{'result':'bound','evidence':{'exclusive_open':false}},"
           "{'result':'gone','evidence':{'exclusive_open':false,'gone':'no backing'}}]");
    struct mr_operation *op = del(env, "v");

    run_until(env, held);
    assert_int_equal(op->step, MR_STEP_DRAIN);
    run_to_end(env, op);
    assert_string_equal(asked(env), "inspect unmount claim unmap gone gone");
    struct json_object *evidence = mr_json_get(mr_operation_proof(op), "evidence");
    assert_true(mr_json_get_bool(evidence, "exclusive_open", false));
    assert_string_equal(mr_json_get_string(evidence, "gone"), "no backing");
}

static void test_data_not_written_sticks_until_it_is_accepted(void **state)
{
    struct env *env = *state;
    script(env, "unmount",
           "[{'error':{'code':'data-not-written','message':'EIO'}},"
           "{'result':'unmounted'}]");
    struct mr_operation *op = del(env, "v");
    struct json_object *proof = NULL;
    struct mr_err err;

    run_to_end(env, op);
    assert_int_equal(mr_operation_error(op)->code, MR_E_DATA_NOT_WRITTEN);
    (void)asked(env);
    for (int i = 0; i < 2; i++) {
        assert_true(mr_engine_detach(env->engine, "v", NULL, false, &op, &proof, &err) <
                    0);
        assert_int_equal(err.code, MR_E_DATA_NOT_WRITTEN);
        env_stop(env); /* the kernel would not tell it again: the journal does */
        env_start(env);
    }
    assert_string_equal(asked(env), "");
    assert_int_equal(mr_engine_detach(env->engine, "v", NULL, true, &op, &proof, &err),
                     0);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static void test_dead_worker_does_not_end_the_wait(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'exit':1},{'result':'claimed'}]");
    struct mr_operation *op = del(env, "v");

    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_string_equal(asked(env), "inspect unmount claim inspect unmount claim unmap");
}

static bool claiming(struct env *env)
{
    return env->awaited->step == MR_STEP_CLAIM;
}

static void test_worker_that_dies_while_unmapping_is_recorded_is_replaced(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = del(env, "v");
    struct mr_worker *worker = NULL;
    env->awaited = op;
    run_until(env, claiming);
    /* Between the claim and the durable record: what follows must wait for a new worker.
     */
    worker = op->worker;
    assert_non_null(worker);
    assert_int_equal(kill(mr_worker_pid(worker), SIGKILL), 0);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static void test_one_bad_volume_does_not_keep_the_agent_recovering(void **state)
{
    struct env *env = *state;
    env_stop(env);
    script(env, "look", "[{'found':false,'mounted':'unknown'}]");
    env_start(env);
    run_until(env, settled);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_true(mr_volume_has_residue(v(env)));
}

static void test_worker_that_hangs_in_its_exit_is_wedged(void **state)
{
    struct env *env = *state;
    env->config.worker_deadline_ns = 50 * MR_NS_PER_MS;
    script(env, "claim", "[{'hang_up_ms':500},{'result':'claimed'}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, wedged);
    env->config.worker_deadline_ns = 5 * MR_NS_PER_S;
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static void test_overdue_worker_is_wedged_and_recovers_by_itself(void **state)
{
    struct env *env = *state;
    env->config.worker_deadline_ns = 50 * MR_NS_PER_MS;
    script(env, "unmount", "[{'sleep_ms':600,'result':'unmounted'}]");
    struct mr_operation *op = del(env, "v");
    struct mr_operation *other = NULL;
    struct mr_err err;

    run_until(env, wedged);
    struct json_object *document = mr_volume_document(v(env));
    assert_string_equal(mr_json_get_string(document, "state"), "wedged");
    (void)json_object_put(document);
    assert_true(mr_engine_attach(env->engine, "v", spec_at(env, "v", "v"), &other, &err) <
                0);
    assert_int_equal(err.code, MR_E_WEDGED);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_false(v(env)->wedged);
}

static void test_waiting_detach_goes_on_after_a_restart_under_its_id(void **state)
{
    struct env *env = *state;
    char id[MR_OPERATION_ID_TEXT];
    script(env, "claim", "[{'result':'busy'}]");
    struct mr_operation *op = del(env, "v");

    run_until(env, held);
    (void)snprintf(id, sizeof(id), "%s", mr_operation_id(op));
    (void)asked(env);
    env_stop(env);
    script(env, "inspect", FOUND_UNMOUNTED);
    env_start(env);
    op = mr_engine_find_operation(env->engine, id);
    assert_non_null(op);
    assert_int_equal(mr_operation_ended(op), 0);
    assert_int_equal(v(env)->state, MR_STATE_DETACHING);
    script(env, "claim", "[{'result':'claimed'}]");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_string_equal(asked(env), "inspect claim unmap");
}

static void test_detach_found_gone_at_restart_invents_no_time(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    (void)del(env, "v");
    run_until(env, held);
    env_stop(env);
    script(env, "inspect", "[{'found':false,'mounted':'absent'}]");
    env_start(env);
    run_until(env, settled);
    assert_int_equal(v(env)->state, MR_STATE_ABSENT);
    assert_null(mr_json_get(v(env)->proof, "released_at"));
    assert_string_equal(
        mr_json_get_string(mr_json_get(v(env)->proof, "evidence"), "gone"),
        "found gone at restart");
}

static void test_half_done_attach_is_undone_at_the_next_start(void **state)
{
    struct env *env = *state;
    script(env, "check", "[{'sleep_ms':300,'content':'blank'}]");
    struct mr_operation *op = NULL;
    struct mr_err err;
    assert_int_equal(
        mr_engine_attach(env->engine, "w", spec_at(env, "w", "w"), &op, &err), 0);
    env->awaited = op;
    script(env, "map",
           "[{'identity':{'node':'/dev/loop8','major':7,'minor':8,'diskseq':43,"
           "'source_key':'file:9:9:9'}}]");
    run_until(env, at_check);
    env_stop(env);
    (void)asked(env);
    script(env, "inspect",
           "[{'found':true,'identity':{'node':'/dev/loop8','major':7,'minor':8,"
           "'diskseq':43},'mounted':'absent'}]");
    env_start(env);
    struct mr_volume *w = mr_engine_lookup(env->engine, "w");
    assert_int_equal(w->state, MR_STATE_ATTACHING);
    env->awaited = w->op;
    run_until(env, operation_ended);
    assert_int_equal(w->state, MR_STATE_FAILED);
    assert_int_equal(w->error.residue, MR_RESIDUE_NONE);
    assert_non_null(strstr(asked(env), "claim unmap"));
}

static void test_attached_volume_is_looked_at_and_left_alone(void **state)
{
    struct env *env = *state;
    env_stop(env);
    env_start(env);
    assert_true(mr_engine_recovering(env->engine));
    run_until(env, settled);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_false(v(env)->has_error);
    assert_string_equal(asked(env), "");
}

static void test_other_diskseq_is_not_our_device(void **state)
{
    struct env *env = *state;
    script(env, "inspect",
           "[{'found':true,'identity':{'node':'/dev/loop9','major':7,'minor':9,"
           "'diskseq':99},'mounted':'present','on_top':true}]");
    struct mr_operation *op = del(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_error(op)->code, MR_E_DEVICE_MISMATCH);
    assert_string_equal(asked(env), "inspect");
}

static void test_another_boot_means_lost_and_delete_says_so(void **state)
{
    struct env *env = *state;
    env_stop(env);
    run_sql(env, "UPDATE volume SET doc = json_set(doc, '$.boot_id', 'other')");
    env_start(env);
    assert_int_equal(v(env)->state, MR_STATE_LOST_BY_REBOOT);
    struct mr_operation *op = del(env, "v");
    run_to_end(env, op);
    struct json_object *evidence = mr_json_get(mr_operation_proof(op), "evidence");
    assert_string_equal(mr_json_get_string(evidence, "gone"), "another boot");
    assert_string_equal(asked(env), "");
}

static void test_second_engine_on_the_directory_is_refused(void **state)
{
    struct env *env = *state;
    struct mr_engine *second = NULL;
    struct mr_err err;
    assert_int_equal(mr_engine_new(env->loop, &env->config, &second, &err), -EBUSY);
    assert_null(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_busy_claims_are_repeated_and_nothing_is_unmapped, setup_attached,
            teardown),
        cmocka_unit_test_setup_teardown(test_claim_that_cannot_tell_stops_the_detach,
                                        setup_attached, teardown),
        cmocka_unit_test_setup_teardown(test_claim_without_a_result_counts_as_busy,
                                        setup_attached, teardown),
        cmocka_unit_test_setup_teardown(test_umount_that_is_busy_is_tried_again,
                                        setup_attached, teardown),
        cmocka_unit_test_setup_teardown(test_bound_device_is_waited_for_and_evidence_kept,
                                        setup_attached, teardown),
        cmocka_unit_test_setup_teardown(test_data_not_written_sticks_until_it_is_accepted,
                                        setup_attached, teardown),
        cmocka_unit_test_setup_teardown(test_dead_worker_does_not_end_the_wait,
                                        setup_attached, teardown),
        cmocka_unit_test_setup_teardown(
            test_worker_that_dies_while_unmapping_is_recorded_is_replaced, setup_attached,
            teardown),
        cmocka_unit_test_setup_teardown(
            test_one_bad_volume_does_not_keep_the_agent_recovering, setup_attached,
            teardown),
        cmocka_unit_test_setup_teardown(test_worker_that_hangs_in_its_exit_is_wedged,
                                        setup_attached, teardown),
        cmocka_unit_test_setup_teardown(
            test_overdue_worker_is_wedged_and_recovers_by_itself, setup_attached,
            teardown),
        cmocka_unit_test_setup_teardown(
            test_waiting_detach_goes_on_after_a_restart_under_its_id, setup_attached,
            teardown),
        cmocka_unit_test_setup_teardown(test_detach_found_gone_at_restart_invents_no_time,
                                        setup_attached, teardown),
        cmocka_unit_test_setup_teardown(test_half_done_attach_is_undone_at_the_next_start,
                                        setup_attached, teardown),
        cmocka_unit_test_setup_teardown(test_attached_volume_is_looked_at_and_left_alone,
                                        setup_attached, teardown),
        cmocka_unit_test_setup_teardown(test_other_diskseq_is_not_our_device,
                                        setup_attached, teardown),
        cmocka_unit_test_setup_teardown(test_another_boot_means_lost_and_delete_says_so,
                                        setup_attached, teardown),
        cmocka_unit_test_setup_teardown(test_second_engine_on_the_directory_is_refused,
                                        setup_attached, teardown),
    };
    return cmocka_run_group_tests_name("engine_detach", tests, NULL, NULL);
}
