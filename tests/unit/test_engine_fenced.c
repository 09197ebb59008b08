/* SPDX-License-Identifier: Apache-2.0
 *
 * A mooring-lun that says that it serves errors for ever, because it was fenced or found
 * another LUN: said as what it is, kept over a restart, never taken for an attachment,
 * and never mended: only a detach is left, then all afresh.
 */
#include "tests/unit/engine_link_env.h"

static bool knows_end(struct env *env)
{
    return v(env)->transport_end != MR_TRANSPORT_UNKNOWN;
}

static bool said_fenced(struct env *env)
{
    return transport_is(env, "fenced");
}

static void fence(struct env *env)
{
    keeper_says(env, FENCED);
    run_until(env, is_fenced);
}

static void assert_says_fenced(const struct mr_err *err)
{
    assert_int_equal(err->code, MR_E_FENCED);
    assert_int_equal(err->residue, MR_RESIDUE_POSSIBLE);
    assert_non_null(strstr(err->message, TARGET));
    assert_non_null(strstr(err->message, "LUN 7"));
    assert_non_null(strstr(err->message, KEY));
    assert_non_null(strstr(err->message, HOLDER));
    assert_non_null(strstr(err->message, "/dev/loop9"));
    assert_non_null(strstr(err->remedy, "DELETE"));
}

static void test_it_is_said_at_once_and_kept(void **state)
{
    struct env *env = *state;
    fence(env);
    assert_says_fenced(&v(env)->error);
    MR_AUTO_JSON struct json_object *document = mr_volume_document(v(env));
    assert_string_equal(mr_json_get_string(document, "state"), "fenced");
    struct json_object *fencing = mr_json_get(document, "fencing");
    assert_string_equal(mr_json_get_string(fencing, "holder"), HOLDER);
    assert_string_equal(mr_json_get_string(document, "device"), "/dev/loop9");
    env_stop(env);
    assert_int_equal(history_count(env, "fenced"), 1);
    env_start(env);
    run_until(env, recovered);
    assert_true(is_fenced(env));
    assert_says_fenced(&v(env)->error);
    run_until(env, said_fenced); /* and who holds it now is shown, still */
    assert_true(is_fenced(env));
    assert_says_fenced(&v(env)->error);
    env_stop(env);
    assert_int_equal(history_count(env, "fenced"), 1);
    env_start(env);
}

static void test_while_the_agent_is_down_is_seen_after_its_start(void **state)
{
    struct env *env = *state;
    const char *now = status(env, FENCED);
    env_stop(env);
    (void)json_object_put(keeper_do(&keeper, "say", NULL, now));
    env_start(env);
    assert_false(recovered(env));
    assert_transport(env, "unknown"); /* nor is it said to be well before it was asked */
    run_until(env, recovered);
    assert_true(is_fenced(env));
    assert_says_fenced(&v(env)->error);
}

static void test_what_only_the_journal_knows_counts(void **state)
{
    struct env *env = *state;
    env_stop(env); /* in an operation, between that record and the next */
    run_sql(env, "UPDATE volume SET doc = json_set(doc, '$.transport_end', 'fenced')");
    env_start(env);
    assert_true(is_fenced(env)); /* from the first answer on */
    run_until(env, recovered);
    assert_true(is_fenced(env));
    assert_int_equal(v(env)->error.code, MR_E_FENCED);
    assert_non_null(strstr(v(env)->error.message, TARGET));
}

static void test_it_stays_fenced_whatever_is_said_later(void **state)
{
    struct env *env = *state;
    fence(env);
    keeper_says(env, UP);
    run_until(env, is_up);
    assert_true(is_fenced(env));
    keeper_says(env, MISMATCH);
    run_ms(env, 50);
    assert_true(is_fenced(env));
    assert_says_fenced(&v(env)->error);
    keeper_end(&keeper);
    run_ms(env, 50);
    assert_true(is_fenced(env));
    assert_true(v(env)->server_lost);
}

static void test_delete_works_as_always(void **state)
{
    struct env *env = *state;
    fence(env);
    struct mr_operation *op = del(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_string_equal(asked(env), "inspect unmount claim unmap");
    struct json_object *evidence = mr_json_get(mr_operation_proof(op), "evidence");
    assert_string_equal(mr_json_get_string(evidence, "transport_end"), "fenced");
    assert_int_equal(v(env)->transport_end, MR_TRANSPORT_UNKNOWN);
}

static void test_put_detaches_first_and_attaches_afresh(void **state)
{
    struct env *env = *state;
    char token[MR_TOKEN_TEXT];
    memcpy(token, v(env)->token, sizeof(token));
    fence(env);
    struct mr_operation *op = put_lun(env);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_true(mr_operation_created(op));
    assert_string_equal(asked(env),
                        "inspect unmount claim unmap map identify check mount");
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_string_not_equal(v(env)->token, token);
    assert_false(v(env)->has_error);
}

static void test_lost_writes_are_never_accepted_by_a_put(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    struct mr_err err;
    script(env, "unmount", LOST_WRITE);
    fence(env);
    op = put_lun(env);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(mr_operation_error(op)->code, MR_E_DATA_NOT_WRITTEN);
    assert_non_null(strstr(mr_operation_error(op)->remedy, "accept_data_loss=true"));
    assert_true(is_fenced(env)); /* that it is, and what was found since */
    assert_int_equal(v(env)->error.code, MR_E_DATA_NOT_WRITTEN);
    assert_true(mr_engine_attach(env->engine, "v", lun_spec(env), &op, &err) < 0);
    assert_int_equal(err.code, MR_E_DATA_NOT_WRITTEN);
    env_stop(env);
    env_start(env);
    run_until(env, recovered);
    assert_true(is_fenced(env));
    assert_true(mr_engine_attach(env->engine, "v", lun_spec(env), &op, &err) < 0);
    assert_int_equal(err.code, MR_E_DATA_NOT_WRITTEN);
    assert_int_equal(mr_engine_detach(env->engine, "v", NULL, true, &op, &proof, &err),
                     0);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static void test_other_spec_is_refused_as_always(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct mr_err err;
    fence(env);
    assert_true(
        mr_engine_attach(env->engine, "v", spec_at(env, "other", "v"), &op, &err) < 0);
    assert_int_equal(err.code, MR_E_SPEC_CONFLICT);
}

static bool looking(struct env *env)
{
    return v(env)->op && v(env)->op->busy;
}

static void test_put_never_verifies_what_is_fenced(void **state)
{
    struct env *env = *state;
    script(env, "inspect",
           "[{'sleep_ms':300,'found':true," DEVICE(
               42) ",'mounted':'present','on_top':true}]");
    struct mr_operation *op = put_lun(env);
    run_until(env, looking);
    keeper_says(env, FENCED);
    run_until(env, knows_end);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED); /* left to the operation */
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_says_fenced(mr_operation_error(op));
    assert_true(is_fenced(env));
    assert_says_fenced(&v(env)->error);
}

static bool mounting(struct env *env)
{
    return v(env)->op && v(env)->op->step == MR_STEP_MOUNT && v(env)->op->busy;
}

/* What fails because of it is not called by another name. */
static void test_attach_that_is_fenced_is_undone(void **state)
{
    struct env *env = *state;
    static const char *const mounts[] = {
        "[{'sleep_ms':300,'mount':{'id':77,'unique':true,'major':7,'minor':9,"
        "'root':'/r','path':'v','created':1}}]",
        "[{'sleep_ms':300,'error':{'code':'device-error','message':'EIO'}}]",
    };
    static const char *const undone[] = {"inspect unmount claim unmap",
                                         "inspect claim unmap"};
    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        run_to_end(env, del(env, "v"));
        keeper_end(&keeper);
        keeper_start(&keeper);
        script_map(env);
        script(env, "check", "[]");
        script(env, "mount", mounts[i]);
        struct mr_operation *op = put_lun(env);
        run_until(env, mounting);
        keeper_listens(env, status(env, FENCED));
        run_until(env, knows_end);
        (void)asked(env);
        run_to_end(env, op);
        assert_int_equal(mr_operation_ended(op), -1);
        assert_int_equal(mr_operation_error(op)->code, MR_E_FENCED);
        assert_int_equal(mr_operation_error(op)->residue, MR_RESIDUE_NONE);
        assert_string_equal(asked(env), undone[i]);
        assert_int_equal(v(env)->state, MR_STATE_FAILED); /* nothing is left to fence */
    }
}

static void test_while_a_detach_waits_it_goes_to_its_end(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, held);
    keeper_says(env, FENCED);
    run_until(env, knows_end);
    assert_int_equal(v(env)->state, MR_STATE_DETACHING);
    struct mr_operation *back = put_lun(env);
    mr_detach_look_again(op);
    run_until(env, held);
    assert_int_equal(mr_operation_ended(op), 0); /* not brought back */
    (void)asked(env);
    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    mr_detach_look_again(op);
    run_to_end(env, back);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(mr_operation_ended(back), 1);
    assert_non_null(strstr(asked(env), "unmap map"));
}

static void test_failed_detach_leaves_it_fenced(void **state)
{
    struct env *env = *state;
    fence(env);
    script(env, "claim", "[{'error':{'code':'device-error','message':'EIO'}}]");
    struct mr_operation *op = del(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_true(is_fenced(env));
    assert_int_equal(v(env)->error.code, MR_E_DEVICE_ERROR);
}

static void test_what_it_says_in_our_own_unmap_is_no_news(void **state)
{
    struct env *env = *state;
    script(env, "unmap", "[{'sleep_ms':300,'result':'bound','evidence':{}}]");
    script(env, "gone", "[{'sleep_ms':100,'result':'gone','evidence':{}}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, unmapping);
    keeper_says(env, FENCED);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    env_stop(env);
    assert_int_equal(history_count(env, "fenced"), 0);
    env_start(env);
}

/* The kernel kept the device: a PUT would bring back what gives errors only. */
static void test_what_it_says_in_an_unmap_that_is_put_off_counts(void **state)
{
    struct env *env = *state;
    script(env, "unmap", "[{'sleep_ms':300,'result':'bound','evidence':{}}]");
    script(env, "gone", "[{'result':'bound','evidence':{}}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, unmapping);
    keeper_says(env, FENCED);
    run_until(env, said_fenced);
    run_until(env, held);
    struct mr_operation *back = put_lun(env);
    run_ms(env, 50);
    assert_int_equal(mr_operation_ended(op), 0); /* not brought back */
    (void)asked(env);
    script(env, "gone", "[{'result':'gone','evidence':{}}]");
    mr_detach_look_again(op);
    run_to_end(env, back);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(mr_operation_ended(back), 1);
    assert_non_null(strstr(asked(env), "gone map identify"));
    assert_int_equal(v(env)->transport_end, MR_TRANSPORT_UNKNOWN);
}

static void assert_dry_run(struct env *env, const char *reply, const char *expected)
{
    assert_dry_run_of(env, lun_spec(env), reply, expected);
}

#define MUTE "[{'error':{'code':'target-timeout','message':'mute'}}]"

/* A PUT would detach it first, and then meet whatever is there. */
static void test_dry_run_knows_that_it_is_attached_afresh(void **state)
{
    struct env *env = *state;
    assert_dry_run(env, LOOK("'blank'"), "verify");
    keeper_says(env, MISMATCH);
    run_until(env, is_failed);
    assert_dry_run(env, LOOK("'blank'"), "format");
    assert_dry_run(env, LOOK("'formatted','fs_type':'xfs'"), "attach");
    assert_dry_run(env, LOOK("'formatted','fs_type':'ext4'"), "wrong-filesystem");
    assert_dry_run(env, MUTE, "target-timeout");
    v(env)->data_not_written = true;
    assert_dry_run(env, LOOK("'formatted','fs_type':'xfs'"), "data-not-written");
}

/* To verify what is attached a PUT asks no target. */
static void test_dry_run_of_what_is_attached_needs_no_target(void **state)
{
    struct env *env = *state;
    assert_dry_run(env, MUTE, "verify");
    struct mr_operation *op = put_lun(env);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static void test_dry_run_sees_what_keeps_a_detach_from_being_taken_back(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, held);
    assert_dry_run(env, LOOK("'formatted','fs_type':'xfs'"), "verify");
    v(env)->forced = true;
    assert_dry_run(env, LOOK("'formatted','fs_type':'xfs'"), "data-not-written");
    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    mr_detach_look_again(op);
    run_to_end(env, op);
}

static void test_another_lun_is_a_failure_that_no_put_verifies(void **state)
{
    struct env *env = *state;
    keeper_says(env, MISMATCH);
    run_until(env, is_failed);
    assert_int_equal(v(env)->error.code, MR_E_DEVICE_MISMATCH);
    assert_non_null(strstr(v(env)->error.message, "another serial number"));
    assert_true(v(env)->error.remedy[0]);
    env_stop(env);
    assert_int_equal(history_count(env, "transport_mismatch"), 1);
    env_start(env);
    run_until(env, recovered);
    assert_true(is_failed(env));
    (void)asked(env);
    struct mr_operation *op = put_lun(env);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_string_equal(asked(env),
                        "inspect unmount claim unmap map identify check mount");
}

static void test_transport_that_an_operator_has_cut_is_a_failure(void **state)
{
    struct env *env = *state;
    keeper_says(env, TRANSPORT("cut", ""));
    run_until(env, is_failed);
    assert_int_equal(v(env)->error.code, MR_E_DEVICE_ERROR);
    assert_non_null(strstr(v(env)->error.message, "cut"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup_up, teardown_keeper)
        T(test_it_is_said_at_once_and_kept),
        T(test_while_the_agent_is_down_is_seen_after_its_start),
        T(test_what_only_the_journal_knows_counts),
        T(test_it_stays_fenced_whatever_is_said_later),
        T(test_delete_works_as_always),
        T(test_put_detaches_first_and_attaches_afresh),
        T(test_lost_writes_are_never_accepted_by_a_put),
        T(test_other_spec_is_refused_as_always),
        T(test_put_never_verifies_what_is_fenced),
        T(test_attach_that_is_fenced_is_undone),
        T(test_while_a_detach_waits_it_goes_to_its_end),
        T(test_failed_detach_leaves_it_fenced),
        T(test_what_it_says_in_our_own_unmap_is_no_news),
        T(test_what_it_says_in_an_unmap_that_is_put_off_counts),
        T(test_dry_run_knows_that_it_is_attached_afresh),
        T(test_dry_run_of_what_is_attached_needs_no_target),
        T(test_dry_run_sees_what_keeps_a_detach_from_being_taken_back),
        T(test_another_lun_is_a_failure_that_no_put_verifies),
        T(test_transport_that_an_operator_has_cut_is_a_failure),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
