/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests that wait: the connection is suspended, the event loop calls back, the answer
 * is made there and sent when libmicrohttpd has resumed the connection. When a client
 * goes away what it began goes on.
 *
 * There are two kinds of waits, and each has its own places: for the end of an operation,
 * as long as the client likes, and for an answer that takes a moment. So those who wait
 * for a held volume never keep anybody from asking who holds it, and from acting on that.
 */
#include <stdio.h>
#include <string.h>

#include "api/internal.h"
#include "storage/base/clock.h"

/* The engine has its own deadlines; these only bound what a bug or a dead disk could
 * cost. */
const struct mr_wait_limit mr_wait_limit_scan = {
    .ns = 60 * MR_NS_PER_S,
    .code = MR_E_INTERNAL,
    .text = "the scan for holders did not end",
};
const struct mr_wait_limit mr_wait_limit_survey = {
    .ns = 90 * MR_NS_PER_S,
    .code = MR_E_INTERNAL,
    .text = "the survey of the kernel did not end; what was asked for may still happen",
};
const struct mr_wait_limit mr_wait_limit_journal = {
    .ns = 60 * MR_NS_PER_S,
    .code = MR_E_JOURNAL_UNAVAILABLE,
    .text = "the journal did not answer; what was asked for may still happen",
};
const struct mr_wait_limit mr_wait_limit_action = {
    .ns = 90 * MR_NS_PER_S,
    .code = MR_E_WEDGED,
    .text = "the action did not end; it goes on, the volume's history tells its end",
};

const struct mr_wait_limit mr_wait_limit_discovery = {
    .ns = 180 * MR_NS_PER_S,
    .code = MR_E_INTERNAL,
    .text = "the look at the source did not end",
};

#define ACCEPTED_MAX_NS (10 * MR_NS_PER_S) /* a commit takes milliseconds */

static void suspend(struct mr_request *req, size_t *places, mr_timer_fn fn,
                    int64_t wait_ns)
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
    req->places = places;
    ++*places;
    if (!req->suspended)
        MHD_suspend_connection(req->connection);
    req->suspended = true;
}

void mr_wait_drop(struct mr_request *req)
{
    if (req->phase != MR_REQUEST_WAITING)
        return;
    if (req->watch)
        mr_watch_cancel(req->watch);
    mr_pending_cancel(req->pending);
    req->watch = NULL;
    req->pending = NULL;
    mr_io_remove(req->hangup);
    req->hangup = NULL;
    mr_timer_cancel(&req->timer);
    *req->link = req->next;
    if (req->next)
        req->next->link = req->link;
    --*req->places;
    req->phase = MR_REQUEST_READY;
}

/* The answer is made: libmicrohttpd calls the access handler again, which sends it. With
 * an external loop the resume wakes nothing, so ask for a turn; never directly, we may be
 * inside of one. */
static void resume(struct mr_request *req)
{
    mr_wait_drop(req);
    req->suspended = false;
    MHD_resume_connection(req->connection);
    mr_timer_set(&req->listener->timer, mr_now_ns());
}

/* libmicrohttpd does not look at a suspended connection, so we do: clients that are gone
 * must not use up the places. */
static void watch_hangup(struct mr_request *req, uint32_t events, mr_io_fn fn)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

    /* Without it a dead client's place is free after its wait: no reason to fail. */
    if (info)
        (void)mr_loop_add(req->api->loop, info->connect_fd, events, fn, req, &req->hangup,
                          NULL);
}

static void reply_stopping(struct mr_request *req)
{
    mr_reply_fail(req, MR_E_SHUTTING_DOWN,
                  "the agent is shutting down; what runs goes on at its next start");
}

/* --- for the end of an operation --- */

static void on_operation_end(void *ctx, struct mr_operation *op)
{
    struct mr_request *req = ctx;
    req->watch = NULL; /* freed by the engine */
    if (op)
        req->finish(req, op);
    else
        reply_stopping(req);
    resume(req);
}

static void on_accepted_timeout(void *ctx)
{
    struct mr_request *req = ctx;
    mr_reply_fail(req, MR_E_JOURNAL_UNAVAILABLE,
                  "operation '%s' runs, but is not in the journal yet: it may be lost "
                  "with the agent",
                  req->operation);
    resume(req);
}

/* "Accepted" is only said of what survives the agent. */
static bool await_accepted(struct mr_request *req, struct mr_operation *op)
{
    bool reads = strcmp(req->method, "GET") == 0 || strcmp(req->method, "HEAD") == 0;

    if (!reads && !mr_operation_is_accepted(op))
        req->watch = mr_operation_watch_accepted(op, on_operation_end, req);
    return req->watch != NULL;
}

static void on_operation_timeout(void *ctx)
{
    struct mr_request *req = ctx;
    struct mr_operation *op = mr_engine_find_operation(req->api->engine, req->operation);

    mr_watch_cancel(req->watch);
    req->watch = NULL;
    if (op && await_accepted(req, op)) {
        mr_io_remove(req->hangup); /* it would say the same again and again */
        req->hangup = NULL;
        mr_timer_cancel(&req->timer);
        mr_timer_init(&req->timer, req->api->loop, on_accepted_timeout, req);
        mr_timer_set(&req->timer, mr_now_ns() + ACCEPTED_MAX_NS);
        return;
    }
    if (op)
        req->finish(req, op);
    else
        mr_reply_fail(req, MR_E_INTERNAL, "operation '%s' vanished", req->operation);
    resume(req);
}

/* One that only closed its sending side is answered as if its wait had run out. */
static void on_operation_hangup(void *ctx, uint32_t events)
{
    (void)events;
    on_operation_timeout(ctx);
}

void mr_wait_operation(struct mr_request *req, struct mr_operation *op, int64_t wait_ns,
                       mr_finish_fn finish)
{
    size_t *places = &req->api->operation_waits;
    bool to_the_end = wait_ns > 0 && *places < MR_OPERATION_WAITS_MAX;

    (void)snprintf(req->operation, sizeof(req->operation), "%s", mr_operation_id(op));
    req->finish = finish;
    if (mr_operation_ended(op) == 0 && to_the_end)
        req->watch = mr_operation_watch(op, on_operation_end, req);
    if (req->watch) {
        suspend(req, places, on_operation_timeout, wait_ns);
        watch_hangup(req, EPOLLRDHUP, on_operation_hangup);
    } else if (await_accepted(req, op)) {
        suspend(req, places, on_accepted_timeout, ACCEPTED_MAX_NS);
    } else {
        finish(req, op);
    }
}

/* --- for an answer --- */

bool mr_wait_place(struct mr_request *req)
{
    if (req->api->answer_waits < MR_ANSWER_WAITS_MAX)
        return true;
    mr_reply_fail(req, MR_E_TOO_MANY_REQUESTS, "%d requests are waiting for an answer",
                  MR_ANSWER_WAITS_MAX);
    return false;
}

void mr_wait_on_answer(void *ctx, struct json_object *document, const struct mr_err *err)
{
    struct mr_request *req = ctx;
    req->pending = NULL; /* freed by the engine */
    if (document)
        mr_reply_json(req, MHD_HTTP_OK, json_object_get(document));
    else if (err)
        mr_reply_problem(req, err);
    else
        mr_reply_fail(req, MR_E_SHUTTING_DOWN,
                      "the agent is shutting down; what was begun may be done or not");
    resume(req);
}

void mr_wait_go_on(struct mr_request *req, void (*next)(struct mr_request *req))
{
    req->pending = NULL;
    mr_wait_drop(req); /* still suspended, in no place */
    next(req);
    if (req->phase != MR_REQUEST_WAITING)
        resume(req);
}

static void on_answer_timeout(void *ctx)
{
    struct mr_request *req = ctx;
    mr_reply_fail(req, req->limit->code, "%s", req->limit->text);
    resume(req);
}

/* Nobody is there to be answered: without a reply the connection is closed. */
static void on_answer_hangup(void *ctx, uint32_t events)
{
    (void)events;
    resume(ctx);
}

void mr_wait_answer(struct mr_request *req, struct mr_pending *pending,
                    const struct mr_err *err, const struct mr_wait_limit *limit)
{
    if (!pending) {
        mr_reply_problem(req, err);
        return;
    }
    req->pending = pending;
    req->limit = limit;
    suspend(req, &req->api->answer_waits, on_answer_timeout, limit->ns);
    /* EPOLLHUP and EPOLLERR always come. They do not for a client that only closed its
     * sending side, which shall have its answer, nor for one behind TCP that closed both:
     * that looks the same. */
    watch_hangup(req, 0, on_answer_hangup);
}

void mr_wait_stop_all(struct mr_api *api)
{
    while (api->waiting) {
        struct mr_request *req = api->waiting;
        reply_stopping(req);
        mr_reply_header(req, "Connection", "close");
        resume(req);
    }
}
