/* SPDX-License-Identifier: Apache-2.0
 *
 * A child with a limit: the worker waits for its answer, never for its end.
 */
#include "storage/worker/action.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"

#define KILL_WAIT_MS 100

void mr_outcome(struct mr_outcome *ret, bool done, const char *fmt, ...)
{
    va_list ap;

    ret->done = done;
    va_start(ap, fmt);
    (void)vsnprintf(ret->detail, sizeof(ret->detail), fmt, ap);
    va_end(ap);
}

/* The end of the channel tells the core that we are gone. */
static _Noreturn void child(const struct mr_act *act, mr_child_fn fn, void *ctx, int pipe)
{
    struct mr_outcome outcome = {.detail = ""};

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)close(act->channel_fd);
    (void)close(act->inotify_fd);
    fn(ctx, &outcome);
    _exit(mr_write_all(pipe, &outcome, sizeof(outcome)) < 0);
}

static int wait_ms(int64_t until_ns)
{
    int64_t left_ms = (until_ns - mr_now_ns()) / MR_NS_PER_MS;

    return left_ms > 0 ? (int)left_ms : 0;
}

/* The pidfd becomes readable when it has ended. */
static bool await(int pidfd, int64_t until_ns)
{
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    siginfo_t info;

    if (poll(&end, 1, wait_ms(until_ns)) <= 0)
        return false;
    (void)waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED);
    return true;
}

static bool take_answer(int pipe, struct mr_outcome *ret)
{
    struct mr_outcome outcome;
    struct pollfd ready = {.fd = pipe, .events = POLLIN};

    if (poll(&ready, 1, 0) <= 0 ||
        read(pipe, &outcome, sizeof(outcome)) != (ssize_t)sizeof(outcome))
        return false;
    outcome.detail[sizeof(outcome.detail) - 1] = '\0';
    *ret = outcome;
    return true;
}

/* Without a pidfd there is no event to wait for. It may hang in the kernel. */
static void end_by_pid(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    for (int i = 0; i < KILL_WAIT_MS && waitpid(pid, NULL, WNOHANG) == 0; i++)
        mr_sleep_ns(MR_NS_PER_MS);
}

bool mr_act_in_child(const struct mr_act *act, mr_child_fn fn, void *ctx,
                     int64_t limit_ms, struct mr_outcome *ret)
{
    const int64_t until_ns = mr_now_ns() + limit_ms * MR_NS_PER_MS;
    int pair[2];

    if (pipe2(pair, O_CLOEXEC) < 0) {
        mr_outcome(ret, false, "pipe2: %s", strerrorname_np(errno));
        return false;
    }
    MR_AUTO_CLOSE int reader = pair[0];
    MR_AUTO_CLOSE int writer = pair[1];
    pid_t pid = fork();
    if (pid == 0)
        child(act, fn, ctx, writer);
    mr_close(&writer);
    /* Not reaped yet, so the number is its own. */
    MR_AUTO_CLOSE int pidfd = pid < 0 ? -1 : pidfd_open(pid, 0);
    if (pidfd < 0) {
        mr_outcome(ret, false, "no child process: %s", strerrorname_np(errno));
        if (pid > 0)
            end_by_pid(pid);
        return false;
    }
    bool ended = await(pidfd, until_ns);
    if (take_answer(reader, ret))
        return true; /* it may still be letting go of what it held */
    if (!ended) {
        (void)pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
        (void)await(pidfd, mr_now_ns() + KILL_WAIT_MS * MR_NS_PER_MS);
        mr_outcome(ret, false, "no answer from the kernel within %lld ms",
                   (long long)limit_ms);
    } else {
        mr_outcome(ret, false, "the child process died");
    }
    return false;
}
