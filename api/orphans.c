/* SPDX-License-Identifier: Apache-2.0
 *
 * /orphans: what was left mapped because its detach was given up, and taking it down
 * after all.
 */
#include "api/internal.h"

void mr_handle_orphan_list(struct mr_request *req)
{
    mr_page_reply(req, mr_engine_next_orphan, mr_orphan_document);
}

void mr_handle_orphan_delete(struct mr_request *req)
{
    struct mr_operation *op = NULL;
    bool accept_data_loss = false;
    struct mr_err err;

    if (!mr_reply_id_valid(req) || !mr_reply_accept_valid(req, &accept_data_loss))
        return;
    if (mr_engine_detach_orphan(req->api->engine, req->param, accept_data_loss, &op,
                                &err) < 0)
        mr_reply_refused(req, &err);
    else
        mr_wait_operation(
            req, op, mr_prefer_wait_ns(&req->headers.prefer, MR_PREFER_WAIT_DEFAULT_S),
            mr_finish_volume);
}
