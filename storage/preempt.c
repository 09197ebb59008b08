/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/preempt.h"

#include <errno.h>
#include <stdlib.h>

#include "storage/base/json.h"
#include "storage/engine_internal.h"

static uint64_t parse(const char *text)
{
    return text ? strtoull(text, NULL, 16) : 0; /* its form was checked */
}

uint64_t mr_preempt_key(const struct mr_spec *spec)
{
    return spec ? parse(mr_json_get_string(spec->source, "preempt")) : 0;
}

static int refuse_later(const struct mr_volume *volume, const char *why,
                        struct mr_err *err)
{
    int rc = mr_refuse_pending(volume, err);

    (void)mr_err_context(err, 0, "nothing was preempted, %s", why);
    return mr_err_remedy(err, rc, "wait for operation %s, then repeat the request",
                         volume->op->id);
}

int mr_preempt_may_join(const struct mr_volume *volume, const struct mr_spec *spec,
                        struct mr_err *err)
{
    const struct mr_operation *op = volume->op;
    uint64_t wanted = mr_preempt_key(spec);
    /* What is mended may turn out to be mapped still. */
    bool in_time = op->fresh && !op->map_told;
    uint64_t has = in_time ? mr_preempt_key(volume->spec) : volume->preempt_told;

    if (wanted == 0 || wanted == has)
        return 0;
    if (in_time && has == 0)
        return 1;
    return refuse_later(volume,
                        has ? "it is to preempt another key"
                            : "it has begun without the key that is to be preempted",
                        err);
}

int mr_preempt_join(struct mr_volume *volume, struct mr_spec *spec,
                    struct mr_operation **ret_op, struct mr_err *err)
{
    int rc = mr_preempt_may_join(volume, spec, err);

    if (rc > 0) { /* its `map` is still to come: it gets this one */
        mr_spec_free(volume->spec);
        volume->spec = spec;
    } else {
        mr_spec_free(spec);
    }
    if (rc < 0)
        return rc;
    *ret_op = volume->op;
    return 0;
}

int mr_preempt_may_follow(const struct mr_volume *volume, const struct mr_spec *spec,
                          struct mr_err *err)
{
    const struct mr_operation *op = volume->op;
    uint64_t wanted = mr_preempt_key(spec);
    uint64_t has = mr_preempt_key(op->then_spec);

    if (wanted == 0 || wanted == has)
        return 0;
    if (has != 0)
        return refuse_later(volume, "the attach behind it is to preempt another key",
                            err);
    /* What gives errors only is attached afresh: with a login. */
    if (mr_server_is_dead(volume) || mr_preempt_check_mapped(volume, spec, NULL) == 0)
        return 0;
    return refuse_later(volume, "what is mapped may be kept, without a new login", err);
}

/* Is the key known to be nobody's? */
static bool is_gone(struct json_object *fencing, uint64_t key)
{
    size_t count = mr_json_count(fencing, "keys");

    if (!mr_json_get(fencing, "checked_at") || count >= MR_TRANSPORT_KEYS_MAX)
        return false;
    for (size_t i = 0; i < count; i++)
        if (parse(json_object_get_string(mr_json_at(fencing, "keys", i))) == key)
            return false;
    return parse(mr_json_get_string(fencing, "holder")) != key;
}

int mr_preempt_check_mapped(const struct mr_volume *volume, const struct mr_spec *spec,
                            struct mr_err *err)
{
    uint64_t key = mr_preempt_key(spec);
    int rc;

    if (key == 0 || key == volume->preempt_told || is_gone(volume->fencing, key))
        return 0;
    if (!volume->fencing) {
        rc = mr_fail(err, MR_E_OPERATION_PENDING, 0,
                     "volume '%s' is mapped, and it is not known who has registered at "
                     "its LUN; nothing was preempted",
                     volume->id);
        return mr_err_remedy(err, rc, "repeat the request in a moment");
    }
    rc = mr_fail(err, MR_E_SOURCE_IN_USE, 0,
                 "volume '%s' is mapped, and key 0x%016llx is registered at its LUN; "
                 "keys are preempted by a new login only",
                 volume->id, (unsigned long long)key);
    return mr_err_remedy(err, rc, "DELETE the volume, then repeat the request");
}

void mr_preempt_keep(const struct mr_spec *from, struct mr_spec *to)
{
    if (mr_preempt_key(from) != 0 && mr_preempt_key(to) == 0)
        mr_json_set_string(to->source, "preempt",
                           mr_json_get_string(from->source, "preempt"));
}
