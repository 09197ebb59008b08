/* SPDX-License-Identifier: Apache-2.0
 *
 * Ending processes, and never the wrong one: the pidfd is opened first, then the start
 * time says whose it is; from there on it cannot become another process (pidfd_open(2)).
 */
#include "storage/worker/action.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/protocol.h"
#include "storage/worker/holder.h"
#include "storage/worker/own_process.h"
#include "storage/worker/scan_parse.h"

#define END_WAIT_NS (2 * MR_NS_PER_S)

static bool is_ours(const struct mr_act *act, pid_t pid)
{
    char path[32];

    (void)snprintf(path, sizeof(path), "/proc/%d", pid);
    MR_AUTO_CLOSE int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return pid == act->identity.lun_pid || mr_is_own_process(pid, dir);
}

/* A row of a mount may name one that only has an fd on the namespace: somebody who looks
 * at it, or a runtime. Its end is not what was asked for. */
static bool is_in_space(const struct mr_target_row *row)
{
    char path[64];
    struct stat st;

    if (!mr_holder_is_mount(row->kind) || row->mount_ns == 0)
        return true;
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/ns/mnt", row->pid,
                   row->tid > 0 ? row->tid : row->pid);
    return stat(path, &st) == 0 && st.st_ino == row->mount_ns;
}

/* After the pidfd was opened. True when the process is the one of the row and may be
 * signalled; else *ret says why not. */
static bool check(const struct mr_act *act, const struct mr_target_row *row,
                  struct mr_outcome *ret)
{
    struct mr_task_stat stat;
    char path[32];
    char text[1024];

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", row->pid);
    ssize_t len = mr_read_text(AT_FDCWD, path, text, sizeof(text));
    if (len == -ESRCH || len == -ENOENT)
        mr_outcome(ret, true, "the process has ended");
    else if (len < 0 || mr_parse_stat(text, &stat) < 0)
        mr_outcome(ret, false, "refused: '%s' cannot be read", path);
    else if (row->start_time == 0 || stat.start_time != row->start_time)
        mr_outcome(ret, false,
                   "refused: %d is another process by now, started at another time",
                   row->pid);
    else if (stat.kernel_thread)
        mr_outcome(ret, false, "refused: a thread of the kernel");
    else if (is_ours(act, row->pid))
        mr_outcome(ret, false, "refused: a process of this agent");
    else if (!is_in_space(row))
        mr_outcome(ret, false,
                   "refused: pid %d only keeps the namespace open, it is not in there",
                   row->pid);
    else
        return true;
    return false;
}

/* The pidfd of a process that was signalled, or -1 and the outcome. */
static int send(const struct mr_act *act, const struct mr_target_row *row,
                struct mr_outcome *ret)
{
    if (row->pid <= 0) {
        mr_outcome(ret, false, "the holder names no process");
        return -1;
    }
    if (row->pid == 1) {
        mr_outcome(ret, false, "refused: process 1 is the init process");
        return -1;
    }
    MR_AUTO_CLOSE int pidfd = pidfd_open(row->pid, 0);
    if (pidfd < 0 && errno == ESRCH)
        mr_outcome(ret, true, "the process has ended");
    else if (pidfd < 0)
        mr_outcome(ret, false, "pidfd_open: %s", strerrorname_np(errno));
    if (pidfd < 0 || !check(act, row, ret))
        return -1;
    if (pidfd_send_signal(pidfd, act->signal, NULL, 0) < 0) {
        mr_outcome(ret, errno == ESRCH, "%s",
                   errno == ESRCH ? "the process has ended" : strerrorname_np(errno));
        return -1;
    }
    return mr_take_fd(&pidfd);
}

static bool same_process(const struct mr_target_row *a, const struct mr_target_row *b)
{
    return a->pid == b->pid && a->start_time == b->start_time;
}

/* The first row of this process, which may be the row itself. */
static size_t first_of(const struct mr_target_row *rows, size_t row)
{
    size_t i = 0;

    while (i < row && !same_process(&rows[i], &rows[row]))
        i++;
    return i;
}

/* Until all have ended or the time is up; those that ended get fd -1. */
static void await_ends(struct pollfd *ends, size_t count, struct mr_outcome *results)
{
    const int64_t until_ns = mr_now_ns() + END_WAIT_NS;

    for (;;) {
        int64_t left_ns = until_ns - mr_now_ns();
        size_t waiting = 0;
        for (size_t i = 0; i < count; i++)
            waiting += ends[i].fd >= 0;
        if (waiting == 0 || left_ns <= 0 ||
            poll(ends, (nfds_t)count, (int)(left_ns / MR_NS_PER_MS) + 1) <= 0)
            return;
        for (size_t i = 0; i < count; i++) {
            if (ends[i].fd < 0 || !ends[i].revents)
                continue;
            mr_outcome(&results[i], true, "the process has ended");
            mr_close(&ends[i].fd);
        }
    }
}

void mr_act_signal(const struct mr_act *act, const struct mr_target_row *rows,
                   size_t count, struct mr_outcome *results)
{
    struct pollfd ends[MR_SCAN_HOLDERS_MAX];

    for (size_t i = 0; i < count; i++) {
        bool first = first_of(rows, i) == i;
        ends[i] = (struct pollfd){.fd = -1, .events = POLLIN};
        if (first)
            ends[i].fd = send(act, &rows[i], &results[i]);
    }
    await_ends(ends, count, results);
    for (size_t i = 0; i < count; i++) {
        size_t first = first_of(rows, i);
        if (ends[i].fd >= 0)
            mr_outcome(&results[i], false, "signalled, still running after 2 s");
        if (first != i)
            results[i] = results[first];
        mr_close(&ends[i].fd);
    }
}
