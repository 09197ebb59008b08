/* SPDX-License-Identifier: Apache-2.0
 *
 * The keeper's child. */
#include "storage/lun/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/base/spawn.h"

#define PROGRAM_FD_MIN 32   /* above all that a server gets */
#define FIRST_GRACE_MS 3000 /* on top of the target's own timeout */
#define READY_MS 10000      /* a later one asks no target before it serves */

int mr_keeper_program(const char *path)
{
    MR_AUTO_CLOSE int fd = open(path ? path : "/proc/self/exe", O_PATH | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EACCES;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, PROGRAM_FD_MIN);
    return high < 0 ? -errno : high;
}

int mr_keeper_spawn(struct mr_keeper *k, struct mr_err *err)
{
    struct mr_keeper_server *server = &k->server;
    static const char *const argv[] = {"mooring-lun", "io", NULL};
    MR_AUTO_CLOSE int theirs = -1;
    const struct mr_spawn_fd fds[] = {
        {.from = k->fuse_fd, .to = MR_LUN_FUSE_FD},
        {.from = k->page_fd, .to = MR_LUN_PAGE_FD},
        {.from = k->order_fd, .to = MR_LUN_ORDER_FD},
        {.from = k->news_fd, .to = MR_LUN_NEWS_FD},
        {.from = MR_LUN_LOCK_FD, .to = MR_LUN_LOCK_FD},
        {.from = -1, .to = MR_LUN_CHANNEL_FD},
    };
    struct mr_spawn_fd given[sizeof(fds) / sizeof(fds[0])];
    const size_t last = sizeof(fds) / sizeof(fds[0]) - 1;
    int pair[2];
    int r = mr_msg_pair(pair, err);

    if (r < 0)
        return r;
    *server = (struct mr_keeper_server){
        .pidfd = -1, .channel = pair[0], .on_trial = k->trial_fd >= 0};
    theirs = pair[1];
    for (size_t i = 0; i <= last; i++)
        given[i] = fds[i];
    given[last].from = theirs;
    const struct mr_spawn spawn = {
        .argv = argv,
        .program_fd = server->on_trial ? k->trial_fd : k->program_fd,
        .fds = given,
        .fd_count = last + 1,
        .stdout_fd = -1,
        .stderr_fd = -1,
    };
    (void)atomic_fetch_add(&k->page->servers, 1);
    r = mr_spawn_start(&spawn, &server->pid, &server->pidfd, err);
    if (r == 0) {
        server->start_time = mr_process_start_time(server->pid);
        server->ready_by_ns =
            mr_now_ns() +
            MR_NS_PER_MS * (k->serving ? READY_MS : k->start.timeout_ms + FIRST_GRACE_MS);
        r = mr_msg_send(server->channel, k->message, -1, MSG_DONTWAIT, err);
        if (r < 0) /* it has ended already: that is told as an end */
            r = 0;
    } else {
        mr_close(&server->channel);
        server->pid = 0;
    }
    return r;
}

int mr_keeper_hear(struct mr_keeper *k, struct mr_err *err)
{
    struct mr_keeper_server *server = &k->server;
    MR_AUTO_JSON struct json_object *answer = NULL;
    int r = mr_msg_recv(server->channel, &answer, NULL, MSG_DONTWAIT, err);

    if (r == -EAGAIN)
        return 0;
    if (r <= 0) {
        mr_close(&server->channel);
        *err = (struct mr_err){.code = MR_E_INTERNAL};
        return -EPIPE;
    }
    if (mr_json_get_bool(answer, "ok", false))
        return 1;
    mr_close(&server->channel);
    mr_err_from_json(err, mr_json_get(answer, "error"));
    return err->errnum ? -err->errnum : -EIO;
}

static bool has_ended(const struct mr_keeper_server *server, int64_t limit_ms)
{
    struct pollfd end = {.fd = server->pidfd, .events = POLLIN};

    return poll(&end, 1, (int)limit_ms) > 0;
}

void mr_keeper_stop(struct mr_keeper *k, int64_t limit_ms)
{
    struct mr_keeper_server *server = &k->server;

    mr_close(&server->channel);
    if (server->pid == 0)
        return;
    (void)pidfd_send_signal(server->pidfd, SIGKILL, NULL, 0);
    if (has_ended(server, limit_ms))
        (void)mr_keeper_reap(k);
}

bool mr_keeper_see_stop(struct mr_keeper *k)
{
    struct mr_keeper_server *server = &k->server;
    const bool was = server->stopped;
    struct signalfd_siginfo told;
    siginfo_t info;

    /* Several signals are told once, and what they were of is not told. */
    while (read(k->child_fd, &told, sizeof(told)) > 0)
        ;
    for (info = (siginfo_t){0}; server->pid != 0 &&
                                waitid(P_PIDFD, (id_t)server->pidfd, &info,
                                       WSTOPPED | WCONTINUED | WNOHANG) == 0 &&
                                info.si_pid != 0;
         info = (siginfo_t){0})
        server->stopped = info.si_code == CLD_STOPPED;
    if (server->stopped != was)
        k->server_wall_ms = mr_wall_ms();
    return server->stopped != was;
}

int mr_keeper_reap(struct mr_keeper *k)
{
    struct mr_keeper_server *server = &k->server;
    siginfo_t info = {.si_code = 0};
    int r = waitid(P_PIDFD, (id_t)server->pidfd, &info, WEXITED | WNOHANG);

    mr_close(&server->pidfd);
    mr_close(&server->channel);
    server->pid = 0;
    k->server_wall_ms = mr_wall_ms();
    if (r < 0)
        return -SIGKILL;
    return info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
}
