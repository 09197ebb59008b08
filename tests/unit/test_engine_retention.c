/* SPDX-License-Identifier: Apache-2.0
 *
 * How long a volume that is gone is remembered, and that times measured survive a clock
 * that jumps.
 */
#include "tests/unit/engine_sql_env.h"

#include <errno.h>

#define DAY_MS (24LL * 3600 * 1000)

static bool settled(struct env *env)
{
    return !mr_engine_recovering(env->engine) && env->engine->dropping == 0 &&
           env->engine->retention.heap_index == 0;
}

static void attach_and_detach(struct env *env, const char *id)
{
    struct mr_operation *op = put(env, id);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    op = del(env, id);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static bool knows(struct env *env, const char *id)
{
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    struct mr_err err;
    int rc = mr_engine_detach(env->engine, id, NULL, false, &op, &proof, &err);
    assert_null(op);
    if (rc < 0)
        assert_int_equal(err.code, MR_E_VOLUME_NOT_FOUND);
    assert_true((rc == 0) == (proof != NULL));
    (void)json_object_put(proof);
    return rc == 0;
}

static void test_the_oldest_proofs_beyond_the_limit_go(void **state)
{
    struct env *env = *state;
    char id[MR_OPERATION_ID_TEXT];
    env->config.proofs_kept = 2;
    attach_and_detach(env, "b");
    (void)snprintf(id, sizeof(id), "%s", env->engine->operations->id);
    attach_and_detach(env, "c");
    run_until(env, settled);
    assert_true(knows(env, "b"));
    assert_non_null(mr_engine_find_operation(env->engine, id));
    attach_and_detach(env, "a");
    run_until(env, settled);
    assert_false(knows(env, "b"));
    assert_true(knows(env, "c"));
    assert_true(knows(env, "a"));
    assert_null(mr_engine_find_operation(env->engine, id));
    env_stop(env);
    assert_int_equal(count_rows(env, "volume"), 2);
    assert_int_equal(count_rows(env, "operation"), 4);
    env_start(env);
    run_until(env, settled);
    assert_false(knows(env, "b"));
    assert_true(knows(env, "c"));
}

static void test_a_lower_limit_counts_from_the_next_start_on(void **state)
{
    struct env *env = *state;
    char id[8];
    for (int i = 0; i < 5; i++) {
        (void)snprintf(id, sizeof(id), "v%d", i);
        attach_and_detach(env, id);
    }
    env_stop(env);
    env->config.proofs_kept = 1;
    env_start(env);
    run_until(env, settled);
    for (int i = 0; i < 5; i++) {
        (void)snprintf(id, sizeof(id), "v%d", i);
        assert_int_equal(knows(env, id), i == 4);
    }
}

static void test_a_start_that_looks_first_forgets_right_after_that(void **state)
{
    struct env *env = *state;
    const struct mr_timer *timer;
    attach_and_detach(env, "a");
    run_to_end(env, put(env, "b"));
    env_stop(env);
    env->config.proofs_kept = 0;
    env_start(env);
    assert_true(mr_engine_recovering(env->engine));
    run_until(env, recovered);
    timer = &env->engine->retention; /* an idle agent must not be woken by it later */
    assert_true(timer->heap_index == 0 || timer->at_ns <= mr_now_ns());
    run_until(env, settled);
    assert_false(knows(env, "a"));
}

static void age(struct env *env, const char *id, int64_t ms)
{
    char sql[256];
    (void)snprintf(sql, sizeof(sql),
                   "UPDATE volume SET doc = json_set(doc, '$.updated_at_ms', "
                   "json_extract(doc, '$.updated_at_ms') - %lld) WHERE id = '%s'",
                   (long long)ms, id);
    run_sql(env, sql);
}

static void test_old_proofs_go(void **state)
{
    struct env *env = *state;
    attach_and_detach(env, "a");
    attach_and_detach(env, "b");
    run_to_end(env, put(env, "c"));
    env_stop(env);
    age(env, "a", 31 * DAY_MS);
    age(env, "b", 29 * DAY_MS);
    env_start(env);
    run_until(env, settled);
    assert_false(knows(env, "a"));
    assert_true(knows(env, "b"));
    assert_non_null(mr_engine_find(env->engine, "c")); /* the newest row */
}

static void test_a_clock_that_jumps_ages_nothing(void **state)
{
    struct env *env = *state;
    attach_and_detach(env, "z");
    env_stop(env);
    env_start(env);
    run_until(env, settled);
    attach_and_detach(env, "a");
    attach_and_detach(env, "b");
    mr_engine_lookup(env->engine, "a")->updated_at_ms -= 31 * DAY_MS;
    mr_engine_lookup(env->engine, "b")->updated_at_ms += 31 * DAY_MS;
    attach_and_detach(env, "c");
    run_until(env, settled);
    assert_true(knows(env, "a"));
    assert_true(knows(env, "b"));
    env_stop(env);
    /* The agent was down for long: it is the newest proof that counts. */
    age(env, "a", 29 * DAY_MS);
    age(env, "b", 91 * DAY_MS);
    age(env, "c", 60 * DAY_MS);
    age(env, "z", 60 * DAY_MS);
    env_start(env);
    run_until(env, settled);
    assert_true(knows(env, "a"));
}

static void test_row_from_the_future_drops_no_proofs(void **state)
{
    struct env *env = *state;
    attach_and_detach(env, "a");
    run_to_end(env, put(env, "b"));
    env_stop(env);
    age(env, "b", -31 * DAY_MS); /* the clock was wrong then */
    env_start(env);
    run_until(env, settled);
    assert_true(knows(env, "a"));
}

static void on_answer(void *ctx, struct json_object *document, const struct mr_err *err)
{
    (void)ctx;
    (void)document;
    (void)err;
}

static void test_who_is_asked_about_stays_until_the_answer(void **state)
{
    struct env *env = *state;
    attach_and_detach(env, "a");
    run_until(env, settled);
    struct mr_volume *a = mr_engine_lookup(env->engine, "a");
    struct mr_pending *pending = mr_pending_new(env->engine, a, on_answer, NULL);
    assert_non_null(pending);
    env->config.proofs_kept = 0;
    mr_timer_set(&env->engine->retention, 0);
    run_until(env, settled);
    assert_true(knows(env, "a"));
    mr_pending_cancel(pending);
    mr_timer_set(&env->engine->retention, 0);
    run_until(env, settled);
    assert_false(knows(env, "a"));
}

static bool dropping(struct env *env)
{
    return env->engine->dropping > 0;
}

static void test_put_while_it_is_being_forgotten_gets_a_number_of_its_own(void **state)
{
    struct env *env = *state;
    attach_and_detach(env, "a");
    run_until(env, settled);
    struct mr_volume *a = mr_engine_lookup(env->engine, "a");
    int64_t number = a->number;
    env->config.proofs_kept = 0;
    mr_timer_set(&env->engine->retention, 0);
    run_until(env, dropping);
    struct mr_operation *op = put(env, "a");
    assert_ptr_equal(mr_operation_volume(op), a);
    assert_true(a->number > number);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    run_until(env, settled);
    env_stop(env);
    assert_int_equal(count_rows(env, "volume WHERE state = 'attached'"), 1);
    env_start(env);
    run_until(env, settled);
    assert_non_null(mr_engine_find(env->engine, "a"));
}

/* More than the journal removes in one step: what is left of the volume keeps the number.
 */
static void add_lines(const struct env *env, const char *id, int count)
{
    char sql[256];
    (void)snprintf(sql, sizeof(sql),
                   "WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i "
                   "WHERE n < %d) INSERT INTO history(volume, at, event) "
                   "SELECT number, updated_at, 'x' FROM i, volume WHERE id = '%s'",
                   count, id);
    run_sql(env, sql);
}

static void test_asked_about_while_it_is_being_forgotten_gets_another_number(void **state)
{
    struct env *env = *state;
    attach_and_detach(env, "a");
    env_stop(env);
    add_lines(env, "a", 1200);
    env_start(env);
    run_until(env, settled);
    struct mr_volume *a = mr_engine_lookup(env->engine, "a");
    int64_t number = a->number;
    env->config.proofs_kept = 0;
    mr_timer_set(&env->engine->retention, 0);
    run_until(env, dropping);
    struct mr_pending *pending = mr_pending_new(env->engine, a, on_answer, NULL);
    assert_non_null(pending);
    run_until(env, settled);
    assert_ptr_equal(mr_engine_lookup(env->engine, "a"), a);
    assert_true(a->number > number);
    mr_pending_cancel(pending);
    struct mr_operation *op = put(env, "a");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    env_stop(env);
    assert_int_equal(count_rows(env, "volume WHERE state = 'attached' AND id = 'a'"), 1);
    env_start(env);
    run_until(env, settled);
    assert_non_null(mr_engine_find(env->engine, "a"));
}

static void test_what_the_journal_keeps_is_not_forgotten(void **state)
{
    struct env *env = *state;
    attach_and_detach(env, "a");
    env_stop(env);
    run_sql(env, "CREATE TRIGGER t BEFORE DELETE ON volume BEGIN SELECT raise(ABORT, "
                 "'no'); END;");
    env->config.proofs_kept = 0;
    env_start(env);
    run_until(env, settled);
    assert_true(knows(env, "a"));
    int64_t number = mr_engine_lookup(env->engine, "a")->number;
    mr_timer_set(&env->engine->retention, 0);
    run_until(env, dropping);
    struct mr_operation *op = put(env, "a"); /* its id is not free */
    run_to_end(env, op);
    assert_int_equal(mr_operation_error(op)->code, MR_E_JOURNAL_UNAVAILABLE);
    run_until(env, settled);
    assert_int_equal(mr_engine_lookup(env->engine, "a")->number, number);
    op = put(env, "a");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

/* --- times --- */

static void test_time_held_does_not_follow_a_clock_that_is_set(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    run_to_end(env, put(env, "v"));
    script(env, "inspect", FOUND);
    struct mr_operation *op = del(env, "v");
    run_until(env, held);
    v(env)->unmounted_at_ms += DAY_MS; /* as if the clock had been set back since */
    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    run_to_end(env, op);
    int64_t held_ms = mr_json_get_int(mr_operation_proof(op), "held_ms", -1);
    assert_true(held_ms >= 0 && held_ms < 60000);
}

static void test_time_held_that_cannot_be_told_is_not_invented(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'result':'busy'}]");
    run_to_end(env, put(env, "v"));
    script(env, "inspect", FOUND);
    (void)del(env, "v");
    run_until(env, held);
    env_stop(env);
    run_sql(env, "UPDATE volume SET doc = json_set(doc, '$.unmounted_at_ms', "
                 "json_extract(doc, '$.unmounted_at_ms') + 86400000)");
    script(env, "inspect", FOUND_UNMOUNTED);
    script(env, "claim", "[{'result':'claimed','unmap':'deferred'}]");
    env_start(env);
    struct mr_operation *op = v(env)->op;
    run_to_end(env, op);
    struct json_object *proof = mr_operation_proof(op);
    assert_non_null(mr_json_get_string(proof, "released_at"));
    assert_true(json_object_object_get_ex(proof, "held_ms", NULL));
    assert_null(mr_json_get(proof, "held_ms"));
}

static void test_holder_is_seen_for_as_long_as_it_is(void **state)
{
    struct env *env = *state;
    MR_AUTO_JSON struct json_object *rows =
        parse_json("[{'id':'a1','kind':'raw-device','certain':true,'pid':1}]");
    char later[MR_TIME_TEXT];
    run_to_end(env, put(env, "v"));
    mr_holders_update(v(env), rows, true, false);
    struct json_object *row = mr_holders_find(v(env)->holders, "a1");
    (void)mr_time_text(mr_wall_ms() + DAY_MS, later);
    mr_json_set_string(row, "first_seen", later);
    mr_json_set_string(row, "last_seen", later);
    mr_sleep_ns(20 * MR_NS_PER_MS);
    MR_AUTO_JSON struct json_object *again =
        parse_json("[{'id':'a1','kind':'raw-device','certain':true,'pid':1}]");
    mr_holders_update(v(env), again, true, false);
    row = mr_holders_find(v(env)->holders, "a1");
    int64_t seen_ms = mr_json_get_int(row, "seen_for_ms", -1);
    assert_true(seen_ms >= 20 && seen_ms < 60000);
    assert_string_equal(mr_json_get_string(row, "first_seen"), later);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_the_oldest_proofs_beyond_the_limit_go),
        T(test_a_lower_limit_counts_from_the_next_start_on),
        T(test_a_start_that_looks_first_forgets_right_after_that),
        T(test_old_proofs_go),
        T(test_a_clock_that_jumps_ages_nothing),
        T(test_row_from_the_future_drops_no_proofs),
        T(test_who_is_asked_about_stays_until_the_answer),
        T(test_put_while_it_is_being_forgotten_gets_a_number_of_its_own),
        T(test_asked_about_while_it_is_being_forgotten_gets_another_number),
        T(test_what_the_journal_keeps_is_not_forgotten),
        T(test_time_held_does_not_follow_a_clock_that_is_set),
        T(test_time_held_that_cannot_be_told_is_not_invented),
        T(test_holder_is_seen_for_as_long_as_it_is),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
