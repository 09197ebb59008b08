/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/base/lock_owner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"

static char path[64];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(path, sizeof(path), "/tmp/mr-lock-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

typedef int lock_fn(int fd);

static int lock_flock(int fd)
{
    return flock(fd, LOCK_EX);
}

static int lock_range(int fd, int command)
{
    struct flock lock = {.l_type = F_WRLCK, .l_start = 5, .l_len = 1};
    return fcntl(fd, command, &lock);
}

static int lock_posix(int fd)
{
    return lock_range(fd, F_SETLK);
}

static int lock_ofd(int fd)
{
    return lock_range(fd, F_OFD_SETLK);
}

/* One that has ended by the time of the answer: its child has the lock by inheritance. */
static int lock_in_a_child(int fd)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(flock(fd, LOCK_EX) == 0 ? 0 : 1);
    int status = 0;
    return waitpid(pid, &status, 0) == pid ? status : -1;
}

/* A process called "lock holder" that holds the lock until it is killed. */
static pid_t hold(lock_fn *lock)
{
    int ready[2];
    char done = 0;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)prctl(PR_SET_NAME, "lock holder");
        if (fd < 0 || lock(fd) != 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            (void)pause();
    }
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &done, 1), 1);
    (void)close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void assert_found(lock_fn *lock)
{
    char comm[MR_COMM_TEXT] = "";
    pid_t found = 0;
    pid_t pid = hold(lock);
    int fd = open(path, O_PATH | O_CLOEXEC);
    int rc = mr_lock_owner(fd, &found, comm);
    end(pid);
    assert_int_equal(rc, 0);
    assert_int_equal(found, pid);
    assert_string_equal(comm, "lock holder");
    assert_int_equal(mr_lock_owner(fd, &found, comm), -ENOENT); /* it went away */
    (void)close(fd);
}

static void test_who_holds_a_flock_is_named(void **state)
{
    (void)state;
    assert_found(lock_flock);
}

static void test_who_holds_a_posix_lock_is_named(void **state)
{
    (void)state;
    assert_found(lock_posix);
}

static void test_who_holds_an_open_file_description_lock_is_named(void **state)
{
    (void)state;
    assert_found(lock_ofd);
}

static void test_who_inherited_a_lock_is_named(void **state)
{
    (void)state;
    assert_found(lock_in_a_child);
}

static void test_who_only_waits_is_not_named(void **state)
{
    (void)state;
    char comm[MR_COMM_TEXT] = "";
    char stat[64] = "";
    pid_t found = 0;
    pid_t holder = hold(lock_flock);
    pid_t waiter = fork();
    if (waiter == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(flock(open(path, O_RDWR | O_CLOEXEC), LOCK_EX) == 0 ? 0 : 1);
    }
    int fd = open(path, O_RDWR | O_CLOEXEC);
    (void)snprintf(stat, sizeof(stat), "-> FLOCK  ADVISORY  WRITE %d ", (int)waiter);
    for (bool waits = false; !waits;) { /* the end is the test's time limit */
        char line[256];
        FILE *locks = fopen("/proc/locks", "re");
        assert_non_null(locks);
        while (fgets(line, sizeof(line), locks))
            waits = waits || strstr(line, stat);
        (void)fclose(locks);
    }
    int rc = mr_lock_owner(fd, &found, comm);
    end(waiter);
    end(holder);
    (void)close(fd);
    assert_int_equal(rc, 0);
    assert_int_equal(found, holder);
}

static void test_a_lock_on_another_file_does_not_count(void **state)
{
    (void)state;
    char comm[MR_COMM_TEXT] = "";
    char other[] = "/tmp/mr-lock-XXXXXX";
    pid_t found = 0;
    int fd = mkstemp(other);
    pid_t pid = hold(lock_flock);
    int rc = mr_lock_owner(fd, &found, comm);
    end(pid);
    (void)close(fd);
    assert_int_equal(unlink(other), 0);
    assert_int_equal(rc, -ENOENT);
    assert_int_equal(mr_lock_owner(-1, &found, comm), -EBADF);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_who_holds_a_flock_is_named),
        TEST(test_who_holds_a_posix_lock_is_named),
        TEST(test_who_holds_an_open_file_description_lock_is_named),
        TEST(test_who_inherited_a_lock_is_named),
        TEST(test_who_only_waits_is_not_named),
        TEST(test_a_lock_on_another_file_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
