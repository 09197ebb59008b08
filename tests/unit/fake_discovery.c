/* SPDX-License-Identifier: Apache-2.0
 *
 * The fake engine's looks at what is not attached: a discovery of "slow" lasts 10 s, of
 * "silent" ends with target-timeout, of "many" is refused with too-many-requests; a dry
 * run of "pending*" is refused, of "broken*" fails. Each repeats what it was asked.
 */
#include "fake_engine.h"

#include <string.h>

#include "storage/base/json.h"
#include "storage/discovery.h"

bool mr_discovery_portal_valid(const char *portal)
{
    return portal[0] && !strchr(portal, ',');
}

struct mr_pending *mr_engine_discover(struct mr_engine *engine, const char *portal,
                                      int64_t timeout_ms, mr_answer_fn fn, void *ctx,
                                      struct mr_err *err)
{
    if (strcmp(portal, "many") == 0) {
        (void)mr_fail(err, MR_E_TOO_MANY_REQUESTS, 0, "too many");
        return NULL;
    }
    struct json_object *document = json_object_new_object();
    mr_json_set_string(document, "portal", portal);
    mr_json_set_int(document, "timeout_ms", timeout_ms);
    struct mr_pending *pending = fake_pending_begin(
        engine, NULL, document, strcmp(portal, "slow") == 0 ? 10000 : 20, fn, ctx);
    pending->fails = strcmp(portal, "silent") == 0;
    (void)mr_fail(&pending->err, MR_E_TARGET_TIMEOUT, 0, "no answer");
    return pending;
}

struct mr_pending *mr_engine_preflight(struct mr_engine *engine, const char *id,
                                       struct mr_spec *spec, mr_answer_fn fn, void *ctx,
                                       struct mr_err *err)
{
    struct json_object *document = NULL;
    struct mr_pending *pending = NULL;

    if (fake_starts(id, "pending")) {
        (void)mr_fail(err, MR_E_PATH_NOT_ALLOWED, 0, "not allowed");
    } else {
        document = json_object_new_object();
        mr_json_set_string(document, "volume", id);
        mr_json_set_string(document, "would", "format");
        mr_json_set_string(document, "mount_path", spec->mount_path);
        pending = fake_pending_begin(engine, NULL, document, 20, fn, ctx);
        pending->fails = fake_starts(id, "broken");
        (void)mr_fail(&pending->err, MR_E_INTERNAL, 0, "the worker ended");
    }
    mr_spec_free(spec);
    return pending;
}
