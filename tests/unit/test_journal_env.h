/* SPDX-License-Identifier: Apache-2.0
 *
 * A journal in a directory of its own and a loop, for the journal's tests: appending
 * numbered records, waiting for their acknowledgements, loading them back.
 */
#ifndef MR_TESTS_UNIT_TEST_JOURNAL_ENV_H
#define MR_TESTS_UNIT_TEST_JOURNAL_ENV_H

#include "tests/unit/unit.h"

#include <sqlite3.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/base/json.h"
#include "storage/base/loop.h"
#include "storage/journal.h"

#define RECORDS_MAX 4000

struct ack {
    struct fixture *fixture;
    int rc;
    bool called;
    size_t order; /* which callback this was */
    char message[600];
    char remedy[256];
};

/* What mr_journal_load() found: values of the documents, in its order. */
struct loaded {
    size_t volumes;
    size_t operations;
    int64_t last_number;
    int volume_value[RECORDS_MAX];
    int operation_value[RECORDS_MAX];
};

struct fixture {
    char dir[64];
    char file[80];
    struct mr_loop *loop;
    struct mr_journal *journal;
    struct mr_timer deadline;
    size_t acked;
    size_t wanted;
    bool late;
    struct ack acks[RECORDS_MAX];
    struct loaded loaded;
};

static inline void open_journal(struct fixture *f)
{
    struct mr_err err;
    if (mr_journal_open(f->loop, f->dir, &f->journal, &err) != 0)
        fail_msg("open: %s", err.message);
}

static inline void close_journal(struct fixture *f)
{
    mr_journal_close(f->journal);
    f->journal = NULL;
}

static inline void reopen_journal(struct fixture *f)
{
    close_journal(f);
    open_journal(f);
}

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/mr-journal-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->file, sizeof(f->file), "%s/journal.db", f->dir);
    assert_int_equal(mr_loop_new(&f->loop, NULL), 0);
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"journal.db",     "journal.db-shm",
                                        "journal.db-wal", "journal.db-journal",
                                        "filler",         "target"};
    mr_journal_close(f->journal);
    mr_loop_free(f->loop);
    (void)umount2(f->dir, MNT_DETACH); /* a failed test's tmpfs */
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[100];
        (void)snprintf(path, sizeof(path), "%s/%s", f->dir, names[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static inline void on_ack(void *ctx, int rc, const struct mr_err *err)
{
    struct ack *ack = ctx;
    struct fixture *f = ack->fixture;
    assert_false(ack->called);
    ack->called = true;
    ack->rc = rc;
    ack->order = f->acked++;
    if (rc != 0) {
        (void)snprintf(ack->message, sizeof(ack->message), "%s", err->message);
        (void)snprintf(ack->remedy, sizeof(ack->remedy), "%s", err->remedy);
    }
    if (f->acked >= f->wanted)
        mr_loop_stop(f->loop);
}

static inline void on_deadline(void *ctx)
{
    struct fixture *f = ctx;
    f->late = true;
    mr_loop_stop(f->loop);
}

/* Runs the loop until so many callbacks came. */
static inline void wait_acks(struct fixture *f, size_t wanted)
{
    f->wanted = wanted;
    if (f->acked >= wanted)
        return;
    mr_timer_init(&f->deadline, f->loop, on_deadline, f);
    mr_timer_set(&f->deadline, mr_now_ns() + 30 * MR_NS_PER_S);
    assert_int_equal(mr_loop_run(f->loop, NULL), 0);
    mr_timer_cancel(&f->deadline);
    assert_false(f->late);
}

/* Appends a record whose documents carry `value`; ack number `value` is its callback's.
 */
static inline void append(struct fixture *f, int64_t number, const char *id, int value)
{
    char operation_id[32];
    MR_AUTO_JSON struct json_object *doc = json_object_new_object();
    mr_json_set_int(doc, "value", value);
    (void)snprintf(operation_id, sizeof(operation_id), "op%d", value);
    f->acks[value].fixture = f;
    mr_journal_append(f->journal,
                      &(struct mr_record){
                          .volume_number = number,
                          .volume_id = id,
                          .state = "attaching",
                          .volume = doc,
                          .operation_id = operation_id,
                          .operation = doc,
                          .event = "attach_intent",
                          .detail = doc,
                      },
                      on_ack, &f->acks[value]);
    mr_json_set_int(doc, "value", -1); /* the record must not see this any more */
}

static inline void append_new(struct fixture *f, int value)
{
    char id[32];
    (void)snprintf(id, sizeof(id), "vol%d", value);
    append(f, mr_journal_number(f->journal), id, value);
}

static inline int on_volume(void *ctx, int64_t number, const char *id, const char *state,
                            struct json_object *volume)
{
    struct loaded *l = ctx;
    char expected[32];
    int value = (int)mr_json_get_int(volume, "value", -2);
    (void)snprintf(expected, sizeof(expected), "vol%d", value);
    assert_true(strcmp(id, expected) == 0 || strcmp(id, "same") == 0);
    assert_string_equal(state, "attaching");
    assert_true(number > l->last_number);
    l->last_number = number;
    l->volume_value[l->volumes++] = value;
    return 0;
}

static inline int on_operation(void *ctx, const char *id, struct json_object *operation)
{
    struct loaded *l = ctx;
    int value = (int)mr_json_get_int(operation, "value", -2);
    assert_int_equal(atoi(id + 2), value);
    l->operation_value[l->operations++] = value;
    return 0;
}

static inline void load(struct fixture *f, unsigned limit, struct loaded *l)
{
    struct mr_err err;
    memset(l, 0, sizeof(*l));
    if (mr_journal_load(f->journal, on_volume, on_operation, limit, l, &err) != 0)
        fail_msg("load: %s", err.message);
}

/* One integer from the closed journal, read with SQLite itself. */
static inline int64_t query(struct fixture *f, const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    assert_null(f->journal);
    assert_int_equal(sqlite3_open_v2(f->file, &db, SQLITE_OPEN_READWRITE, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    (void)sqlite3_close(db);
    return value;
}

static inline void run_sql(struct fixture *f, const char *sql)
{
    sqlite3 *db = NULL;
    assert_null(f->journal);
    assert_int_equal(sqlite3_open_v2(f->file, &db, SQLITE_OPEN_READWRITE, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    (void)sqlite3_close(db);
}

/* --- pruning --- */

static inline struct ack *new_ack(struct fixture *f)
{
    struct ack *ack = &f->acks[RECORDS_MAX - 1]; /* one at a time */
    *ack = (struct ack){.fixture = f};
    return ack;
}

static inline void wait_ack(struct fixture *f)
{
    wait_acks(f, f->acked + 1);
    if (f->acks[RECORDS_MAX - 1].rc != 0)
        fail_msg("%s", f->acks[RECORDS_MAX - 1].message);
}

static inline void drop(struct fixture *f, int64_t number)
{
    mr_journal_drop(f->journal, number, on_ack, new_ack(f));
    wait_ack(f);
}

/* Between two batches the thread does one step of a pass. */
static inline void let_it_prune(struct fixture *f)
{
    for (int i = 0; i < 60; i++) {
        mr_journal_probe(f->journal, on_ack, new_ack(f));
        wait_ack(f);
    }
}

static inline void retain(struct fixture *f, const struct mr_journal_retention *keep)
{
    mr_journal_retain(f->journal, keep);
    let_it_prune(f);
}

/* Lines of history of one volume. Nothing is acknowledged. */
static inline void add_lines(struct fixture *f, int64_t number, int count)
{
    for (int i = 0; i < count; i++)
        mr_journal_append(f->journal,
                          &(struct mr_record){.volume_number = number,
                                              .volume_id = "same",
                                              .state = "attaching",
                                              .event = "line"},
                          NULL, NULL);
}

/* A closed journal with so many lines, seq 1 and on, of volume 1. */
static inline void make_lines(struct fixture *f, int count)
{
    open_journal(f);
    add_lines(f, mr_journal_number(f->journal), count);
    close_journal(f);
    assert_int_equal(query(f, "SELECT count(*) FROM history"), count);
}

#define JOURNAL_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
