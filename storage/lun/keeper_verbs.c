/* SPDX-License-Identifier: Apache-2.0
 *
 * What the keeper is told at its control socket. Most of it is an order to the server. */
#include "storage/lun/keeper.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/json.h"
#include "storage/lun/fuse_abort.h"
#include "storage/lun/status.h"

#define CUT_MS 500 /* a server that does not take this order is stuck or stopped */
#define FAIL_NOW_MS 3000
#define FENCE_MS 10000
#define RESIZE_MS 30000
#define HAND_OVER_MS 60000

static struct mr_lun_status about(const struct mr_keeper *k)
{
    enum mr_lun_server server = MR_LUN_SERVER_RUNS;

    if (k->server.pid == 0 || !k->server.ready)
        server = MR_LUN_SERVER_RESTARTS;
    else if (k->server.stopped)
        server = MR_LUN_SERVER_STOPPED;
    return (struct mr_lun_status){
        .start = &k->start,
        .page = k->page,
        .server = server,
        .server_wall_ms = k->server_wall_ms,
        .server_pid = k->server.pid,
        .server_start_time = k->server.pid ? k->server.start_time : 0,
        .server_end = k->server_end,
        .on_trial = k->server.pid != 0 && k->server.on_trial,
        .fuse_connection = k->connection,
    };
}

struct json_object *mr_keeper_status(const struct mr_keeper *k)
{
    const struct mr_lun_status from = about(k);

    return mr_lun_status(&from);
}

static struct json_object *stats(const struct mr_keeper *k)
{
    const struct mr_lun_status from = about(k);

    return mr_lun_stats(&from);
}

struct json_object *mr_keeper_refuse(const struct mr_keeper *k, int errnum,
                                     const char *why)
{
    struct mr_err err;

    (void)mr_fail(&err, errnum == EINVAL ? MR_E_INVALID_REQUEST : MR_E_DEVICE_ERROR,
                  errnum, "%s", why);
    return mr_control_error(k->start.token, &err);
}

static void order(struct mr_keeper *k, unsigned bits)
{
    const uint64_t one = 1;

    (void)atomic_fetch_or(&k->page->orders, bits);
    /* EAGAIN: it was told so 2^64 - 1 times and is told still. */
    (void)!write(k->order_fd, &one, sizeof(one));
}

/* --- the verbs --- */

typedef struct json_object *(*verb_fn)(struct mr_keeper *k,
                                       struct mr_control_client *client,
                                       struct json_object *request);

static struct json_object *do_status(struct mr_keeper *k,
                                     struct mr_control_client *client,
                                     struct json_object *request)
{
    (void)client;
    (void)request;
    return mr_keeper_status(k);
}

static struct json_object *do_stats(struct mr_keeper *k, struct mr_control_client *client,
                                    struct json_object *request)
{
    (void)client;
    (void)request;
    return stats(k);
}

static struct json_object *do_watch(struct mr_keeper *k, struct mr_control_client *client,
                                    struct json_object *request)
{
    (void)request;
    mr_control_watch(&k->control, client);
    return mr_keeper_status(k);
}

static struct json_object *do_cut(struct mr_keeper *k, struct mr_control_client *client,
                                  struct json_object *request)
{
    (void)request;
    if (atomic_load(&k->page->state) == MR_LINK_CUT)
        return mr_keeper_status(k);
    order(k, MR_ORDER_CUT);
    return mr_keeper_later(client, MR_KEEPER_WAIT_CUT, 0, CUT_MS);
}

/* A server that was stopped gives way to one that takes the order, and is given what that
 * one had read. */
static struct json_object *do_fail_now(struct mr_keeper *k,
                                       struct mr_control_client *client,
                                       struct json_object *request)
{
    (void)request;
    const unsigned seen = atomic_load(&k->page->failed);
    order(k, MR_ORDER_FAIL_NOW);
    if (k->server.stopped && atomic_load(&k->page->can_resend))
        (void)pidfd_send_signal(k->server.pidfd, SIGKILL, NULL, 0); /* its end is seen */
    return mr_keeper_later(client, MR_KEEPER_WAIT_FAIL_NOW, seen, FAIL_NOW_MS);
}

static struct json_object *do_resize(struct mr_keeper *k,
                                     struct mr_control_client *client,
                                     struct json_object *request)
{
    (void)request;
    const unsigned seen = atomic_load(&k->page->resized);
    order(k, MR_ORDER_RESIZE);
    return mr_keeper_later(client, MR_KEEPER_WAIT_RESIZE, seen, RESIZE_MS);
}

/* Answered with a status when keys and reservation were read again. When they cannot be,
 * at once, because there is no session, or because the target does not answer: with an
 * error that has "fencing" and "transport" of the status, what is known and why it is no
 * more than that. */
static struct json_object *do_fence(struct mr_keeper *k, struct mr_control_client *client,
                                    struct json_object *request)
{
    (void)request;
    if (!k->start.reserve)
        return mr_keeper_refuse(k, EINVAL, "this LUN is attached without fencing");
    const unsigned seen = atomic_load(&k->page->looked);
    order(k, MR_ORDER_FENCE);
    return mr_keeper_later(client, MR_KEEPER_WAIT_FENCE, seen, FENCE_MS);
}

static struct json_object *do_set_timeouts(struct mr_keeper *k,
                                           struct mr_control_client *client,
                                           struct json_object *request)
{
    int64_t timeout_ms = atomic_load(&k->page->timeout_ms);
    int64_t replacement_ms = atomic_load(&k->page->replacement_ms);

    (void)client;
    if (mr_json_get(request, "timeout_ms"))
        timeout_ms = mr_json_get_int(request, "timeout_ms", 0);
    if (mr_json_get(request, "replacement_ms"))
        replacement_ms = mr_json_get_int(request, "replacement_ms", INT64_MIN);
    if (timeout_ms < MR_LUN_TIMEOUT_MIN_MS || timeout_ms > MR_LUN_TIMEOUT_MAX_MS ||
        replacement_ms < -1 || replacement_ms > MR_LUN_REPLACEMENT_MAX_MS)
        return mr_keeper_refuse(k, EINVAL,
                                "timeout_ms or replacement_ms is out of range");
    atomic_store(&k->page->timeout_ms, timeout_ms);
    atomic_store(&k->page->replacement_ms, replacement_ms);
    order(k, MR_ORDER_TIMEOUTS);
    return mr_keeper_status(k);
}

/* Somebody else's program would be exchanged below him, and he be told that it serves. */
static bool another_hands_over(const struct mr_keeper *k,
                               const struct mr_control_client *client)
{
    for (size_t i = 0; i < MR_CONTROL_SLOTS; i++) {
        const struct mr_control_client *other = &k->control.clients[i];

        if (other != client && other->fd >= 0 &&
            other->wait.what == MR_KEEPER_WAIT_HAND_OVER)
            return true;
    }
    return false;
}

static struct json_object *do_hand_over(struct mr_keeper *k,
                                        struct mr_control_client *client,
                                        struct json_object *request)
{
    const char *program = mr_json_get_string(request, "program");
    MR_AUTO_CLOSE int fd = -1;

    /* trial_fd is what its server was started from: see mr_keeper_check_trial(). */
    if (k->server.pid != 0 && k->server.on_trial)
        return mr_keeper_refuse(
            k, EBUSY, "the program of another hand-over has yet to show that it works");
    if (another_hands_over(k, client))
        return mr_keeper_refuse(k, EBUSY, "another hand-over is under way");
    if (mr_json_get(request, "program")) {
        if (!program || program[0] != '/')
            return mr_keeper_refuse(k, EINVAL, "program is no absolute path");
        fd = mr_keeper_program(program);
        if (fd < 0)
            return mr_keeper_refuse(k, -fd, "program cannot be opened");
    }
    mr_close(&k->trial_fd);
    k->trial_fd = mr_take_fd(&fd);
    k->trial_failed = false;
    order(k, MR_ORDER_HAND_OVER);
    return mr_keeper_later(client, MR_KEEPER_WAIT_HAND_OVER, k->server.pid, HAND_OVER_MS);
}

/* With nobody who has the file open nothing can be lost: the server finds the connection
 * aborted, logs out and ends, and so do we. */
static struct json_object *do_stop(struct mr_keeper *k, struct mr_control_client *client,
                                   struct json_object *request)
{
    (void)client;
    (void)request;
    if (atomic_load(&k->page->opens) > 0)
        return mr_keeper_refuse(k, EBUSY, "the file is open");
    if (k->abort_fd < 0 || mr_fuse_abort(k->abort_fd) < 0)
        return mr_keeper_refuse(k, ENOTSUP, "the FUSE connection has no abort file");
    return mr_keeper_status(k);
}

static struct json_object *do_abort(struct mr_keeper *k, struct mr_control_client *client,
                                    struct json_object *request)
{
    struct json_object *json;

    (void)client;
    (void)request;
    mr_keeper_abort(k);
    json = mr_keeper_status(k);
    mr_json_set_bool(json, "aborted", true);
    return json;
}

static const struct {
    const char *name;
    verb_fn fn;
    int64_t since; /* version of the protocol */
} verbs[] = {
    {"status", do_status, 1},
    {"cut", do_cut, 1},
    {"stats", do_stats, 3},
    {"watch", do_watch, 3},
    {"resize", do_resize, 3},
    {"fail-now", do_fail_now, 3},
    {"set-timeouts", do_set_timeouts, 3},
    {"hand-over", do_hand_over, 3},
    {"fence", do_fence, 3},
    {"stop", do_stop, 3},
    {"abort", do_abort, 3},
};

struct json_object *mr_keeper_answer(void *ctx, struct mr_control_client *client,
                                     struct json_object *request)
{
    struct mr_keeper *k = ctx;
    const char *cmd = mr_json_get_string(request, "cmd");
    struct json_object *refusal = mr_control_refuse(request, k->start.token);

    if (refusal)
        return refusal;
    for (size_t i = 0; cmd && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(cmd, verbs[i].name) == 0 &&
            mr_json_get_int(request, "version", 1) >= verbs[i].since)
            return verbs[i].fn(k, client, request);
    }
    return mr_keeper_refuse(k, EINVAL, "unknown command");
}
