/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "api/internal.h"
#include "api/problem.h"
#include "storage/base/json.h"

struct MHD_Response *mr_response_json(struct json_object *json, const char *content_type)
{
    size_t bytes = 0;
    const char *text =
        json ? json_object_to_json_string_length(
                   json, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &bytes)
             : NULL;
    char *copy = text ? malloc(bytes + 1) : NULL;
    if (!copy)
        return NULL;
    memcpy(copy, text, bytes);
    copy[bytes] = '\n';
    struct MHD_Response *response =
        MHD_create_response_from_buffer(bytes + 1, copy, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(copy);
        return NULL;
    }
    (void)MHD_add_response_header(response, "Content-Type", content_type);
    return response;
}

void mr_reply_drop(struct mr_request *req)
{
    if (req->reply && !req->reply_cached)
        MHD_destroy_response(req->reply);
    req->reply = NULL;
    req->reply_cached = false;
}

void mr_reply(struct mr_request *req, unsigned status, struct MHD_Response *response)
{
    mr_reply_drop(req);
    req->reply = response;
    req->status = status;
}

void mr_reply_cached(struct mr_request *req, unsigned status,
                     struct MHD_Response *response)
{
    mr_reply(req, status, response);
    req->reply_cached = true;
}

void mr_reply_header(struct mr_request *req, const char *name, const char *value)
{
    if (req->reply)
        (void)MHD_add_response_header(req->reply, name, value);
}

void mr_reply_json(struct mr_request *req, unsigned status, struct json_object *json)
{
    MR_AUTO_JSON struct json_object *owned = json;
    mr_reply(req, status, mr_response_json(owned, "application/json"));
}

/* The operation in the way, or the one that failed. */
static const char *operation_of(const struct mr_request *req, struct json_object *volume,
                                enum mr_code code)
{
    if (req->operation[0])
        return req->operation;
    return code == MR_E_OPERATION_PENDING ? mr_json_get_string(volume, "operation")
                                          : NULL;
}

/* How far the start is. */
static struct json_object *progress_of(const struct mr_engine *engine)
{
    struct mr_recovery recovery = mr_engine_recovery(engine);
    struct json_object *json = json_object_new_object();

    mr_json_set_int(json, "done", (int64_t)recovery.done);
    mr_json_set_int(json, "total", (int64_t)recovery.total);
    return json;
}

void mr_reply_problem(struct mr_request *req, const struct mr_err *err)
{
    bool of_volume = req->route && strstr(req->route->pattern, "{id}") &&
                     mr_volume_id_valid(req->param);
    bool tells = err->code == MR_E_DEVICE_HELD || err->code == MR_E_DATA_NOT_WRITTEN ||
                 err->code == MR_E_OPERATION_PENDING ||
                 err->code == MR_E_HOLDER_NOT_FOUND;
    struct mr_volume *volume =
        of_volume && tells ? mr_engine_find(req->api->engine, req->param) : NULL;
    MR_AUTO_JSON struct json_object *document =
        volume ? mr_volume_document(volume) : NULL;
    MR_AUTO_JSON struct json_object *progress =
        err->code == MR_E_RECOVERING ? progress_of(req->api->engine) : NULL;
    struct mr_problem_context context = {
        .volume = of_volume ? req->param : NULL,
        .operation = operation_of(req, document, err->code),
        .holders = mr_json_get(document, "holders"),
        .progress = progress,
        .residue = req->operation[0] != '\0',
    };
    MR_AUTO_JSON struct json_object *problem = mr_problem_document(err, &context);
    unsigned retry_after = mr_problem_retry_after_s(err->code);

    req->code = mr_code_slug(err->code);
    mr_reply(req, mr_problem_status(err->code),
             mr_response_json(problem, "application/problem+json"));
    if (retry_after) {
        char seconds[16];
        (void)snprintf(seconds, sizeof(seconds), "%u", retry_after);
        mr_reply_header(req, "Retry-After", seconds);
    }
}

void mr_reply_fail(struct mr_request *req, enum mr_code code, const char *fmt, ...)
{
    struct mr_err err;
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    (void)mr_fail(&err, code, 0, "%s", text);
    mr_reply_problem(req, &err);
}

void mr_reply_absent(struct mr_request *req, enum mr_code code)
{
    /* Operation ids look like volume ids; anything else is not repeated to the client. */
    const char *id = mr_volume_id_valid(req->param) ? req->param : "?";

    if (mr_engine_recovering(req->api->engine))
        mr_reply_fail(req, MR_E_RECOVERING, "'%s' is not known yet", id);
    else
        mr_reply_fail(req, code, "'%s' is not known", id);
}

bool mr_reply_id_valid(struct mr_request *req)
{
    if (mr_volume_id_valid(req->param))
        return true;
    mr_reply_fail(req, MR_E_INVALID_REQUEST,
                  "not a volume id; allowed: [A-Za-z0-9][A-Za-z0-9._-]{0,127}");
    return false;
}

bool mr_reply_accept_valid(struct mr_request *req, bool *ret_accept)
{
    const char *accept = req->query[MR_DELETE_ACCEPT_DATA_LOSS];

    *ret_accept = accept && strcmp(accept, "true") == 0;
    if (!accept || *ret_accept || strcmp(accept, "false") == 0)
        return true;
    mr_reply_fail(req, MR_E_INVALID_REQUEST,
                  "query parameter 'accept_data_loss' is neither true nor false");
    return false;
}

void mr_reply_prefer(struct mr_request *req)
{
    const struct mr_prefer *prefer = &req->headers.prefer;
    char applied[48] = "";

    mr_reply_header(req, "Vary", "Prefer");
    if (prefer->wait)
        (void)snprintf(applied, sizeof(applied), "%swait=%u",
                       prefer->respond_async ? "respond-async, " : "", prefer->wait_s);
    else if (prefer->respond_async)
        (void)snprintf(applied, sizeof(applied), "respond-async");
    if (applied[0])
        mr_reply_header(req, "Preference-Applied", applied);
}

void mr_reply_refused(struct mr_request *req, const struct mr_err *err)
{
    mr_reply_problem(req, err);
    mr_reply_prefer(req);
}
