/* SPDX-License-Identifier: Apache-2.0
 *
 * What the journal keeps and what it removes, and that its file stays small.
 */
#include "tests/unit/test_journal_env.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "storage/base/fd.h"

#define DAY_MS (24 * 3600 * 1000LL)
#define MIB (1 << 20)

static const struct mr_journal_retention month = {30 * DAY_MS, 64LL * MIB};

/* --- a clock that can be set --- */

static atomic_llong clock_set_s;

int clock_gettime(clockid_t clock, struct timespec *ret)
{
    int rc = (int)syscall(SYS_clock_gettime, clock, ret);
    if (clock == CLOCK_REALTIME)
        ret->tv_sec += clock_set_s;
    return rc;
}

static int setup_clock(void **state)
{
    clock_set_s = 0;
    return setup(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_clock, teardown)

/* --- helpers --- */

static void set_time(struct fixture *f, int first, int last, int64_t days_ago)
{
    char sql[200];
    (void)snprintf(sql, sizeof(sql),
                   "UPDATE history SET at = %lld + seq WHERE seq BETWEEN %d AND %d",
                   (long long)(mr_wall_ms() - days_ago * DAY_MS), first, last);
    run_sql(f, sql);
}

/* Opens it, adds one line, prunes and closes. */
static void prune(struct fixture *f, const struct mr_journal_retention *keep)
{
    open_journal(f);
    add_lines(f, 1, 1);
    retain(f, keep);
    close_journal(f);
}

static void assert_lines(struct fixture *f, int64_t first, int64_t last)
{
    int64_t count = query(f, "SELECT count(*) FROM history");
    assert_int_equal(query(f, "SELECT min(seq) FROM history"), first);
    assert_int_equal(query(f, "SELECT max(seq) FROM history"), last);
    assert_int_equal(count, last - first + 1);
}

/* --- age --- */

static void test_old_lines_are_removed(void **state)
{
    struct fixture *f = *state;
    make_lines(f, 3000);
    set_time(f, 1, 1700, 31);
    set_time(f, 1701, 3000, 29);
    prune(f, &month);
    assert_lines(f, 1701, 3001);
}

static void test_the_newest_thousand_lines_are_kept_whatever_their_age(void **state)
{
    struct fixture *f = *state;
    make_lines(f, 3000);
    set_time(f, 1, 3000, 400);
    prune(f, &month);
    assert_lines(f, 2002, 3001);
}

static void test_nothing_is_removed_unless_it_was_said_what_to_keep(void **state)
{
    struct fixture *f = *state;
    make_lines(f, 3000);
    set_time(f, 1, 3000, 400);
    open_journal(f);
    add_lines(f, 1, 600);
    let_it_prune(f);
    close_journal(f);
    assert_lines(f, 1, 3600);
}

static void test_a_pass_begins_by_itself_after_many_records(void **state)
{
    struct fixture *f = *state;
    make_lines(f, 2000);
    set_time(f, 1, 2000, 400);
    open_journal(f);
    retain(f, &month); /* the newest line is as old as the others */
    let_it_prune(f);
    add_lines(f, 1, 500);
    let_it_prune(f);
    close_journal(f);
    /* Lines that came while it pruned are there beside the newest thousand. */
    assert_in_range(query(f, "SELECT min(seq) FROM history"), 1001, 1501);
    assert_int_equal(query(f, "SELECT max(seq) FROM history"), 2500);
}

static void test_a_clock_set_back_removes_nothing(void **state)
{
    struct fixture *f = *state;
    make_lines(f, 3000);
    set_time(f, 1, 3000, -3650); /* it was ten years later */
    prune(f, &month);
    assert_lines(f, 1, 3001);
    assert_int_equal(query(f, "SELECT at < (SELECT max(at) FROM history) FROM history"
                              " ORDER BY seq DESC LIMIT 1"),
                     1);
}

static void test_a_clock_set_forward_removes_nothing(void **state)
{
    struct fixture *f = *state;
    make_lines(f, 3000);
    open_journal(f);
    clock_set_s = 10 * 365 * 86400LL;
    add_lines(f, 1, 500);
    retain(f, &month);
    close_journal(f);
    assert_lines(f, 1, 3500);
}

static void test_a_line_with_an_old_time_waits_for_those_before_it(void **state)
{
    struct fixture *f = *state;
    make_lines(f, 3000);
    set_time(f, 1, 200, 40);
    set_time(f, 201, 400, 10);
    set_time(f, 401, 1500, 20000); /* the clock had not been set yet */
    prune(f, &month);
    assert_lines(f, 201, 3001);
}

/* --- size --- */

static int64_t file_size(const struct fixture *f, const char *suffix)
{
    char path[100];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s%s", f->file, suffix);
    return stat(path, &st) == 0 ? st.st_size : 0;
}

static void test_what_is_too_much_is_removed_and_the_file_shrinks(void **state)
{
    struct fixture *f = *state;
    static char filler[2000];
    memset(filler, 'x', sizeof(filler) - 1);
    MR_AUTO_JSON struct json_object *detail = json_object_new_object();
    mr_json_set_string(detail, "filler", filler);
    open_journal(f);
    int64_t number = mr_journal_number(f->journal);
    for (int i = 0; i < 5000; i++)
        mr_journal_append(f->journal,
                          &(struct mr_record){.volume_number = number,
                                              .volume_id = "same",
                                              .state = "attaching",
                                              .event = "line",
                                              .detail = detail},
                          NULL, NULL);
    reopen_journal(f);
    assert_true(file_size(f, "") > 9 * MIB);
    retain(f, &(struct mr_journal_retention){30 * DAY_MS, 4 * MIB});
    close_journal(f);
    assert_true(file_size(f, "") <= 5 * MIB);
    int64_t left = query(f, "SELECT count(*) FROM history");
    assert_true(left > 1000 && left < 2200);
    assert_lines(f, 5001 - left, 5000);

    open_journal(f);
    retain(f, &(struct mr_journal_retention){30 * DAY_MS, MIB});
    close_journal(f);
    assert_lines(f, 4001, 5000); /* more than fits */
}

/* The eight or so records of an attach and a detach. */
static void cycle(struct fixture *f, int64_t number, const char *id, int at)
{
    static const char *const events[] = {"attach_intent", "mapped",    "mounted",
                                         "attached",      "unmounted", "held",
                                         "unmapping",     "detached"};
    char op[32];
    (void)snprintf(op, sizeof(op), "op-%08x", (unsigned)at);
    MR_AUTO_JSON struct json_object *doc =
        parse_json("{'spec': {'source': {'driver': 'file', 'path': '/images/a.img'},"
                   " 'filesystem': {'type': 'ext4'}}, 'token': "
                   "'0123456789abcdef0123456789abcdef', 'mount': {'id': 1234}}");
    for (size_t i = 0; i < 8; i++)
        mr_journal_append(f->journal,
                          &(struct mr_record){.volume_number = number,
                                              .volume_id = id,
                                              .state = "attaching",
                                              .volume = doc,
                                              .operation_id = op,
                                              .operation = doc,
                                              .event = events[i],
                                              .detail = doc},
                          i == 7 ? on_ack : NULL, i == 7 ? new_ack(f) : NULL);
    wait_ack(f);
}

static void test_the_files_stay_small_over_many_cycles(void **state)
{
    struct fixture *f = *state;
    const struct mr_journal_retention keep = {30 * DAY_MS, 2 * MIB};
    int64_t numbers[20];
    int64_t most = 0;
    int64_t most_log = 0;
    open_journal(f);
    mr_journal_retain(f->journal, &keep);
    for (size_t i = 0; i < 20; i++)
        numbers[i] = mr_journal_number(f->journal);
    for (int at = 0; at < 3000; at++) {
        char id[32];
        if (at % 2 == 0) { /* one that comes again and again, and one that never does */
            (void)snprintf(id, sizeof(id), "same-%d", at / 2 % 20);
            cycle(f, numbers[at / 2 % 20], id, at);
        } else {
            int64_t number = mr_journal_number(f->journal);
            (void)snprintf(id, sizeof(id), "new-%d", at);
            cycle(f, number, id, at);
            drop(f, number);
        }
        most = file_size(f, "") > most ? file_size(f, "") : most;
        most_log = file_size(f, "-wal") > most_log ? file_size(f, "-wal") : most_log;
    }
    close_journal(f);
    if (most > 4 * MIB || most_log > 5 * MIB)
        fail_msg("file %lld, log %lld", (long long)most, (long long)most_log);
    assert_int_equal(query(f, "SELECT count(*) FROM volume"), 20);
    assert_true(query(f, "SELECT count(*) FROM operation") < 1200);
    assert_true(query(f, "SELECT count(*) FROM history") >= 1000);
}

/* --- operations --- */

static void test_ended_operations_beyond_the_newest_thousand_are_removed(void **state)
{
    struct fixture *f = *state;
    struct loaded *l = &f->loaded;
    open_journal(f);
    for (int i = 0; i < 1500; i++)
        append_new(f, i);
    wait_acks(f, 1500);
    close_journal(f);
    run_sql(f, "UPDATE volume SET doc = '{\"value\":3,\"operation\":\"op3\"}'"
               " WHERE number = 4"); /* it still runs */
    open_journal(f);
    retain(f, &month);
    load(f, 1000, l);
    assert_int_equal(l->volumes, 1500);
    assert_int_equal(l->operations, 1001);
    assert_int_equal(l->operation_value[0], 3);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(l->operation_value[1 + i], 500 + i);
    load(f, 2, l);
    assert_int_equal(l->operations, 3);
    assert_int_equal(l->operation_value[0], 3);
    assert_int_equal(l->operation_value[2], 1499);
    close_journal(f);
    assert_int_equal(query(f, "SELECT count(*) FROM operation"), 1001);
}

/* --- and then it sleeps --- */

static int64_t switches_of_the_thread(void)
{
    int64_t switches = -1;
    DIR *tasks = opendir("/proc/self/task");
    const struct dirent *task = NULL;
    assert_non_null(tasks);
    while ((task = readdir(tasks))) {
        char path[300];
        char text[4096];
        (void)snprintf(path, sizeof(path), "%s/status", task->d_name);
        if (mr_read_text(dirfd(tasks), path, text, sizeof(text)) <= 0 ||
            !strstr(text, "Name:\tmr-journal\n"))
            continue;
        const char *count = strstr(text, "\nvoluntary_ctxt_switches:");
        assert_non_null(count);
        switches = strtoll(strchr(count, ':') + 1, NULL, 10);
    }
    (void)closedir(tasks);
    return switches;
}

static void test_an_idle_journal_does_not_wake_up(void **state)
{
    struct fixture *f = *state;
    make_lines(f, 3000);
    set_time(f, 1, 3000, 400);
    open_journal(f);
    add_lines(f, 1, 1);
    retain(f, &month);
    mr_sleep_ns(100 * MR_NS_PER_MS);
    int64_t before = switches_of_the_thread();
    assert_true(before > 0);
    mr_sleep_ns(700 * MR_NS_PER_MS);
    assert_int_equal(switches_of_the_thread(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_old_lines_are_removed),
        TEST(test_the_newest_thousand_lines_are_kept_whatever_their_age),
        TEST(test_nothing_is_removed_unless_it_was_said_what_to_keep),
        TEST(test_a_pass_begins_by_itself_after_many_records),
        TEST(test_a_clock_set_back_removes_nothing),
        TEST(test_a_clock_set_forward_removes_nothing),
        TEST(test_a_line_with_an_old_time_waits_for_those_before_it),
        TEST(test_what_is_too_much_is_removed_and_the_file_shrinks),
        TEST(test_the_files_stay_small_over_many_cycles),
        TEST(test_ended_operations_beyond_the_newest_thousand_are_removed),
        TEST(test_an_idle_journal_does_not_wake_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
