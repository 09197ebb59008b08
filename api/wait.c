/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests that wait: the connection is suspended, the event loop calls back, the answer
 * is made there and sent when libmicrohttpd has resumed the connection.
 * When a client goes away its operation goes on.
 */
#include <stdio.h>
#include <string.h>

#include "api/internal.h"
#include "storage/base/clock.h"

/* The scanner has its own deadline; this only bounds what a bug could cost. */
#define SCAN_WAIT_MAX_NS (60 * MR_NS_PER_S)

static void suspend(struct mr_request *req, mr_timer_fn fn, int64_t wait_ns)
{
    struct mr_api *api = req->api;

    mr_timer_init(&req->timer, api->loop, fn, req);
    mr_timer_set(&req->timer, mr_now_ns() + wait_ns);
    req->phase = MR_REQUEST_WAITING;
    req->next = api->waiting;
    req->link = &api->waiting;
    if (req->next)
        req->next->link = &req->next;
    api->waiting = req;
    api->waiting_count++;
    MHD_suspend_connection(req->connection);
}

void mr_wait_drop(struct mr_request *req)
{
    if (req->phase != MR_REQUEST_WAITING)
        return;
    if (req->watch)
        mr_watch_cancel(req->watch);
    if (req->scan)
        mr_scan_wait_cancel(req->scan);
    req->watch = NULL;
    req->scan = NULL;
    mr_io_remove(req->hangup);
    req->hangup = NULL;
    mr_timer_cancel(&req->timer);
    *req->link = req->next;
    if (req->next)
        req->next->link = req->link;
    req->api->waiting_count--;
    req->phase = MR_REQUEST_READY;
}

/* The answer is made: libmicrohttpd calls the access handler again, which sends it. With
 * an external loop the resume wakes nothing, so ask for a turn; never directly, we may be
 * inside of one. */
static void resume(struct mr_request *req)
{
    mr_wait_drop(req);
    MHD_resume_connection(req->connection);
    mr_timer_set(&req->listener->timer, mr_now_ns());
}

static void finish_with(struct mr_request *req, struct mr_operation *op)
{
    if (op)
        req->finish(req, op);
    else
        mr_reply_fail(req, MR_E_SHUTTING_DOWN,
                      "the agent is shutting down; what runs goes on at its next start");
}

static void on_operation_end(void *ctx, struct mr_operation *op)
{
    struct mr_request *req = ctx;
    req->watch = NULL; /* freed by the engine */
    finish_with(req, op);
    resume(req);
}

static void on_operation_timeout(void *ctx)
{
    struct mr_request *req = ctx;
    struct mr_operation *op = mr_engine_find_operation(req->api->engine, req->operation);

    if (op)
        req->finish(req, op);
    else
        mr_reply_fail(req, MR_E_INTERNAL, "operation '%s' vanished", req->operation);
    resume(req);
}

/* libmicrohttpd does not look at a suspended connection, so we do: clients that are gone
 * must not use up the places for waiters. One that only closed its sending side is
 * answered as if its wait had run out. */
static void on_hangup(void *ctx, uint32_t events)
{
    (void)events;
    on_operation_timeout(ctx);
}

static void watch_hangup(struct mr_request *req)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

    /* Without it a dead client's place is free after its wait: no reason to fail. */
    if (info)
        (void)mr_loop_add(req->api->loop, info->connect_fd, EPOLLRDHUP, on_hangup, req,
                          &req->hangup, NULL);
}

void mr_wait_operation(struct mr_request *req, struct mr_operation *op, int64_t wait_ns,
                       mr_finish_fn finish)
{
    (void)snprintf(req->operation, sizeof(req->operation), "%s", mr_operation_id(op));
    if (mr_operation_ended(op) == 0 && wait_ns > 0 &&
        req->api->waiting_count < MR_WAITERS_MAX)
        req->watch = mr_operation_watch(op, on_operation_end, req);
    if (!req->watch) {
        finish(req, op);
        return;
    }
    req->finish = finish;
    suspend(req, on_operation_timeout, wait_ns);
    watch_hangup(req);
}

static void on_holders(void *ctx, struct json_object *document, const struct mr_err *err)
{
    struct mr_request *req = ctx;
    req->scan = NULL; /* freed by the engine */
    if (document)
        mr_reply_json(req, MHD_HTTP_OK, json_object_get(document));
    else if (err)
        mr_reply_problem(req, err);
    else
        mr_reply_fail(req, MR_E_SHUTTING_DOWN, "the agent is shutting down");
    resume(req);
}

static void on_scan_timeout(void *ctx)
{
    struct mr_request *req = ctx;
    mr_reply_fail(req, MR_E_INTERNAL, "the scan for holders did not end");
    resume(req);
}

void mr_wait_holders(struct mr_request *req, struct mr_volume *volume)
{
    if (req->api->waiting_count < MR_WAITERS_MAX)
        req->scan = mr_engine_holders(req->api->engine, volume, on_holders, req);
    if (req->scan)
        suspend(req, on_scan_timeout, SCAN_WAIT_MAX_NS);
    else
        mr_reply_fail(req, MR_E_INTERNAL,
                      "too many requests are waiting, or out of memory");
}

void mr_wait_stop_all(struct mr_api *api)
{
    while (api->waiting) {
        struct mr_request *req = api->waiting;
        finish_with(req, NULL);
        mr_reply_header(req, "Connection", "close");
        resume(req);
    }
}
