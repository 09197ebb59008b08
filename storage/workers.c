/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/workers.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/base/spawn.h"
#include "storage/protocol.h"

struct mr_worker {
    struct mr_workers *workers;
    struct mr_worker *next;
    const struct mr_worker_events *events; /* NULL: nobody listens any more */
    void *ctx;
    struct mr_worker_process process;
    struct mr_io *pidfd_io;
    struct mr_io *channel_io;
    struct mr_timer deadline;
};

struct mr_workers {
    struct mr_loop *loop;
    const char *libexec_dir;
    int inotify_fd;
    struct mr_worker *first;
};

int mr_workers_new(struct mr_loop *loop, const char *libexec_dir, int inotify_fd,
                   struct mr_workers **ret, struct mr_err *err)
{
    struct mr_workers *workers = calloc(1, sizeof(*workers));
    if (!workers)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "create the worker table");
    workers->loop = loop;
    workers->libexec_dir = libexec_dir;
    workers->inotify_fd = inotify_fd;
    *ret = workers;
    return 0;
}

static void hang_up(struct mr_worker *worker)
{
    mr_io_remove(worker->channel_io);
    worker->channel_io = NULL;
    mr_close(&worker->process.channel);
}

static void worker_free(struct mr_worker *worker)
{
    mr_timer_cancel(&worker->deadline);
    hang_up(worker);
    mr_io_remove(worker->pidfd_io);
    mr_close(&worker->process.pidfd);
    free(worker);
}

void mr_workers_free(struct mr_workers *workers)
{
    if (!workers)
        return;
    while (workers->first) {
        struct mr_worker *worker = workers->first;
        workers->first = worker->next;
        worker_free(worker);
    }
    free(workers);
}

pid_t mr_worker_pid(const struct mr_worker *worker)
{
    return worker->process.pid;
}

/* "[<0>] name+0x1/0x2" lines to "name <- name". */
static void join_frames(const char *stack, char *dst, size_t size)
{
    size_t used = 0;

    for (const char *line = stack; *line && used < size;) {
        size_t length = strcspn(line, "\n");
        size_t skip = strcspn(line, " \n");
        size_t name = skip < length ? strcspn(line + skip + 1, "+\n") : 0;
        if (name > 0) {
            int more = snprintf(dst + used, size - used, "%s%.*s", used ? " <- " : "",
                                (int)name, line + skip + 1);
            used += more > 0 ? (size_t)more : 0;
        }
        line += length + (line[length] == '\n');
    }
}

/* A helper program of the worker's may be what hangs. */
static pid_t hanging_task(pid_t worker)
{
    char path[64];
    char text[32] = "";

    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)worker,
                   (int)worker);
    if (mr_read_text(AT_FDCWD, path, text, sizeof(text)) <= 0)
        return worker;
    pid_t child = (pid_t)strtol(text, NULL, 10);
    return child > 0 ? child : worker;
}

const char *mr_worker_stack(const struct mr_worker *worker, char text[256])
{
    pid_t pid = hanging_task(worker->process.pid);
    char path[64];
    char frames[200] = "";
    MR_AUTO_FREE char *stack = NULL;

    (void)snprintf(path, sizeof(path), "/proc/%d/stack", (int)pid);
    if (mr_read_file(AT_FDCWD, path, 16384, &stack) > 0)
        join_frames(stack, frames, sizeof(frames));
    (void)snprintf(path, sizeof(path), "/proc/%d/wchan", (int)pid);
    if (!frames[0] && mr_read_text(AT_FDCWD, path, frames, sizeof(frames)) <= 0)
        (void)snprintf(frames, sizeof(frames), "a place that cannot be read");
    (void)snprintf(text, 256, "process %d hangs in the kernel at %s", (int)pid, frames);
    return text;
}

void mr_worker_kill(const struct mr_worker *worker)
{
    (void)kill(worker->process.pid, SIGKILL); /* not reaped yet: the number is its own */
}

void mr_worker_end(struct mr_worker *worker)
{
    if (!worker)
        return;
    worker->events = NULL;
    mr_timer_cancel(&worker->deadline);
    hang_up(worker);
}

static void handle(struct mr_worker *worker, struct json_object *message)
{
    const char *event = mr_json_get_string(message, "event");

    if (event && strcmp(event, "ready") == 0) {
        mr_timer_cancel(&worker->deadline);
        if (worker->events->ready)
            worker->events->ready(worker->ctx);
    } else if (event) {
        if (worker->events->event)
            worker->events->event(worker->ctx, message);
    } else {
        struct mr_err err;
        bool ok = mr_json_get_bool(message, "ok", false);
        mr_timer_cancel(&worker->deadline);
        mr_err_from_json(&err, mr_json_get(message, "error"));
        worker->events->reply(worker->ctx, ok, message, &err);
    }
}

static void on_channel(void *ctx, uint32_t events)
{
    struct mr_worker *worker = ctx;

    (void)events;
    while (worker->events && worker->process.channel >= 0) {
        MR_AUTO_JSON struct json_object *message = NULL;
        int rc = mr_msg_recv(worker->process.channel, &message, NULL, MSG_DONTWAIT, NULL);
        if (rc == -EAGAIN)
            return;
        if (rc <= 0) {
            /* Its end is told by the pidfd; until then the deadline runs, for it may hang
             * in its exit. */
            hang_up(worker);
            return;
        }
        handle(worker, message);
    }
}

static void on_exit_event(void *ctx, uint32_t events)
{
    struct mr_worker *worker = ctx;
    int status = 0;

    /* Its last words may still be in the socket. */
    if (worker->events)
        on_channel(worker, events);
    if (waitpid(worker->process.pid, &status, WNOHANG) == 0)
        return;
    for (struct mr_worker **at = &worker->workers->first; *at; at = &(*at)->next) {
        if (*at == worker) {
            *at = worker->next;
            break;
        }
    }
    if (worker->events) {
        struct mr_err err;
        (void)mr_fail(&err, MR_E_INTERNAL, 0, "worker %d ended early (%s %d)",
                      (int)worker->process.pid, WIFSIGNALED(status) ? "signal" : "status",
                      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        worker->events->died(worker->ctx, &err);
    }
    worker_free(worker);
}

static void on_deadline(void *ctx)
{
    struct mr_worker *worker = ctx;
    if (worker->events)
        worker->events->overdue(worker->ctx);
}

int mr_worker_launch(const char *libexec_dir, const char *mode, const char *argument,
                     int inotify_fd, struct mr_worker_process *ret, struct mr_err *err)
{
    char path[PATH_MAX];
    int pair[2];

    int rc = mr_format(path, sizeof(path), "%s/mooring-worker", libexec_dir);
    if (rc < 0)
        return mr_fail(err, MR_E_INTERNAL, -rc, "path of mooring-worker");
    rc = mr_msg_pair(pair, err);
    if (rc < 0)
        return rc;
    MR_AUTO_CLOSE int theirs = pair[1];
    ret->channel = pair[0];
    const char *const argv[] = {path, mode, argument, NULL};
    const struct mr_spawn_fd fds[] = {
        {.from = theirs, .to = MR_WORKER_CHANNEL_FD},
        {.from = inotify_fd, .to = MR_WORKER_INOTIFY_FD},
    };
    struct mr_spawn spawn = {
        .argv = argv,
        .fds = fds,
        .fd_count = inotify_fd >= 0 ? 2 : 1,
        .stdout_fd = -1,
        .stderr_fd = -1,
        .new_session = true, /* a Ctrl-C at the agent must not cut a mount in two */
    };
    return mr_spawn_start(&spawn, &ret->pid, &ret->pidfd, err);
}

int mr_worker_start(struct mr_workers *workers, const char *mode, const char *lock_path,
                    int64_t deadline_ns, const struct mr_worker_events *events, void *ctx,
                    struct mr_worker **ret, struct mr_err *err)
{
    struct mr_worker *worker = calloc(1, sizeof(*worker));
    if (!worker)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "start a worker");
    *worker = (struct mr_worker){.workers = workers,
                                 .events = events,
                                 .ctx = ctx,
                                 .process = {.pidfd = -1, .channel = -1}};
    mr_timer_init(&worker->deadline, workers->loop, on_deadline, worker);
    int rc = mr_worker_launch(workers->libexec_dir, mode, lock_path, workers->inotify_fd,
                              &worker->process, err);
    if (rc == 0)
        rc = mr_loop_add(workers->loop, worker->process.pidfd, EPOLLIN, on_exit_event,
                         worker, &worker->pidfd_io, err);
    if (rc == 0)
        rc = mr_loop_add(workers->loop, worker->process.channel, EPOLLIN, on_channel,
                         worker, &worker->channel_io, err);
    if (rc < 0) {
        /* If it runs already it finds its channel closed and exits. */
        worker_free(worker);
        return rc;
    }
    mr_timer_set(&worker->deadline, deadline_ns);
    worker->next = workers->first;
    workers->first = worker;
    *ret = worker;
    return 0;
}

void mr_worker_command(struct mr_worker *worker, struct json_object *command,
                       int64_t deadline_ns)
{
    mr_timer_set(&worker->deadline, deadline_ns);
    /* A worker that cannot take one command has broken the protocol: without a channel it
     * exits. */
    if (worker->process.channel >= 0 &&
        mr_msg_send(worker->process.channel, command, -1, MSG_DONTWAIT, NULL) < 0)
        hang_up(worker);
    (void)json_object_put(command);
}
