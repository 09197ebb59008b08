/* SPDX-License-Identifier: Apache-2.0
 *
 * What the journal does with damaged, newer and locked files, full disks, and kill -9.
 */
#include "tests/unit/test_journal_env.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "storage/base/fd.h"

/* --- refusals: the file stays as it is, byte for byte --- */

static void assert_refused_untouched(struct fixture *f, int rc, const char *word,
                                     bool remedy)
{
    char *before = NULL;
    char *after = NULL;
    struct mr_err err;
    ssize_t len = mr_read_file(AT_FDCWD, f->file, 1 << 22, &before);
    assert_true(len >= 0);
    assert_int_equal(mr_journal_open(f->loop, f->dir, &f->journal, &err), rc);
    assert_null(f->journal);
    assert_int_equal(err.code, MR_E_JOURNAL_UNAVAILABLE);
    if (!strstr(err.message, word) || !strstr(err.message, f->file))
        fail_msg("message: %s", err.message);
    assert_int_equal(err.remedy[0] != '\0', remedy);
    assert_int_equal(mr_read_file(AT_FDCWD, f->file, 1 << 22, &after), len);
    assert_memory_equal(before, after, (size_t)len);
    free(before);
    free(after);
}

static void fill_and_close(struct fixture *f, int count)
{
    open_journal(f);
    for (int i = 0; i < count; i++)
        append_new(f, i);
    wait_acks(f, (size_t)count);
    close_journal(f);
}

static void test_a_newer_schema_is_refused(void **state)
{
    struct fixture *f = *state;
    fill_and_close(f, 1);
    run_sql(f, "PRAGMA user_version = 99");
    assert_refused_untouched(f, -EPROTO, "schema 99", true);
}

static void test_garbage_is_refused(void **state)
{
    struct fixture *f = *state;
    FILE *file = fopen(f->file, "w");
    for (int i = 0; i < 2000; i++)
        (void)fprintf(file, "this is no journal\n");
    (void)fclose(file);
    assert_refused_untouched(f, -EUCLEAN, "damaged", true);
}

static void test_a_truncated_file_is_refused(void **state)
{
    struct fixture *f = *state;
    fill_and_close(f, 200);
    struct stat st;
    assert_int_equal(stat(f->file, &st), 0);
    assert_int_equal(truncate(f->file, st.st_size / 2), 0);
    assert_refused_untouched(f, -EUCLEAN, "damaged", true);
}

static void test_a_damaged_page_is_refused(void **state)
{
    struct fixture *f = *state;
    fill_and_close(f, 200);
    MR_AUTO_CLOSE int fd = open(f->file, O_RDWR | O_CLOEXEC);
    static const char junk[4096] = {1, 2, 3};
    assert_int_equal(pwrite(fd, junk, sizeof(junk), 3 * 4096), sizeof(junk));
    assert_refused_untouched(f, -EUCLEAN, "damaged", true);
}

static void test_a_damaged_document_stops_the_load(void **state)
{
    struct fixture *f = *state;
    struct loaded *l = &f->loaded;
    struct mr_err err;
    fill_and_close(f, 2);
    run_sql(f, "UPDATE volume SET doc = '{\"value\":' WHERE number = 2");
    open_journal(f);
    assert_int_equal(mr_journal_load(f->journal, on_volume, on_operation, 10, l, &err),
                     -EUCLEAN);
    assert_non_null(strstr(err.message, "'vol1'"));
    assert_int_equal(l->volumes, 1);
}

static void test_a_second_opener_is_refused(void **state)
{
    struct fixture *f = *state;
    struct mr_journal *second = NULL;
    struct mr_err err;
    open_journal(f);
    assert_int_equal(mr_journal_open(f->loop, f->dir, &second, &err), -EBUSY);
    assert_non_null(strstr(err.message, "locked"));
    append_new(f, 0);
    wait_acks(f, 1);
    assert_int_equal(f->acks[0].rc, 0);
}

static void test_a_symlink_is_refused(void **state)
{
    struct fixture *f = *state;
    struct mr_err err;
    assert_int_equal(symlink("target", f->file), 0);
    assert_int_equal(mr_journal_open(f->loop, f->dir, &f->journal, &err), -ELOOP);
    assert_non_null(strstr(err.message, f->file));
}

static void test_a_missing_directory_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct mr_err err;
    assert_int_equal(mr_journal_open(f->loop, "/nonexistent/dir", &f->journal, &err),
                     -ENOENT);
    assert_int_equal(err.code, MR_E_JOURNAL_UNAVAILABLE);
}

/* --- the disk is full, and later is not --- */

static void append_until_refused(struct fixture *f, int *next)
{
    do {
        assert_true(*next < RECORDS_MAX - 100);
        append_new(f, *next);
        wait_acks(f, (size_t)*next + 1);
    } while (f->acks[(*next)++].rc == 0);
}

static void assert_only_acknowledged_records(struct fixture *f, int count)
{
    struct loaded *l = &f->loaded;
    size_t found = 0;
    reopen_journal(f);
    load(f, RECORDS_MAX, l);
    for (int i = 0; i < count; i++) {
        if (f->acks[i].rc != 0)
            continue;
        assert_true(found < l->volumes);
        assert_int_equal(l->volume_value[found], i);
        assert_int_equal(l->operation_value[found++], i);
    }
    assert_int_equal(found, l->volumes);
    assert_int_equal(found, l->operations);
}

static void test_a_failing_write_fails_its_records_and_later_ones_work(void **state)
{
    struct fixture *f = *state;
    struct rlimit old;
    int next = 0;
    struct stat st;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    open_journal(f);
    append_new(f, next++);
    wait_acks(f, 1);
    char wal[100];
    (void)snprintf(wal, sizeof(wal), "%s-wal", f->file);
    assert_int_equal(stat(wal, &st), 0);
    struct rlimit limit = {.rlim_cur = (rlim_t)st.st_size + 65536,
                           .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    append_until_refused(f, &next);
    int refused = next - 1;
    for (int i = 0; i < 20; i++) /* a batch */
        append_new(f, next++);
    wait_acks(f, (size_t)next);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);

    assert_int_equal(f->acks[refused].rc, -EFBIG);
    assert_non_null(strstr(f->acks[refused].message, f->file));
    for (int i = refused; i < next; i++)
        assert_true(f->acks[i].rc < 0);
    for (int i = 0; i < 20; i++)
        append_new(f, next++);
    wait_acks(f, (size_t)next);
    for (int i = next - 20; i < next; i++)
        assert_int_equal(f->acks[i].rc, 0);
    assert_only_acknowledged_records(f, next);
}

static void test_a_full_disk_is_named_and_recovered_from(void **state)
{
    struct fixture *f = *state;
    char filler[100];
    int next = 0;
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", f->dir, "tmpfs", 0, "size=1m") != 0) {
        print_message("needs root to mount a small tmpfs\n");
        skip();
    }
    open_journal(f);
    append_new(f, next++);
    wait_acks(f, 1);
    (void)snprintf(filler, sizeof(filler), "%s/filler", f->dir);
    MR_AUTO_CLOSE int fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    char block[4096] = {1};
    while (write(fd, block, sizeof(block)) > 0)
        ;
    append_until_refused(f, &next);
    assert_int_equal(f->acks[next - 1].rc, -ENOSPC);
    append_new(f, next++);
    wait_acks(f, (size_t)next);
    assert_int_equal(f->acks[next - 1].rc, -ENOSPC);

    assert_int_equal(ftruncate(fd, 0), 0);
    for (int i = 0; i < 20; i++)
        append_new(f, next++);
    wait_acks(f, (size_t)next);
    for (int i = next - 20; i < next; i++)
        assert_int_equal(f->acks[i].rc, 0);
    assert_only_acknowledged_records(f, next);
    close_journal(f);
    (void)unlink(filler);
    mr_close(&fd);
    assert_int_equal(umount2(f->dir, MNT_DETACH), 0);
}

/* --- kill -9 --- */

#define CHILD_IN_FLIGHT 16

struct child {
    struct fixture *fixture;
    int pipe_fd;
    int next;
};

static void child_append(struct child *c);

struct child_ack {
    struct child *child;
    int value;
};

static struct child_ack child_acks[RECORDS_MAX];

static void on_child_ack(void *ctx, int rc, const struct mr_err *err)
{
    struct child_ack *ack = ctx;
    (void)err;
    if (rc != 0 || write(ack->child->pipe_fd, &ack->value, sizeof(int)) != sizeof(int))
        _exit(1);
    child_append(ack->child);
}

static void child_append(struct child *c)
{
    char id[32];
    int value = c->next++;
    if (value >= RECORDS_MAX)
        _exit(2);
    MR_AUTO_JSON struct json_object *doc = json_object_new_object();
    mr_json_set_int(doc, "value", value);
    (void)snprintf(id, sizeof(id), "vol%d", value);
    child_acks[value] = (struct child_ack){c, value};
    mr_journal_append(
        c->fixture->journal,
        &(struct mr_record){.volume_number = mr_journal_number(c->fixture->journal),
                            .volume_id = id,
                            .state = "attaching",
                            .volume = doc,
                            .event = "x"},
        on_child_ack, &child_acks[value]);
}

static void run_child(struct fixture *f, int pipe_fd, int first)
{
    struct child c = {.fixture = f, .pipe_fd = pipe_fd, .next = first};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (mr_loop_new(&f->loop, NULL) != 0 || /* not the parent's epoll */
        mr_journal_open(f->loop, f->dir, &f->journal, NULL) != 0)
        _exit(3);
    for (int i = 0; i < CHILD_IN_FLIGHT; i++)
        child_append(&c);
    (void)mr_loop_run(f->loop, NULL);
    _exit(4);
}

/* Returns the highest value that the child had acknowledged before it was killed. */
static int kill_a_writer(struct fixture *f, int first, int acks)
{
    int fds[2];
    int value = -1;
    int status = 0;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        run_child(f, fds[1], first);
    (void)close(fds[1]);
    for (int i = 0; i < acks; i++) {
        int previous = value;
        assert_int_equal(read(fds[0], &value, sizeof(value)), sizeof(value));
        assert_int_equal(value, previous < 0 ? first : previous + 1);
    }
    assert_int_equal(kill(pid, SIGKILL), 0);
    while (read(fds[0], &value, sizeof(value)) == sizeof(value))
        ;
    (void)close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    return value;
}

static void test_acknowledged_records_survive_kill_9(void **state)
{
    struct fixture *f = *state;
    struct loaded *l = &f->loaded;
    int first = 0;
    for (int round = 0; round < 5; round++) {
        int last = kill_a_writer(f, first, 40 + 37 * round);
        open_journal(f);
        load(f, 0, l);
        assert_true(l->volumes > (size_t)last);
        assert_true(l->volumes <= (size_t)last + 1 + CHILD_IN_FLIGHT);
        for (size_t i = 0; i < l->volumes; i++)
            assert_int_equal(l->volume_value[i], i);
        assert_int_equal(mr_journal_number(f->journal), l->volumes + 1);
        first = (int)l->volumes;
        close_journal(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        JOURNAL_TEST(test_a_newer_schema_is_refused),
        JOURNAL_TEST(test_garbage_is_refused),
        JOURNAL_TEST(test_a_truncated_file_is_refused),
        JOURNAL_TEST(test_a_damaged_page_is_refused),
        JOURNAL_TEST(test_a_damaged_document_stops_the_load),
        JOURNAL_TEST(test_a_second_opener_is_refused),
        JOURNAL_TEST(test_a_symlink_is_refused),
        JOURNAL_TEST(test_a_missing_directory_is_an_error),
        JOURNAL_TEST(test_a_failing_write_fails_its_records_and_later_ones_work),
        JOURNAL_TEST(test_acknowledged_records_survive_kill_9),
        JOURNAL_TEST(test_a_full_disk_is_named_and_recovered_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
