/* SPDX-License-Identifier: Apache-2.0
 *
 * What the journal says when the system fails its writes, and that it recovers by itself:
 * errors that the disk reports, files that vanish, a file that somebody else has.
 */
#include "tests/unit/test_journal_env.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "storage/base/fault.h"
#include "storage/base/fd.h"

/* --- the system calls of SQLite, failing when told --- */

static atomic_int write_errno;
static atomic_int sync_errno;
static atomic_bool database_only; /* its log goes on working */
static atomic_int failures;

static bool is_meant(int fd)
{
    char link[64];
    char path[PATH_MAX];
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof(path) - 1);
    return !database_only || (len > 3 && memcmp(path + len - 3, ".db", 3) == 0);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset);
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    if (write_errno != 0 && is_meant(fd)) {
        failures++;
        errno = write_errno;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, data, size, offset);
}

int fdatasync(int fd)
{
    if (sync_errno != 0 && is_meant(fd)) {
        failures++;
        errno = sync_errno;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

static int setup_calls(void **state)
{
    write_errno = 0;
    sync_errno = 0;
    database_only = false;
    failures = 0;
    return setup(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_calls, teardown)

/* --- errors of the disk --- */

static void write_some(struct fixture *f, int *next, int count, int rc)
{
    for (int i = 0; i < count; i++)
        append_new(f, (*next)++);
    wait_acks(f, (size_t)*next);
    for (int i = *next - count; i < *next; i++)
        if (f->acks[i].rc != rc)
            fail_msg("record %d: %d (%s) instead of %d", i, f->acks[i].rc,
                     f->acks[i].message, rc);
}

static void assert_only_the_good_ones(struct fixture *f, int count)
{
    struct loaded *l = &f->loaded;
    size_t found = 0;
    load(f, RECORDS_MAX, l);
    for (int i = 0; i < count; i++)
        if (f->acks[i].rc == 0)
            assert_int_equal(l->volume_value[found++], i);
    assert_int_equal(l->volumes, found);
    assert_int_equal(l->operations, found);
}

static void fail_and_recover(struct fixture *f, atomic_int *call, int cause,
                             const char *remedy)
{
    int next = (int)f->acked;
    write_some(f, &next, 1, 0);
    *call = cause;
    write_some(f, &next, 1, -cause);
    write_some(f, &next, 20, -cause);
    *call = 0;
    const struct ack *ack = &f->acks[next - 1];
    if (!strstr(ack->message, f->file) || !strstr(ack->message, strerrordesc_np(cause)))
        fail_msg("message: %s", ack->message);
    if (!strstr(ack->remedy, remedy))
        fail_msg("remedy: %s", ack->remedy);
    write_some(f, &next, 20, 0);
    assert_only_the_good_ones(f, next); /* as it is seen without opening it again */
    reopen_journal(f);
    assert_only_the_good_ones(f, next);
}

static void test_a_failing_write_is_named_and_recovered_from(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    fail_and_recover(f, &write_errno, ENOSPC, "free space");
    fail_and_recover(f, &write_errno, EDQUOT, "free space");
    fail_and_recover(f, &write_errno, EROFS, "writable");
    fail_and_recover(f, &write_errno, EIO, "kernel's log");
    fail_and_recover(f, &write_errno, EFBIG, "LimitFSIZE");
}

static void test_a_failing_sync_is_named_and_recovered_from(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    fail_and_recover(f, &sync_errno, EIO, "kernel's log");
    fail_and_recover(f, &sync_errno, ENOSPC, "free space");
    fail_and_recover(f, &sync_errno, EROFS, "writable");
}

static void test_a_database_that_cannot_be_written_loses_nothing(void **state)
{
    struct fixture *f = *state;
    int next = 0;
    open_journal(f);
    write_some(f, &next, 10, 0);
    database_only = true;
    write_errno = EIO;
    for (int i = 0; i < 400; i++) /* more than the log is to hold */
        write_some(f, &next, 5, 0);
    assert_true(failures > 0);
    sync_errno = EIO;
    write_errno = 0;
    write_some(f, &next, 10, 0);
    close_journal(f); /* cannot bring the log in */
    sync_errno = 0;
    open_journal(f);
    assert_only_the_good_ones(f, next);
}

/* --- probes --- */

static void probe(struct fixture *f, int rc, const char *words)
{
    size_t at = f->acked;
    f->acks[at] = (struct ack){.fixture = f};
    mr_journal_probe(f->journal, on_ack, &f->acks[at]);
    wait_acks(f, at + 1);
    if (f->acks[at].rc != rc || !strstr(f->acks[at].message, words))
        fail_msg("%d: %s", f->acks[at].rc, f->acks[at].message);
}

static void test_a_probe_finds_out_whether_writes_work(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    probe(f, 0, "");
    write_errno = EIO;
    probe(f, -EIO, f->file);
    write_errno = 0;
    probe(f, 0, "");
    sync_errno = ENOSPC;
    probe(f, -ENOSPC, f->file);
    sync_errno = 0;
    probe(f, 0, "");
    close_journal(f);
    assert_int_equal(query(f, "SELECT count(*) FROM history"), 0);
}

/* --- files that go away --- */

static void assert_put_back(struct fixture *f)
{
    const struct ack *ack = &f->acks[f->acked - 1];
    if (!strstr(ack->remedy, "put it back") || !strstr(ack->remedy, "restart"))
        fail_msg("remedy: %s", ack->remedy);
}

static void test_a_moved_directory_fails_writes_until_it_is_back(void **state)
{
    struct fixture *f = *state;
    char moved[80];
    int next = 0;
    (void)snprintf(moved, sizeof(moved), "%s-moved", f->dir);
    open_journal(f);
    write_some(f, &next, 3, 0);
    assert_int_equal(rename(f->dir, moved), 0);
    write_some(f, &next, 3, -ESTALE);
    assert_non_null(strstr(f->acks[next - 1].message, f->file));
    assert_put_back(f);
    assert_int_equal(rename(moved, f->dir), 0);
    write_some(f, &next, 3, 0);
    reopen_journal(f);
    assert_only_the_good_ones(f, next);
}

static void test_a_probe_notices_a_deleted_file(void **state)
{
    struct fixture *f = *state;
    open_journal(f);
    probe(f, 0, "");
    assert_int_equal(unlink(f->file), 0);
    probe(f, -ESTALE, "deleted");
    assert_put_back(f);
}

static void copy(const char *from, const char *to)
{
    char *data = NULL;
    ssize_t size = mr_read_file(AT_FDCWD, from, 1 << 26, &data);
    MR_AUTO_CLOSE int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(size >= 0 && fd >= 0);
    assert_int_equal(mr_write_all(fd, data, (size_t)size), 0);
    free(data);
}

static void test_a_replaced_file_fails_writes_until_the_first_is_back(void **state)
{
    struct fixture *f = *state;
    char first[100];
    int next = 0;
    (void)snprintf(first, sizeof(first), "%s/target", f->dir);
    open_journal(f);
    write_some(f, &next, 3, 0);
    assert_int_equal(rename(f->file, first), 0);
    copy(first, f->file); /* looks the same */
    write_some(f, &next, 3, -ESTALE);
    assert_int_equal(rename(first, f->file), 0);
    write_some(f, &next, 3, 0);
    reopen_journal(f);
    assert_only_the_good_ones(f, next);
}

static void test_a_deleted_log_costs_no_record(void **state)
{
    struct fixture *f = *state;
    char log[100];
    char backup[100];
    int next = 0;
    (void)snprintf(log, sizeof(log), "%s-wal", f->file);
    (void)snprintf(backup, sizeof(backup), "%s/target", f->dir);
    open_journal(f);
    write_some(f, &next, 10, 0);
    assert_int_equal(unlink(log), 0);
    write_some(f, &next, 1, -ESTALE);
    assert_non_null(strstr(f->acks[next - 1].message, log));
    copy(f->file, backup); /* what the next start would find after kill -9 now */
    close_journal(f);
    open_journal(f);
    assert_only_the_good_ones(f, next);
    close_journal(f);
    assert_int_equal(rename(backup, f->file), 0);
    open_journal(f);
    assert_only_the_good_ones(f, next);
}

/* --- somebody else has it --- */

static pid_t open_in_a_child(struct fixture *f)
{
    int ready[2];
    char done = 0;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)prctl(PR_SET_NAME, "other agent");
        if (mr_loop_new(&f->loop, NULL) != 0 ||
            mr_journal_open(f->loop, f->dir, &f->journal, NULL) != 0 ||
            write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            (void)pause();
    }
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &done, 1), 1);
    (void)close(ready[0]);
    return pid;
}

static void test_who_has_it_open_is_named(void **state)
{
    struct fixture *f = *state;
    struct mr_err err;
    char who[64];
    pid_t pid = open_in_a_child(f);
    (void)snprintf(who, sizeof(who), "process %d (other agent)", (int)pid);
    int rc = mr_journal_open(f->loop, f->dir, &f->journal, &err);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(rc, -EBUSY);
    assert_int_equal(err.code, MR_E_JOURNAL_UNAVAILABLE);
    if (!strstr(err.message, who) || !strstr(err.message, f->file))
        fail_msg("message: %s", err.message);
    assert_non_null(strstr(err.remedy, "stop process"));
    open_journal(f);
}

/* --- fault points --- */

#ifdef MR_FAULTS
static void plan_fault(struct fixture *f, const char *point, const char *order)
{
    char path[200];
    FILE *file = NULL;
    (void)snprintf(path, sizeof(path), "%s/%s", f->dir, point);
    file = fopen(path, "we");
    assert_non_null(file);
    (void)fputs(order, file);
    (void)fclose(file);
    assert_int_equal(setenv(MR_FAULT_ENV, f->dir, 1), 0);
}

static void end_faults(struct fixture *f, const char *point, pid_t pid)
{
    char path[200];
    (void)snprintf(path, sizeof(path), "%s/%s.hit.%d", f->dir, point, (int)pid);
    assert_int_equal(unlink(path), 0); /* it was met */
    assert_int_equal(unsetenv(MR_FAULT_ENV), 0);
}

static void test_a_planned_fault_fails_one_record_of_a_batch(void **state)
{
    struct fixture *f = *state;
    int next = 0;
    open_journal(f);
    write_some(f, &next, 5, 0);
    plan_fault(f, "journal.attach_intent.before", "fail 28");
    for (int i = 0; i < 10; i++)
        append_new(f, next++);
    wait_acks(f, (size_t)next);
    end_faults(f, "journal.attach_intent.before", getpid());
    assert_int_equal(f->acks[5].rc, -ENOSPC);
    assert_non_null(strstr(f->acks[5].remedy, "free space"));
    for (int i = 6; i < next; i++)
        assert_int_equal(f->acks[i].rc, 0);
    assert_only_the_good_ones(f, next);
}

/* Returns how many records there are after a process died at this point of its first. */
static size_t die_at(struct fixture *f, const char *point)
{
    int status = 0;
    plan_fault(f, point, "die");
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (mr_loop_new(&f->loop, NULL) != 0)
            _exit(1);
        open_journal(f);
        append_new(f, 0);
        wait_acks(f, 1);
        _exit(2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    end_faults(f, point, pid);
    open_journal(f);
    load(f, 10, &f->loaded);
    close_journal(f);
    return f->loaded.volumes;
}

static void test_a_process_dies_before_or_after_its_commit(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(die_at(f, "journal.attach_intent.before"), 0);
    assert_int_equal(die_at(f, "journal.attach_intent.after"), 1);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_failing_write_is_named_and_recovered_from),
        TEST(test_a_failing_sync_is_named_and_recovered_from),
        TEST(test_a_database_that_cannot_be_written_loses_nothing),
        TEST(test_a_probe_finds_out_whether_writes_work),
        TEST(test_a_moved_directory_fails_writes_until_it_is_back),
        TEST(test_a_probe_notices_a_deleted_file),
        TEST(test_a_replaced_file_fails_writes_until_the_first_is_back),
        TEST(test_a_deleted_log_costs_no_record),
        TEST(test_who_has_it_open_is_named),
#ifdef MR_FAULTS
        TEST(test_a_planned_fault_fails_one_record_of_a_batch),
        TEST(test_a_process_dies_before_or_after_its_commit),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
