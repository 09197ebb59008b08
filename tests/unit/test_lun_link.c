/* SPDX-License-Identifier: Apache-2.0
 *
 * What the link does about what a target says beside its answers, and where it looks for
 * a target that is away. */
#include "tests/unit/lun_link_env.h"

/* The loop: as long as there is something to do now. */
static void turns(void)
{
    unsigned count = 0;

    do {
        mr_link_step(&link_);
        assert_true(++count < 10);
    } while (mr_link_check(&link_) <= io.now_ns);
}

static void test_a_capacity_change_told_to_a_question_is_read(void **state)
{
    (void)state;
    fake.facts.size_bytes = 2 * SIZE;
    fake.on_fence = MR_ATTENTION_CAPACITY;
    start.reserve = true;
    mr_link_look(&link_);
    turns();
    assert_int_equal(fake.capacity_asked, 1);
    assert_true(fake.told_size == 2 * SIZE);
    assert_int_equal(mr_link_state(&link_), MR_LINK_UP);
}

static void test_a_capacity_change_told_during_the_login_is_read(void **state)
{
    (void)state;
    fake.facts.size_bytes = 2 * SIZE;
    link_.session.attention = MR_ATTENTION_CAPACITY | MR_ATTENTION_RESET;
    mr_link_run(&link_);
    assert_true(mr_link_check(&link_) <= io.now_ns); /* not with the next event */
    turns();
    assert_true(fake.told_size == 2 * SIZE);
    assert_true(atomic_load(&page.counters.power_on_resets) == 0);
}

static void test_a_loss_of_the_reservation_told_to_a_question_is_looked_at(void **state)
{
    (void)state;
    start.reserve = true;
    fake.on_capacity = MR_ATTENTION_RESERVATION;
    mr_link_resize(&link_);
    turns();
    assert_int_equal(fake.fence_asked, 1);
    assert_int_equal(mr_link_state(&link_), MR_LINK_UP);
    io.attention = MR_ATTENTION_RESERVATION; /* as a conflict */
    turns();
    assert_int_equal(mr_link_state(&link_), MR_LINK_DOWN);
}

static void test_without_fencing_reservations_are_not_looked_at(void **state)
{
    (void)state;
    link_.session.attention = MR_ATTENTION_RESERVATION;
    turns();
    assert_int_equal(fake.fence_asked, 0);
}

static void test_a_reset_told_to_a_question_is_counted(void **state)
{
    (void)state;
    link_.session.resets = 1;
    link_.session.attention = MR_ATTENTION_RESET;
    turns();
    assert_true(atomic_load(&page.counters.power_on_resets) == 1);
}

static void test_commands_are_in_doubt_whoever_is_told_of_the_reset(void **state)
{
    (void)state;
    io.attention = MR_ATTENTION_ABORTED;
    turns();
    assert_int_equal(fake.doubts, 1);
    link_.session.attention = MR_ATTENTION_ABORTED;
    turns();
    assert_int_equal(fake.doubts, 2);
    link_.session.attention = MR_ATTENTION_ABORTED; /* at the login */
    mr_link_run(&link_);
    turns();
    assert_int_equal(fake.doubts, 2);
}

static void check_identity(unsigned *where)
{
    *where = MR_ATTENTION_IDENTITY;
    turns();
    assert_int_equal(fake.identity_asked, 1);
    assert_false(fake.sending_while_asked);
}

static void test_a_lun_that_may_be_another_one_proves_itself_first(void **state)
{
    (void)state;
    check_identity(&io.attention);
    assert_int_equal(io.mode, MR_IO_RUNNING);
    assert_int_equal(mr_link_state(&link_), MR_LINK_UP);
    assert_int_equal(fake.closed, 0);
}

static void test_another_lun_behind_the_number_is_final(void **state)
{
    (void)state;
    (void)snprintf(fake.facts.wwn, sizeof(fake.facts.wwn), "naa.2");
    check_identity(&link_.session.attention);
    assert_int_equal(mr_link_state(&link_), MR_LINK_MISMATCH);
    assert_int_equal(io.mode, MR_IO_REFUSING);
}

/* A logout would send what waits for room in the target's window. */
static void test_what_waits_to_be_sent_is_not_sent_to_another_lun(void **state)
{
    (void)state;
    (void)snprintf(fake.facts.wwn, sizeof(fake.facts.wwn), "naa.2");
    fake.queued = true;
    check_identity(&link_.session.attention);
    assert_int_equal(mr_link_state(&link_), MR_LINK_MISMATCH);
    assert_int_equal(fake.logouts, 0);
    assert_int_equal(fake.closed, 1);
    assert_false(atomic_load(&page.logged_out));
}

static void test_a_lun_that_has_grown_with_its_identity_is_told(void **state)
{
    (void)state;
    fake.facts.size_bytes = 2 * SIZE;
    check_identity(&io.attention);
    assert_true(fake.told_size == 2 * SIZE);
    assert_int_equal(io.mode, MR_IO_RUNNING);
}

static void test_a_lun_that_cannot_prove_itself_costs_the_session(void **state)
{
    (void)state;
    fake.identity_error = -EAGAIN;
    io.attention = MR_ATTENTION_IDENTITY;
    turns();
    assert_int_equal(mr_link_state(&link_), MR_LINK_DOWN);
    assert_int_equal(io.mode, MR_IO_HOLDING);
    assert_non_null(strstr(link_.session.down_reason, "not now"));
}

static void test_the_capacity_of_another_lun_is_not_told(void **state)
{
    (void)state;
    fake.facts.size_bytes = 2 * SIZE;
    (void)snprintf(fake.facts.wwn, sizeof(fake.facts.wwn), "naa.2");
    fake.on_capacity = MR_ATTENTION_IDENTITY;
    mr_link_resize(&link_);
    turns();
    assert_int_equal(mr_link_state(&link_), MR_LINK_MISMATCH);
    assert_true(fake.told_size == 0);
    assert_int_equal(atomic_load(&page.resized), 1);
    assert_int_equal(atomic_load(&page.resize_error), ENOTCONN);
}

static void
test_a_conflict_in_a_session_that_was_lost_does_not_cost_the_next(void **state)
{
    (void)state;
    start.reserve = true;
    io.attention = MR_ATTENTION_RESERVATION;
    mr_session_lose(&link_.session, "gone");
    mr_link_step(&link_);
    assert_int_equal(mr_link_state(&link_), MR_LINK_DOWN);
    link_.session.lost = false;
    link_.session.up = true;
    mr_link_run(&link_); /* the login has looked at keys and reservation */
    turns();
    assert_int_equal(mr_link_state(&link_), MR_LINK_UP);
}

static void test_a_look_that_comes_too_late_is_answered(void **state)
{
    (void)state;
    start.reserve = true;
    fake.identity_error = -EAGAIN;
    link_.session.attention = MR_ATTENTION_IDENTITY;
    mr_link_look(&link_);
    turns();
    assert_int_equal(mr_link_state(&link_), MR_LINK_DOWN);
    assert_int_equal(atomic_load(&page.looked), 1);
    assert_int_equal(atomic_load(&page.look_error), ENOTCONN);
    assert_int_equal(fake.fence_asked, 0);
}

static const char *round_of_logins(void)
{
    fake.tried[0] = '\0';
    io.now_ns = link_.next_ns;
    mr_link_step(&link_);
    return fake.tried;
}

static void test_each_round_asks_for_the_addresses_that_count_then(void **state)
{
    (void)state;
    struct mr_page_portals portals = {.count = 2, .at = {"a", "b"}};

    mr_page_write_portals(&page, &portals);
    atomic_store(&page.portal, atomic_load(&page.portal_set) * MR_LUN_PORTALS_MAX + 1);
    mr_session_lose(&link_.session, "gone");
    mr_link_step(&link_);
    assert_string_equal(round_of_logins(), "ba"); /* the good one first */
    portals = (struct mr_page_portals){.count = 3, .at = {"c", "d", "b"}};
    mr_page_write_portals(&page, &portals); /* by the resolver */
    assert_string_equal(round_of_logins(), "cdb");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_capacity_change_told_to_a_question_is_read),
        TEST(test_a_capacity_change_told_during_the_login_is_read),
        TEST(test_a_loss_of_the_reservation_told_to_a_question_is_looked_at),
        TEST(test_without_fencing_reservations_are_not_looked_at),
        TEST(test_commands_are_in_doubt_whoever_is_told_of_the_reset),
        TEST(test_a_reset_told_to_a_question_is_counted),
        TEST(test_each_round_asks_for_the_addresses_that_count_then),
        TEST(test_a_lun_that_may_be_another_one_proves_itself_first),
        TEST(test_another_lun_behind_the_number_is_final),
        TEST(test_what_waits_to_be_sent_is_not_sent_to_another_lun),
        TEST(test_a_lun_that_has_grown_with_its_identity_is_told),
        TEST(test_a_lun_that_cannot_prove_itself_costs_the_session),
        TEST(test_the_capacity_of_another_lun_is_not_told),
        TEST(test_a_look_that_comes_too_late_is_answered),
        TEST(test_a_conflict_in_a_session_that_was_lost_does_not_cost_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
