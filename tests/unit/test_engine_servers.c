/* SPDX-License-Identifier: Apache-2.0
 *
 * The death of a mooring-lun: seen at once, said as what it is, never taken for an
 * attachment, and never mended: only a detach is left, then all afresh.
 */
#include "tests/unit/engine_sql_env.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static pid_t server; /* a process of ours that plays mooring-lun */

static void start_server(void)
{
    server = fork();
    assert_true(server >= 0);
    if (server == 0) {
        (void)close_range(3, ~0U, 0); /* the agent's locks among them */
        for (;;)
            (void)pause();
    }
}

static void end_server(void)
{
    if (server <= 0)
        return;
    assert_int_equal(kill(server, SIGKILL), 0);
    (void)waitpid(server, NULL, 0);
    server = 0;
}

static void script_server(struct env *env, const char *command, int64_t start_time)
{
    char text[512];
    (void)snprintf(text, sizeof(text),
                   "[{'identity':{'node':'/dev/loop9','major':7,'minor':9,'diskseq':42,"
                   "'size_bytes':4096,'block_size':512,'source_key':'file:1:2:3',"
                   "'lun_pid':%d,'lun_start_time':%lld}}]",
                   (int)server, (long long)start_time);
    script(env, command, text);
}

static int setup_served(void **state)
{
    (void)setup(state);
    struct env *env = *state;
    start_server();
    script_server(env, "map", (int64_t)mr_process_start_time(server));
    run_to_end(env, put(env, "v"));
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    (void)asked(env);
    script(env, "inspect", FOUND);
    script(env, "map", "[]"); /* the next one has no server */
    script_same_content(env);
    return 0;
}

static int teardown_served(void **state)
{
    end_server();
    return teardown(state);
}

static bool lost(struct env *env)
{
    return v(env)->server_lost;
}

static bool failed(struct env *env)
{
    return v(env)->state == MR_STATE_FAILED && !v(env)->op;
}

static void lose_server(struct env *env)
{
    end_server();
    run_until(env, lost);
}

static void test_its_end_is_seen_at_once_and_said(void **state)
{
    struct env *env = *state;
    char text[64];
    (void)snprintf(text, sizeof(text), "(process %d) has ended", (int)server);
    assert_non_null(v(env)->server);
    lose_server(env);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_int_equal(v(env)->error.code, MR_E_DEVICE_ERROR);
    assert_int_equal(v(env)->error.residue, MR_RESIDUE_POSSIBLE);
    assert_non_null(strstr(v(env)->error.message, text));
    assert_non_null(strstr(v(env)->error.message, "/dev/loop9"));
    assert_null(v(env)->server);
    env_stop(env);
    assert_int_equal(history_count(env, "server_lost"), 1);
    env_start(env);
    run_until(env, recovered);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_true(v(env)->server_lost);
}

static void test_delete_works_as_always(void **state)
{
    struct env *env = *state;
    lose_server(env);
    struct mr_operation *op = del(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_string_equal(asked(env), "inspect unmount claim unmap");
    assert_false(v(env)->server_lost);
}

static void test_end_while_the_agent_is_down_is_seen_at_its_start(void **state)
{
    struct env *env = *state;
    env_stop(env);
    end_server();
    env_start(env);
    run_until(env, recovered);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_true(v(env)->server_lost);
}

static void test_another_process_with_its_number_is_not_it(void **state)
{
    struct env *env = *state;
    mr_server_forget(v(env));
    v(env)->identity.lun_start_time++;
    mr_server_watch(v(env));
    assert_true(v(env)->server_lost);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_null(v(env)->server);
}

static void test_server_that_lives_is_watched_once(void **state)
{
    struct env *env = *state;
    struct mr_server_watch *watch = v(env)->server;
    mr_server_watch(v(env));
    assert_ptr_equal(v(env)->server, watch);
    env_stop(env);
    env_start(env);
    run_until(env, recovered);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_non_null(v(env)->server);
}

static void test_loss_that_only_the_journal_knows_counts(void **state)
{
    struct env *env = *state;
    env_stop(env); /* ended between that record and the next */
    run_sql(env, "UPDATE volume SET doc = json_set(doc, '$.server_lost', json('true'))");
    env_start(env);
    run_until(env, recovered);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_int_equal(v(env)->error.code, MR_E_DEVICE_ERROR);
}

static void test_put_detaches_first_and_attaches_afresh(void **state)
{
    struct env *env = *state;
    char token[MR_TOKEN_TEXT];
    memcpy(token, v(env)->token, sizeof(token));
    lose_server(env);
    struct mr_operation *op = put(env, "v");
    assert_int_equal(mr_operation_goal(op), MR_GOAL_ATTACHED);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_true(mr_operation_created(op));
    assert_string_equal(asked(env),
                        "inspect unmount claim unmap map identify check mount");
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_string_not_equal(v(env)->token, token);
    assert_false(v(env)->server_lost);
    assert_non_null(v(env)->proof); /* of the release before */
}

static void test_put_after_a_restart_detaches_first_too(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'error':{'code':'device-error','message':'EIO'}}]");
    run_to_end(env, del(env, "v")); /* failed; the next agent watches it all the same */
    env_stop(env);
    end_server();
    script(env, "claim", "[]");
    env_start(env);
    run_until(env, recovered);
    assert_true(v(env)->server_lost);
    (void)asked(env);
    struct mr_operation *op = put(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_non_null(strstr(asked(env), "unmap map"));
}

static void test_lost_writes_are_never_accepted_by_a_put(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    struct mr_err err;
    script(env, "unmount", LOST_WRITE);
    lose_server(env);
    op = put(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(mr_operation_error(op)->code, MR_E_DATA_NOT_WRITTEN);
    assert_non_null(strstr(mr_operation_error(op)->remedy, "accept_data_loss=true"));
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    (void)asked(env);
    assert_true(mr_engine_attach(env->engine, "v", spec_at(env, "v", "v"), &op, &err) <
                0);
    assert_int_equal(err.code, MR_E_DATA_NOT_WRITTEN);
    assert_non_null(strstr(err.remedy, "accept_data_loss=true"));
    assert_string_equal(asked(env), "");
    assert_int_equal(mr_engine_detach(env->engine, "v", NULL, true, &op, &proof, &err),
                     0);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    run_to_end(env, put(env, "v"));
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
}

static void test_other_spec_is_refused_as_always(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct mr_err err;
    lose_server(env);
    assert_true(
        mr_engine_attach(env->engine, "v", spec_at(env, "other", "v"), &op, &err) < 0);
    assert_int_equal(err.code, MR_E_SPEC_CONFLICT);
}

static void test_its_end_in_our_own_unmap_is_no_loss(void **state)
{
    struct env *env = *state;
    script(env, "unmap", "[{'sleep_ms':300,'result':'bound','evidence':{}}]");
    script(env, "gone", "[{'sleep_ms':100,'result':'gone','evidence':{}}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, unmapping);
    end_server();
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    env_stop(env);
    assert_int_equal(history_count(env, "server_lost"), 0);
    env_start(env);
}

static void test_put_does_not_mend_what_a_waiting_detach_has_lost(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, held);
    lose_server(env);
    assert_int_equal(v(env)->state, MR_STATE_DETACHING); /* left to its end */
    struct mr_operation *back = put(env, "v");
    mr_detach_look_again(op);
    run_until(env, held);
    assert_int_equal(mr_operation_ended(op), 0);
    (void)asked(env);
    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    mr_detach_look_again(op);
    run_to_end(env, back);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(mr_operation_ended(back), 1);
    assert_non_null(strstr(asked(env), "unmap map"));
}

static struct mr_operation *start_held_put(struct env *env)
{
    script(env, "claim", "[{'result':'busy'}]");
    lose_server(env);
    struct mr_operation *back = put(env, "v");
    run_until(env, held);
    assert_ptr_equal(put(env, "v"), back);
    return back;
}

static void test_delete_while_such_a_put_waits_has_the_last_word(void **state)
{
    struct env *env = *state;
    struct mr_operation *back = start_held_put(env);
    struct mr_operation *op = del(env, "v");
    assert_int_equal(mr_operation_goal(op), MR_GOAL_ABSENT);
    assert_int_equal(mr_operation_error(back)->code, MR_E_OPERATION_PENDING);
    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    mr_detach_look_again(op);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(v(env)->state, MR_STATE_ABSENT);
}

static unsigned answers;
static struct mr_err failure;

static void on_answer(void *ctx, struct json_object *document, const struct mr_err *err)
{
    (void)ctx;
    (void)document;
    memset(&failure, 0, sizeof(failure));
    if (err)
        failure = *err;
    answers++;
}

static bool one_answer(struct env *env)
{
    (void)env;
    return answers == 1;
}

static void test_such_a_put_leaves_actions_and_forget_to_others(void **state)
{
    struct env *env = *state;
    const struct mr_action_request request = {.action = MR_ACTION_THAW};
    struct mr_err err;
    struct mr_operation *back = start_held_put(env);
    answers = 0;
    assert_non_null(mr_engine_act(env->engine, "v", &request, on_answer, NULL, &err));
    run_until(env, one_answer);
    answers = 0;
    assert_non_null(
        mr_engine_forget(env->engine, "v", NULL, NULL, on_answer, NULL, &err));
    run_until(env, one_answer);
    assert_int_equal(failure.message[0], '\0');
    assert_int_equal(v(env)->state, MR_STATE_ORPHAN);
    assert_int_equal(mr_operation_error(back)->code, MR_E_ORPHAN);
}

static bool mounting(struct env *env)
{
    return v(env)->op && v(env)->op->step == MR_STEP_MOUNT && v(env)->op->busy;
}

static void test_attach_whose_server_ends_is_undone(void **state)
{
    struct env *env = *state;
    run_to_end(env, del(env, "v"));
    end_server();
    start_server();
    script_server(env, "map", (int64_t)mr_process_start_time(server));
    script(env, "check", "[]");
    script(env, "mount",
           "[{'sleep_ms':300,'mount':{'id':77,'unique':true,'major':7,'minor':9,"
           "'root':'/r','path':'v','created':1}}]");
    struct mr_operation *op = put(env, "v");
    run_until(env, mounting);
    lose_server(env);
    (void)asked(env);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(mr_operation_error(op)->code, MR_E_DEVICE_ERROR);
    assert_int_equal(mr_operation_error(op)->residue, MR_RESIDUE_NONE);
    assert_string_equal(asked(env), "inspect unmount claim unmap");
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
}

static bool looking(struct env *env)
{
    return v(env)->op && v(env)->op->busy;
}

static void test_put_never_verifies_what_is_lost(void **state)
{
    struct env *env = *state;
    script(env, "inspect",
           "[{'sleep_ms':300,'found':true," DEVICE(
               42) ",'mounted':'present','on_top':true}]");
    struct mr_operation *op = put(env, "v");
    run_until(env, looking);
    lose_server(env);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED); /* left to the operation */
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(mr_operation_error(op)->code, MR_E_DEVICE_ERROR);
    assert_true(failed(env));
    assert_int_equal(v(env)->error.code, MR_E_DEVICE_ERROR);
}

static void test_refused_detach_of_a_lost_one_is_failed(void **state)
{
    struct env *env = *state;
    env_stop(env);
    run_sql(env, "CREATE TRIGGER t BEFORE INSERT ON history WHEN new.event = "
                 "'detach_intent' BEGIN SELECT raise(ABORT, 'no'); END;");
    env_start(env);
    run_until(env, recovered);
    struct mr_operation *op = del(env, "v");
    end_server();
    mr_server_forget(v(env));
    mr_server_watch(v(env)); /* while the intent is on its way */
    assert_int_equal(v(env)->state, MR_STATE_DETACHING);
    run_to_end(env, op);
    assert_int_equal(mr_operation_error(op)->code, MR_E_JOURNAL_UNAVAILABLE);
    assert_true(failed(env)); /* not what it was: attached */
    op = put(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_error(op)->code, MR_E_JOURNAL_UNAVAILABLE);
    assert_true(failed(env));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup_served, teardown_served)
        T(test_its_end_is_seen_at_once_and_said),
        T(test_delete_works_as_always),
        T(test_end_while_the_agent_is_down_is_seen_at_its_start),
        T(test_another_process_with_its_number_is_not_it),
        T(test_server_that_lives_is_watched_once),
        T(test_loss_that_only_the_journal_knows_counts),
        T(test_put_detaches_first_and_attaches_afresh),
        T(test_put_after_a_restart_detaches_first_too),
        T(test_lost_writes_are_never_accepted_by_a_put),
        T(test_other_spec_is_refused_as_always),
        T(test_its_end_in_our_own_unmap_is_no_loss),
        T(test_put_does_not_mend_what_a_waiting_detach_has_lost),
        T(test_delete_while_such_a_put_waits_has_the_last_word),
        T(test_such_a_put_leaves_actions_and_forget_to_others),
        T(test_attach_whose_server_ends_is_undone),
        T(test_put_never_verifies_what_is_lost),
        T(test_refused_detach_of_a_lost_one_is_failed),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
