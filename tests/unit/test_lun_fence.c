/* SPDX-License-Identifier: Apache-2.0 */
/* Against a model of a target, with another node that acts between any two of our
 * commands and a connection that breaks at any of them. */
#include "tests/unit/unit.h"

#include <errno.h>

#include "storage/lun/fence.h"
#include "tests/unit/pr_model.h"

#define OURS_OLD 0xaaaaaaaa00000002ULL /* of our node */

/* --- our side --- */

static struct mr_session session;
static const struct mr_asker asker = {.s = &session, .target = "t"};

static size_t our_registrations(void)
{
    size_t count = 0;

    for (size_t i = 0; i < REGS_MAX; i++)
        count += t.regs[i].nexus && t.regs[i].key >> 32 == OURS >> 32;
    return count;
}

static void log_in(void)
{
    if (t.by_session || session_count == 0)
        session_count++;
    session.lun = session_count;
    t.commands = 0;
}

static void begin(bool by_session, const enum act *plot)
{
    memset(&t, 0, sizeof(t));
    session_count = 0;
    t.by_session = by_session;
    t.plot = plot;
    t.lose_at = NEVER;
    for (size_t i = 0; i < ACTS_MAX; i++)
        t.at[i] = NEVER;
    log_in();
}

static int acquire(struct mr_page_fence *state, uint64_t preempt_key, struct mr_err *err)
{
    const struct mr_fence_ask ask = {OURS, preempt_key != 0, preempt_key};

    return mr_fence_acquire(&asker, &ask, state, err);
}

static void acquire_undisturbed(struct mr_page_fence *state)
{
    struct mr_err err;

    assert_int_equal(acquire(state, 0, &err), 0);
    assert_true(holder_key() == OURS);
    t.was_ours = true;
}

/* All orders in which the acts can come before one of the first `span` commands, or after
 * them. */
static bool next_schedule(const enum act *plot, unsigned at[ACTS_MAX], unsigned span)
{
    for (size_t i = ACTS_MAX; i-- > 0;) {
        if (plot[i] == NOTHING || at[i] >= span)
            continue;
        at[i]++;
        for (size_t j = i + 1; j < ACTS_MAX; j++)
            at[j] = at[i];
        return true;
    }
    return false;
}

static void assert_safe(int r, bool broken_before, bool connection_held)
{
    if (r == 0) {
        /* What we now replay is newer than all that others wrote. */
        assert_false(t.broken);
        assert_true(t.holder == session.lun && holder_key() == OURS);
        assert_int_equal(our_registrations(), 1);
    }
    if (broken_before)
        assert_int_not_equal(r, 0);
    if (broken_before && connection_held)
        assert_int_equal(r, -ESTALE);
    if (r == -ESTALE && connection_held) { /* shut out, and nothing of ours is left */
        assert_int_equal(our_registrations(), 0);
    }
}

/* One attachment: acquired, disturbed in the check of its second session, which may end
 * in the middle; then a third one. */
static void live(bool by_session, const enum act *plot, const unsigned at[ACTS_MAX],
                 unsigned lose_at, bool lose_after)
{
    struct mr_page_fence state = {.reserve = true};
    struct mr_err err;
    bool before;
    int r;

    begin(by_session, plot);
    acquire_undisturbed(&state);
    log_in();
    memcpy(t.at, at, sizeof(t.at));
    t.lose_at = lose_at;
    t.lose_after = lose_after;
    r = mr_fence_check(&asker, &state, &err);
    assert_safe(r, false, lose_at == NEVER);
    if (r == -ESTALE)
        return;
    while (t.next < ACTS_MAX) /* what is left of the plot comes between the sessions */
        act(t.plot[t.next++]);
    t.lose_at = NEVER;
    log_in();
    before = t.broken;
    r = mr_fence_check(&asker, &state, &err);
    assert_safe(r, before, true);
    if (r == 0) {
        assert_int_equal(mr_fence_release(&asker, &state, &err), 0);
        assert_int_equal(our_registrations(), 0);
    }
}

static void test_nothing_is_replayed_over_another_nodes_writes(void **state)
{
    enum {
        SPAN = 14
    };

    (void)state;
    for (int by_session = 0; by_session < 2; by_session++)
        for (size_t plot = 0; plot < PLOTS; plot++) {
            unsigned at[ACTS_MAX] = {0};

            do {
                live(by_session, plots[plot], at, NEVER, false);
                for (unsigned lose = 0; lose < SPAN; lose++) {
                    live(by_session, plots[plot], at, lose, false);
                    live(by_session, plots[plot], at, lose, true);
                }
            } while (next_schedule(plots[plot], at, SPAN));
        }
}

static void test_two_nodes_never_both_get_it(void **state)
{
    enum {
        SPAN = 10
    };

    (void)state;
    for (size_t plot = 0; plot < PLOTS; plot++) {
        unsigned at[ACTS_MAX] = {0};

        do {
            struct mr_page_fence record = {.reserve = true};
            struct mr_err err = {.errnum = 0};
            int r;

            begin(true, plots[plot]);
            memcpy(t.at, at, sizeof(t.at));
            r = acquire(&record, 0, &err);
            if (r == 0) {
                assert_true(t.holder == session.lun && record.key == OURS);
                assert_true(record.registered && record.holder == OURS);
                assert_int_equal(our_registrations(), 1);
                continue;
            }
            assert_int_equal(our_registrations(), 0);
            assert_false(record.registered);
            if (r == -EBUSY) {
                assert_int_equal(err.code, MR_E_SOURCE_IN_USE);
                assert_non_null(strstr(err.message, "0xbbbbbbbb00000001"));
            }
        } while (next_schedule(plots[plot], at, SPAN));
    }
}

static void test_a_broken_attempt_leaves_what_the_next_one_takes_over(void **state)
{
    (void)state;
    for (unsigned lose = 0; lose < 12; lose++)
        for (int after = 0; after < 2; after++) {
            struct mr_page_fence record = {.reserve = true};
            struct mr_err err;

            begin(true, plots[0]);
            set_registration(77, OURS_OLD); /* of a server that is dead */
            t.holder = 77;
            t.lose_at = lose;
            t.lose_after = after;
            (void)acquire(&record, 0, &err);
            t.lose_at = NEVER;
            log_in();
            assert_int_equal(acquire(&record, 0, &err), 0);
            assert_int_equal(our_registrations(), 1);
            assert_true(t.holder == session.lun);
        }
}

static void test_only_a_request_takes_it_from_another_node(void **state)
{
    struct mr_page_fence record = {.reserve = true};
    struct mr_err err;

    (void)state;
    begin(true, plots[0]);
    set_registration(THEIR_NEXUS, THEIRS);
    t.holder = THEIR_NEXUS;
    assert_int_equal(acquire(&record, 0, &err), -EBUSY);
    assert_int_equal(acquire(&record, THEIRS + 1, &err), -EBUSY);
    assert_true(holder_key() == THEIRS && our_registrations() == 0);
    assert_int_equal(acquire(&record, THEIRS, &err), 0);
    assert_true(t.holder == session.lun && !find(THEIR_NEXUS));
}

static void test_a_target_that_removes_nothing_is_given_up(void **state)
{
    struct mr_page_fence record = {.reserve = true};
    struct mr_err err;

    (void)state;
    begin(true, plots[0]);
    t.deaf = true;
    set_registration(77, OURS_OLD);
    assert_int_equal(acquire(&record, 0, &err), -EIO);
    assert_int_equal(err.code, MR_E_DEVICE_ERROR);
    assert_null(find(session.lun));
}

static void test_a_look_writes_nothing_and_tolerates_who_joined(void **state)
{
    struct mr_page_fence record = {.reserve = true};
    struct mr_err err;
    uint32_t generation;

    (void)state;
    begin(true, plots[0]);
    acquire_undisturbed(&record);
    set_registration(THEIR_NEXUS, THEIRS);
    generation = t.generation;
    assert_int_equal(mr_fence_look(&asker, &record, &err), 0);
    assert_int_equal(record.key_count, 2);
    assert_int_equal(t.generation, generation);
    log_in(); /* but nothing is replayed over its writes */
    assert_int_equal(mr_fence_check(&asker, &record, &err), -ESTALE);
}

static void test_the_fenced_one_hears_who_has_it(void **state)
{
    struct mr_page_fence record = {.reserve = true};
    struct mr_err err;

    (void)state;
    begin(true, plots[0]);
    acquire_undisturbed(&record);
    act(REGISTER);
    act(PREEMPT);
    assert_int_equal(mr_fence_look(&asker, &record, &err), -ESTALE);
    assert_int_equal(err.code, MR_E_FENCED);
    assert_non_null(strstr(err.message, "0xbbbbbbbb00000001"));
    assert_true(record.holder == THEIRS && record.keys[0] == THEIRS);
    assert_int_equal(mr_fence_release(&asker, &record, &err), 0);
    assert_true(holder_key() == THEIRS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_replayed_over_another_nodes_writes),
        cmocka_unit_test(test_two_nodes_never_both_get_it),
        cmocka_unit_test(test_a_broken_attempt_leaves_what_the_next_one_takes_over),
        cmocka_unit_test(test_only_a_request_takes_it_from_another_node),
        cmocka_unit_test(test_a_target_that_removes_nothing_is_given_up),
        cmocka_unit_test(test_a_look_writes_nothing_and_tolerates_who_joined),
        cmocka_unit_test(test_the_fenced_one_hears_who_has_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
