/* SPDX-License-Identifier: Apache-2.0
 *
 * POST holders/actions: whether an action may start is decided here, before anything is
 * written or done. One at a time for a volume.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/act.h"
#include "storage/base/json.h"

static int refuse_loss(const struct mr_volume *volume, enum mr_action action,
                       struct mr_err *err)
{
    int rc = mr_fail(
        err, MR_E_LOSS_NOT_ACCEPTED, 0, "%s of volume '%s' loses %s",
        mr_action_name(action), volume->id,
        action == MR_ACTION_SHUTDOWN
            ? "what its file system has not yet written (it is asked to write first, for "
              "at most 5 s); every process that uses it gets I/O errors from then on"
            : "all that the device has not yet confirmed; every read and write of it "
              "fails from then on, until it is detached");
    return mr_err_remedy(err, rc,
                         "nothing was done; repeat with \"accept_data_loss\": true");
}

static int check_row(struct json_object *row, const char *id, enum mr_action action,
                     struct mr_err *err)
{
    enum mr_holder_kind kind = mr_holder_kind_from_name(mr_json_get_string(row, "kind"));
    int rc;

    if (row && !mr_json_get_bool(row, "certain", true)) {
        rc = mr_fail_at(err, MR_E_ACTION_UNSUPPORTED, "/holders",
                        "holder '%s' only might hold the volume (certain: false)", id);
        return mr_err_remedy(err, rc, "find out by other means, and end it there");
    }
    if (!row) {
        rc = mr_fail_at(err, MR_E_HOLDER_NOT_FOUND, "/holders",
                        "the last scan has no holder '%.64s'", id);
        return mr_err_remedy(err, rc, "GET the holders again and use their ids");
    }
    if (mr_holder_allows(kind, action) &&
        (action != MR_ACTION_SIGNAL || mr_json_get_int(row, "pid", 0) > 0))
        return 0;
    rc = mr_fail_at(err, MR_E_ACTION_UNSUPPORTED, "/holders",
                    "%s cannot end holder '%s' (%s%s)", mr_action_name(action), id,
                    mr_holder_kind_name(kind),
                    mr_holder_allows(kind, action) ? ", no process known" : "");
    return mr_err_remedy(err, rc, "%s", mr_holder_remedy(kind));
}

/* What the worker checks, and what the journal is to tell. */
static struct json_object *essentials(struct json_object *row)
{
    static const char *const keys[] = {"id",   "kind",     "pid",      "start_time",
                                       "tid",  "mount_ns", "mount_id", "path",
                                       "comm", "device"};
    struct json_object *json = json_object_new_object();

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        mr_json_set(json, keys[i], json_object_get(mr_json_get(row, keys[i])));
    return json;
}

/* The listed rows as they are now. New reference, or NULL and err. */
static struct json_object *chosen_rows(const struct mr_volume *volume,
                                       const struct mr_action_request *request,
                                       struct mr_err *err)
{
    struct json_object *rows = json_object_new_array();
    size_t count = request->holders ? json_object_array_length(request->holders) : 0;

    for (size_t i = 0; i < count; i++) {
        const char *id =
            json_object_get_string(json_object_array_get_idx(request->holders, i));
        struct json_object *row = mr_holders_find(volume->holders, id);
        if (check_row(row, id, request->action, err) < 0) {
            (void)json_object_put(rows);
            return NULL;
        }
        (void)json_object_array_add(rows, essentials(row));
    }
    return rows;
}

static int check_volume(struct mr_engine *engine, struct mr_volume *volume,
                        const char *id, const struct mr_action_request *request,
                        struct mr_err *err)
{
    if (mr_refuse_absent(engine, volume, id, err) < 0)
        return -ENOENT;
    const struct mr_operation *op = volume->op;
    if (!op && volume->forgotten) {
        int rc = mr_fail(err, MR_E_NOT_DETACHING, 0,
                         "volume '%s' is an orphan that nobody detaches", id);
        return mr_err_remedy(err, rc, "DELETE /orphans/%s first", id);
    }
    if (!op || op->goal != MR_GOAL_ABSENT || op->ending) {
        int rc = mr_fail(err, MR_E_NOT_DETACHING, 0,
                         "volume '%s' is not being detached; nothing was done", id);
        return mr_err_remedy(err, rc, "DELETE it first: only a detach may end a hold");
    }
    /* With a PUT behind it this detach is as good as over, unless it hangs. */
    if (op->then && !volume->wedged && !mr_cancel_waits_for_end(op))
        return mr_refuse_pending(volume, err);
    if (volume->act) {
        int rc = mr_fail(err, MR_E_OPERATION_PENDING, 0,
                         "%s runs on the holders of volume '%s'",
                         mr_action_name(volume->act->action), id);
        return mr_err_remedy(err, rc, "try again in a moment");
    }
    if (mr_action_loses_data(request->action) && !request->accept_data_loss)
        return refuse_loss(volume, request->action, err);
    return 0;
}

struct mr_pending *mr_engine_act(struct mr_engine *engine, const char *id,
                                 const struct mr_action_request *request, mr_answer_fn fn,
                                 void *ctx, struct mr_err *err)
{
    struct mr_volume *volume = mr_engine_lookup(engine, id);

    if (check_volume(engine, volume, id, request, err) < 0)
        return NULL;
    struct json_object *rows = chosen_rows(volume, request, err);
    if (!rows)
        return NULL;
    struct mr_act *act = calloc(1, sizeof(*act));
    struct mr_pending *pending = act ? mr_pending_new(engine, volume, fn, ctx) : NULL;
    if (!pending) {
        free(act);
        (void)json_object_put(rows);
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "act on the holders of '%s'", id);
        return NULL;
    }
    *act = (struct mr_act){.engine = engine,
                           .volume = volume,
                           .action = request->action,
                           .request = json_object_new_object(),
                           .started_at_ms = mr_wall_ms(),
                           .pending = pending};
    memcpy(act->token, volume->token, sizeof(act->token));
    pending->slot = &act->pending;
    volume->act = act;
    (void)snprintf(act->operation, sizeof(act->operation), "%s", volume->op->id);
    mr_json_set_string(act->request, "action", mr_action_name(request->action));
    mr_json_set_string(act->request, "operation", act->operation);
    mr_json_set(act->request, "holders", rows);
    if (request->action == MR_ACTION_SIGNAL)
        mr_json_set_string(act->request, "signal",
                           request->signal ? request->signal : "TERM");
    mr_json_set_bool(act->request, "accept_data_loss", request->accept_data_loss);
    mr_json_set(act->request, "caller", json_object_get(request->caller));
    mr_act_start(act);
    return pending;
}
