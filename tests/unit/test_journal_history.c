/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a volume's history: which rows, in which order, and what a read sees of the
 * records around it.
 */
#include "tests/unit/test_journal_env.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* The answer of one read. */
struct page {
    struct fixture *fixture;
    bool called;
    size_t order; /* which callback this was, records' counted, too */
    struct json_object *rows;
    bool more;
    struct mr_err err;
};

static void on_rows(void *ctx, struct json_object *rows, bool more,
                    const struct mr_err *err)
{
    struct page *page = ctx;
    struct fixture *f = page->fixture;
    assert_false(page->called);
    assert_true((rows == NULL) == (err != NULL));
    page->called = true;
    page->order = f->acked++;
    page->rows = json_object_get(rows);
    page->more = more;
    if (err)
        page->err = *err;
    if (f->acked >= f->wanted)
        mr_loop_stop(f->loop);
}

static void ask(struct fixture *f, int64_t number, int64_t after, unsigned limit,
                struct page *page)
{
    *page = (struct page){.fixture = f};
    mr_journal_history(f->journal, number, after, limit, on_rows, page);
}

/* Asks and waits; the rows are a new reference. */
static struct json_object *history(struct fixture *f, int64_t number, int64_t after,
                                   unsigned limit, bool *ret_more)
{
    struct page page;
    ask(f, number, after, limit, &page);
    while (!page.called)
        wait_acks(f, f->acked + 1);
    if (!page.rows)
        fail_msg("history: %s", page.err.message);
    if (ret_more)
        *ret_more = page.more;
    return page.rows;
}

/* The value in the detail of row i. */
static int value_at(struct json_object *rows, size_t i)
{
    struct json_object *row = json_object_array_get_idx(rows, i);
    return (int)mr_json_get_int(mr_json_get(row, "detail"), "value", -2);
}

static void test_rows_come_in_order_and_whole(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    int64_t before_ms = mr_wall_ms();
    int64_t number = mr_journal_number(f->journal);
    for (int i = 0; i < 3; i++)
        append(f, number, "same", i);
    MR_AUTO_JSON struct json_object *rows = history(f, number, 0, 100, NULL);
    int64_t after_ms = mr_wall_ms();
    assert_int_equal(json_object_array_length(rows), 3);
    for (int i = 0; i < 3; i++) {
        char operation[16];
        char earliest[MR_TIME_TEXT];
        char latest[MR_TIME_TEXT];
        struct json_object *row = json_object_array_get_idx(rows, (size_t)i);
        (void)snprintf(operation, sizeof(operation), "op%d", i);
        assert_int_equal(mr_json_get_int(row, "seq", -1), i + 1);
        assert_string_equal(mr_json_get_string(row, "event"), "attach_intent");
        assert_string_equal(mr_json_get_string(row, "operation"), operation);
        assert_int_equal(value_at(rows, (size_t)i), i);
        const char *at = mr_json_get_string(row, "at");
        assert_true(strcmp(at, mr_time_text(before_ms, earliest)) >= 0);
        assert_true(strcmp(at, mr_time_text(after_ms, latest)) <= 0);
    }
}

static void test_operation_and_detail_may_be_null(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    int64_t number = mr_journal_number(f->journal);
    mr_journal_append(f->journal,
                      &(struct mr_record){.volume_number = number,
                                          .volume_id = "v",
                                          .state = "attaching",
                                          .event = "reconciled"},
                      NULL, NULL);
    MR_AUTO_JSON struct json_object *rows = history(f, number, 0, 1, NULL);
    struct json_object *row = json_object_array_get_idx(rows, 0);
    static const char *const keys[] = {"operation", "detail"};
    for (size_t i = 0; i < 2; i++) {
        struct json_object *value = row;
        assert_true(json_object_object_get_ex(row, keys[i], &value)); /* there, and... */
        assert_null(value);                                           /* ...null */
    }
}

static void test_pages_end_where_the_next_begins(void **state)
{
    struct fixture *f = *state;
    int64_t after = 0;
    bool more = false;
    int seen = 0;
    open_journal(f);
    int64_t number = mr_journal_number(f->journal);
    for (int i = 0; i < 25; i++)
        append(f, number, "same", i);
    for (;;) {
        MR_AUTO_JSON struct json_object *rows = history(f, number, after, 10, &more);
        size_t count = json_object_array_length(rows);
        for (size_t i = 0; i < count; i++)
            assert_int_equal(value_at(rows, i), seen++);
        assert_int_equal(count, seen < 25 ? 10 : 5);
        after = mr_json_get_int(json_object_array_get_idx(rows, count - 1), "seq", -1);
        assert_int_equal(more, seen < 25);
        if (!more)
            break;
    }
    assert_int_equal(seen, 25);
    MR_AUTO_JSON struct json_object *behind = history(f, number, after, 10, NULL);
    assert_int_equal(json_object_array_length(behind), 0);
    MR_AUTO_JSON struct json_object *far = history(f, number, INT64_MAX, 1000, NULL);
    assert_int_equal(json_object_array_length(far), 0);
}

static void test_a_page_of_large_details_is_cut_short(void **state)
{
    struct fixture *f = *state;
    bool more = false;
    open_journal(f);
    int64_t number = mr_journal_number(f->journal);
    MR_AUTO_FREE char *text = malloc(400001);
    MR_AUTO_JSON struct json_object *doc = json_object_new_object();
    assert_non_null(text);
    memset(text, 'x', 400000);
    text[400000] = '\0';
    mr_json_set_string(doc, "text", text);
    for (int i = 0; i < 6; i++)
        mr_journal_append(f->journal,
                          &(struct mr_record){.volume_number = number,
                                              .volume_id = "same",
                                              .state = "detaching",
                                              .volume = doc,
                                              .event = "holders",
                                              .detail = doc},
                          NULL, NULL);
    MR_AUTO_JSON struct json_object *first = history(f, number, 0, 1000, &more);
    assert_int_equal(json_object_array_length(first), 3);
    assert_true(more);
    int64_t after = mr_json_get_int(json_object_array_get_idx(first, 2), "seq", -1);
    MR_AUTO_JSON struct json_object *rest = history(f, number, after, 1000, &more);
    assert_int_equal(json_object_array_length(rest), 3);
    assert_false(more);
}

static void test_only_the_rows_of_that_volume_are_read(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    int64_t one = mr_journal_number(f->journal);
    int64_t two = mr_journal_number(f->journal);
    for (int i = 0; i < 10; i++)
        append(f, i % 2 ? one : two, i % 2 ? "one" : "two", i);
    MR_AUTO_JSON struct json_object *rows = history(f, one, 0, 100, NULL);
    assert_int_equal(json_object_array_length(rows), 5);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(value_at(rows, i), 2 * i + 1);
    MR_AUTO_JSON struct json_object *none = history(f, 99, 0, 100, NULL);
    assert_int_equal(json_object_array_length(none), 0);
}

/* Records and reads in one batch: a read sees what was queued before it, nothing else,
 * and all callbacks come in the order of the calls. */
static void test_a_read_sees_the_records_before_it(void **state)
{
    struct fixture *f = *state;
    static struct page pages[50];
    open_journal(f);
    int64_t number = mr_journal_number(f->journal);
    for (int i = 0; i < 50; i++) {
        append(f, number, "same", i);
        ask(f, number, 0, 100, &pages[i]);
    }
    assert_int_equal(f->acked, 0); /* callbacks come from the loop only */
    wait_acks(f, 100);
    for (size_t i = 0; i < 50; i++) {
        assert_int_equal(f->acks[i].rc, 0);
        assert_int_equal(f->acks[i].order, 2 * i);
        assert_int_equal(pages[i].order, 2 * i + 1);
        assert_int_equal(json_object_array_length(pages[i].rows), i + 1);
        (void)json_object_put(pages[i].rows);
    }
}

static void test_a_bad_record_does_not_hurt_the_read_behind_it(void **state)
{
    struct fixture *f = *state;
    struct page page;
    open_journal(f);
    int64_t number = mr_journal_number(f->journal);
    append(f, number, "same", 0);
    append(f, mr_journal_number(f->journal), NULL, 1); /* refused: no id */
    append(f, number, "same", 2);
    ask(f, number, 0, 100, &page);
    wait_acks(f, 4);
    assert_int_equal(f->acks[1].rc, -EINVAL);
    assert_int_equal(json_object_array_length(page.rows), 2);
    assert_int_equal(value_at(page.rows, 1), 2);
    (void)json_object_put(page.rows);
}

static void test_a_forgotten_read_is_not_answered(void **state)
{
    struct fixture *f = *state;
    struct page pages[3];
    open_journal(f);
    int64_t number = mr_journal_number(f->journal);
    append(f, number, "same", 0);
    for (size_t i = 0; i < 3; i++)
        ask(f, number, 0, 10, &pages[i]);
    mr_journal_forget(f->journal, &pages[1]);
    wait_acks(f, 3);
    assert_true(pages[0].called && pages[2].called);
    assert_false(pages[1].called);
    (void)json_object_put(pages[0].rows);
    (void)json_object_put(pages[2].rows);
}

static void test_close_answers_nobody(void **state)
{
    struct fixture *f = *state;
    struct page page;
    open_journal(f);
    int64_t number = mr_journal_number(f->journal);
    append(f, number, "same", 0);
    ask(f, number, 0, 10, &page);
    append(f, number, "same", 1);
    reopen_journal(f);
    assert_false(page.called);
    MR_AUTO_JSON struct json_object *rows = history(f, number, 0, 10, NULL);
    assert_int_equal(json_object_array_length(rows), 2); /* what was queued is written */
}

static void test_damaged_text_is_left_out_or_mended(void **state)
{
    struct fixture *f = *state;
    static const char *const damage[] = {
        "detail = '{\"value\":'",          /* cut */
        "detail = ''",                     /* empty */
        "detail = '{\"value\":1} and on'", /* more than one */
        "detail = 'null'",
        "detail = '[1]'", /* JSON, but no object */
        "detail = '{\"a\":\"' || CAST(x'ff' AS TEXT) || '\"}'",
        "detail = x'00ff00'",
        "detail = '"
        "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":"
        "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":"
        "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":"
        "{\"a\":{\"a\":{\"a\":1}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}}'", /* too deep */
        "detail = 7",
    };
    enum {
        DAMAGED = sizeof(damage) / sizeof(damage[0])
    };
    open_journal(f);
    int64_t number = mr_journal_number(f->journal);
    for (int i = 0; i < DAMAGED + 2; i++)
        append(f, number, "same", i);
    close_journal(f);
    for (int i = 0; i < DAMAGED; i++) {
        char sql[600];
        (void)snprintf(sql, sizeof(sql), "UPDATE history SET %s WHERE seq = %d",
                       damage[i], i + 1);
        run_sql(f, sql);
    }
    run_sql(f, "UPDATE history SET event = 'a' || CAST(x'ff' AS TEXT) || 'b'"
               " WHERE seq = (SELECT max(seq) FROM history)");
    open_journal(f);
    MR_AUTO_JSON struct json_object *rows = history(f, number, 0, 100, NULL);
    assert_int_equal(json_object_array_length(rows), DAMAGED + 2);
    for (size_t i = 0; i < DAMAGED; i++) {
        struct json_object *row = json_object_array_get_idx(rows, i);
        if (mr_json_get(row, "detail"))
            fail_msg("%s: %s", damage[i], json_object_to_json_string(row));
        assert_string_equal(mr_json_get_string(row, "event"), "attach_intent");
    }
    assert_int_equal(value_at(rows, DAMAGED), DAMAGED);
    struct json_object *last = json_object_array_get_idx(rows, DAMAGED + 1);
    assert_string_equal(mr_json_get_string(last, "event"), "a?b");
}

/* The file is damaged behind our back, where SQLite's cache does not hide it. */
static void test_a_failing_read_says_why(void **state)
{
    struct fixture *f = *state;
    static char filler[8192];
    static const char junk[4096] = {1, 2, 3};
    struct page page;
    struct stat st;

    memset(filler, 'x', sizeof(filler) - 1);
    MR_AUTO_JSON struct json_object *detail = json_object_new_object();
    mr_json_set_string(detail, "filler", filler);
    open_journal(f);
    int64_t number = mr_journal_number(f->journal);
    append(f, number, "same", 0);
    for (int i = 0; i < 1000; i++)
        mr_journal_append(f->journal,
                          &(struct mr_record){.volume_number = number,
                                              .volume_id = "same",
                                              .state = "attaching",
                                              .event = "filler",
                                              .detail = detail},
                          NULL, NULL);
    reopen_journal(f);
    MR_AUTO_CLOSE int fd = open(f->file, O_RDWR | O_CLOEXEC);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_size > 8 << 20);
    for (off_t at = st.st_size / 4; at < st.st_size / 2; at += 4096)
        assert_int_equal(pwrite(fd, junk, sizeof(junk), at), sizeof(junk));
    ask(f, number, 350, 1000, &page); /* a page of rows in the damaged part */
    wait_acks(f, 1);
    assert_null(page.rows);
    assert_int_equal(page.err.code, MR_E_JOURNAL_UNAVAILABLE);
    assert_int_equal(page.err.errnum, EUCLEAN);
    assert_non_null(strstr(page.err.message, f->file));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        JOURNAL_TEST(test_rows_come_in_order_and_whole),
        JOURNAL_TEST(test_operation_and_detail_may_be_null),
        JOURNAL_TEST(test_pages_end_where_the_next_begins),
        JOURNAL_TEST(test_a_page_of_large_details_is_cut_short),
        JOURNAL_TEST(test_only_the_rows_of_that_volume_are_read),
        JOURNAL_TEST(test_a_read_sees_the_records_before_it),
        JOURNAL_TEST(test_a_bad_record_does_not_hurt_the_read_behind_it),
        JOURNAL_TEST(test_a_forgotten_read_is_not_answered),
        JOURNAL_TEST(test_close_answers_nobody),
        JOURNAL_TEST(test_damaged_text_is_left_out_or_mended),
        JOURNAL_TEST(test_a_failing_read_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
