/* SPDX-License-Identifier: Apache-2.0
 *
 * /volumes and /volumes/{id}.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/internal.h"
#include "storage/base/json.h"

#define LIMIT_DEFAULT 100
#define LIMIT_MAX 200 /* the core serialises a page in one go */
#define ETAG_TEXT 48

static bool valid_id(struct mr_request *req)
{
    if (mr_volume_id_valid(req->param))
        return true;
    mr_reply_fail(req, MR_E_INVALID_REQUEST,
                  "not a volume id; allowed: [A-Za-z0-9][A-Za-z0-9._-]{0,127}");
    return false;
}

/* The volume of the request, or NULL and a reply. */
static struct mr_volume *find(struct mr_request *req)
{
    struct mr_volume *volume =
        valid_id(req) ? mr_engine_find(req->api->engine, req->param) : NULL;

    if (!volume && !req->reply)
        mr_reply_absent(req, MR_E_VOLUME_NOT_FOUND);
    return volume;
}

/* --- PUT and DELETE --- */

static void reply_running(struct mr_request *req, struct mr_operation *op)
{
    char location[128];

    (void)snprintf(location, sizeof(location), "%s/operations/%s", req->prefix,
                   mr_operation_id(op));
    mr_reply_json(req, MHD_HTTP_ACCEPTED, mr_volume_document(mr_operation_volume(op)));
    mr_reply_header(req, "Location", location);
    mr_reply_header(req, "Retry-After", "1");
    mr_reply_prefer(req);
}

static void reply_failed(struct mr_request *req, struct mr_operation *op)
{
    const struct mr_err *err = mr_operation_error(op);

    if (err)
        mr_reply_problem(req, err);
    else
        mr_reply_fail(req, MR_E_INTERNAL, "the operation failed and does not say why");
    mr_reply_prefer(req);
}

static void finish(struct mr_request *req, struct mr_operation *op)
{
    int ended = mr_operation_ended(op);

    if (ended == 0) {
        reply_running(req, op);
    } else if (ended < 0) {
        reply_failed(req, op);
    } else if (mr_operation_goal(op) == MR_GOAL_ATTACHED) {
        unsigned status = mr_operation_created(op) ? MHD_HTTP_CREATED : MHD_HTTP_OK;
        mr_reply_json(req, status, mr_volume_document(mr_operation_volume(op)));
        mr_reply_prefer(req);
    } else {
        mr_reply_json(req, MHD_HTTP_OK, json_object_get(mr_operation_proof(op)));
        mr_reply_prefer(req);
    }
}

static void refuse(struct mr_request *req, const struct mr_err *err)
{
    mr_reply_problem(req, err);
    mr_reply_prefer(req);
}

void mr_handle_volume_put(struct mr_request *req)
{
    const char *root = req->api->config->mount_roots.path[0];
    struct mr_spec *spec = NULL;
    struct mr_operation *op = NULL;
    struct mr_err err;

    if (!valid_id(req))
        return;
    MR_AUTO_JSON struct json_object *json =
        mr_json_body(req->body, req->body_bytes, &err);
    if (!json || mr_spec_decode(json, req->param, root, &spec, &err) < 0 ||
        mr_engine_attach(req->api->engine, req->param, spec, &op, &err) < 0) {
        refuse(req, &err);
        return;
    }
    mr_wait_operation(req, op,
                      mr_prefer_wait_ns(&req->headers.prefer, MR_PREFER_WAIT_DEFAULT_S),
                      finish);
}

/* Returns false and a reply when a parameter is wrong. */
static bool delete_parameters(struct mr_request *req, bool *ret_accept)
{
    const char *path = req->query[MR_DELETE_MOUNT_PATH];
    const char *accept = req->query[MR_DELETE_ACCEPT_DATA_LOSS];

    *ret_accept = accept && strcmp(accept, "true") == 0;
    if (path && path[0] != '/')
        mr_reply_fail(req, MR_E_INVALID_REQUEST,
                      "query parameter 'mount_path' is not an absolute path");
    else if (accept && !*ret_accept && strcmp(accept, "false") != 0)
        mr_reply_fail(req, MR_E_INVALID_REQUEST,
                      "query parameter 'accept_data_loss' is neither true nor false");
    return !req->reply;
}

void mr_handle_volume_delete(struct mr_request *req)
{
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    bool accept_data_loss = false;
    struct mr_err err;

    if (!valid_id(req) || !delete_parameters(req, &accept_data_loss))
        return;
    if (mr_engine_detach(req->api->engine, req->param, req->query[MR_DELETE_MOUNT_PATH],
                         accept_data_loss, &op, &proof, &err) < 0) {
        refuse(req, &err);
    } else if (op) {
        mr_wait_operation(
            req, op, mr_prefer_wait_ns(&req->headers.prefer, MR_PREFER_WAIT_DEFAULT_S),
            finish);
    } else {
        mr_reply_json(req, MHD_HTTP_OK, proof);
        mr_reply_prefer(req);
    }
}

/* --- GET --- */

static void make_etag(const struct mr_request *req, const struct mr_volume *volume,
                      char etag[ETAG_TEXT])
{
    (void)snprintf(etag, ETAG_TEXT, "\"%s-%llx\"", req->api->epoch,
                   (unsigned long long)mr_volume_generation(volume));
}

/* If-None-Match: weak comparison, RFC 9110 section 13.1.2. */
static bool etag_matches(const char *field, const char *etag)
{
    while (*field) {
        field += strspn(field, " \t,");
        if (*field == '*')
            return true;
        if (strncmp(field, "W/", 2) == 0)
            field += 2;
        size_t bytes = strcspn(field, " \t,");
        if (bytes == strlen(etag) && memcmp(field, etag, bytes) == 0)
            return true;
        field += bytes;
    }
    return false;
}

/* Borrowed from the cache, NULL when out of memory. */
static struct MHD_Response *volume_response(struct mr_request *req,
                                            struct mr_volume *volume)
{
    uint64_t generation = mr_volume_generation(volume);
    struct MHD_Response *response =
        mr_cache_get(&req->api->cache, req->param, generation);
    char etag[ETAG_TEXT];

    if (response)
        return response;
    MR_AUTO_JSON struct json_object *document = mr_volume_document(volume);
    response = mr_response_json(document, "application/json");
    if (!response)
        return NULL;
    make_etag(req, volume, etag);
    (void)MHD_add_response_header(response, "ETag", etag);
    mr_cache_put(&req->api->cache, req->param, generation, response);
    return response;
}

void mr_handle_volume_get(struct mr_request *req)
{
    struct mr_volume *volume = find(req);
    char etag[ETAG_TEXT];

    if (!volume)
        return;
    if (req->headers.if_none_match) {
        make_etag(req, volume, etag);
        if (etag_matches(req->headers.if_none_match, etag)) {
            static char nothing[1];
            mr_reply(req, MHD_HTTP_NOT_MODIFIED,
                     MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT));
            mr_reply_header(req, "ETag", etag);
            return;
        }
    }
    mr_reply_cached(req, MHD_HTTP_OK, volume_response(req, volume));
}

static bool list_limit(struct mr_request *req, unsigned *ret)
{
    const char *text = req->query[MR_LIST_LIMIT];
    unsigned limit = 0;

    *ret = LIMIT_DEFAULT;
    if (!text)
        return true;
    for (const char *c = text; *c >= '0' && *c <= '9' && limit <= LIMIT_MAX; c++)
        limit = limit * 10 + (unsigned)(*c - '0');
    if (strspn(text, "0123456789") != strlen(text) || limit < 1 || limit > LIMIT_MAX) {
        mr_reply_fail(req, MR_E_INVALID_REQUEST,
                      "query parameter 'limit' is not in 1..%d", LIMIT_MAX);
        return false;
    }
    *ret = limit;
    return true;
}

void mr_handle_volume_list(struct mr_request *req)
{
    const char *after = req->query[MR_LIST_PAGE_TOKEN];
    unsigned limit = 0;

    if (!list_limit(req, &limit))
        return;
    if (after && !mr_volume_id_valid(after)) {
        mr_reply_fail(req, MR_E_INVALID_REQUEST,
                      "query parameter 'page_token' is malformed");
        return;
    }
    MR_AUTO_JSON struct json_object *page = json_object_new_object();
    struct json_object *items = json_object_new_array();
    struct mr_volume *volume = mr_engine_next(req->api->engine, after);
    mr_json_set(page, "items", items);
    for (; volume && limit > 0; limit--) {
        (void)json_object_array_add(items, mr_volume_document(volume));
        after = mr_volume_id(volume);
        volume = mr_engine_next(req->api->engine, after);
    }
    mr_json_set_string(page, "next_page_token", volume ? after : NULL);
    mr_reply_json(req, MHD_HTTP_OK, mr_take_ptr(page));
}

void mr_handle_holders_get(struct mr_request *req)
{
    struct mr_volume *volume = find(req);
    if (volume)
        mr_wait_holders(req, volume);
}
