/* SPDX-License-Identifier: Apache-2.0
 *
 * A journal of schema 1 becomes one of the present schema: whole, or not at all.
 */
#include "tests/unit/test_journal_env.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "storage/base/fd.h"

#define PRESENT_SCHEMA 2

/* As the first release wrote it. */
static const char schema_1[] = "PRAGMA journal_mode = WAL; BEGIN;"
                               "CREATE TABLE volume("
                               " number INTEGER PRIMARY KEY,"
                               " id TEXT UNIQUE NOT NULL,"
                               " state TEXT NOT NULL,"
                               " doc TEXT NOT NULL,"
                               " updated_at INTEGER NOT NULL);"
                               "CREATE TABLE operation("
                               " id TEXT PRIMARY KEY NOT NULL,"
                               " volume INTEGER NOT NULL REFERENCES volume(number),"
                               " doc TEXT NOT NULL,"
                               " updated_at INTEGER NOT NULL);"
                               "CREATE TABLE history("
                               " seq INTEGER PRIMARY KEY AUTOINCREMENT,"
                               " volume INTEGER NOT NULL REFERENCES volume(number),"
                               " operation TEXT,"
                               " at INTEGER NOT NULL,"
                               " event TEXT NOT NULL,"
                               " detail TEXT);"
                               "CREATE INDEX history_volume ON history(volume, seq);"
                               "PRAGMA user_version = 1; COMMIT;";

/* volumes * 3 lines of history with so many bytes of detail, one operation per volume. */
static void make_old(struct fixture *f, int volumes, int bytes)
{
    char sql[1200];
    int fd = open(f->file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
    run_sql(f, schema_1);
    (void)snprintf(
        sql, sizeof(sql),
        "BEGIN; WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i"
        " WHERE n < %d - 1) INSERT INTO volume"
        " SELECT n + 1, 'vol' || n, 'attaching', '{\"value\":' || n || '}', 5 FROM i"
        " LIMIT %d;"
        "INSERT INTO operation SELECT 'op' || (number - 1), number, doc, 6 FROM volume;"
        "INSERT INTO history(volume, operation, at, event, detail)"
        " SELECT number, 'op' || (number - 1), 7, 'attach_intent',"
        " '{\"value\":' || (number - 1) || ',\"x\":\"' || hex(zeroblob(%d)) || '\"}'"
        " FROM volume JOIN (SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3); COMMIT",
        volumes, volumes, bytes / 2);
    run_sql(f, sql);
}

/* Whatever its schema. */
static void assert_whole(struct fixture *f, int volumes)
{
    assert_int_equal(query(f, "SELECT count(*) FROM pragma_integrity_check"
                              " WHERE integrity_check = 'ok'"),
                     1);
    assert_int_equal(query(f, "SELECT count(*) FROM volume"), volumes);
    assert_int_equal(query(f, "SELECT count(*) FROM operation WHERE updated_at = 6"),
                     volumes);
    assert_int_equal(query(f, "SELECT count(*) FROM history WHERE at = 7"), 3 * volumes);
}

static void assert_present(struct fixture *f)
{
    assert_int_equal(query(f, "PRAGMA user_version"), PRESENT_SCHEMA);
    assert_int_equal(query(f, "PRAGMA auto_vacuum"), 2); /* incremental */
}

static void assert_loads(struct fixture *f, int volumes)
{
    struct loaded *l = &f->loaded;
    load(f, RECORDS_MAX, l);
    assert_int_equal(l->volumes, volumes);
    assert_int_equal(l->operations, volumes);
    for (int i = 0; i < volumes; i++) {
        assert_int_equal(l->volume_value[i], i);
        assert_int_equal(l->operation_value[i], i);
    }
}

static void test_a_new_journal_has_the_present_schema(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    close_journal(f);
    assert_present(f);
}

static void test_an_old_journal_is_migrated_with_all_it_has(void **state)
{
    struct fixture *f = *state;
    make_old(f, 40, 100);
    open_journal(f);
    assert_loads(f, 40);
    assert_int_equal(mr_journal_number(f->journal), 41);
    append_new(f, 0);
    wait_acks(f, 1);
    assert_int_equal(f->acks[0].rc, -EINVAL); /* vol0 is there, under another number */
    append_new(f, 43);
    wait_acks(f, 2);
    assert_int_equal(f->acks[43].rc, 0);
    close_journal(f);
    assert_present(f);
    assert_int_equal(query(f, "SELECT count(*) FROM volume"), 41);
    assert_int_equal(query(f, "SELECT min(seq) = 1 AND max(seq) = 121 FROM history"), 1);
}

static void test_an_empty_old_journal_is_migrated(void **state)
{
    struct fixture *f = *state;
    make_old(f, 0, 0);
    open_journal(f);
    assert_int_equal(mr_journal_number(f->journal), 1);
    close_journal(f);
    assert_present(f);
}

/* --- no space --- */

static void mount_small(struct fixture *f, const char *size)
{
    char options[64];
    (void)snprintf(options, sizeof(options), "size=%s", size);
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", f->dir, "tmpfs", 0, options) != 0) {
        print_message("needs root to mount a small tmpfs\n");
        skip();
    }
}

/* Leaves so many bytes free. Returns the file to truncate or unlink. */
static int fill(struct fixture *f, off_t leave)
{
    char filler[100];
    static const char block[4096] = {1};
    (void)snprintf(filler, sizeof(filler), "%s/filler", f->dir);
    int fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, block, sizeof(block)) > 0)
        ;
    off_t size = lseek(fd, 0, SEEK_END);
    assert_true(size > leave);
    assert_int_equal(ftruncate(fd, size - leave), 0);
    return fd;
}

static void unmount(struct fixture *f)
{
    assert_int_equal(umount2(f->dir, MNT_DETACH), 0);
}

static void test_on_a_full_disk_an_old_journal_stays_what_it_was(void **state)
{
    struct fixture *f = *state;
    struct mr_err err;
    mount_small(f, "1m");
    make_old(f, 20, 100);
    int fd = fill(f, 0);
    assert_int_equal(mr_journal_open(f->loop, f->dir, &f->journal, &err), -ENOSPC);
    assert_int_equal(err.code, MR_E_JOURNAL_UNAVAILABLE);
    assert_non_null(strstr(err.message, f->file));
    assert_non_null(strstr(err.remedy, "free space"));

    assert_int_equal(ftruncate(fd, 0), 0);
    (void)close(fd);
    assert_whole(f, 20);
    assert_int_equal(query(f, "PRAGMA user_version"), 1);
    open_journal(f);
    assert_loads(f, 20);
    close_journal(f);
    assert_present(f);
    unmount(f);
}

static void test_a_rebuild_that_does_not_fit_is_made_up_for_later(void **state)
{
    struct fixture *f = *state;
    char log[100];
    struct stat st;
    mount_small(f, "8m");
    make_old(f, 200, 5000); /* 3 MB */
    int fd = fill(f, 1 << 20);
    open_journal(f);
    assert_loads(f, 200);
    (void)snprintf(log, sizeof(log), "%s-wal", f->file);
    assert_int_equal(stat(log, &st), 0);
    assert_true(st.st_size < 1 << 18); /* the attempt did not leave the disk full */
    close_journal(f);
    assert_int_equal(query(f, "PRAGMA user_version"), PRESENT_SCHEMA);
    assert_int_equal(query(f, "PRAGMA auto_vacuum"), 0);

    assert_int_equal(ftruncate(fd, 0), 0);
    (void)close(fd);
    open_journal(f);
    assert_loads(f, 200);
    close_journal(f);
    assert_present(f);
    unmount(f);
}

/* A rebuild would keep a copy of it in memory. */
static void test_a_large_old_journal_is_rebuilt_only_after_it_was_pruned(void **state)
{
    struct fixture *f = *state;
    mount_small(f, "128m");
    make_old(f, 40, 350000); /* 42 MB */
    open_journal(f);
    assert_loads(f, 40);
    append_new(f, 40);
    wait_acks(f, 1);
    assert_int_equal(f->acks[40].rc, 0);
    reopen_journal(f);
    assert_loads(f, 41);
    close_journal(f);
    assert_int_equal(query(f, "PRAGMA user_version"), PRESENT_SCHEMA);
    assert_int_equal(query(f, "PRAGMA auto_vacuum"), 0);

    run_sql(f, "DELETE FROM history"); /* the file keeps its length */
    open_journal(f);
    assert_loads(f, 41);
    close_journal(f);
    assert_present(f);
    unmount(f);
}

/* --- kill -9 --- */

static void open_and_be_killed(struct fixture *f, int64_t after_ns)
{
    int status = 0;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (mr_loop_new(&f->loop, NULL) != 0 ||
            mr_journal_open(f->loop, f->dir, &f->journal, NULL) != 0)
            _exit(1);
        for (;;)
            (void)pause();
    }
    mr_sleep_ns(after_ns);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static void test_a_migration_cut_off_by_kill_9_loses_nothing(void **state)
{
    struct fixture *f = *state;
    int versions[PRESENT_SCHEMA + 1] = {0};
    make_old(f, 400, 8000); /* 10 MB */
    /* Each one a little longer, until one gets through. */
    for (int64_t ms = 1; versions[PRESENT_SCHEMA] == 0; ms += 1 + ms / 8) {
        open_and_be_killed(f, ms * MR_NS_PER_MS);
        assert_whole(f, 400);
        int64_t version = query(f, "PRAGMA user_version");
        assert_true(version == 1 || version == PRESENT_SCHEMA);
        versions[version]++;
    }
    assert_true(versions[1] > 0);
    open_journal(f);
    assert_loads(f, 400);
    close_journal(f);
    assert_present(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        JOURNAL_TEST(test_a_new_journal_has_the_present_schema),
        JOURNAL_TEST(test_an_old_journal_is_migrated_with_all_it_has),
        JOURNAL_TEST(test_an_empty_old_journal_is_migrated),
        JOURNAL_TEST(test_a_migration_cut_off_by_kill_9_loses_nothing),
        JOURNAL_TEST(test_on_a_full_disk_an_old_journal_stays_what_it_was),
        JOURNAL_TEST(test_a_rebuild_that_does_not_fit_is_made_up_for_later),
        JOURNAL_TEST(test_a_large_old_journal_is_rebuilt_only_after_it_was_pruned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
