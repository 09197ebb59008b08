/* SPDX-License-Identifier: Apache-2.0
 *
 * /operations/{op}: the document of a running or ended operation; a failed one is no
 * failure of this request.
 */
#include "api/internal.h"

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
