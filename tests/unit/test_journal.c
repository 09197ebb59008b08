/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test_journal_env.h"

#include <errno.h>
#include <sys/stat.h>

static void test_a_new_journal_is_empty_and_private(void **state)
{
    struct fixture *f = *state;
    struct loaded *l = &f->loaded;
    struct stat st;
    (void)umask(0);
    open_journal(f);
    load(f, 100, l);
    assert_int_equal(l->volumes + l->operations, 0);
    assert_int_equal(stat(f->file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void test_records_survive_close_and_open(void **state)
{
    struct fixture *f = *state;
    struct loaded *l = &f->loaded;
    open_journal(f);
    for (int i = 0; i < 10; i++)
        append_new(f, i);
    wait_acks(f, 10);
    reopen_journal(f);
    load(f, 4, l);
    assert_int_equal(l->volumes, 10);
    assert_int_equal(l->operations, 4); /* the newest ones, oldest first */
    for (int i = 0; i < 10; i++) {
        assert_int_equal(f->acks[i].rc, 0);
        assert_int_equal(l->volume_value[i], i);
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(l->operation_value[i], 6 + i);
    close_journal(f);
    assert_int_equal(query(f, "SELECT count(*) FROM history WHERE event = 'attach_intent'"
                              " AND detail = '{\"value\":' || (seq - 1) || '}'"
                              " AND operation = 'op' || (seq - 1)"),
                     10);
}

static void test_a_volume_has_one_row_and_its_whole_history(void **state)
{
    struct fixture *f = *state;
    struct loaded *l = &f->loaded;
    open_journal(f);
    int64_t number = mr_journal_number(f->journal);
    for (int i = 0; i < 5; i++)
        append(f, number, "same", i);
    wait_acks(f, 5);
    load(f, 100, l);
    assert_int_equal(l->volumes, 1);
    assert_int_equal(l->volume_value[0], 4);
    assert_int_equal(l->operations, 5);
    close_journal(f);
    assert_int_equal(query(f, "SELECT count(*) FROM history"), 5);
}

static void test_a_record_without_operation_and_detail_is_fine(void **state)
{
    struct fixture *f = *state;
    struct loaded *l = &f->loaded;
    open_journal(f);
    f->acks[0].fixture = f;
    MR_AUTO_JSON struct json_object *doc = parse_json("{'value': 0}");
    mr_journal_append(f->journal,
                      &(struct mr_record){.volume_number = mr_journal_number(f->journal),
                                          .volume_id = "vol0",
                                          .state = "attaching",
                                          .volume = doc,
                                          .event = "reconciled"},
                      on_ack, &f->acks[0]);
    wait_acks(f, 1);
    assert_int_equal(f->acks[0].rc, 0);
    load(f, 100, l);
    assert_int_equal(l->volumes, 1);
    assert_int_equal(l->operations, 0);
}

static void test_many_records_are_acknowledged_in_order(void **state)
{
    struct fixture *f = *state;
    struct loaded *l = &f->loaded;
    open_journal(f);
    for (int i = 0; i < 2000; i++)
        append_new(f, i);
    assert_int_equal(f->acked, 0); /* callbacks come from the loop only */
    wait_acks(f, 2000);
    for (int i = 0; i < 2000; i++) {
        assert_int_equal(f->acks[i].rc, 0);
        assert_int_equal(f->acks[i].order, i);
    }
    reopen_journal(f);
    load(f, RECORDS_MAX, l);
    assert_int_equal(l->volumes, 2000);
    assert_int_equal(l->operations, 2000);
}

static void test_close_writes_what_is_queued_without_callbacks(void **state)
{
    struct fixture *f = *state;
    struct loaded *l = &f->loaded;
    open_journal(f);
    for (int i = 0; i < 500; i++)
        append_new(f, i);
    reopen_journal(f);
    assert_int_equal(f->acked, 0);
    load(f, 1000, l);
    assert_int_equal(l->volumes, 500);
}

static void test_a_forgotten_callback_is_not_called_but_written(void **state)
{
    struct fixture *f = *state;
    struct loaded *l = &f->loaded;
    open_journal(f);
    for (int i = 0; i < 3; i++)
        append_new(f, i);
    mr_journal_forget(f->journal, &f->acks[1]);
    wait_acks(f, 2);
    assert_true(f->acks[0].called);
    assert_false(f->acks[1].called);
    assert_true(f->acks[2].called);
    load(f, 100, l);
    assert_int_equal(l->volumes, 3);
}

static void forget_the_next(void *ctx, int rc, const struct mr_err *err)
{
    struct fixture *f = ctx;
    (void)err;
    assert_int_equal(rc, 0);
    mr_journal_forget(f->journal, &f->acks[0]);
    append_new(f, 1); /* and appending from a callback works */
}

static void test_forget_from_a_callback_reaches_the_same_batch(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    int64_t number = mr_journal_number(f->journal);
    mr_journal_append(f->journal,
                      &(struct mr_record){.volume_number = number,
                                          .volume_id = "x",
                                          .state = "attaching",
                                          .event = "x"},
                      forget_the_next, f);
    append_new(f, 0);
    wait_acks(f, 1);
    assert_false(f->acks[0].called);
    assert_true(f->acks[1].called);
}

static void test_numbers_are_never_used_again(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    assert_int_equal(mr_journal_number(f->journal), 1);
    append_new(f, 0); /* 2 */
    assert_int_equal(mr_journal_number(f->journal), 3);
    wait_acks(f, 1);
    reopen_journal(f);
    assert_int_equal(mr_journal_number(f->journal), 3);
}

static void test_a_bad_record_fails_alone(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    for (int i = 0; i < 100; i++)
        append(f, mr_journal_number(f->journal), i == 50 ? "vol7" : NULL, i);
    wait_acks(f, 100);
    /* NULL ids are all refused, and "vol7" is then the only good one. */
    for (int i = 0; i < 100; i++)
        assert_int_equal(f->acks[i].rc, i == 50 ? 0 : -EINVAL);
    append(f, mr_journal_number(f->journal), "vol7", 100); /* the id has another number */
    append_new(f, 101);
    wait_acks(f, 102);
    assert_int_equal(f->acks[100].rc, -EINVAL);
    assert_non_null(strstr(f->acks[100].message, "volume.id"));
    assert_int_equal(f->acks[101].rc, 0);
    close_journal(f);
    assert_int_equal(query(f, "SELECT count(*) FROM volume"), 2);
    assert_int_equal(query(f, "SELECT count(*) FROM operation"), 2);
    assert_int_equal(query(f, "SELECT count(*) FROM history"), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        JOURNAL_TEST(test_a_new_journal_is_empty_and_private),
        JOURNAL_TEST(test_records_survive_close_and_open),
        JOURNAL_TEST(test_a_volume_has_one_row_and_its_whole_history),
        JOURNAL_TEST(test_a_record_without_operation_and_detail_is_fine),
        JOURNAL_TEST(test_many_records_are_acknowledged_in_order),
        JOURNAL_TEST(test_close_writes_what_is_queued_without_callbacks),
        JOURNAL_TEST(test_a_forgotten_callback_is_not_called_but_written),
        JOURNAL_TEST(test_forget_from_a_callback_reaches_the_same_batch),
        JOURNAL_TEST(test_numbers_are_never_used_again),
        JOURNAL_TEST(test_a_bad_record_fails_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
