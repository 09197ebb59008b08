/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fault.h"
#include "storage/base/fd.h"
#include "storage/base/spawn.h"

struct fixture {
    char dir[64];
    int fd;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    strcpy(f->dir, "/tmp/mr-fault-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(setenv(MR_FAULT_ENV, f->dir, 1), 0);
    *state = f;
    return f->fd < 0;
}

static unsigned count_files(const struct fixture *f, bool remove)
{
    DIR *dir = opendir(f->dir);
    unsigned count = 0;

    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        if (entry->d_name[0] == '.')
            continue;
        count++;
        if (remove)
            (void)unlinkat(f->fd, entry->d_name, 0);
    }
    (void)closedir(dir);
    return count;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    (void)count_files(f, true);
    assert_int_equal(unsetenv(MR_FAULT_ENV), 0);
    (void)close(f->fd);
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static void arm(const struct fixture *f, const char *point, const char *order)
{
    MR_AUTO_CLOSE int fd =
        openat(f->fd, point, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_int_equal(mr_write_all(fd, order, strlen(order)), 0);
}

static bool exists(const struct fixture *f, const char *name)
{
    return faccessat(f->fd, name, F_OK, 0) == 0;
}

static bool was_hit_by(const struct fixture *f, const char *point, pid_t pid)
{
    char name[128];
    (void)snprintf(name, sizeof(name), "%s.hit.%d", point, (int)pid);
    return exists(f, name);
}

static int reach(void)
{
    return mr_fault("worker", "map", "before");
}

/* A child that gets there, and ends with 7 when it came past. */
static pid_t child_at_the_point(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(reach() == 0 ? 7 : 8);
    return pid;
}

static void test_nothing_armed_nothing_happens(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(reach(), 0);
    arm(f, "worker.map.after", "fail 5");
    arm(f, "core.map.before", "fail 5");
    assert_int_equal(reach(), 0);
    assert_int_equal(count_files(f, false), 2);
    assert_int_equal(unsetenv(MR_FAULT_ENV), 0);
    arm(f, "worker.map.before", "fail 5");
    assert_int_equal(reach(), 0);
    assert_true(exists(f, "worker.map.before"));
}

static void test_fail_gives_the_errno_once(void **state)
{
    struct fixture *f = *state;
    arm(f, "worker.map.before", "fail 28\n");
    assert_int_equal(reach(), -ENOSPC);
    assert_int_equal(reach(), 0);
    assert_true(was_hit_by(f, "worker.map.before", getpid()));
    assert_false(exists(f, "worker.map.before"));
    arm(f, "worker.map.before", "fail 5");
    assert_int_equal(reach(), -EIO);
}

static void test_a_failure_names_the_point(void **state)
{
    struct fixture *f = *state;
    struct mr_err err;
    assert_int_equal(mr_fault_fail("core", "drain", "begin", &err), 0);
    arm(f, "core.drain.begin", "fail 5");
    assert_int_equal(mr_fault_fail("core", "drain", "begin", &err), -EIO);
    assert_int_equal(err.code, MR_E_INTERNAL);
    assert_int_equal(err.errnum, EIO);
    assert_non_null(strstr(err.message, "core.drain.begin"));
}

static void test_parts_may_be_left_out(void **state)
{
    struct fixture *f = *state;
    arm(f, "journal.probe", "fail 30");
    assert_int_equal(mr_fault("journal", "probe", NULL), -EROFS);
    arm(f, "journal", "fail 30");
    assert_int_equal(mr_fault("journal", NULL, NULL), -EROFS);
}

static void test_die_kills_the_process(void **state)
{
    struct fixture *f = *state;
    int status = 0;
    arm(f, "worker.map.before", "die");
    pid_t pid = child_at_the_point();
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_true(was_hit_by(f, "worker.map.before", pid));
}

static void test_stop_goes_on_after_cont(void **state)
{
    struct fixture *f = *state;
    int status = 0;
    arm(f, "worker.map.before", "stop");
    pid_t pid = child_at_the_point();
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    assert_true(was_hit_by(f, "worker.map.before", pid));
    assert_int_equal(kill(pid, SIGCONT), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

static void test_a_wrong_order_ends_the_process(void **state)
{
    struct fixture *f = *state;
    static const char *const orders[] = {
        "",        "halt",    "fail",     "fail ",      "fail 0",
        "fail -5", "fail 5x", "fail EIO", "fail 99999", "die now",
    };
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        int status = 0;
        arm(f, "worker.map.before", orders[i]);
        pid_t pid = fork();
        if (pid == 0) {
            (void)signal(SIGABRT, SIG_DFL); /* cmocka's and the sanitizer's */
            _exit(reach() == 0 ? 7 : 8);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
            fail_msg("order '%s' was not refused", orders[i]);
        (void)count_files(f, true);
    }
}

/* Nothing outside of the directory is touched, whatever the parts are. */
static void test_hostile_names_are_no_points(void **state)
{
    struct fixture *f = *state;
    char deep[4200];
    assert_int_equal(mkdirat(f->fd, "sub", 0700), 0);
    arm(f, "sub/x.y", "fail 5");
    arm(f, "victim", "fail 5");
    memset(deep, 'a', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\0';
    assert_int_equal(mr_fault("sub/x", "y", NULL), 0);
    assert_int_equal(mr_fault("sub/../victim", NULL, NULL), 0);
    assert_int_equal(mr_fault("..", "victim", NULL), 0);
    assert_int_equal(mr_fault("", "victim", NULL), 0);
    assert_int_equal(mr_fault("vic\ntim", NULL, NULL), 0);
    assert_int_equal(mr_fault("victim", "", NULL), 0);
    assert_int_equal(mr_fault("victim", NULL, "hit.1"), 0);
    assert_int_equal(mr_fault(deep, NULL, NULL), 0);
    assert_true(exists(f, "victim") && exists(f, "sub/x.y"));
    assert_int_equal(mr_fault("victim", NULL, NULL), -EIO);
    assert_int_equal(unlinkat(f->fd, "sub/x.y", 0), 0);
    assert_int_equal(unlinkat(f->fd, "sub", AT_REMOVEDIR), 0);
}

static void test_a_relative_directory_is_none(void **state)
{
    struct fixture *f = *state;
    arm(f, "worker.map.before", "fail 5");
    assert_int_equal(setenv(MR_FAULT_ENV, f->dir + 1, 1), 0);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(reach(), 0);
    assert_int_equal(setenv(MR_FAULT_ENV, "", 1), 0);
    assert_int_equal(reach(), 0);
}

static void *reach_often(void *arg)
{
    int *failures = arg;
    for (int i = 0; i < 200; i++)
        *failures += reach() != 0;
    return NULL;
}

static void test_of_many_threads_one_obeys(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[4];
    int failures[4] = {0};
    arm(f, "worker.map.before", "fail 5");
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reach_often, &failures[i]), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(failures[0] + failures[1] + failures[2] + failures[3], 1);
}

static void test_children_are_told_the_directory(void **state)
{
    struct fixture *f = *state;
    const char *const argv[] = {"/usr/bin/env", NULL};
    char wanted[128];
    char out[512];
    (void)snprintf(wanted, sizeof(wanted), MR_FAULT_ENV "=%s\n", f->dir);
    for (int log = 0; log < 2; log++) {
        assert_int_equal(log ? setenv("MOORING_LOG", "debug", 1) : 0, 0);
        int64_t deadline_ns = INT64_MAX;
        assert_int_equal(mr_spawn_run(argv, NULL, 0, deadline_ns, out, sizeof(out), NULL),
                         0);
        assert_non_null(strstr(out, wanted));
        assert_true(!strstr(out, "MOORING_LOG=debug\n") == !log);
    }
    assert_int_equal(unsetenv("MOORING_LOG"), 0);
}

int main(void)
{
#define FAULT_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        FAULT_TEST(test_nothing_armed_nothing_happens),
        FAULT_TEST(test_fail_gives_the_errno_once),
        FAULT_TEST(test_a_failure_names_the_point),
        FAULT_TEST(test_parts_may_be_left_out),
        FAULT_TEST(test_die_kills_the_process),
        FAULT_TEST(test_stop_goes_on_after_cont),
        FAULT_TEST(test_a_wrong_order_ends_the_process),
        FAULT_TEST(test_hostile_names_are_no_points),
        FAULT_TEST(test_a_relative_directory_is_none),
        FAULT_TEST(test_of_many_threads_one_obeys),
        FAULT_TEST(test_children_are_told_the_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
