/* SPDX-License-Identifier: Apache-2.0
 *
 * vfork-like speed is not needed here: a plain fork of the small agent costs under a
 * millisecond, and everything between fork and exec is async-signal-safe.
 */
#include "storage/base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fault.h"
#include "storage/base/fd.h"

#define MR_SPAWN_FDS_MAX 8

/* In the child: dup2 all fds above every target first, so that none overwrites another.
 */
static int place_fds(const struct mr_spawn_fd *fds, size_t count)
{
    int high[MR_SPAWN_FDS_MAX];

    for (size_t i = 0; i < count; i++) {
        high[i] = fcntl(fds[i].from, F_DUPFD_CLOEXEC, 64);
        if (high[i] < 0)
            return errno;
    }
    for (size_t i = 0; i < count; i++)
        if (dup2(high[i], fds[i].to) < 0) /* clears close-on-exec */
            return errno;
    return 0;
}

static void reset_signals(void)
{
    struct sigaction act = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int sig = 1; sig < 65; sig++)
        if (sig != SIGKILL && sig != SIGSTOP)
            (void)sigaction(sig, &act, NULL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Never returns. Reports a failure as errno through status_fd, which closes by itself on
 * exec. */
static void child(const struct mr_spawn *spawn, char *const *argv, char *const *envp,
                  int null_fd, int status_fd) __attribute__((noreturn));

static void child(const struct mr_spawn *spawn, char *const *argv, char *const *envp,
                  int null_fd, int status_fd)
{
    int cause = 0;
    int in = spawn->stdin_fd > 0 ? spawn->stdin_fd : null_fd;
    int out = spawn->stdout_fd >= 0 ? spawn->stdout_fd : null_fd;

    reset_signals();
    /* Above the targets of place_fds(). */
    int status = fcntl(status_fd, F_DUPFD_CLOEXEC, 128);
    if (status < 0)
        status = status_fd;
    if (spawn->new_session)
        (void)setsid();
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 ||
        (spawn->stderr_fd >= 0 && dup2(spawn->stderr_fd, 2) < 0))
        cause = errno;
    /* What we were started with ourselves may lack close-on-exec (Linux 5.11; older:
     * nothing changes). */
    (void)close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    if (cause == 0)
        cause = place_fds(spawn->fds, spawn->fd_count);
    if (cause == 0) {
        if (spawn->program_fd > 0)
            (void)execveat(spawn->program_fd, "", argv, envp, AT_EMPTY_PATH);
        else
            (void)execve(argv[0], argv, envp);
        cause = errno;
    }
    (void)!write(status, &cause, sizeof(cause));
    _exit(127);
}

int mr_spawn_start(const struct mr_spawn *spawn, pid_t *ret_pid, int *ret_pidfd,
                   struct mr_err *err)
{
    char log_env[64];
    const char *level = getenv("MOORING_LOG");
    const char *clean_env[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C",
        level ? log_env : NULL, NULL, NULL};
    char *const *argv;
    char *const *envp;
    int status[2];

    (void)snprintf(log_env, sizeof(log_env), "MOORING_LOG=%.40s", level ? level : "");
#ifdef MR_FAULTS
    char fault_env[PATH_MAX];
    const char *faults = getenv(MR_FAULT_ENV);
    if (faults &&
        mr_format(fault_env, sizeof(fault_env), MR_FAULT_ENV "=%s", faults) == 0)
        clean_env[level ? 3 : 2] = fault_env;
#endif
    /* execve(2) does not write to them; its prototype is historic. */
    memcpy(&argv, &spawn->argv, sizeof(argv));
    const char *const *env = spawn->envp ? spawn->envp : clean_env;
    memcpy(&envp, &env, sizeof(envp));
    if (spawn->fd_count > MR_SPAWN_FDS_MAX)
        return mr_fail(err, MR_E_INTERNAL, EINVAL, "too many fds for '%s'", argv[0]);
    MR_AUTO_CLOSE int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "open '/dev/null'");
    if (pipe2(status, O_CLOEXEC) != 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create a pipe");
    MR_AUTO_CLOSE int status_read = status[0];
    MR_AUTO_CLOSE int status_write = status[1];

    pid_t pid = fork();
    if (pid < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "fork for '%s'", argv[0]);
    if (pid == 0)
        child(spawn, argv, envp, null_fd, status_write);
    mr_close(&status_write);
    int cause = 0;
    ssize_t got;
    do {
        got = read(status_read, &cause, sizeof(cause));
    } while (got < 0 && errno == EINTR);
    if (got == (ssize_t)sizeof(cause)) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return mr_fail(err, MR_E_INTERNAL, cause, "start '%s'", argv[0]);
    }
    if (ret_pidfd) {
        *ret_pidfd = (int)syscall(SYS_pidfd_open, pid, 0U); /* sets close-on-exec */
        if (*ret_pidfd < 0) {
            int why = errno;
            (void)kill(pid, SIGKILL);
            while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
            return mr_fail(err, MR_E_INTERNAL, why, "pidfd_open of '%s'", argv[0]);
        }
    }
    *ret_pid = pid;
    return 0;
}

/* Collects output until the pipe closes or the deadline passes. False past the deadline.
 */
static bool collect(int fd, int64_t deadline_ns, char *output, size_t size)
{
    size_t used = 0;
    char scrap[512];

    for (;;) {
        int64_t left = deadline_ns - mr_now_ns();
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        if (left <= 0)
            return false;
        int64_t ms = left / MR_NS_PER_MS + 1;
        if (poll(&pfd, 1, ms > 60000 ? 60000 : (int)ms) <= 0)
            continue;
        bool room = used + 1 < size;
        ssize_t got = read(fd, room ? output + used : scrap,
                           room ? size - used - 1 : sizeof(scrap));
        if (got == 0 || (got < 0 && errno != EINTR))
            return true;
        if (got > 0 && room) {
            used += (size_t)got;
            output[used] = '\0';
        }
    }
}

/* Waits for the end by the deadline; -ETIMEDOUT otherwise. */
static int reap(pid_t pid, int pidfd, int64_t deadline_ns)
{
    for (;;) {
        int status;
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (got < 0 && errno != EINTR)
            return -errno;
        int64_t left = deadline_ns - mr_now_ns();
        struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
        if (left <= 0)
            return -ETIMEDOUT;
        int64_t ms = left / MR_NS_PER_MS + 1;
        (void)poll(&pfd, 1, ms > 60000 ? 60000 : (int)ms);
    }
}

int mr_spawn_run(const char *const *argv, const int *keep_fds, size_t keep_count,
                 int64_t deadline_ns, char *output, size_t size, struct mr_err *err)
{
    struct mr_spawn_fd fds[MR_SPAWN_FDS_MAX];
    int pipe_fds[2];
    pid_t pid;
    MR_AUTO_CLOSE int pidfd = -1;

    if (size > 0)
        output[0] = '\0';
    if (keep_count > MR_SPAWN_FDS_MAX)
        return mr_fail(err, MR_E_INTERNAL, EINVAL, "too many fds for '%s'", argv[0]);
    for (size_t i = 0; i < keep_count; i++)
        fds[i] = (struct mr_spawn_fd){.from = keep_fds[i], .to = keep_fds[i]};
    if (pipe2(pipe_fds, O_CLOEXEC) != 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create a pipe");
    MR_AUTO_CLOSE int read_end = pipe_fds[0];
    MR_AUTO_CLOSE int write_end = pipe_fds[1];
    struct mr_spawn spawn = {
        .argv = argv,
        .fds = fds,
        .fd_count = keep_count,
        .stdout_fd = write_end,
        .stderr_fd = write_end,
    };
    int rc = mr_spawn_start(&spawn, &pid, &pidfd, err);
    if (rc < 0)
        return rc;
    mr_close(&write_end);
    rc = collect(read_end, deadline_ns, output, size) ? reap(pid, pidfd, deadline_ns)
                                                      : -ETIMEDOUT;
    if (rc == -ETIMEDOUT) {
        (void)kill(pid, SIGKILL);
        /* In D state it cannot die yet; this process is disposable, so do not wait long.
         */
        (void)reap(pid, pidfd, mr_now_ns() + MR_NS_PER_S);
    }
    return rc < 0 ? mr_fail(err, MR_E_INTERNAL, -rc, "run '%s'", argv[0]) : rc;
}
