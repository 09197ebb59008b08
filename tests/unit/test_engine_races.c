/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests that meet at bad moments: an action while the detach ends or is called off, a
 * PUT or a forget while the worker's answer must not be lost, a gate that is knocked at
 * twice, records that fail.
 */
#include "tests/unit/engine_sql_env.h"

#include <errno.h>
#include <signal.h>

#define SEEN(rows) "[{'complete':true,'holders':[" rows "]}]"
#define COPY                                                                             \
    "{'id':'a1','kind':'mount-copy','certain':true,'pid':1,'start_time':5,'path':'/p'}"

static unsigned answers;
static struct mr_err last_err;

static void on_answer(void *ctx, struct json_object *document, const struct mr_err *err)
{
    (void)ctx;
    (void)document;
    answers++;
    memset(&last_err, 0, sizeof(last_err));
    if (err)
        last_err = *err;
}

static void on_end(void *ctx, struct mr_operation *op)
{
    (void)ctx;
    (void)op;
    answers++;
}

static int setup_copied(void **state)
{
    (void)setup_attached(state);
    script(*state, "scan", SEEN(COPY));
    answers = 0;
    return 0;
}

static bool unmounting(struct env *env)
{
    return v(env)->op && v(env)->op->step == MR_STEP_UNMOUNT && v(env)->op->busy;
}

static bool named(struct env *env)
{
    return v(env)->holders && json_object_array_length(v(env)->holders) > 0;
}

static bool wedged(struct env *env)
{
    return v(env)->wedged;
}

static bool acting(struct env *env)
{
    char path[PATH_MAX];
    char text[256] = "";

    /* Not asked(): to clear the log could lose the line. */
    (void)snprintf(path, sizeof(path), "%s/state/fake/log", env->dir);
    return mr_read_text(AT_FDCWD, path, text, sizeof(text)) > 0 && strstr(text, "act");
}

static bool gated(struct env *env)
{
    return v(env)->op && v(env)->op->gate;
}

static bool one_answer(struct env *env)
{
    (void)env;
    return answers >= 1;
}

static bool two_answers(struct env *env)
{
    (void)env;
    return answers >= 2;
}

static void start_held(struct env *env)
{
    script(env, "claim", "[{'result':'busy'}]");
    (void)del(env, "v");
    run_until(env, held);
    run_until(env, named);
    (void)asked(env);
}

static struct mr_pending *act(struct env *env, enum mr_action action, struct mr_err *err)
{
    const struct mr_action_request request = {.action = action, .accept_data_loss = true};
    return mr_engine_act(env->engine, "v", &request, on_answer, NULL, err);
}

static int put_again(struct env *env, struct mr_operation **ret, struct mr_err *err)
{
    return mr_engine_attach(env->engine, "v", spec_at(env, "v", "v"), ret, err);
}

static struct mr_pending *forget(struct env *env, struct mr_err *err)
{
    return mr_engine_forget(env->engine, "v", NULL, NULL, on_answer, NULL, err);
}

static void test_record_of_an_action_does_not_undo_the_end(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    script(env, "unmap",
           "[{'sleep_ms':200,'result':'gone','evidence':{'gone':'no backing'}}]");
    start_held(env);
    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    struct mr_operation *op = v(env)->op;
    mr_detach_look_again(op);
    run_until(env, unmapping);
    /* The action's record and the unmap's answer meet in one turn. */
    mr_sleep_ns(1500 * MR_NS_PER_MS);
    assert_non_null(act(env, MR_ACTION_THAW, &err));
    run_to_end(env, op);
    run_until(env, one_answer);
    assert_int_equal(last_err.code, MR_E_NOT_DETACHING);
    env_stop(env);
    assert_string_equal(ask_sql(env, STATE_OF_V), "absent");
    env_start(env);
}

static void test_forget_waits_for_a_running_action(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    start_held(env);
    assert_non_null(act(env, MR_ACTION_THAW, &err));
    assert_null(forget(env, &err));
    assert_int_equal(err.code, MR_E_OPERATION_PENDING);
    run_until(env, one_answer);
    assert_non_null(forget(env, &err));
    run_until(env, two_answers);
    env_stop(env);
    assert_string_equal(ask_sql(env, STATE_OF_V), "orphan");
    env_start(env);
    assert_int_equal(v(env)->state, MR_STATE_ORPHAN);
}

static void test_put_waits_for_a_running_action(void **state)
{
    struct env *env = *state;
    struct mr_operation *back = NULL;
    struct mr_err err;
    script(env, "act", "[{'sleep_ms':300,'results':[]}]");
    start_held(env);
    assert_non_null(act(env, MR_ACTION_THAW, &err));
    assert_true(put_again(env, &back, &err) < 0);
    assert_int_equal(err.code, MR_E_OPERATION_PENDING);
    assert_int_equal(mr_operation_ended(v(env)->op), 0);
    run_until(env, one_answer);
    script(env, "inspect", FOUND_UNMOUNTED);
    assert_int_equal(put_again(env, &back, &err), 0);
    run_to_end(env, back);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
}

static void test_what_was_made_to_fail_is_not_brought_back(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct mr_err err;
    start_held(env);
    assert_non_null(act(env, MR_ACTION_SHUTDOWN, &err));
    run_until(env, one_answer);
    assert_true(put_again(env, &op, &err) < 0);
    assert_int_equal(err.code, MR_E_DATA_NOT_WRITTEN);
    env_stop(env);
    env_start(env);
    run_until(env, held);
    assert_true(put_again(env, &op, &err) < 0);
    assert_int_equal(err.code, MR_E_DATA_NOT_WRITTEN);
    op = v(env)->op;
    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    mr_detach_look_again(op);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    op = put(env, "v"); /* a new attachment, of which nothing was made to fail */
    assert_false(v(env)->forced);
}

static void test_shutdown_that_was_not_done_forces_nothing(void **state)
{
    struct env *env = *state;
    struct mr_operation *back = NULL;
    struct mr_err err;
    script(env, "act", "[{'error':{'code':'action-unsupported','message':'no'}}]");
    start_held(env);
    assert_non_null(act(env, MR_ACTION_SHUTDOWN, &err));
    assert_true(v(env)->forced);
    run_until(env, one_answer);
    assert_false(v(env)->op->accept_data_loss);
    script(env, "inspect", FOUND_UNMOUNTED);
    assert_int_equal(put_again(env, &back, &err), 0);
    run_to_end(env, back);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
}

static void test_action_is_refused_once_the_detach_is_called_off(void **state)
{
    struct env *env = *state;
    struct mr_operation *back = NULL;
    struct mr_err err;
    script(env, "unmap", "[{'sleep_ms':200,'result':'gone','evidence':{}}]");
    (void)del(env, "v");
    run_until(env, unmapping);
    assert_int_equal(put_again(env, &back, &err), 0);
    assert_null(act(env, MR_ACTION_SHUTDOWN, &err));
    assert_int_equal(err.code, MR_E_OPERATION_PENDING);
    run_to_end(env, back);
}

static void test_gate_is_not_opened_twice(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'claimed','unmap':'immediate'}]");
    script(env, "scan", SEEN(""));
    script(env, "unmap", "[{'sleep_ms':300,'result':'bound','evidence':{}}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, gated);
    mr_detach_unmounted(op); /* read after the claim's answer */
    run_until(env, held);
    assert_int_equal(mr_operation_ended(op), 0);
    assert_true(op->unmap_asked);
    script(env, "gone", "[{'result':'gone','evidence':{'gone':'no backing'}}]");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static void test_gate_does_not_outlive_the_claim(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'claimed','unmap':'immediate'},{'result':'busy'}]");
    script(env, "scan", "[{'sleep_ms':300,'complete':true,'holders':[]}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, gated);
    assert_int_equal(kill(mr_worker_pid(op->worker), SIGKILL), 0);
    run_until(env, held); /* by the next worker, which had no claim */
    assert_null(strstr(asked(env), "unmap"));
    assert_int_equal(op->step, MR_STEP_DRAIN);
    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    mr_detach_look_again(op);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static void test_gate_takes_no_candidates_for_openers(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'claimed','unmap':'immediate'}]");
    script(env, "scan",
           SEEN("{'id':'d4','kind':'raw-device','certain':true,'pid':9,'start_time':1}"));
    struct mr_operation *op = del(env, "v");
    run_until(env, named);
    /* A scan for candidates would find this one; the gate does not ask for them. */
    script(env, "scan", SEEN(""));
    script(env, "scan-held",
           SEEN("{'id':'c','kind':'in-flight-fd','certain':false,'pid':7}"));
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static void test_worker_that_dies_in_the_unmap_does_not_strand_a_put(void **state)
{
    struct env *env = *state;
    script(env, "unmap", "[{'sleep_ms':200,'exit':3}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, unmapping);
    struct mr_operation *back = put(env, "v");
    script(env, "inspect", FOUND_UNMOUNTED);
    script(env, "claim", "[{'result':'busy'}]");
    run_to_end(env, back);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(mr_operation_ended(back), 1);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
}

static void test_put_or_forget_does_not_lose_the_news_of_a_lost_write(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    struct mr_err err;
    script(env, "unmount",
           "[{'sleep_ms':300,'error':{'code':'data-not-written','message':'EIO'}}]");
    struct mr_operation *first = del(env, "v");
    run_until(env, unmounting);
    assert_null(forget(env, &err));
    assert_int_equal(err.code, MR_E_OPERATION_PENDING);
    run_to_end(env, first);
    assert_int_equal(mr_operation_error(first)->code, MR_E_DATA_NOT_WRITTEN);
    assert_true(mr_engine_detach(env->engine, "v", NULL, false, &op, &proof, &err) < 0);
    assert_int_equal(err.code, MR_E_DATA_NOT_WRITTEN);
}

static void test_loss_accepted_while_the_worker_is_at_it_counts(void **state)
{
    struct env *env = *state;
    struct json_object *proof = NULL;
    struct mr_operation *op = NULL;
    struct mr_err err;
    script(env, "unmount",
           "[{'sleep_ms':300,'error':{'code':'data-not-written','message':'EIO'}},"
           "{'result':'unmounted'}]");
    struct mr_operation *first = del(env, "v");
    run_until(env, unmounting);
    assert_int_equal(mr_engine_detach(env->engine, "v", NULL, true, &op, &proof, &err),
                     0);
    assert_ptr_equal(op, first);
    run_to_end(env, first);
    assert_int_equal(mr_operation_ended(first), 1);
}

static void test_put_before_the_deadline_leaves_a_way_out(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    env->config.worker_deadline_ns = 300 * MR_NS_PER_MS;
    script(env, "unmount", "[{'sleep_ms':1500,'result':'busy'},{'result':'unmounted'}]");
    (void)del(env, "v");
    run_until(env, unmounting);
    struct mr_operation *back = put(env, "v");
    run_until(env, wedged);
    assert_int_equal(v(env)->op->goal, MR_GOAL_ABSENT);
    assert_non_null(strstr(v(env)->wedged_why.message, "unmount"));
    assert_non_null(act(env, MR_ACTION_CUT_TRANSPORT, &err));
    run_until(env, one_answer);
    assert_int_equal(last_err.message[0], '\0');
    /* The umount was only slow; but what was cut is not brought back: it goes to its end,
     * and then the PUT attaches afresh. */
    run_to_end(env, back);
    assert_true(mr_operation_created(back));
    assert_false(v(env)->forced);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_non_null(strstr(asked(env), "unmap map"));
}

static void test_action_whose_worker_dies_may_have_been_done(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct mr_err err;
    script(env, "act", "[{'exit':3}]");
    start_held(env);
    assert_non_null(act(env, MR_ACTION_SHUTDOWN, &err));
    run_until(env, one_answer);
    assert_true(put_again(env, &op, &err) < 0);
    assert_int_equal(err.code, MR_E_DATA_NOT_WRITTEN);
}

static void test_record_of_an_action_leaves_its_operation_alone(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    char id[MR_OPERATION_ID_TEXT];
    start_held(env);
    memcpy(id, v(env)->op->id, sizeof(id));
    assert_non_null(act(env, MR_ACTION_THAW, &err));
    run_until(env, one_answer);
    env_stop(env);
    env_start(env);
    assert_non_null(v(env)->op);
    assert_string_equal(v(env)->op->id, id);
    assert_non_null(v(env)->op->waited_for);
}

static void test_queued_put_is_accepted_before_it_starts(void **state)
{
    struct env *env = *state;
    script(env, "unmap", "[{'sleep_ms':600,'result':'gone','evidence':{}}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, unmapping);
    struct mr_operation *back = put(env, "v");
    assert_false(mr_operation_is_accepted(back));
    assert_non_null(mr_operation_watch_accepted(back, on_end, NULL));
    run_until(env, one_answer);
    assert_int_equal(mr_operation_ended(op), 0);
    run_to_end(env, back);
}

static void test_put_waits_for_an_action_when_the_detach_has_failed(void **state)
{
    struct env *env = *state;
    struct mr_operation *back = NULL;
    struct mr_err err;
    script(env, "act", "[{'sleep_ms':2500,'results':[]}]");
    start_held(env);
    struct mr_operation *op = v(env)->op;
    assert_non_null(act(env, MR_ACTION_THAW, &err));
    run_until(env, acting);
    script(env, "claim", "[{'error':{'code':'device-error','message':'EIO'}}]");
    mr_detach_look_again(op);
    run_to_end(env, op);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_true(put_again(env, &back, &err) < 0);
    assert_int_equal(err.code, MR_E_OPERATION_PENDING);
    run_until(env, one_answer);
    assert_int_equal(put_again(env, &back, &err), 0);
    run_to_end(env, back);
}

static void test_forget_of_a_wedged_volume_ends_a_queued_put(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    env->config.worker_deadline_ns = 300 * MR_NS_PER_MS;
    script(env, "unmount", "[{'sleep_ms':1500,'result':'busy'}]");
    (void)del(env, "v");
    run_until(env, unmounting);
    struct mr_operation *back = put(env, "v");
    run_until(env, wedged);
    assert_non_null(forget(env, &err));
    run_until(env, one_answer);
    assert_int_equal(v(env)->state, MR_STATE_ORPHAN);
    assert_int_equal(mr_operation_ended(back), -1);
    assert_int_equal(mr_operation_error(back)->code, MR_E_ORPHAN);
}

static void test_forget_that_cannot_be_written_leaves_no_orphan(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    struct mr_err err;
    env_stop(env);
    run_sql(env, "CREATE TRIGGER t BEFORE INSERT ON history WHEN new.event = 'forgotten' "
                 "BEGIN SELECT raise(ABORT, 'no'); END;");
    script(env, "claim", "[{'result':'busy'}]");
    env_start(env);
    run_until(env, recovered);
    assert_int_equal(mr_engine_detach(env->engine, "v", NULL, false, &op, &proof, &err),
                     0);
    run_until(env, held);
    assert_non_null(forget(env, &err));
    run_until(env, one_answer);
    assert_int_equal(last_err.code, MR_E_JOURNAL_UNAVAILABLE);
    assert_null(mr_engine_next_orphan(env->engine, NULL));
    assert_int_equal(mr_engine_detach(env->engine, "v", NULL, false, &op, &proof, &err),
                     0);
}

static void test_half_a_look_tells_nobody_goodbye(void **state)
{
    struct env *env = *state;
    start_held(env);
    script(env, "scan", "[{'complete':false,'holders':[]}]");
    assert_non_null(mr_engine_holders(env->engine, v(env), on_answer, NULL));
    run_until(env, one_answer);
    struct json_object *row = mr_holders_find(v(env)->op->waited_for, "a1");
    assert_non_null(row);
    assert_null(mr_json_get(row, "gone_at"));
}

static void test_operation_is_not_forgotten_while_it_ends(void **state)
{
    struct env *env = *state;
    static char elsewhere[] = "/x";
    script(env, "unmap", "[{'sleep_ms':200,'result':'gone','evidence':{}}]");
    (void)del(env, "v");
    run_until(env, unmapping);
    struct mr_operation *back = put(env, "v");
    assert_non_null(mr_operation_watch(back, on_end, NULL));
    /* What comes then cannot start, and both end in one turn. */
    env->config.mount_roots.path[0] = elsewhere;
    env->engine->ended_count = MR_OPERATIONS_KEPT;
    run_until(env, one_answer);
    assert_int_equal(v(env)->state, MR_STATE_ABSENT);
}

static void test_delete_while_an_undo_waits_becomes_a_detach(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    v(env)->state = MR_STATE_ATTACHING;
    mr_volume_record(v(env), "as after a crash", NULL, NULL, NULL);
    env_stop(env);
    script(env, "claim", "[{'result':'busy'}]");
    env_start(env);
    run_until(env, held);
    assert_true(v(env)->op->undoing);
    struct mr_operation *op = del(env, "v");
    assert_int_equal(mr_operation_goal(op), MR_GOAL_ABSENT);
    run_until(env, held);
    run_until(env, named);
    assert_ptr_equal(v(env)->op, op);
    assert_non_null(act(env, MR_ACTION_THAW, &err)); /* what a detach allows */
    run_until(env, one_answer);
    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    mr_detach_look_again(op);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup_copied, teardown)
        T(test_record_of_an_action_does_not_undo_the_end),
        T(test_forget_waits_for_a_running_action),
        T(test_put_waits_for_a_running_action),
        T(test_what_was_made_to_fail_is_not_brought_back),
        T(test_shutdown_that_was_not_done_forces_nothing),
        T(test_action_is_refused_once_the_detach_is_called_off),
        T(test_gate_is_not_opened_twice),
        T(test_gate_does_not_outlive_the_claim),
        T(test_gate_takes_no_candidates_for_openers),
        T(test_worker_that_dies_in_the_unmap_does_not_strand_a_put),
        T(test_put_or_forget_does_not_lose_the_news_of_a_lost_write),
        T(test_loss_accepted_while_the_worker_is_at_it_counts),
        T(test_put_before_the_deadline_leaves_a_way_out),
        T(test_action_whose_worker_dies_may_have_been_done),
        T(test_record_of_an_action_leaves_its_operation_alone),
        T(test_queued_put_is_accepted_before_it_starts),
        T(test_put_waits_for_an_action_when_the_detach_has_failed),
        T(test_forget_of_a_wedged_volume_ends_a_queued_put),
        T(test_forget_that_cannot_be_written_leaves_no_orphan),
        T(test_half_a_look_tells_nobody_goodbye),
        T(test_operation_is_not_forgotten_while_it_ends),
        T(test_delete_while_an_undo_waits_becomes_a_detach),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
