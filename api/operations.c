/* SPDX-License-Identifier: Apache-2.0
 *
 * What is answered about operations: to those who start one, and under /operations/{op},
 * where a failed one is no failure of the request.
 */
#include <stdio.h>

#include "api/internal.h"

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

void mr_finish_volume(struct mr_request *req, struct mr_operation *op)
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

static void finish(struct mr_request *req, struct mr_operation *op)
{
    mr_reply_json(req, MHD_HTTP_OK, mr_operation_document(op));
    mr_reply_prefer(req);
}

void mr_handle_operation_get(struct mr_request *req)
{
    struct mr_operation *op = mr_engine_find_operation(req->api->engine, req->param);

    if (op)
        mr_wait_operation(req, op, mr_prefer_wait_ns(&req->headers.prefer, 0), finish);
    else
        mr_reply_absent(req, MR_E_OPERATION_NOT_FOUND);
}
