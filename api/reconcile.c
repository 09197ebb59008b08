/* SPDX-License-Identifier: Apache-2.0
 *
 * /reconcile: to have the journal compared with the kernel now.
 */
#include "api/internal.h"
#include "storage/base/json.h"
#include "storage/spec_fields.h"

static const struct mr_field no_fields[] = {{0}};

void mr_handle_reconcile_post(struct mr_request *req)
{
    struct mr_err err;

    MR_AUTO_JSON struct json_object *json = mr_body_decode(req, no_fields, &err);
    if (!json) {
        if (err.code == MR_E_UNKNOWN_FIELD)
            (void)mr_err_remedy(&err, 0, "send no body, or {}");
        mr_reply_problem(req, &err);
        return;
    }
    if (!mr_wait_place(req))
        return;
    mr_wait_answer(req,
                   mr_engine_reconcile(req->api->engine, mr_wait_on_answer, req, &err),
                   &err, &mr_wait_limit_survey);
}
