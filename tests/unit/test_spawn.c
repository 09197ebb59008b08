/* SPDX-License-Identifier: Apache-2.0
 *
 * The tests' shell scripts are arguments of the child, not of mr_spawn: it never uses a
 * shell itself.
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/spawn.h"

#define SH(script) ((const char *const[]){"/bin/sh", "-c", script, NULL})

static int64_t in_seconds(int64_t s)
{
    return mr_now_ns() + s * MR_NS_PER_S;
}

static int run(const char *script, char *output, size_t size)
{
    struct mr_err err;
    int r = mr_spawn_run(SH(script), NULL, 0, in_seconds(20), output, size, &err);
    if (r < 0)
        fail_msg("%s: %s", script, err.message);
    return r;
}

static void test_the_exit_status_is_returned(void **state)
{
    (void)state;
    char out[16];
    assert_int_equal(run("exit 0", out, sizeof(out)), 0);
    assert_int_equal(run("exit 7", out, sizeof(out)), 7);
    assert_int_equal(run("kill -TERM $$", out, sizeof(out)), 128 + SIGTERM);
}

static void test_stdout_and_stderr_are_captured_together(void **state)
{
    (void)state;
    char out[64];
    assert_int_equal(run("echo one; echo two >&2; echo three", out, sizeof(out)), 0);
    assert_string_equal(out, "one\ntwo\nthree\n");
}

static void test_long_output_is_cut_and_drained(void **state)
{
    (void)state;
    char out[10];
    /* More than a pipe holds: the child would hang if nobody read on. */
    assert_int_equal(
        run("head -c 300000 /dev/zero | tr '\\0' x; exit 3", out, sizeof(out)), 3);
    assert_string_equal(out, "xxxxxxxxx");
}

static void test_a_missing_program_is_an_error_of_its_own(void **state)
{
    (void)state;
    struct mr_err err;
    char out[16];
    const char *const argv[] = {"/nonexistent/tool", NULL};
    assert_int_equal(mr_spawn_run(argv, NULL, 0, in_seconds(5), out, sizeof(out), &err),
                     -ENOENT);
    assert_non_null(strstr(err.message, "/nonexistent/tool"));
}

static void test_past_the_deadline_it_is_killed(void **state)
{
    (void)state;
    struct mr_err err;
    char out[16];
    int64_t start = mr_now_ns();
    assert_int_equal(mr_spawn_run(SH("echo $$; exec sleep 30"), NULL, 0,
                                  start + 200 * MR_NS_PER_MS, out, sizeof(out), &err),
                     -ETIMEDOUT);
    assert_true(mr_now_ns() - start < 10 * MR_NS_PER_S);
    pid_t pid = atoi(out);
    assert_true(pid > 1);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
}

static void test_arguments_are_not_interpreted(void **state)
{
    (void)state;
    char out[64];
    const char *const argv[] = {"/bin/echo", "$HOME; `id` *", NULL};
    assert_int_equal(mr_spawn_run(argv, NULL, 0, in_seconds(20), out, sizeof(out), NULL),
                     0);
    assert_string_equal(out, "$HOME; `id` *\n");
}

static void test_the_environment_is_clean(void **state)
{
    (void)state;
    char out[512];
    const char *const argv[] = {"/usr/bin/env", NULL};
    assert_int_equal(setenv("SECRET_OF_THE_AGENT", "1", 1), 0);
    assert_int_equal(setenv("MOORING_LOG", "debug", 1), 0);
    assert_int_equal(mr_spawn_run(argv, NULL, 0, in_seconds(20), out, sizeof(out), NULL),
                     0);
    assert_null(strstr(out, "SECRET"));
    assert_non_null(strstr(out, "PATH=/"));
    assert_non_null(strstr(out, "LANG=C\n"));
    assert_non_null(strstr(out, "MOORING_LOG=debug\n"));
    assert_int_equal(unsetenv("MOORING_LOG"), 0);
    assert_int_equal(mr_spawn_run(argv, NULL, 0, in_seconds(20), out, sizeof(out), NULL),
                     0);
    assert_null(strstr(out, "MOORING_LOG"));
}

static void test_signals_are_reset_in_the_child(void **state)
{
    (void)state;
    char out[64];
    sigset_t blocked;
    sigset_t old;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &blocked, &old);
    (void)signal(SIGPIPE, SIG_IGN);
    const char *const argv[] = {"/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status",
                                NULL};
    int r = mr_spawn_run(argv, NULL, 0, in_seconds(20), out, sizeof(out), NULL);
    (void)sigprocmask(SIG_SETMASK, &old, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    assert_int_equal(r, 0);
    assert_string_equal(out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

static void test_only_kept_fds_are_inherited(void **state)
{
    (void)state;
    char out[256];
    MR_AUTO_CLOSE int kept = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    MR_AUTO_CLOSE int other = open("/dev/full", O_RDONLY | O_CLOEXEC);
    char script[128];
    (void)snprintf(
        script, sizeof(script),
        "readlink /proc/self/fd/0; readlink /proc/self/fd/%d; readlink /proc/self/fd/%d",
        kept, other);
    assert_int_equal(
        mr_spawn_run(SH(script), &kept, 1, in_seconds(20), out, sizeof(out), NULL), 1);
    assert_string_equal(out, "/dev/null\n/dev/zero\n");
    assert_int_equal(fcntl(kept, F_GETFD), FD_CLOEXEC); /* still, in the parent */
}

static void test_fds_are_placed_even_when_numbers_cross(void **state)
{
    (void)state;
    int pipe_fds[2];
    char out[128] = "";
    pid_t pid = 0;
    MR_AUTO_CLOSE int a = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    MR_AUTO_CLOSE int b = open("/dev/full", O_RDONLY | O_CLOEXEC);
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    MR_AUTO_CLOSE int read_end = pipe_fds[0];
    MR_AUTO_CLOSE int write_end = pipe_fds[1];
    char script[128];
    (void)snprintf(script, sizeof(script),
                   "readlink /proc/self/fd/%d; readlink /proc/self/fd/%d", a, b);
    const struct mr_spawn_fd fds[] = {{.from = a, .to = b}, {.from = b, .to = a}};
    const struct mr_spawn spawn = {.argv = SH(script),
                                   .fds = fds,
                                   .fd_count = 2,
                                   .stdout_fd = write_end,
                                   .stderr_fd = -1};
    MR_AUTO_CLOSE int pidfd = -1;
    assert_int_equal(mr_spawn_start(&spawn, &pid, &pidfd, NULL), 0);
    assert_int_equal(fcntl(pidfd, F_GETFD), FD_CLOEXEC);
    mr_close(&write_end);
    size_t used = 0;
    ssize_t got;
    while ((got = read(read_end, out + used, sizeof(out) - 1 - used)) > 0)
        used += (size_t)got;
    struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, 20000), 1);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_string_equal(out, "/dev/full\n/dev/zero\n");
}

static void test_a_new_session_is_its_own_group(void **state)
{
    (void)state;
    pid_t pid = 0;
    int status = 0;
    const struct mr_spawn spawn = {.argv =
                                       SH("read -r p c s d g sid rest < /proc/self/stat;"
                                          " test $sid = $$"),
                                   .stdout_fd = -1,
                                   .stderr_fd = -1,
                                   .new_session = true};
    assert_int_equal(mr_spawn_start(&spawn, &pid, NULL, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_stdin_is_what_is_given_or_empty(void **state)
{
    (void)state;
    int in[2];
    int out[2];
    char got[16] = "";
    pid_t pid;

    assert_int_equal(run("cat", got, sizeof(got)), 0);
    assert_string_equal(got, "");
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    struct mr_spawn spawn = {
        .argv = SH("cat"), .stdin_fd = in[0], .stdout_fd = out[1], .stderr_fd = -1};
    assert_int_equal(mr_spawn_start(&spawn, &pid, NULL, NULL), 0);
    (void)close(in[0]);
    (void)close(out[1]);
    assert_int_equal(write(in[1], "told", 4), 4);
    (void)close(in[1]); /* only ours was open: the child sees the end */
    assert_int_equal(read(out[0], got, sizeof(got)), 4);
    assert_memory_equal(got, "told", 4);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    (void)close(out[0]);
}

static void test_program_is_the_fd_and_not_the_name(void **state)
{
    (void)state;
    static const char *const argv[] = {"/no/such/thing", "-c", "exit 5", NULL};
    MR_AUTO_CLOSE int program = open("/bin/sh", O_PATH | O_CLOEXEC);
    const struct mr_spawn spawn = {
        .argv = argv, .program_fd = program, .stdout_fd = -1, .stderr_fd = -1};
    struct mr_err err;
    pid_t pid = -1;
    int status = 0;

    assert_int_equal(mr_spawn_start(&spawn, &pid, NULL, &err), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_exit_status_is_returned),
        cmocka_unit_test(test_stdout_and_stderr_are_captured_together),
        cmocka_unit_test(test_long_output_is_cut_and_drained),
        cmocka_unit_test(test_a_missing_program_is_an_error_of_its_own),
        cmocka_unit_test(test_past_the_deadline_it_is_killed),
        cmocka_unit_test(test_arguments_are_not_interpreted),
        cmocka_unit_test(test_the_environment_is_clean),
        cmocka_unit_test(test_signals_are_reset_in_the_child),
        cmocka_unit_test(test_only_kept_fds_are_inherited),
        cmocka_unit_test(test_fds_are_placed_even_when_numbers_cross),
        cmocka_unit_test(test_a_new_session_is_its_own_group),
        cmocka_unit_test(test_stdin_is_what_is_given_or_empty),
        cmocka_unit_test(test_program_is_the_fd_and_not_the_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
