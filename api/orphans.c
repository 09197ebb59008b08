/* SPDX-License-Identifier: Apache-2.0
 *
 * /orphans: what is mapped or mounted although nobody waits for it any more, and taking
 * it down after all. What no journal knows is adopted first: written into the journal.
 */
#include <errno.h>
#include <string.h>

#include "api/internal.h"
#include "storage/base/json.h"
#include "storage/identity.h"

/* --- GET --- */

/* One page of the answer, which is for all who asked at the same time. */
static struct json_object *cut(struct mr_request *req, struct json_object *answer)
{
    struct mr_page page;
    struct json_object *json = mr_page_read(req, &page) /* as when the search began */
                                   ? mr_page_cut(&page, mr_json_get(answer, "items"))
                                   : NULL;

    if (json) {
        mr_json_set(json, "complete", json_object_get(mr_json_get(answer, "complete")));
        mr_json_set(json, "searched_at",
                    json_object_get(mr_json_get(answer, "searched_at")));
    }
    return json;
}

static void on_searched(void *ctx, struct json_object *document, const struct mr_err *err)
{
    struct mr_request *req = ctx;
    MR_AUTO_JSON struct json_object *json = document ? cut(req, document) : NULL;
    struct mr_err why;

    if (document && !json) {
        (void)mr_fail(&why, MR_E_INTERNAL, ENOMEM, "list the orphans");
        err = &why;
    }
    mr_wait_on_answer(req, json, err);
}

void mr_handle_orphan_list(struct mr_request *req)
{
    struct mr_page page;
    struct mr_err err;

    if (!mr_page_read(req, &page) || !mr_wait_place(req))
        return;
    mr_wait_answer(req, mr_engine_orphans(req->api->engine, on_searched, req, &err), &err,
                   &mr_wait_limit_survey);
}

/* --- DELETE --- */

static void answer_detach(struct mr_request *req, int rc, struct mr_operation *op,
                          const struct mr_err *err)
{
    if (rc < 0)
        mr_reply_refused(req, err);
    else
        mr_wait_operation(
            req, op, mr_prefer_wait_ns(&req->headers.prefer, MR_PREFER_WAIT_DEFAULT_S),
            mr_finish_volume);
}

static void detach(struct mr_request *req)
{
    struct mr_operation *op = NULL;
    bool accept_data_loss = false;
    struct mr_err err;

    if (!mr_reply_accept_valid(req, &accept_data_loss))
        return;
    int rc = mr_engine_detach_orphan(req->api->engine, req->param, accept_data_loss, &op,
                                     &err);
    answer_detach(req, rc, op, &err);
}

static void on_adopted(void *ctx, struct json_object *document, const struct mr_err *err)
{
    if (document) {
        mr_wait_go_on(ctx, detach);
        return;
    }
    mr_wait_on_answer(ctx, NULL, err);
    mr_reply_prefer(ctx);
}

/* "orphan-TOKEN": the id of what was found without a journal, see storage/engine.h. */
static bool has_token(const char *id)
{
    static const char prefix[] = "orphan-";
    size_t bytes = sizeof(prefix) - 1;

    return strncmp(id, prefix, bytes) == 0 && strlen(id + bytes) == MR_TOKEN_TEXT - 1 &&
           strspn(id + bytes, "0123456789abcdef") == MR_TOKEN_TEXT - 1;
}

void mr_handle_orphan_delete(struct mr_request *req)
{
    struct mr_operation *op = NULL;
    bool accept_data_loss = false;
    struct mr_err err;

    if (!mr_reply_id_valid(req) || !mr_reply_accept_valid(req, &accept_data_loss))
        return;
    /* One that is in the journal needs no search. */
    int rc = mr_engine_detach_orphan(req->api->engine, req->param, accept_data_loss, &op,
                                     &err);
    if (rc == 0 || err.code != MR_E_VOLUME_NOT_FOUND || !has_token(req->param)) {
        answer_detach(req, rc, op, &err);
        return;
    }
    MR_AUTO_JSON struct json_object *caller = mr_caller(req);
    if (!mr_wait_place(req))
        return;
    mr_wait_answer(
        req, mr_engine_adopt(req->api->engine, req->param, caller, on_adopted, req, &err),
        &err, &mr_wait_limit_survey);
    mr_reply_prefer(req); /* of a refusal */
}
