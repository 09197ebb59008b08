/* SPDX-License-Identifier: Apache-2.0
 *
 * Ways that tests/model found through the protocol: two faults, or a fault in a short
 * moment, that left the volume in a state that nobody would get out of.
 */
#include "tests/unit/engine_faults_env.h"

#define RECORDS_BEFORE 2000

/* What is written from now on waits for a while. */
static void slow_journal(struct env *env)
{
    for (int i = 0; i < RECORDS_BEFORE; i++)
        mr_volume_record(v(env), "line", NULL, NULL, NULL);
}

static bool ready(struct env *env)
{
    return v(env)->op && v(env)->op->ready;
}

static bool without_worker(struct env *env)
{
    return !v(env)->op->worker;
}

static bool written(struct env *env)
{
    return v(env)->op->durable;
}

static void test_worker_that_dies_before_the_intent_is_durable_is_replaced(void **state)
{
    struct env *env = *state;
    slow_journal(env);
    struct mr_operation *op = del(env, "v");
    run_until(env, ready);
    assert_int_equal(kill(mr_worker_pid(op->worker), SIGKILL), 0);
    run_until(env, without_worker);
    run_until(env, written);
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
}

static bool mapping(struct env *env)
{
    return v(env)->op && v(env)->op->step == MR_STEP_MAP && v(env)->op->busy &&
           !v(env)->op->mapped;
}

static void
test_device_that_goes_before_it_is_kept_is_forgotten_before_another_is_made(void **state)
{
    struct env *env = *state;
    script(env, "inspect", FOUND_UNMOUNTED);
    script(env, "keep", "[{'result':'gone'}]");
    script(env, "map", "[{'sleep_ms':300}]");
    (void)put(env, "v");
    run_until(env, mapping);
    env_stop(env);
    assert_string_equal(
        ask_sql(env, "SELECT ifnull(json_extract(doc, '$.identity.diskseq'), 0)"
                     " FROM volume WHERE id = 'v'"),
        "0");
    env_start(env);
}

static bool inspecting(struct env *env)
{
    return v(env)->op && v(env)->op->step == MR_STEP_INSPECT && v(env)->op->busy;
}

static void test_volume_that_comes_back_is_not_undone_after_two_crashes(void **state)
{
    struct env *env = *state;
    script(env, "unmount", "[{'result':'busy'}]");
    (void)del(env, "v");
    run_until(env, held);
    script(env, "inspect", "[{'sleep_ms':300}]");
    (void)put(env, "v");
    run_until(env, inspecting);
    for (int crash = 0; crash < 2; crash++) {
        env_stop(env);
        assert_string_equal(ask_sql(env, STATE_OF_V), "attaching");
        assert_string_equal(ask_sql(env, "SELECT json_extract(doc, '$.mending')"
                                         " FROM volume WHERE id = 'v'"),
                            "1");
        env_start(env);
        run_until(env, inspecting);
    }
    assert_false(v(env)->op->undoing);
}

static bool writing_mend(struct env *env)
{
    return v(env)->op->step == MR_STEP_INSPECT && v(env)->op->on_durable;
}

static void test_mend_that_is_written_is_not_taken_back_by_a_dead_worker(void **state)
{
    struct env *env = *state;
    script(env, "claim", "[{'error':{'code':'device-error','message':'EIO'}}]");
    run_to_end(env, del(env, "v"));
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    script(env, "inspect",
           "[{'sleep_ms':300,'found':true," DEVICE(42) ",'mounted':'absent'}]");
    struct mr_operation *op = put(env, "v");
    run_until(env, inspecting);
    slow_journal(env);
    run_until(env, writing_mend);
    assert_int_equal(kill(mr_worker_pid(op->worker), SIGKILL), 0);
    run_to_end(env, op);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    env_stop(env);
    assert_string_equal(ask_sql(env, STATE_OF_V), "failed");
    env_start(env);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_faults, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_worker_that_dies_before_the_intent_is_durable_is_replaced),
        TEST(test_device_that_goes_before_it_is_kept_is_forgotten_before_another_is_made),
        TEST(test_volume_that_comes_back_is_not_undone_after_two_crashes),
        TEST(test_mend_that_is_written_is_not_taken_back_by_a_dead_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
