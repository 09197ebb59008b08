/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "storage/plan.h"

static const enum mr_step attach[] = {
    MR_STEP_MAP,    MR_STEP_IDENTIFY, MR_STEP_CHECK,
    MR_STEP_FORMAT, MR_STEP_MOUNT,    MR_STEP_NONE,
};
static const enum mr_step mend[] = {
    MR_STEP_INSPECT, MR_STEP_MAP,   MR_STEP_IDENTIFY, MR_STEP_CHECK,
    MR_STEP_FORMAT,  MR_STEP_MOUNT, MR_STEP_NONE,
};
static const enum mr_step detach[] = {
    MR_STEP_INSPECT, MR_STEP_UNMOUNT, MR_STEP_DRAIN,
    MR_STEP_CLAIM,   MR_STEP_UNMAP,   MR_STEP_NONE,
};
static const enum mr_step nothing[] = {MR_STEP_NONE};

static void assert_plan(enum mr_state from, enum mr_goal goal,
                        const enum mr_step *expected)
{
    const enum mr_step *plan = mr_plan(from, goal);
    if (!expected) {
        assert_null(plan);
        return;
    }
    assert_non_null(plan);
    for (size_t i = 0;; i++) {
        assert_int_equal(plan[i], expected[i]);
        if (expected[i] == MR_STEP_NONE)
            return;
    }
}

static void test_every_move_has_the_steps_of_the_design(void **state)
{
    (void)state;
    static const struct {
        enum mr_state from;
        const enum mr_step *to_attached;
        const enum mr_step *to_absent;
    } moves[] = {
        {MR_STATE_ABSENT, attach, NULL},
        {MR_STATE_ATTACHING, NULL, detach},
        {MR_STATE_ATTACHED, mend, detach},
        {MR_STATE_DETACHING, NULL, detach},
        {MR_STATE_FAILED, mend, detach},
        {MR_STATE_WEDGED, NULL, NULL},
        {MR_STATE_LOST_BY_REBOOT, attach, nothing},
        {MR_STATE_FENCED, NULL, detach},
        {MR_STATE_ORPHAN, NULL, detach},
    };
    assert_int_equal(sizeof(moves) / sizeof(moves[0]), MR_STATE_COUNT);
    for (size_t i = 0; i < MR_STATE_COUNT; i++) {
        assert_int_equal(moves[i].from, i);
        assert_plan(moves[i].from, MR_GOAL_ATTACHED, moves[i].to_attached);
        assert_plan(moves[i].from, MR_GOAL_ABSENT, moves[i].to_absent);
    }
}

/* The first invariant, read off the data. */
static void test_no_plan_unmaps_without_a_claim_right_before(void **state)
{
    (void)state;
    for (unsigned s = 0; s < MR_STATE_COUNT; s++)
        for (unsigned g = 0; g < MR_GOAL_COUNT; g++) {
            const enum mr_step *plan = mr_plan((enum mr_state)s, (enum mr_goal)g);
            for (size_t i = 0; plan && plan[i] != MR_STEP_NONE; i++)
                if (plan[i] == MR_STEP_UNMAP) {
                    assert_true(i > 0);
                    assert_int_equal(plan[i - 1], MR_STEP_CLAIM);
                }
        }
}

static void test_values_out_of_range_have_no_plan(void **state)
{
    (void)state;
    assert_null(mr_plan(MR_STATE_COUNT, MR_GOAL_ATTACHED));
    assert_null(mr_plan(MR_STATE_ABSENT, MR_GOAL_COUNT));
    assert_null(mr_plan((enum mr_state) - 1, MR_GOAL_ABSENT));
}

static void test_state_names_are_unique_and_found_again(void **state)
{
    (void)state;
    for (unsigned s = 0; s < MR_STATE_COUNT; s++)
        assert_int_equal(mr_state_from_name(mr_state_name((enum mr_state)s)), s);
    assert_string_equal(mr_state_name(MR_STATE_LOST_BY_REBOOT), "lost_by_reboot");
    assert_int_equal(mr_state_from_name("lost"), MR_STATE_COUNT);
    assert_int_equal(mr_state_from_name(NULL), MR_STATE_COUNT);
    assert_non_null(mr_state_name(MR_STATE_COUNT));
}

static void test_only_shown_steps_have_names(void **state)
{
    (void)state;
    assert_null(mr_step_name(MR_STEP_NONE));
    assert_null(mr_step_name(MR_STEP_INSPECT));
    assert_null(mr_step_name(MR_STEP_COUNT));
    for (unsigned s = MR_STEP_MAP; s < MR_STEP_COUNT; s++)
        assert_non_null(mr_step_name((enum mr_step)s));
    assert_string_equal(mr_step_name(MR_STEP_DRAIN), "drain");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_move_has_the_steps_of_the_design),
        cmocka_unit_test(test_no_plan_unmaps_without_a_claim_right_before),
        cmocka_unit_test(test_values_out_of_range_have_no_plan),
        cmocka_unit_test(test_state_names_are_unique_and_found_again),
        cmocka_unit_test(test_only_shown_steps_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
