/* SPDX-License-Identifier: Apache-2.0
 *
 * The proof of release: what was seen, when, and who had to let go. No time is ever
 * invented.
 */
#include <string.h>

#include "storage/base/json.h"
#include "storage/engine_internal.h"

static struct json_object *evidence(const struct mr_operation *op)
{
    struct json_object *json = json_object_get(op->evidence);
    if (!json) {
        json = json_object_new_object();
        mr_json_set_bool(json, "exclusive_open", false);
        mr_json_set(json, "diskseq", NULL);
        mr_json_set(json, "openers", NULL);
        mr_json_set(json, "stacked_loops", NULL);
        mr_json_set_string(json, "gone", "nothing was mapped");
    }
    if (!mr_json_get(json, "exclusive_open")) /* it was gone before we could claim it */
        mr_json_set_bool(json, "exclusive_open", false);
    if (op->resumed && op->released_at_ms == 0)
        mr_json_set_string(json, "gone", "found gone at restart");
    /* What holders wrote after that went nowhere, whether somebody asked or not. */
    if (op->volume->server_lost)
        mr_json_set_bool(json, "server_lost", true);
    if (op->volume->transport_end != MR_TRANSPORT_UNKNOWN)
        mr_json_set_string(json, "transport_end",
                           mr_transport_name(op->volume->transport_end));
    return json;
}

void mr_proof_add_evidence(struct mr_operation *op, struct json_object *evidence)
{
    if (!json_object_is_type(evidence, json_type_object))
        return;
    if (!op->evidence)
        op->evidence = json_object_new_object();
    json_object_object_foreach(evidence, key, value)
    {
        bool known = mr_json_get(op->evidence, key) != NULL;
        if (!(op->unmap_asked && strcmp(key, "exclusive_open") == 0) && (value || !known))
            mr_json_set(op->evidence, key, json_object_get(value));
    }
}

/* By the monotonic clock when this agent saw both ends; else by the wall clock, which may
 * have jumped: -1 when that can be told. */
static int64_t held_ms(const struct mr_operation *op)
{
    const struct mr_volume *volume = op->volume;

    if (op->released_at_ms == 0 || volume->unmounted_at_ms == 0)
        return -1;
    if (op->released_ns != 0 && volume->unmounted_ns != 0)
        return (op->released_ns - volume->unmounted_ns) / MR_NS_PER_MS;
    return op->released_at_ms - volume->unmounted_at_ms;
}

struct json_object *mr_proof_make(struct mr_operation *op)
{
    const struct mr_volume *volume = op->volume;
    struct json_object *json = json_object_new_object();
    int64_t held = held_ms(op);

    /* No time is ever invented: what we did not see has none. */
    mr_json_set_string(json, "volume", volume->id);
    mr_json_set_string(json, "operation", op->id);
    mr_document_set_time(json, "unmounted_at", volume->unmounted_at_ms);
    mr_document_set_time(json, "released_at", op->released_at_ms);
    mr_document_set_time(json, "unmapped_at", op->released_at_ms > 0 ? mr_wall_ms() : 0);
    if (held >= 0)
        mr_json_set_int(json, "held_ms", held);
    else
        mr_json_set(json, "held_ms", NULL);
    mr_json_set(json, "waited_for",
                op->waited_for ? json_object_get(op->waited_for)
                               : json_object_new_array());
    mr_json_set(json, "evidence", evidence(op));
    return json;
}
