/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking before attaching: GET /discovery, and PUT /volumes/{id} with dry_run.
 */
#include "storage/discovery.h"

#include <stdlib.h>
#include <string.h>

#include "api/internal.h"

/* 1 to 60 without a sign, or a reply. */
static bool read_timeout(struct mr_request *req, int64_t *ret_ms)
{
    const char *text = req->query[MR_DISCOVERY_TIMEOUT];
    long seconds = MR_DISCOVERY_TIMEOUT_DEFAULT_S;

    if (text) {
        bool digits = text[0] && strspn(text, "0123456789") == strlen(text);
        seconds = digits && strlen(text) <= 2 ? strtol(text, NULL, 10) : -1;
    }
    *ret_ms = seconds * 1000;
    if (seconds >= MR_DISCOVERY_TIMEOUT_MIN_S && seconds <= MR_DISCOVERY_TIMEOUT_MAX_S)
        return true;
    mr_reply_fail(req, MR_E_INVALID_REQUEST,
                  "query parameter 'timeout_s' is no number from %d to %d",
                  MR_DISCOVERY_TIMEOUT_MIN_S, MR_DISCOVERY_TIMEOUT_MAX_S);
    return false;
}

static bool read_portal(struct mr_request *req)
{
    const char *driver = req->query[MR_DISCOVERY_DRIVER];
    const char *portal = req->query[MR_DISCOVERY_PORTAL];

    if (!driver || strcmp(driver, "iscsi") != 0)
        mr_reply_fail(req, MR_E_INVALID_REQUEST,
                      "query parameter 'driver' has to be iscsi");
    else if (!portal || !mr_discovery_portal_valid(portal))
        mr_reply_fail(req, MR_E_INVALID_REQUEST,
                      "query parameter 'portal' has to be HOST, HOST:PORT, [IPv6] or "
                      "[IPv6]:PORT");
    return req->reply == NULL;
}

void mr_handle_discovery(struct mr_request *req)
{
    int64_t timeout_ms = 0;
    struct mr_err err;

    if (!read_portal(req) || !read_timeout(req, &timeout_ms) || !mr_wait_place(req))
        return;
    mr_wait_answer(req,
                   mr_engine_discover(req->api->engine, req->query[MR_DISCOVERY_PORTAL],
                                      timeout_ms, mr_wait_on_answer, req, &err),
                   &err, &mr_wait_limit_discovery);
}

bool mr_dry_run_valid(struct mr_request *req, bool *ret_dry_run)
{
    const char *text = req->query[MR_PUT_DRY_RUN];

    *ret_dry_run = text && strcmp(text, "true") == 0;
    if (!text || *ret_dry_run || strcmp(text, "false") == 0)
        return true;
    mr_reply_fail(req, MR_E_INVALID_REQUEST,
                  "query parameter 'dry_run' is neither true nor false");
    return false;
}

/* PUT varies by Prefer, its dry run as well: for whoever stores answers. */
static void on_preflight(void *ctx, struct json_object *document,
                         const struct mr_err *err)
{
    mr_wait_on_answer(ctx, document, err);
    mr_reply_header(ctx, "Vary", "Prefer");
}

void mr_dry_run(struct mr_request *req, struct mr_spec *spec)
{
    struct mr_err err;

    if (!mr_wait_place(req)) {
        mr_spec_free(spec);
        return;
    }
    mr_wait_answer(
        req,
        mr_engine_preflight(req->api->engine, req->param, spec, on_preflight, req, &err),
        &err, &mr_wait_limit_discovery);
}
