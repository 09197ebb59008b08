/* SPDX-License-Identifier: Apache-2.0
 *
 * One request from its first line to its answer. Everything that can be refused by the
 * head of the request is refused before its body is read; such an answer ends the
 * connection.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/internal.h"
#include "storage/base/clock.h"
#include "storage/base/log.h"

void *mr_request_begin(void *cls, const char *target, struct MHD_Connection *connection)
{
    struct mr_listener *listener = cls;
    size_t bytes = target ? strlen(target) : 0;
    /* The raw target, its NUL, and the scratch of mr_route_find(). */
    struct mr_request *req = malloc(sizeof(*req) + 2 * bytes + 3);

    if (!req)
        return NULL;
    *req = (struct mr_request){
        .api = listener->api,
        .listener = listener,
        .connection = connection,
        .started_ns = mr_now_ns(),
        .prefix = "",
        .target_at = (uintptr_t)target,
    };
    if (bytes)
        memcpy(req->target, target, bytes);
    req->target[bytes] = '\0';
    req->param = req->target + bytes; /* "" */
    return req;
}

/* It may hold CHAP secrets. */
static void drop_body(struct mr_request *req)
{
    if (req->body)
        explicit_bzero(req->body, req->body_bytes < MR_BODY_MAX_BYTES
                                      ? req->body_bytes
                                      : MR_BODY_MAX_BYTES);
    free(req->body);
    req->body = NULL;
}

void mr_request_end(void *cls, struct MHD_Connection *connection, void **request,
                    enum MHD_RequestTerminationCode why)
{
    struct mr_request *req = *request;
    (void)cls;
    (void)connection;
    (void)why;

    *request = NULL;
    if (!req)
        return;
    mr_wait_drop(req);
    mr_reply_drop(req);
    drop_body(req);
    free(req);
}

static void log_request(const struct mr_request *req)
{
    int64_t us = (mr_now_ns() - req->started_ns) / 1000;
    bool named = req->route && mr_volume_id_valid(req->param);

    mr_log(MR_LOG_INFO,
           "method=%.16s route=%s%s id=%s operation=%s status=%u code=%s ms=%lld.%03lld",
           req->method, req->route ? req->prefix : "",
           req->route ? req->route->pattern : "-", named ? req->param : "-",
           req->operation[0] ? req->operation : "-", req->status,
           req->code ? req->code : "-", (long long)(us / 1000), (long long)(us % 1000));
}

static enum MHD_Result send_reply(struct mr_request *req)
{
    log_request(req);
    if (!req->reply)
        return MHD_NO; /* the client is gone, or out of memory: closes the connection */
    enum MHD_Result sent = MHD_queue_response(req->connection, req->status, req->reply);
    mr_reply_drop(req);
    return sent;
}

static bool has_body(const struct mr_request *req)
{
    const char *length = req->headers.content_length;
    return req->headers.transfer_encoding ||
           (length && strspn(length, "0") != strlen(length));
}

static bool is_json(const char *content_type)
{
    static const char json[] = "application/json";
    size_t bytes = sizeof(json) - 1;

    return content_type && strncasecmp(content_type, json, bytes) == 0 &&
           strchr("; \t", content_type[bytes]); /* or the NUL */
}

static int check_body(const struct mr_request *req, struct mr_err *err)
{
    const char *length = req->headers.content_length;

    if (!has_body(req))
        return req->route->body != MR_BODY_REQUIRED
                   ? 0
                   : mr_fail_at(err, MR_E_INVALID_REQUEST, "", "the request has no body");
    if (req->route->body == MR_BODY_NONE)
        return mr_fail_at(err, MR_E_INVALID_REQUEST, "", "%s takes no body", req->method);
    if (!is_json(req->headers.content_type) || req->headers.content_encoding)
        return mr_fail_at(err, MR_E_UNSUPPORTED_MEDIA_TYPE, "",
                          "the body must be plain application/json");
    if (length && strtoull(length, NULL, 10) > MR_BODY_MAX_BYTES)
        return mr_fail_at(err, MR_E_BODY_TOO_LARGE, "", "the limit is %zu bytes",
                          MR_BODY_MAX_BYTES);
    return 0;
}

/* Everything that the head of the request decides. */
static int check_head(struct mr_request *req, struct mr_err *err)
{
    struct mr_match match = {.route = NULL};
    int rc = req->api->stopping
                 ? mr_fail(err, MR_E_SHUTTING_DOWN, 0, "the agent is shutting down")
                 : mr_route_find(req->method, req->target,
                                 req->target + strlen(req->target) + 1, &match, err);
    if (rc == 0 && match.route) {
        req->route = match.route;
        req->prefix = match.prefix;
        req->param = match.param;
        memcpy(req->query, match.query, sizeof(req->query));
        rc = check_body(req, err);
    }
    if (rc < 0) {
        mr_reply_problem(req, err);
        if (match.allow[0] && !match.route)
            mr_reply_header(req, "Allow", match.allow);
    }
    return rc;
}

/* The body of a refused request. An answer before its end closes the connection, and a
 * client that is still sending may lose the answer with it (RFC 9112 section 9.6): a
 * short body is read and thrown away. A client that asked first (Expect: 100-continue)
 * waits for our answer and sends nothing. */
static bool worth_reading(const struct mr_request *req)
{
    const char *length = req->headers.content_length;

    if (req->route && req->route->body == MR_BODY_NONE)
        return false; /* a body where none belongs is a sign of smuggling */
    if (MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, "Expect"))
        return false;
    return !length || strtoull(length, NULL, 10) <= MR_BODY_MAX_BYTES;
}

static enum MHD_Result begin(struct mr_request *req, const char *method,
                             const char *version)
{
    struct mr_err err;

    req->method = method;
    req->phase = MR_REQUEST_BODY;
    if (mr_framing_check(req->connection, method, version, req->target, req->target_at,
                         req->listener->tcp, &req->headers, &err) < 0) {
        mr_reply_problem(req, &err);
        mr_reply_header(req, "Connection", "close");
        return send_reply(req);
    }
    if (check_head(req, &err) < 0) {
        if (has_body(req) && !worth_reading(req))
            return send_reply(req);
        req->phase = MR_REQUEST_READY;
    }
    return MHD_YES;
}

static enum MHD_Result take_body(struct mr_request *req, const char *data, size_t *bytes)
{
    size_t sum = req->body_bytes + *bytes;

    if (sum > MR_BODY_DISCARD_MAX_BYTES)
        return MHD_NO;
    if (!req->reply && sum <= MR_BODY_MAX_BYTES) {
        if (!req->body)
            req->body = malloc(MR_BODY_MAX_BYTES + 1);
        if (!req->body)
            return MHD_NO;
        memcpy(req->body + req->body_bytes, data, *bytes);
        req->body[sum] = '\0';
    }
    req->body_bytes = sum;
    *bytes = 0;
    return MHD_YES;
}

/* The whole request is there. */
static enum MHD_Result answer(struct mr_request *req)
{
    if (req->phase == MR_REQUEST_BODY) {
        req->phase = MR_REQUEST_READY;
        if (req->body_bytes > MR_BODY_MAX_BYTES)
            mr_reply_fail(req, MR_E_BODY_TOO_LARGE, "the limit is %zu bytes",
                          MR_BODY_MAX_BYTES);
        else
            req->route->handler(req);
        drop_body(req); /* the request may wait for minutes */
    }
    return req->phase == MR_REQUEST_WAITING ? MHD_YES : send_reply(req);
}

enum MHD_Result mr_request_handle(void *cls, struct MHD_Connection *connection,
                                  const char *url, const char *method,
                                  const char *version, const char *upload,
                                  size_t *upload_bytes, void **request)
{
    struct mr_request *req = *request;
    (void)cls;
    (void)connection;
    (void)url; /* decoded by rules that are not ours */

    if (!req)
        return MHD_NO;
    if (req->phase == MR_REQUEST_NEW)
        return begin(req, method, version);
    if (*upload_bytes > 0)
        return take_body(req, upload, upload_bytes);
    return answer(req);
}
