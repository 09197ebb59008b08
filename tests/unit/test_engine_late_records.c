/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens while a record is on its way: a detach is called off before its intent is
 * written, a server or a worker dies, a caller hangs up; and the record may fail then.
 */
#include "tests/unit/engine_faults_env.h"

#include <pthread.h>

#define TOKEN "0123456789abcdef0123456789abcdef"
#define ORPHAN "orphan-" TOKEN
#define SEARCH                                                                           \
    "[{'complete':true,'orphans':[{'token':'" TOKEN                                      \
    "','driver':'file'," DEVICE(99) ",'mounts':[]}]}]"

/* --- records that are on their way for as long as a test says --- */

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_opened = PTHREAD_COND_INITIALIZER;
static char gate_event[64]; /* "": it is open */

/* In the journal's thread. */
static void gate_pass(sqlite3_context *context, int count, sqlite3_value **values)
{
    const char *event = (const char *)sqlite3_value_text(values[0]);

    (void)count;
    (void)pthread_mutex_lock(&gate_lock);
    while (gate_event[0] && event && strcmp(event, gate_event) == 0)
        (void)pthread_cond_wait(&gate_opened, &gate_lock);
    (void)pthread_mutex_unlock(&gate_lock);
    sqlite3_result_null(context);
}

struct sqlite3_api_routines;

static int gate_init(sqlite3 *db, char **message,
                     const struct sqlite3_api_routines *routines)
{
    (void)message;
    (void)routines;
    return sqlite3_create_function(db, "gate_pass", 1, SQLITE_UTF8, NULL, gate_pass, NULL,
                                   NULL);
}

static void gate_set(const char *event)
{
    (void)pthread_mutex_lock(&gate_lock);
    (void)snprintf(gate_event, sizeof(gate_event), "%s", event);
    (void)pthread_cond_broadcast(&gate_opened);
    (void)pthread_mutex_unlock(&gate_lock);
}

/* Records from here on wait at the gate, and those of this event fail behind it. */
static void hold_and_fail(struct env *env, const char *what)
{
    char event[64];
    (void)snprintf(event, sizeof(event), "fail:%s", what);
    gate_set(event);
    fail_records(env, what);
}

static unsigned answers;
static bool has_document;
static struct mr_err last_err;

static int setup_gated(void **state)
{
    (void)setup_faults(state);
    struct env *env = *state;
    env_stop(env);
    run_sql(env, "CREATE TRIGGER gate BEFORE INSERT ON history "
                 "BEGIN SELECT gate_pass(new.event); END;");
    env_start(env);
    run_until(env, recovered);
    (void)asked(env);
    answers = 0;
    return 0;
}

static int teardown_gated(void **state)
{
    gate_set("");
    return teardown(state);
}

static void on_answer(void *ctx, struct json_object *document, const struct mr_err *err)
{
    (void)ctx;
    has_document = document != NULL;
    memset(&last_err, 0, sizeof(last_err));
    if (err)
        last_err = *err;
    answers++;
}

static bool one_answer(struct env *env)
{
    (void)env;
    return answers == 1;
}

static bool ready_not_durable(struct env *env)
{
    return v(env)->op && v(env)->op->ready && !v(env)->op->durable;
}

static void assert_attached_and_at_rest(struct env *env)
{
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_null(v(env)->op);
    fail_records(env, "none");
    run_until(env, all_is_well);
    env_stop(env);
    assert_string_equal(ask_sql(env, STATE_OF_V), "attached");
    env_start(env);
    run_until(env, recovered);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_null(v(env)->op);
}

/* --- called off before the intent is written --- */

static void test_put_during_a_detach_that_is_then_refused_leaves_it_attached(void **state)
{
    struct env *env = *state;
    hold_and_fail(env, "all");
    struct mr_operation *op = del(env, "v");
    run_until(env, ready_not_durable);
    struct mr_operation *back = put(env, "v");
    gate_set("");
    run_to_end(env, op);
    run_to_end(env, back);
    assert_int_equal(mr_operation_error(op)->code, MR_E_JOURNAL_UNAVAILABLE);
    assert_int_equal(mr_operation_error(back)->code, MR_E_JOURNAL_UNAVAILABLE);
    assert_string_equal(asked(env), "");
    assert_attached_and_at_rest(env);
}

static void test_put_that_cannot_call_off_lets_the_detach_go_on(void **state)
{
    struct env *env = *state;
    gate_set("detach_intent");
    struct mr_operation *op = del(env, "v");
    run_until(env, ready_not_durable);
    struct mr_operation *back = put(env, "v");
    fail_records(env, "detach_cancelled");
    gate_set("");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(mr_operation_error(back)->code, MR_E_JOURNAL_UNAVAILABLE);
    assert_int_equal(v(env)->state, MR_STATE_ABSENT);
}

static struct mr_pending *forget(struct env *env, struct mr_err *err)
{
    return mr_engine_forget(env->engine, "v", NULL, NULL, on_answer, NULL, err);
}

static void test_detach_is_not_forgotten_before_it_is_written(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    hold_and_fail(env, "all");
    struct mr_operation *op = del(env, "v");
    run_until(env, ready_not_durable);
    assert_null(forget(env, &err));
    assert_int_equal(err.code, MR_E_OPERATION_PENDING);
    gate_set("");
    run_to_end(env, op);
    assert_int_equal(mr_operation_error(op)->code, MR_E_JOURNAL_UNAVAILABLE);
    assert_string_equal(asked(env), "");
    assert_attached_and_at_rest(env);
}

static void test_wedged_detach_whose_forget_cannot_be_written_goes_on(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    hold_and_fail(env, "forgotten");
    struct mr_operation *op = del(env, "v");
    v(env)->wedged = true; /* its worker is overdue, before the intent is written */
    assert_non_null(forget(env, &err));
    gate_set("");
    run_to_end(env, op);
    assert_int_equal(answers, 1);
    assert_int_equal(last_err.code, MR_E_JOURNAL_UNAVAILABLE);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(v(env)->state, MR_STATE_ABSENT);
}

static void
test_wedged_detach_that_cannot_be_written_nor_forgotten_is_refused(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    hold_and_fail(env, "all");
    struct mr_operation *op = del(env, "v");
    v(env)->wedged = true;
    assert_non_null(forget(env, &err));
    gate_set("");
    run_to_end(env, op);
    assert_int_equal(answers, 1);
    assert_int_equal(last_err.code, MR_E_JOURNAL_UNAVAILABLE);
    assert_int_equal(mr_operation_error(op)->code, MR_E_JOURNAL_UNAVAILABLE);
    assert_string_equal(asked(env), "");
    assert_false(v(env)->has_error);
    assert_attached_and_at_rest(env);
}

static void test_detach_and_attach_both_refused_leave_it_attached(void **state)
{
    struct env *env = *state;
    fail_records(env, "all");
    struct mr_operation *op = del(env, "v");
    struct mr_operation *back = put(env, "v"); /* before its worker is ready */
    run_to_end(env, op);
    run_to_end(env, back);
    assert_int_equal(mr_operation_error(op)->code, MR_E_JOURNAL_UNAVAILABLE);
    assert_int_equal(mr_operation_error(back)->code, MR_E_JOURNAL_UNAVAILABLE);
    assert_false(v(env)->has_error);
    assert_string_equal(asked(env), "");
    assert_attached_and_at_rest(env);
}

/* --- deaths --- */

static void test_server_that_dies_during_a_call_off_leaves_nothing_attaching(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, held);
    gate_set("detach_cancelled");
    struct mr_operation *back = put(env, "v");
    assert_int_equal(op->ending, -1);
    v(env)->server_lost = true; /* all that its end does while there is an operation */
    gate_set("");
    run_to_end(env, back);
    assert_int_equal(mr_operation_error(back)->code, MR_E_DEVICE_ERROR);
    assert_non_null(strstr(mr_operation_error(back)->message, "has ended"));
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_int_equal(v(env)->error.code, MR_E_DEVICE_ERROR);
    assert_null(v(env)->op);
    env_stop(env);
    assert_string_equal(ask_sql(env, STATE_OF_V), "failed");
    env_start(env);
}

static bool mend_on_its_way(struct env *env)
{
    return v(env)->op && v(env)->op->on_durable;
}

static bool worker_is_gone(struct env *env)
{
    return !v(env)->op || !v(env)->op->worker;
}

static void assert_failed_without_device(struct env *env, const struct mr_operation *op)
{
    assert_int_equal(mr_operation_ended(op), -1);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_int_equal(v(env)->identity.diskseq, 0);
    fail_records(env, "none");
    run_until(env, all_is_well);
    env_stop(env);
    assert_string_equal(ask_sql(env, STATE_OF_V), "failed");
    env_start(env);
}

static void
test_worker_that_dies_before_a_mend_is_written_leaves_none_attached(void **state)
{
    struct env *env = *state;
    script(env, "inspect", NOT_FOUND);
    gate_set("mend_intent");
    struct mr_operation *op = put(env, "v");
    run_until(env, mend_on_its_way);
    assert_int_equal(kill(mr_worker_pid(op->worker), SIGKILL), 0);
    run_until(env, worker_is_gone);
    gate_set("");
    run_to_end(env, op);
    assert_failed_without_device(env, op);
}

static void
test_worker_that_dies_while_a_mend_cannot_be_written_leaves_none_attached(void **state)
{
    struct env *env = *state;
    fail_records(env, "mend_intent");
    script(env, "inspect", NOT_FOUND);
    struct mr_operation *op = put(env, "v");
    run_until(env, waiting);
    assert_int_equal(kill(mr_worker_pid(op->worker), SIGKILL), 0);
    run_to_end(env, op);
    assert_failed_without_device(env, op);
}

/* --- an adoption whose caller hung up --- */

static struct mr_volume *orphan(struct env *env)
{
    return mr_engine_lookup(env->engine, ORPHAN);
}

static bool adopting(struct env *env)
{
    return orphan(env) && orphan(env)->adopting;
}

static bool adoption_over(struct env *env)
{
    return !orphan(env) || !orphan(env)->unadopted;
}

/* Its caller is gone before it is written. */
static void adopt_and_hang_up(struct env *env)
{
    struct mr_err err;
    script(env, "search", SEARCH);
    gate_set("adopted");
    struct mr_pending *first =
        mr_engine_adopt(env->engine, ORPHAN, NULL, on_answer, NULL, &err);
    assert_non_null(first);
    run_until(env, adopting);
    mr_pending_cancel(first);
}

static void test_adoption_on_its_way_is_neither_answered_nor_detached(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct mr_err err;
    adopt_and_hang_up(env);
    assert_non_null(mr_engine_adopt(env->engine, ORPHAN, NULL, on_answer, NULL, &err));
    run_until(env, one_answer);
    assert_false(has_document);
    assert_int_equal(last_err.code, MR_E_OPERATION_PENDING);
    assert_true(mr_engine_detach_orphan(env->engine, ORPHAN, false, &op, &err) < 0);
    assert_int_equal(err.code, MR_E_OPERATION_PENDING);
    assert_null(orphan(env)->op);
    fail_records(env, "adopted");
    gate_set("");
    run_until(env, adoption_over);
}

static void test_adoption_whose_caller_hung_up_is_written(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct mr_err err;
    adopt_and_hang_up(env);
    gate_set("");
    run_until(env, adoption_over);
    assert_int_equal(orphan(env)->state, MR_STATE_ORPHAN);
    script(env, "inspect", "[{'found':true," DEVICE(99) ",'mounted':'absent'}]");
    assert_int_equal(mr_engine_detach_orphan(env->engine, ORPHAN, false, &op, &err), 0);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup_gated, teardown_gated)
        T(test_put_during_a_detach_that_is_then_refused_leaves_it_attached),
        T(test_put_that_cannot_call_off_lets_the_detach_go_on),
        T(test_detach_is_not_forgotten_before_it_is_written),
        T(test_wedged_detach_whose_forget_cannot_be_written_goes_on),
        T(test_wedged_detach_that_cannot_be_written_nor_forgotten_is_refused),
        T(test_detach_and_attach_both_refused_leave_it_attached),
        T(test_server_that_dies_during_a_call_off_leaves_nothing_attaching),
        T(test_worker_that_dies_before_a_mend_is_written_leaves_none_attached),
        T(test_worker_that_dies_while_a_mend_cannot_be_written_leaves_none_attached),
        T(test_adoption_on_its_way_is_neither_answered_nor_detached),
        T(test_adoption_whose_caller_hung_up_is_written),
#undef T
    };
    (void)sqlite3_auto_extension((void (*)(void))gate_init);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
