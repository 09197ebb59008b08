/* SPDX-License-Identifier: Apache-2.0
 *
 * Which processes are the agent's own. The stranger is sleep(1) under our names.
 */
#include "storage/worker/own_process.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "tests/unit/unit.h"

static bool is_own(pid_t pid)
{
    char path[32];

    (void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    MR_AUTO_CLOSE int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir >= 0);
    return mr_is_own_process(pid, dir);
}

static void copy_file(const char *from, const char *to)
{
    MR_AUTO_CLOSE int in = open(from, O_RDONLY | O_CLOEXEC);
    MR_AUTO_CLOSE int out = open(to, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0755);
    char chunk[8192];
    ssize_t len;

    assert_true(in >= 0 && out >= 0);
    while ((len = read(in, chunk, sizeof(chunk))) > 0)
        assert_int_equal(mr_write_all(out, chunk, (size_t)len), 0);
    assert_int_equal(len, 0);
}

/* Runs a program and returns when it has replaced us. */
static pid_t start(const char *program, bool (*before)(void))
{
    char byte;
    int out[2];

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!before || before())
            (void)execl(program, "sleep", "50", NULL);
        _exit(1);
    }
    (void)close(out[1]);
    assert_int_equal(read(out[0], &byte, 1), 0); /* closed by the exec */
    (void)close(out[0]);
    return pid;
}

static void stop(pid_t pid)
{
    int status = 0;

    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status)); /* it had not failed to start */
}

/* A program of that name in our own directory. */
static const char *beside(char dst[PATH_MAX], const char *name)
{
    ssize_t len = readlink("/proc/self/exe", dst, PATH_MAX - 1);

    assert_true(len > 0);
    dst[len] = '\0';
    char *end = strrchr(dst, '/') + 1;
    assert_int_equal(mr_format(end, (size_t)(dst + PATH_MAX - end), "%s", name), 0);
    return dst;
}

static bool leave_space(void)
{
    return unshare(CLONE_NEWNS) == 0;
}

static bool become_somebody(void)
{
    return setuid(12345) == 0;
}

static void test_we_and_who_started_us_are_our_own(void **state)
{
    (void)state;
    assert_true(is_own(getpid()));
    assert_true(is_own(getppid()));
    pid_t stranger = start("/bin/sleep", NULL);
    assert_false(is_own(stranger));
    stop(stranger);
}

static void test_replaced_program_is_our_own_for_root_in_our_namespace(void **state)
{
    static const char *const names[] = {"mooringd", "mooring-worker", "mooring-lun"};
    char program[PATH_MAX];

    (void)state;
    if (geteuid() != 0)
        skip();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        copy_file("/bin/sleep", beside(program, names[i]));
        pid_t ours = start(program, NULL);
        pid_t away = start(program, leave_space);
        pid_t user = start(program, become_somebody);
        assert_int_equal(unlink(program), 0); /* an upgrade */
        bool own[] = {is_own(ours), is_own(away), is_own(user)};
        stop(ours);
        stop(away);
        stop(user);
        assert_true(own[0]);
        assert_false(own[1]);
        assert_false(own[2]);
    }
}

static void test_other_program_beside_ours_is_a_stranger(void **state)
{
    char program[PATH_MAX];

    (void)state;
    copy_file("/bin/sleep", beside(program, "mooring-stranger"));
    pid_t pid = start(program, NULL);
    assert_int_equal(unlink(program), 0);
    bool own = is_own(pid);
    stop(pid);
    assert_false(own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_we_and_who_started_us_are_our_own),
        cmocka_unit_test(test_replaced_program_is_our_own_for_root_in_our_namespace),
        cmocka_unit_test(test_other_program_beside_ours_is_a_stranger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
