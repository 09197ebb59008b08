/* SPDX-License-Identifier: Apache-2.0
 *
 * Volumes that the journal is told to forget, and that their numbers are not used again.
 */
#include "tests/unit/test_journal_env.h"

static void test_a_dropped_volume_leaves_nothing_but_its_number(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    for (int i = 0; i < 3; i++)
        append_new(f, i);
    wait_acks(f, 3);
    drop(f, 3);
    drop(f, 3); /* again: it is not there */
    drop(f, 1);
    append(f, mr_journal_number(f->journal), "vol2", 3); /* the id is free */
    wait_acks(f, f->acked + 1);
    assert_int_equal(f->acks[3].rc, 0);
    drop(f, 4);
    close_journal(f);
    assert_int_equal(query(f, "SELECT group_concat(number) = '2' FROM volume"), 1);
    assert_int_equal(query(f, "SELECT group_concat(id) = 'op1' FROM operation"), 1);
    assert_int_equal(query(f, "SELECT group_concat(volume) = '2' FROM history"), 1);
    open_journal(f);
    assert_int_equal(mr_journal_number(f->journal), 5);
}

static void test_a_number_is_not_used_again_after_all_volumes_were_dropped(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    for (int i = 0; i < 3; i++)
        append_new(f, i);
    wait_acks(f, 3);
    for (int64_t number = 3; number > 0; number--)
        drop(f, number);
    reopen_journal(f);
    assert_int_equal(mr_journal_number(f->journal), 4);
    reopen_journal(f);
    assert_int_equal(mr_journal_number(f->journal), 4);
    close_journal(f);
    assert_int_equal(query(f, "SELECT count(*) FROM volume"), 0);
}

static void test_a_long_history_is_dropped_piece_by_piece(void **state)
{
    struct fixture *f = *state;
    struct loaded *l = &f->loaded;
    make_lines(f, 2800);
    open_journal(f);
    drop(f, 1);
    load(f, 100, l);
    assert_int_equal(l->volumes, 0); /* gone for all to see */
    append(f, mr_journal_number(f->journal), "same", 0);
    wait_acks(f, f->acked + 1);
    assert_int_equal(f->acks[0].rc, 0);
    close_journal(f);
    int64_t left = query(f, "SELECT count(*) FROM history WHERE volume = 1");
    assert_true(left > 0 && left < 2800);
    open_journal(f); /* as after a crash */
    retain(f, &(struct mr_journal_retention){INT64_MAX / 2, INT64_MAX});
    assert_int_equal(mr_journal_number(f->journal), 3);
    load(f, 100, l);
    assert_int_equal(l->volumes, 1);
    close_journal(f);
    assert_int_equal(query(f, "SELECT count(*) FROM history"), 1);
    assert_int_equal(query(f, "SELECT group_concat(number) = '2' FROM volume"), 1);
}

/* Against the rules; but what is recorded must not be lost under the name of the rest. */
static void test_a_record_of_a_dropped_number_brings_its_id_back(void **state)
{
    struct fixture *f = *state;
    struct loaded *l = &f->loaded;
    make_lines(f, 2800);
    open_journal(f);
    drop(f, 1);
    append(f, 1, "same", 0);
    wait_acks(f, f->acked + 1);
    assert_int_equal(f->acks[0].rc, 0);
    reopen_journal(f);
    load(f, 100, l);
    assert_int_equal(l->volumes, 1);
    retain(f, &(struct mr_journal_retention){INT64_MAX / 2, INT64_MAX});
    reopen_journal(f);
    load(f, 100, l);
    assert_int_equal(l->volumes, 1);
    close_journal(f);
    assert_int_equal(query(f, "SELECT group_concat(id) = 'same' FROM volume"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        JOURNAL_TEST(test_a_dropped_volume_leaves_nothing_but_its_number),
        JOURNAL_TEST(test_a_number_is_not_used_again_after_all_volumes_were_dropped),
        JOURNAL_TEST(test_a_long_history_is_dropped_piece_by_piece),
        JOURNAL_TEST(test_a_record_of_a_dropped_number_brings_its_id_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
