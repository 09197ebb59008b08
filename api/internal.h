/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of api/ share: the server object and one request. A request is made when
 * its request line was read, answered once, and freed when libmicrohttpd is done with it.
 */
#ifndef MR_API_INTERNAL_H
#define MR_API_INTERNAL_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/cache.h"
#include "api/framing.h"
#include "api/route.h"
#include "api/server.h"
#include "storage/base/cleanup.h"
#include "storage/base/loop.h"

/* Per listener. */
#define MR_CONNECTIONS_MAX 512
#define MR_CONNECTION_TIMEOUT_S 30
#define MR_CONNECTION_MEMORY_BYTES (32 * 1024)
/* Requests that may wait at the same time, so that they never use up the connections: for
 * operations (the next ones are answered at once, with 202), and for answers (the next
 * ones are refused, with 503). */
#define MR_OPERATION_WAITS_MAX 384
#define MR_ANSWER_WAITS_MAX 64

#define MR_BODY_MAX_BYTES ((size_t)64 * 1024)
/* A chunked body can't be refused in the middle: it is discarded up to here, then the
 * connection dies. */
#define MR_BODY_DISCARD_MAX_BYTES ((size_t)1024 * 1024)

#define MR_OPERATION_ID_MAX 64

struct mr_listener {
    struct mr_api *api;
    struct mr_listener *next;
    struct MHD_Daemon *daemon;
    struct mr_io *io;
    struct mr_timer timer; /* libmicrohttpd's own deadlines */
    bool tcp;
};

struct mr_api {
    struct mr_loop *loop;
    struct mr_engine *engine;
    const struct mr_config *config;
    struct mr_listener *listeners;
    struct mr_request *waiting; /* suspended requests, in any order */
    size_t operation_waits;
    size_t answer_waits;
    bool stopping;
    char epoch[17]; /* random per start: generations of the engine are counted from there
                     */
    struct mr_cache cache;
};

enum mr_request_phase {
    MR_REQUEST_NEW = 0, /* headers not looked at yet */
    MR_REQUEST_BODY,    /* reading the body, if there is one */
    MR_REQUEST_WAITING, /* suspended */
    MR_REQUEST_READY,   /* `reply` is what gets sent */
};

struct mr_field;

/* Answers with the state of op (running, done or failed) by mr_reply_*(). */
struct mr_request;
typedef void (*mr_finish_fn)(struct mr_request *req, struct mr_operation *op);

/* How long an answer may take, and what is said when it took longer. */
struct mr_wait_limit {
    int64_t ns;
    enum mr_code code;
    const char *text;
};

struct mr_request {
    struct mr_api *api;
    struct mr_listener *listener;
    struct MHD_Connection *connection;
    enum mr_request_phase phase;
    int64_t started_ns;
    const char *method;
    const struct mr_route *route; /* NULL until routed */
    const char *prefix;           /* "/v1" or "" */
    struct mr_headers headers;    /* borrowed from the connection */
    char *param;                  /* decoded {id} or {op}; "" when the pattern has none */
    char *query[MR_QUERY_MAX];    /* decoded values in the order of route->query, NULL:
                                     absent */
    char *body;                   /* NUL-terminated */
    size_t body_bytes;            /* also counts what was over the limit and discarded */

    struct MHD_Response *reply; /* owned, unless cached */
    bool reply_cached;
    unsigned status;
    const char *code; /* problem code for the log, or NULL */
    char operation[MR_OPERATION_ID_MAX];

    /* While MR_REQUEST_WAITING. */
    struct mr_request *next, **link;
    struct mr_timer timer;
    size_t *places; /* the counter that it is in */
    struct mr_io *hangup;
    struct mr_watch *watch; /* for an operation */
    mr_finish_fn finish;
    struct mr_pending *pending; /* for an answer */
    const struct mr_wait_limit *limit;

    bool suspended;      /* in libmicrohttpd */
    uintptr_t target_at; /* where libmicrohttpd keeps the target, see framing.h */
    char target[];       /* raw, as sent */
};

/* request.c: the callbacks of libmicrohttpd; cls is the listener. */
void *mr_request_begin(void *cls, const char *target, struct MHD_Connection *connection);
enum MHD_Result mr_request_handle(void *cls, struct MHD_Connection *connection,
                                  const char *url, const char *method,
                                  const char *version, const char *upload,
                                  size_t *upload_bytes, void **request);
void mr_request_end(void *cls, struct MHD_Connection *connection, void **request,
                    enum MHD_RequestTerminationCode why);

/* reply.c: sets the answer, replacing an earlier one. Out of memory leaves none, which
 * closes the connection. `json` is taken. */
void mr_reply(struct mr_request *req, unsigned status, struct MHD_Response *response);
/* The same with a response that the cache owns: sent before control goes back to the
 * loop. */
void mr_reply_cached(struct mr_request *req, unsigned status,
                     struct MHD_Response *response);
void mr_reply_drop(struct mr_request *req);
void mr_reply_json(struct mr_request *req, unsigned status, struct json_object *json);
void mr_reply_problem(struct mr_request *req, const struct mr_err *err);
void mr_reply_fail(struct mr_request *req, enum mr_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* No volume or operation `param`: 404, or 503 as long as recovery may still find it. */
void mr_reply_absent(struct mr_request *req, enum mr_code code);
/* A refusal of a request that takes Prefer. */
void mr_reply_refused(struct mr_request *req, const struct mr_err *err);
/* False and a reply when query parameter `accept_data_loss` is neither true nor false. */
bool mr_reply_accept_valid(struct mr_request *req, bool *ret_accept);
/* False and a reply when `param` is no volume id. */
bool mr_reply_id_valid(struct mr_request *req);
void mr_reply_header(struct mr_request *req, const char *name, const char *value);
/* `Vary: Prefer`, and Preference-Applied for what the client asked. */
void mr_reply_prefer(struct mr_request *req);
/* A response owning one reference, or NULL. json is borrowed. */
struct MHD_Response *mr_response_json(struct json_object *json, const char *content_type);

/* wait.c: answers by finish() when op has ended or after wait_ns, whichever is first. */
void mr_wait_operation(struct mr_request *req, struct mr_operation *op, int64_t wait_ns,
                       mr_finish_fn finish);
/* Before asking the engine for an answer that takes a while: false and a reply when too
 * many wait already. */
bool mr_wait_place(struct mr_request *req);
/* Answers with what comes on pending, which was made with mr_wait_on_answer() and req; or
 * at once with *err when it is NULL. limit is borrowed for ever. */
void mr_wait_answer(struct mr_request *req, struct mr_pending *pending,
                    const struct mr_err *err, const struct mr_wait_limit *limit);
void mr_wait_on_answer(void *ctx, struct json_object *document, const struct mr_err *err);
/* For a request that needs more than one wait, in the place of mr_wait_on_answer(): the
 * answer was good, next() replies or waits again. */
void mr_wait_go_on(struct mr_request *req, void (*next)(struct mr_request *req));
extern const struct mr_wait_limit mr_wait_limit_scan;
extern const struct mr_wait_limit mr_wait_limit_survey;
extern const struct mr_wait_limit mr_wait_limit_journal;
extern const struct mr_wait_limit mr_wait_limit_action;
extern const struct mr_wait_limit mr_wait_limit_discovery;
void mr_wait_stop_all(struct mr_api *api);
/* Forgets what the request waits for; nothing is resumed. */
void mr_wait_drop(struct mr_request *req);

/* operations.c: a mr_finish_fn for whoever starts operations: 202 with the volume while
 * it runs, then the volume or the proof of release, or why it failed. */
void mr_finish_volume(struct mr_request *req, struct mr_operation *op);

/* discovery.c: query parameter `dry_run`. False and a reply when it is neither true nor
 * false. */
bool mr_dry_run_valid(struct mr_request *req, bool *ret_dry_run);
/* Answers with what an attach would meet. Takes spec. */
void mr_dry_run(struct mr_request *req, struct mr_spec *spec);

/* page.c: query parameter `limit`. False and a reply when it is wrong. */
bool mr_page_limit(struct mr_request *req, unsigned fallback, unsigned max,
                   unsigned *ret);
struct mr_page {
    const char *after; /* the last id of the page before, NULL: from the start */
    unsigned limit;
};
/* Query parameters `limit` and `page_token` of a list that is sorted by id. False and a
 * reply when one is wrong. */
bool mr_page_read(struct mr_request *req, struct mr_page *ret);
/* Answers with one page of all volumes. */
void mr_page_volumes(struct mr_request *req, const struct mr_page *page);
/* {items, next_page_token} of a list (borrowed) that is there as a whole, sorted by id.
 * New reference, NULL when out of memory or when it is no list. */
struct json_object *mr_page_cut(const struct mr_page *page, struct json_object *list);

/* caller.c: who sent the request, as the journal keeps it: {"via": "unix", "uid", "gid",
 * "pid"} (of the process that connected; null where it cannot be seen) or {"via": "tcp",
 * "address": "127.0.0.1:5555"}. New reference, NULL when out of memory. */
struct json_object *mr_caller(const struct mr_request *req);

/* json_body.c: the body as JSON, or NULL with *err. New reference. */
struct json_object *mr_json_body(const char *body, size_t bytes, struct mr_err *err);
/* The body of the request by the table of its fields: a new reference, or NULL with *err.
 * No body is {} where the route takes one but needs none. */
struct json_object *mr_body_decode(const struct mr_request *req,
                                   const struct mr_field *fields, struct mr_err *err);

#endif
