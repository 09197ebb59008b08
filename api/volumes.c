/* SPDX-License-Identifier: Apache-2.0
 *
 * /volumes, /volumes/{id}, and what can be read below it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/internal.h"
#include "storage/base/json.h"

#define HISTORY_LIMIT_DEFAULT 200
#define HISTORY_LIMIT_MAX 1000
#define ETAG_TEXT 48

/* The volume of the request, or NULL and a reply. */
static struct mr_volume *find(struct mr_request *req)
{
    struct mr_volume *volume =
        mr_reply_id_valid(req) ? mr_engine_find(req->api->engine, req->param) : NULL;

    if (!volume && !req->reply)
        mr_reply_absent(req, MR_E_VOLUME_NOT_FOUND);
    return volume;
}

/* --- PUT and DELETE --- */

void mr_handle_volume_put(struct mr_request *req)
{
    const char *root = req->api->config->mount_roots.path[0];
    struct mr_spec *spec = NULL;
    struct mr_operation *op = NULL;
    bool dry_run = false;
    struct mr_err err;

    if (!mr_reply_id_valid(req) || !mr_dry_run_valid(req, &dry_run))
        return;
    MR_AUTO_JSON struct json_object *json =
        mr_json_body(req->body, req->body_bytes, &err);
    if (!json || mr_spec_decode(json, req->param, root, &spec, &err) < 0) {
        mr_reply_refused(req, &err);
        return;
    }
    if (dry_run) {
        mr_dry_run(req, spec);
        return;
    }
    if (mr_engine_attach(req->api->engine, req->param, spec, &op, &err) < 0) {
        mr_reply_refused(req, &err);
        return;
    }
    mr_wait_operation(req, op,
                      mr_prefer_wait_ns(&req->headers.prefer, MR_PREFER_WAIT_DEFAULT_S),
                      mr_finish_volume);
}

static bool mount_path_valid(struct mr_request *req)
{
    const char *path = req->query[MR_DELETE_MOUNT_PATH];

    if (!path || path[0] == '/')
        return true;
    mr_reply_fail(req, MR_E_INVALID_REQUEST,
                  "query parameter 'mount_path' is not an absolute path");
    return false;
}

void mr_handle_volume_delete(struct mr_request *req)
{
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    bool accept_data_loss = false;
    struct mr_err err;

    if (!mr_reply_id_valid(req) || !mount_path_valid(req) ||
        !mr_reply_accept_valid(req, &accept_data_loss))
        return;
    if (mr_engine_detach(req->api->engine, req->param, req->query[MR_DELETE_MOUNT_PATH],
                         accept_data_loss, &op, &proof, &err) < 0) {
        mr_reply_refused(req, &err);
    } else if (op) {
        mr_wait_operation(
            req, op, mr_prefer_wait_ns(&req->headers.prefer, MR_PREFER_WAIT_DEFAULT_S),
            mr_finish_volume);
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

void mr_handle_volume_list(struct mr_request *req)
{
    struct mr_page page;

    if (mr_page_read(req, &page))
        mr_page_volumes(req, &page);
}

void mr_handle_holders_get(struct mr_request *req)
{
    struct mr_volume *volume = find(req);
    struct mr_err err;

    if (!volume || !mr_wait_place(req))
        return;
    (void)mr_fail(&err, MR_E_INTERNAL, ENOMEM, "scan for holders");
    mr_wait_answer(req,
                   mr_engine_holders(req->api->engine, volume, mr_wait_on_answer, req),
                   &err, &mr_wait_limit_scan);
}

/* A sequence number: 0 or more. Returns false and a reply when it is none. */
static bool history_after(struct mr_request *req, int64_t *ret)
{
    const char *text = req->query[MR_LIST_PAGE_TOKEN];

    *ret = 0;
    if (!text)
        return true;
    errno = 0;
    *ret = strtoll(text, NULL, 10);
    if (text[0] && strspn(text, "0123456789") == strlen(text) && errno == 0)
        return true;
    mr_reply_fail(req, MR_E_INVALID_REQUEST, "query parameter 'page_token' is malformed");
    return false;
}

void mr_handle_history_get(struct mr_request *req)
{
    unsigned limit = 0;
    int64_t after = 0;
    struct mr_err err;

    if (!mr_reply_id_valid(req) ||
        !mr_page_limit(req, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, &limit) ||
        !history_after(req, &after) || !mr_wait_place(req))
        return;
    mr_wait_answer(req,
                   mr_engine_history(req->api->engine, req->param, after, limit,
                                     mr_wait_on_answer, req, &err),
                   &err, &mr_wait_limit_journal);
}
