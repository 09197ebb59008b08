/* SPDX-License-Identifier: Apache-2.0
 *
 * A PUT that names a key to preempt: a login is told so, or nobody has that key, or it is
 * refused. It is never answered as if it had been done.
 */
#include "tests/unit/engine_link_env.h"

#define THEIRS "0xfeedf00d" /* HOLDER */
#define PREEMPT(key) ",'preempt':'" key "'"
#define JOINED_BY_THEM TRANSPORT("up", "") "," FENCING_KEYS(KEY, "'" KEY "','" THEIRS "'")

/* Refused with this code; the volume's state is not touched. */
static void assert_refused(struct env *env, const char *key, enum mr_code code)
{
    struct mr_operation *op = NULL;
    struct mr_err err = {0};
    enum mr_state state = v(env)->state;
    bool had_error = v(env)->has_error;

    int rc = mr_engine_attach(env->engine, "v", lun_spec_with(env, key), &op, &err);
    if (rc == 0) { /* what is there had to be looked at first */
        run_to_end(env, op);
        assert_int_equal(mr_operation_ended(op), -1);
        err = *mr_operation_error(op);
    }
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.message, "preempted"));
    assert_non_null(strstr(err.remedy, "repeat the request"));
    assert_int_equal(v(env)->state, state);
    assert_int_equal(v(env)->has_error, had_error);
}

static struct mr_operation *put_with(struct env *env, const char *key)
{
    struct mr_operation *op = NULL;
    struct mr_err err;

    if (mr_engine_attach(env->engine, "v", lun_spec_with(env, key), &op, &err) < 0)
        fail_msg("attach: %s", err.message);
    return op;
}

static void assert_attached_by(struct env *env, struct mr_operation *op)
{
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
}

static void detach(struct env *env)
{
    run_to_end(env, del(env, "v"));
    assert_int_equal(v(env)->state, MR_STATE_ABSENT);
    script_map(env);
    script(env, "check", "[]");
    (void)asked(env);
}

static bool mapping(struct env *env)
{
    return v(env)->op && v(env)->op->step == MR_STEP_MAP && v(env)->op->busy;
}

static void make_map_slow(struct env *env)
{
    char text[512];

    (void)snprintf(text, sizeof(text), "[{'sleep_ms':300," DEVICE(42) ",'lun_pid':%d}]",
                   (int)keeper.pid);
    script(env, "map", text);
}

static void test_an_attach_that_has_not_begun_takes_it_over(void **state)
{
    struct env *env = *state;
    detach(env);
    struct mr_operation *op = put_lun(env);
    assert_ptr_equal(put_with(env, PREEMPT(THEIRS)), op);
    assert_ptr_equal(put_lun(env), op); /* and keeps it */
    assert_refused(env, PREEMPT("0x77"), MR_E_OPERATION_PENDING);
    assert_attached_by(env, op);
    assert_non_null(strstr(asked(env), "map preempt=" THEIRS " identify"));
}

static void test_an_attach_whose_login_has_begun_refuses_it(void **state)
{
    struct env *env = *state;
    detach(env);
    make_map_slow(env);
    struct mr_operation *op = put_lun(env);
    run_until(env, mapping);
    assert_refused(env, PREEMPT(THEIRS), MR_E_OPERATION_PENDING);
    assert_dry_run_of(env, lun_spec_with(env, PREEMPT(THEIRS)), LOOK("'blank'"),
                      "operation-pending");
    assert_dry_run_of(env, lun_spec(env), LOOK("'blank'"), "verify");
    assert_ptr_equal(put_lun(env), op);
    assert_attached_by(env, op);
    assert_null(strstr(asked(env), "preempt=" THEIRS " identify"));
}

static void test_an_attach_that_does_so_is_joined_by_the_same_wish(void **state)
{
    struct env *env = *state;
    detach(env);
    make_map_slow(env);
    struct mr_operation *op = put_with(env, PREEMPT(THEIRS));
    run_until(env, mapping);
    assert_ptr_equal(put_with(env, PREEMPT("0x00FEEDF00D")), op);
    assert_refused(env, PREEMPT("0x77"), MR_E_OPERATION_PENDING);
    assert_attached_by(env, op);
    /* And so is what it has made: an answer may have been lost. */
    assert_attached_by(env, put_with(env, PREEMPT(THEIRS)));
    assert_dry_run_of(env, lun_spec_with(env, PREEMPT(THEIRS)), LOOK("'blank'"),
                      "verify");
}

static void test_what_is_attached_says_whether_that_key_is_there(void **state)
{
    struct env *env = *state;
    assert_attached_by(env, put_with(env, PREEMPT(THEIRS))); /* it is nobody's */
    keeper_says(env, JOINED_BY_THEM);
    run_ms(env, 50);
    assert_refused(env, PREEMPT(THEIRS), MR_E_SOURCE_IN_USE);
    assert_refused(env, PREEMPT(THEIRS), MR_E_SOURCE_IN_USE); /* nothing is kept of it */
    assert_dry_run_of(env, lun_spec_with(env, PREEMPT(THEIRS)), LOOK("'blank'"),
                      "source-in-use");
    assert_attached_by(env, put_lun(env));
}

static void test_who_has_registered_may_not_be_known(void **state)
{
    struct env *env = *state;
    (void)json_object_put(keeper_do(&keeper, "hang_up", NULL, NULL));
    mr_server_link_stop(v(env));
    assert_null(v(env)->fencing);
    assert_refused(env, PREEMPT(THEIRS), MR_E_OPERATION_PENDING);
    assert_attached_by(env, put_lun(env));
}

static void test_a_detach_is_not_taken_back_for_it(void **state)
{
    struct env *env = *state;
    keeper_says(env, JOINED_BY_THEM);
    run_ms(env, 50);
    script(env, "claim", "[{'result':'busy'}]");
    struct mr_operation *op = del(env, "v");
    run_until(env, held);
    assert_refused(env, PREEMPT(THEIRS), MR_E_OPERATION_PENDING);
    assert_dry_run_of(env, lun_spec_with(env, PREEMPT(THEIRS)), LOOK("'blank'"),
                      "operation-pending");
    assert_int_equal(mr_operation_ended(op), 0);
    assert_attached_by(env, put_lun(env));
}

/* It comes to its end, since it gives errors only, and then there is a login. */
static void test_it_is_kept_until_what_is_fenced_is_gone(void **state)
{
    struct env *env = *state;
    keeper_says(env, FENCED);
    run_until(env, is_fenced);
    script(env, "claim", "[{'result':'busy'}]");
    struct mr_operation *op = put_with(env, PREEMPT(THEIRS));
    run_until(env, held);
    assert_ptr_equal(put_lun(env), op);
    assert_refused(env, PREEMPT("0x77"), MR_E_OPERATION_PENDING);
    script(env, "claim", "[]");
    script(env, "check", "[]");
    mr_detach_look_again(v(env)->op);
    assert_attached_by(env, op);
    assert_non_null(strstr(asked(env), "map preempt=" THEIRS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup_up, teardown_keeper)
        T(test_an_attach_that_has_not_begun_takes_it_over),
        T(test_an_attach_whose_login_has_begun_refuses_it),
        T(test_an_attach_that_does_so_is_joined_by_the_same_wish),
        T(test_what_is_attached_says_whether_that_key_is_there),
        T(test_who_has_registered_may_not_be_known),
        T(test_a_detach_is_not_taken_back_for_it),
        T(test_it_is_kept_until_what_is_fenced_is_gone),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
