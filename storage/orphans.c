/* SPDX-License-Identifier: Apache-2.0
 *
 * Giving up: a detach that nobody wants to wait for any more leaves all as it is. The
 * volume is an orphan then: mapped, known, never reported as released; it can only be
 * taken down by the rules of every detach.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/json.h"
#include "storage/engine_internal.h"

static void on_ended(void *ctx, struct mr_operation *op)
{
    struct mr_pending *pending = ctx;

    pending->watch = NULL; /* freed by the operation */
    if (!op) {
        mr_pending_answer(pending, NULL, NULL);
        return;
    }
    const struct mr_err *err = mr_operation_error(op);
    if (err && err->code != MR_E_ORPHAN) { /* it could not be written */
        mr_pending_answer(pending, NULL, err);
        return;
    }
    MR_AUTO_JSON struct json_object *document = mr_volume_document(pending->volume);
    mr_pending_answer(pending, document, NULL);
}

/* What is under way ends within moments, or the volume is wedged. */
static bool about_to_end(const struct mr_operation *op)
{
    const struct mr_volume *volume = op->volume;
    return op->ending || volume->act ||
           (!volume->wedged &&
            ((op->then && !mr_cancel_waits_for_end(op)) || mr_detach_must_answer(op)));
}

static int check(struct mr_engine *engine, const struct mr_volume *volume, const char *id,
                 struct mr_err *err)
{
    if (mr_refuse_absent(engine, volume, id, err) < 0)
        return -ENOENT;
    const struct mr_operation *op = volume->op;
    if (volume->forgotten && !op) {
        int rc = mr_fail(err, MR_E_ORPHAN, 0, "volume '%s' was given up already", id);
        return mr_err_remedy(err, rc, "DELETE /orphans/%s takes it down", id);
    }
    if (!op || op->goal != MR_GOAL_ABSENT) {
        int rc = mr_fail(err, MR_E_NOT_DETACHING, 0,
                         "volume '%s' is not being detached; nothing was changed", id);
        return mr_err_remedy(err, rc, "only the wait of a detach can be given up");
    }
    return about_to_end(op) ? mr_refuse_pending(volume, err) : 0;
}

struct mr_pending *mr_engine_forget(struct mr_engine *engine, const char *id,
                                    const char *reason, struct json_object *caller,
                                    mr_answer_fn fn, void *ctx, struct mr_err *err)
{
    struct mr_volume *volume = mr_engine_lookup(engine, id);

    if (check(engine, volume, id, err) < 0)
        return NULL;
    struct mr_operation *op = volume->op;
    struct mr_pending *pending = mr_pending_new(engine, volume, fn, ctx);
    if (pending)
        pending->watch = mr_operation_watch(op, on_ended, pending);
    if (!pending || !pending->watch) {
        mr_pending_cancel(pending);
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "forget volume '%s'", id);
        return NULL;
    }
    pending->slot = &op->forgetting;
    op->forgetting = pending;
    op->forget = json_object_new_object();
    mr_json_set_string(op->forget, "reason", reason);
    mr_json_set_int(op->forget, "at_ms", mr_wall_ms());
    mr_json_set(op->forget, "by", json_object_get(caller));
    mr_json_set(op->forget, "waited_for", json_object_get(op->waited_for));
    (void)mr_fail(
        &op->error, MR_E_ORPHAN, 0, "the wait was given up; '%s' is still mapped%s%s%s",
        volume->identity.node, op->unmap_asked ? " until its last user lets go" : "",
        reason ? ": " : "", reason ? reason : "");
    (void)mr_err_remedy(&op->error, 0, "DELETE /orphans/%s goes on with the detach", id);
    op->error.residue = MR_RESIDUE_POSSIBLE;
    mr_volume_set_error(volume, &op->error);
    mr_operation_call_off(op, MR_STATE_ORPHAN, "forgotten");
    return pending;
}

/* --- forgotten volumes as orphans --- */

struct mr_volume *mr_engine_next_orphan(struct mr_engine *engine, const char *after)
{
    struct mr_volume *volume = mr_engine_next(engine, after);
    while (volume && !volume->forgotten)
        volume = mr_engine_next(engine, volume->id);
    return volume;
}

struct json_object *mr_orphan_document(const struct mr_volume *volume)
{
    struct json_object *json = json_object_new_object();
    struct json_object *forgotten = volume->forgotten;
    char text[MR_TIME_TEXT];

    if (!json)
        return NULL;
    mr_json_set_string(json, "id", volume->id);
    mr_json_set_string(json, "kind", "forgotten");
    mr_json_set(json, "volume", mr_volume_document(volume));
    mr_json_set_string(json, "reason", mr_json_get_string(forgotten, "reason"));
    mr_json_set_string(json, "forgotten_at",
                       mr_time_text(mr_json_get_int(forgotten, "at_ms", 0), text));
    mr_json_set(json, "forgotten_by", json_object_get(mr_json_get(forgotten, "by")));
    return json;
}

int mr_engine_detach_orphan(struct mr_engine *engine, const char *id,
                            bool accept_data_loss, struct mr_operation **ret_op,
                            struct mr_err *err)
{
    struct mr_volume *volume = mr_engine_lookup(engine, id);

    *ret_op = NULL;
    if (mr_engine_recovering(engine))
        return mr_refuse_recovering(err);
    if (volume && volume->unadopted) {
        int rc = mr_fail(err, MR_E_OPERATION_PENDING, 0, "'%s' is being adopted", id);
        return mr_err_remedy(err, rc, "ask again");
    }
    if (!volume || !volume->forgotten) {
        int rc = mr_fail(err, MR_E_VOLUME_NOT_FOUND, 0, "there is no orphan '%s'", id);
        return volume && volume->proof
                   ? mr_err_remedy(err, rc,
                                   "DELETE /volumes/%s gives its proof of release", id)
                   : rc;
    }
    return mr_request_detach(volume, accept_data_loss, ret_op, err);
}
