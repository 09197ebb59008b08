/* SPDX-License-Identifier: Apache-2.0
 *
 * /livez and /readyz, for a service manager or a load balancer.
 */
#include "api/internal.h"
#include "storage/base/json.h"

static void reply_status(struct mr_request *req, const char *status)
{
    struct json_object *document = json_object_new_object();
    mr_json_set_string(document, "status", status);
    mr_reply_json(req, MHD_HTTP_OK, document);
}

void mr_handle_livez(struct mr_request *req)
{
    reply_status(req, "alive");
}

void mr_handle_readyz(struct mr_request *req)
{
    const struct mr_err *journal = mr_engine_journal_error(req->api->engine);

    if (mr_engine_recovering(req->api->engine))
        mr_reply_fail(req, MR_E_RECOVERING,
                      "the journal is being compared with the kernel");
    else if (journal)
        mr_reply_problem(req, journal);
    else
        reply_status(req, "ready");
}
