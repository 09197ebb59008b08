/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/log.h"
#include "storage/base/msg.h"
#include "storage/lun/exits.h"
#include "storage/lun/fuse_abort.h"
#include "storage/lun/fuse_dev.h"
#include "storage/lun/process.h"

#define START_MS 10000

enum {
    FD_NEWS,
    FD_CHILD,   /* it has stopped, or goes on */
    FD_SERVER,  /* its end */
    FD_CHANNEL, /* its answer */
    FD_RESOLVER,
    FD_WORKER,
    FD_CONTROL,
    FD_COUNT = FD_CONTROL + MR_CONTROL_FDS,
};

/* --- towards the worker --- */

static int receive_start(struct mr_keeper *k, struct mr_err *err)
{
    struct pollfd channel = {.fd = k->worker_fd, .events = POLLIN};

    if (poll(&channel, 1, START_MS) <= 0 ||
        mr_msg_recv(k->worker_fd, &k->message, NULL, MSG_DONTWAIT, err) <= 0)
        return mr_fail(err, MR_E_INVALID_REQUEST, EINVAL, "no start message at fd %d",
                       MR_LUN_CHANNEL_FD);
    int r = mr_lun_start_decode(k->message, &k->start, err);
    /* The servers read them in the message. */
    explicit_bzero(k->start.password, sizeof(k->start.password));
    explicit_bzero(k->start.mutual_password, sizeof(k->start.mutual_password));
    return r;
}

void mr_keeper_tell_worker(struct mr_keeper *k, struct json_object *json)
{
    struct mr_err err;
    int fd = mr_json_get_bool(json, "ok", false) ? k->mount_fd : -1;

    if (json && mr_msg_send(k->worker_fd, json, fd, MSG_DONTWAIT, &err) < 0)
        mr_log(MR_LOG_WARNING, "no answer to the worker: %s", err.message);
    mr_close(&k->worker_fd);
    mr_close(&k->mount_fd);
}

void mr_keeper_fail_start(struct mr_keeper *k, const struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *json = json_object_new_object();

    mr_log(MR_LOG_ERR, "code=%s %s", mr_code_slug(err->code), err->message);
    if (json) {
        mr_json_set_bool(json, "ok", false);
        mr_json_set(json, "error", mr_err_to_json(err));
    }
    mr_keeper_tell_worker(k, json);
    k->done = true;
    k->exit_code = mr_exit_code(err->code);
}

/* --- the loop --- */

static bool is_starting(const struct mr_keeper_server *server)
{
    return server->pid != 0 && !server->ready;
}

/* What the server says and does; its words before its end. */
static void handle_server(struct mr_keeper *k, const struct pollfd *fds, int64_t now_ns)
{
    struct mr_err err = {0};
    int heard = 0;

    if (k->server.channel >= 0 && (fds[FD_CHANNEL].revents || fds[FD_SERVER].revents))
        heard = mr_keeper_hear(k, &err);
    if (heard > 0)
        mr_keeper_ready(k);
    if (fds[FD_SERVER].revents && k->server.pid != 0)
        mr_keeper_ended(k, &err);
    else if (heard < 0 && heard != -EPIPE && !k->serving)
        mr_keeper_fail_start(k, &err);
    else if (is_starting(&k->server) && now_ns >= k->server.ready_by_ns) {
        k->server.late = true;
        (void)pidfd_send_signal(k->server.pidfd, SIGKILL, NULL, 0); /* its end is seen */
    }
}

static int64_t next_deadline(struct mr_keeper *k)
{
    const int64_t resolver = mr_keeper_check_resolver(k);
    const int64_t trial = mr_keeper_check_trial(k);
    int64_t next = mr_keeper_check_waits(k);

    if (resolver < next)
        next = resolver;
    if (trial < next)
        next = trial;
    if (is_starting(&k->server) && k->server.ready_by_ns < next)
        next = k->server.ready_by_ns;
    if (k->restart_ns != 0 && k->restart_ns < next)
        next = k->restart_ns;
    return next;
}

static void take_news(struct mr_keeper *k)
{
    uint64_t count;

    if (read(k->news_fd, &count, sizeof(count)) == (ssize_t)sizeof(count) && k->serving)
        mr_keeper_push(k);
}

/* One turn: waits for events, handles them. */
static void turn(struct mr_keeper *k)
{
    struct pollfd fds[FD_COUNT] = {
        [FD_NEWS] = {.fd = k->news_fd, .events = POLLIN},
        [FD_CHILD] = {.fd = k->child_fd, .events = POLLIN},
        [FD_SERVER] = {.fd = k->server.pid ? k->server.pidfd : -1, .events = POLLIN},
        [FD_CHANNEL] = {.fd = k->server.channel, .events = POLLIN},
        [FD_RESOLVER] = {.fd = k->resolver.pidfd, .events = POLLIN},
        [FD_WORKER] = {.fd = k->worker_fd, .events = POLLIN},
    };
    int64_t next = next_deadline(k);

    if (k->done)
        return;
    mr_control_poll(&k->control, fds + FD_CONTROL);
    if (poll(fds, FD_COUNT, mr_process_poll_ms(mr_now_ns(), next)) < 0)
        memset(fds, 0, sizeof(fds)); /* EINTR, ENOMEM: no events, the clock goes on */
    if (fds[FD_NEWS].revents)
        take_news(k);
    if (fds[FD_CHILD].revents && mr_keeper_see_stop(k) && k->serving)
        mr_keeper_push(k);
    handle_server(k, fds, mr_now_ns());
    if (k->worker_fd >= 0 && fds[FD_WORKER].revents && !k->done) {
        struct mr_err err;

        (void)mr_fail(&err, MR_E_INTERNAL, ECANCELED, "the worker hung up");
        mr_keeper_fail_start(k, &err);
    }
    if (!k->done && k->restart_ns != 0 && mr_now_ns() >= k->restart_ns)
        mr_keeper_next(k);
    if (!k->done)
        mr_control_handle(&k->control, fds + FD_CONTROL, mr_keeper_answer, k);
}

/* --- start and end --- */

static void warn_of_memory(const struct mr_keeper *k,
                           const struct mr_process_protection *got)
{
    if (got->locked && got->io_flusher && got->oom_protected &&
        !k->start.cgroup_problem[0])
        return;
    mr_log(MR_LOG_WARNING,
           "memory protection is incomplete: mlockall=%s io_flusher=%s oom_score=%s "
           "cgroup=%s",
           got->locked ? "ok" : "no", got->io_flusher ? "ok" : "no",
           got->oom_protected ? "ok" : "no",
           k->start.cgroup_problem[0] ? k->start.cgroup_problem : "ok");
}

static int make_fds(struct mr_keeper *k, struct mr_err *err)
{
    sigset_t child;

    k->order_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    k->news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (k->order_fd < 0 || k->news_fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "eventfd");
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &child, NULL);
    k->child_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (k->child_fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "signalfd");
    k->program_fd = mr_keeper_program(NULL);
    if (k->program_fd < 0)
        return mr_fail(err, MR_E_INTERNAL, -k->program_fd, "open '/proc/self/exe'");
    int r = mr_page_create(&k->page_fd, &k->page, err);
    if (r < 0)
        return r;
    atomic_store(&k->page->timeout_ms, k->start.timeout_ms);
    atomic_store(&k->page->replacement_ms, k->start.replacement_ms);
    atomic_store(&k->page->state_wall_ms, mr_wall_ms());
    return 0;
}

/* The mount is made before there is a server, which can read from its fd at once. What
 * INIT says bounds the requests: max_read is but the most there can be. */
static int make_mount(struct mr_keeper *k, struct mr_err *err)
{
    char mark[MR_MARK_TEXT];
    int r = mr_fuse_open(&k->fuse_fd, err);

    mr_mark(mark, k->start.token, k->start.runtime_dir);
    if (r == 0)
        r = mr_fuse_mount(k->fuse_fd, mark, MR_FUSE_DATA_MAX, &k->mount_fd, err);
    if (r < 0)
        return r;
    r = mr_fuse_abort_open(k->mount_fd, &k->connection, &k->abort_fd);
    if (r < 0)
        mr_log(MR_LOG_WARNING, "the FUSE connection cannot be aborted by its file: %s",
               strerror(-r));
    return 0;
}

static int set_up(struct mr_keeper *k, struct mr_err *err)
{
    struct mr_process_protection got;
    int r = receive_start(k, err);

    if (r < 0)
        return r;
    mr_process_protect(MR_PROCESS_KEEPER_HEAP, &got);
    warn_of_memory(k, &got);
    r = make_fds(k, err);
    if (r == 0)
        r = make_mount(k, err);
    if (r == 0)
        r = mr_keeper_spawn(k, err);
    return r;
}

static void tear_down(struct mr_keeper *k)
{
    int *const fds[] = {&k->worker_fd, &k->mount_fd,  &k->fuse_fd, &k->abort_fd,
                        &k->page_fd,   &k->order_fd,  &k->news_fd, &k->child_fd,
                        &k->trial_fd,  &k->program_fd};

    /* After a failed start it gets the chance to log out. */
    mr_close(&k->server.channel);
    mr_close(&k->mount_fd);
    if (k->server.pid != 0) {
        struct pollfd end = {.fd = k->server.pidfd, .events = POLLIN};

        (void)poll(&end, 1, 2 * MR_KEEPER_STOP_MS);
    }
    mr_keeper_stop(k, MR_KEEPER_STOP_MS);
    mr_control_close(&k->control);
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        mr_close(fds[i]);
    mr_page_unmap(k->page);
    (void)json_object_put(k->message);
}

int mr_keeper_main(void)
{
    static struct mr_keeper keeper = {
        .worker_fd = MR_LUN_CHANNEL_FD,
        .fuse_fd = -1,
        .mount_fd = -1,
        .abort_fd = -1,
        .page_fd = -1,
        .order_fd = -1,
        .news_fd = -1,
        .child_fd = -1,
        .program_fd = -1,
        .trial_fd = -1,
        .server = {.pidfd = -1, .channel = -1},
        .resolver = {.pidfd = -1},
    };
    struct mr_err err = {0};

    mr_control_init(&keeper.control);
    if (set_up(&keeper, &err) < 0)
        mr_keeper_fail_start(&keeper, &err);
    while (!keeper.done)
        turn(&keeper);
    tear_down(&keeper);
    return keeper.exit_code;
}
