/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/scanner.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/base/spawn.h"
#include "storage/protocol.h"
#include "storage/workers.h"

#define MR_SCAN_DEADLINE_MS 8000LL
#define MR_SCAN_ABANDON_NS (10 * MR_NS_PER_S)
#define MR_SCAN_STUCK_MAX                                                                \
    4 /* abandoned processes; with that many more, scanning makes it worse */

struct mr_scan_request {
    struct mr_scanner *scanner;
    struct mr_scan_request *next;
    struct json_object *target;
    struct json_object *holders; /* the answer, once it is there */
    bool complete;
    bool in_scan; /* part of the running scan */
    mr_scan_fn fn;
    void *ctx;
};

struct mr_scan_process {
    struct mr_scanner *scanner;
    bool done; /* answered or abandoned: only to be reaped */
    struct mr_worker_process process;
    struct mr_io *pidfd_io;
    struct mr_io *channel_io;
    struct mr_scan_process *next;
};

struct mr_scanner {
    struct mr_loop *loop;
    const char *libexec_dir;
    int fanotify_fd; /* -1 none */
    struct mr_scan_request *requests;
    struct mr_scan_process *running;
    struct mr_scan_process *processes; /* running and abandoned ones */
    struct mr_timer start;             /* 0 ms: all wishes of this turn join */
    struct mr_timer deadline;
};

static void request_free(struct mr_scan_request *request)
{
    (void)json_object_put(request->target);
    (void)json_object_put(request->holders);
    free(request);
}

void mr_scanner_cancel(struct mr_scan_request *request)
{
    if (!request)
        return;
    for (struct mr_scan_request **at = &request->scanner->requests; *at;
         at = &(*at)->next) {
        if (*at == request) {
            *at = request->next;
            break;
        }
    }
    request_free(request);
}

/* Answers and frees every request of the scan that ended. err NULL: those with rows
 * succeed. */
static void finish(struct mr_scanner *scanner, const struct mr_err *err)
{
    struct mr_err missing;
    (void)mr_fail(&missing, MR_E_INTERNAL, 0,
                  "the holder scan gave no answer for this volume");

    scanner->running = NULL;
    mr_timer_cancel(&scanner->deadline);
    for (;;) {
        struct mr_scan_request **at = &scanner->requests;
        while (*at && !(*at)->in_scan)
            at = &(*at)->next;
        struct mr_scan_request *request = *at;
        if (!request)
            break;
        *at = request->next;
        mr_scan_fn fn = request->fn;
        void *ctx = request->ctx;
        MR_AUTO_JSON struct json_object *holders = mr_take_ptr(request->holders);
        bool complete = request->complete;
        request_free(request);
        fn(ctx, holders, complete, holders ? NULL : err ? err : &missing);
    }
    if (scanner->requests)
        mr_timer_set(&scanner->start, 0);
}

static void process_free(struct mr_scan_process *process)
{
    mr_io_remove(process->channel_io);
    mr_io_remove(process->pidfd_io);
    mr_close(&process->process.channel);
    mr_close(&process->process.pidfd);
    free(process);
}

/* True when this was the last message. */
static bool take_message(struct mr_scanner *scanner, struct json_object *message)
{
    const char *volume = mr_json_get_string(message, "scan");
    struct json_object *rows = mr_json_get(message, "holders");

    if (!volume)
        return true;
    if (!json_object_is_type(rows, json_type_array))
        return false;
    for (struct mr_scan_request *r = scanner->requests; r; r = r->next) {
        if (!r->in_scan || r->holders ||
            strcmp(mr_json_get_string(r->target, "volume"), volume) != 0)
            continue;
        r->holders = json_object_get(rows);
        r->complete = mr_json_get_bool(message, "complete", false);
    }
    return false;
}

static void on_channel(void *ctx, uint32_t events)
{
    struct mr_scan_process *process = ctx;
    struct mr_err err;
    bool last = false;
    int rc;

    (void)events;
    do {
        MR_AUTO_JSON struct json_object *message = NULL;
        rc = mr_msg_recv(process->process.channel, &message, NULL, MSG_DONTWAIT, &err);
        if (rc > 0)
            last = take_message(process->scanner, message);
    } while (rc > 0 && !last);
    if (rc == -EAGAIN)
        return;
    process->done = true;
    mr_io_remove(process->channel_io);
    process->channel_io = NULL;
    if (rc == 0)
        (void)mr_fail(&err, MR_E_INTERNAL, 0, "the holder scan ended early");
    finish(process->scanner, last ? NULL : &err);
}

static void on_exit_event(void *ctx, uint32_t events)
{
    struct mr_scan_process *process = ctx;

    if (!process->done)
        on_channel(process, events); /* what is left, then end of file */
    if (waitpid(process->process.pid, NULL, WNOHANG) == 0)
        return;
    for (struct mr_scan_process **at = &process->scanner->processes; *at;
         at = &(*at)->next) {
        if (*at == process) {
            *at = process->next;
            break;
        }
    }
    process_free(process);
}

/* Stuck in the kernel although it takes care: kill it (it dies when it can) and go on
 * without it. */
static void on_deadline(void *ctx)
{
    struct mr_scanner *scanner = ctx;
    struct mr_scan_process *process = scanner->running;
    struct mr_err err;

    (void)kill(process->process.pid, SIGKILL);
    process->done = true;
    mr_io_remove(process->channel_io);
    process->channel_io = NULL;
    (void)mr_fail(&err, MR_E_INTERNAL, ETIMEDOUT, "the holder scan did not answer");
    finish(scanner, &err);
}

static int launch(struct mr_scanner *scanner, struct mr_scan_process *process,
                  struct mr_err *err)
{
    int rc = mr_worker_launch(scanner->libexec_dir, "scan", NULL, scanner->fanotify_fd,
                              &process->process, err);
    if (rc == 0)
        rc = mr_loop_add(scanner->loop, process->process.pidfd, EPOLLIN, on_exit_event,
                         process, &process->pidfd_io, err);
    if (rc == 0)
        rc = mr_loop_add(scanner->loop, process->process.channel, EPOLLIN, on_channel,
                         process, &process->channel_io, err);
    return rc;
}

static bool asked_before(const struct mr_scan_request *first,
                         const struct mr_scan_request *r)
{
    const char *volume = mr_json_get_string(r->target, "volume");

    for (; first != r; first = first->next)
        if (strcmp(mr_json_get_string(first->target, "volume"), volume) == 0)
            return true;
    return false;
}

/* As many targets as fit into one message; the others wait for the next scan. */
static struct json_object *scan_command(struct mr_scanner *scanner)
{
    struct json_object *command = json_object_new_object();
    struct json_object *targets = json_object_new_array();
    size_t bytes = 0;

    mr_json_set_string(command, "cmd", "scan");
    mr_json_set_int(command, "deadline_ms", MR_SCAN_DEADLINE_MS);
    for (struct mr_scan_request *r = scanner->requests; r; r = r->next) {
        bytes +=
            strlen(json_object_to_json_string_ext(r->target, JSON_C_TO_STRING_PLAIN));
        if (bytes > MR_MSG_MAX / 2 && r != scanner->requests)
            break;
        r->in_scan = true;
        if (!asked_before(scanner->requests, r))
            (void)json_object_array_add(targets, json_object_get(r->target));
    }
    mr_json_set(command, "targets", targets);
    return command;
}

static unsigned count_processes(const struct mr_scanner *scanner)
{
    unsigned count = 0;
    for (const struct mr_scan_process *p = scanner->processes; p; p = p->next)
        count++;
    return count;
}

static void on_start(void *ctx)
{
    struct mr_scanner *scanner = ctx;
    struct mr_err err;

    if (scanner->running || !scanner->requests)
        return;
    MR_AUTO_JSON struct json_object *command = scan_command(scanner);
    bool stuck = count_processes(scanner) >= MR_SCAN_STUCK_MAX;
    struct mr_scan_process *process = stuck ? NULL : calloc(1, sizeof(*process));
    if (!process) {
        (void)mr_fail(&err, MR_E_INTERNAL, stuck ? EBUSY : ENOMEM, "start a holder scan");
        finish(scanner, &err);
        return;
    }
    *process = (struct mr_scan_process){.scanner = scanner,
                                        .process = {.pidfd = -1, .channel = -1}};
    if (launch(scanner, process, &err) < 0) {
        process_free(process);
        finish(scanner, &err);
        return;
    }
    process->next = scanner->processes;
    scanner->processes = process;
    scanner->running = process;
    mr_timer_set(&scanner->deadline, mr_now_ns() + MR_SCAN_ABANDON_NS);
    if (mr_msg_send(process->process.channel, command, -1, MSG_DONTWAIT, NULL) < 0)
        on_deadline(scanner);
}

int mr_scanner_new(struct mr_loop *loop, const char *libexec_dir, int fanotify_fd,
                   struct mr_scanner **ret, struct mr_err *err)
{
    struct mr_scanner *scanner = calloc(1, sizeof(*scanner));
    if (!scanner)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "create the scanner");
    scanner->loop = loop;
    scanner->libexec_dir = libexec_dir;
    scanner->fanotify_fd = fanotify_fd;
    mr_timer_init(&scanner->start, loop, on_start, scanner);
    mr_timer_init(&scanner->deadline, loop, on_deadline, scanner);
    *ret = scanner;
    return 0;
}

void mr_scanner_free(struct mr_scanner *scanner)
{
    if (!scanner)
        return;
    mr_timer_cancel(&scanner->start);
    mr_timer_cancel(&scanner->deadline);
    while (scanner->requests)
        mr_scanner_cancel(scanner->requests);
    while (scanner->processes) {
        struct mr_scan_process *process = scanner->processes;
        scanner->processes = process->next;
        process_free(process); /* without a channel it ends by itself */
    }
    free(scanner);
}

struct mr_scan_request *mr_scanner_request(struct mr_scanner *scanner,
                                           struct json_object *target, mr_scan_fn fn,
                                           void *ctx)
{
    struct mr_scan_request *request = calloc(1, sizeof(*request));
    if (!request) {
        (void)json_object_put(target);
        return NULL;
    }
    *request = (struct mr_scan_request){.scanner = scanner,
                                        .next = scanner->requests,
                                        .target = target,
                                        .fn = fn,
                                        .ctx = ctx};
    scanner->requests = request;
    if (!scanner->running)
        mr_timer_set(&scanner->start, 0);
    return request;
}
