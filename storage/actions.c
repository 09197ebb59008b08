/* SPDX-License-Identifier: Apache-2.0
 *
 * POST holders/actions: an operator ends a hold. Decided here, written to the journal
 * with who asked, and only then done, by a worker of its own: the volume's may hang in
 * the kernel. One at a time for a volume.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/json.h"
#include "storage/engine_internal.h"

#define MR_ACT_DEADLINE_NS (30 * MR_NS_PER_S)

struct mr_act {
    struct mr_act *next; /* of those left behind */
    struct mr_engine *engine;
    struct mr_volume *volume;
    char operation[MR_OPERATION_ID_TEXT];
    enum mr_action action;
    struct json_object *request; /* what the journal has: action, holders, caller, ... */
    struct json_object *results;
    int64_t started_at_ms;
    int64_t ended_at_ms;
    bool was_accepted;          /* the loss of data, before this action */
    struct mr_pending *pending; /* NULL: the client went away */
    struct mr_worker *worker;
    struct mr_scan_request *scan;
};

static void act_free(struct mr_act *act)
{
    for (struct mr_act **at = &act->volume->left_behind; *at; at = &(*at)->next) {
        if (*at == act) {
            *at = act->next;
            break;
        }
    }
    mr_worker_end(act->worker);
    mr_scanner_cancel(act->scan);
    mr_journal_forget(act->engine->journal, act);
    if (act->pending)
        act->pending->slot = NULL;
    if (act->volume->act == act)
        act->volume->act = NULL;
    (void)json_object_put(act->request);
    (void)json_object_put(act->results);
    free(act);
}

void mr_act_stop(struct mr_volume *volume)
{
    while (volume->act || volume->left_behind)
        act_free(volume->act ? volume->act : volume->left_behind);
}

/* The detach that it was asked for, if that still waits. */
static struct mr_operation *still_waiting(const struct mr_act *act)
{
    struct mr_operation *op = act->volume->op;
    return op && !op->ending && strcmp(op->id, act->operation) == 0 ? op : NULL;
}

/* --- the answer --- */

static void answer(struct mr_act *act, struct json_object *document,
                   const struct mr_err *err)
{
    struct mr_pending *pending = mr_take_ptr(act->pending);

    if (pending)
        pending->slot = NULL;
    act_free(act);
    mr_pending_answer(pending, document, err);
}

/* What it did is done, whether or not a scan can tell what remains (remaining NULL). */
static void answer_done(struct mr_act *act, struct json_object *remaining)
{
    MR_AUTO_JSON struct json_object *json = json_object_new_object();

    mr_json_set_string(json, "action", mr_action_name(act->action));
    mr_json_set_string(json, "volume", act->volume->id);
    mr_json_set_string(json, "operation", act->operation);
    mr_document_set_time(json, "started_at", act->started_at_ms);
    mr_document_set_time(json, "ended_at", act->ended_at_ms);
    mr_json_set(json, "results", json_object_get(act->results));
    mr_json_set(json, "remaining", remaining);
    answer(act, json, NULL);
}

static void on_scanned(void *ctx, struct json_object *rows, bool complete,
                       const struct mr_err *err)
{
    struct mr_act *act = ctx;
    struct mr_volume *volume = act->volume;
    bool known_held = volume->op && volume->op->known_held;
    struct json_object *remaining = NULL;

    (void)err;
    act->scan = NULL;
    if (rows) {
        mr_holders_update(volume, rows, complete, known_held);
        remaining = mr_holders_document(volume, complete, known_held);
    }
    answer_done(act, remaining);
}

static void record_failure(struct mr_act *act, const struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *detail = mr_err_to_json(err);
    mr_json_set_string(detail, "action", mr_action_name(act->action));
    mr_volume_record(act->volume, "action_failed", detail, NULL, NULL);
}

/* Nothing was done. */
static void failed(struct mr_act *act, const struct mr_err *err)
{
    struct mr_operation *op = still_waiting(act);

    if (op && mr_action_loses_data(act->action))
        op->accept_data_loss = act->was_accepted;
    record_failure(act, err);
    answer(act, NULL, err);
}

/* --- the worker --- */

/* The rows say what they were about; the worker's results only how it went. */
static void describe_results(struct json_object *results, struct json_object *rows)
{
    static const char *const keys[] = {"kind", "pid", "path"};

    for (size_t i = 0; i < json_object_array_length(results); i++) {
        struct json_object *result = json_object_array_get_idx(results, i);
        struct json_object *row =
            mr_holders_find(rows, mr_json_get_string(result, "holder"));
        for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
            mr_json_set(result, keys[k], json_object_get(mr_json_get(row, keys[k])));
    }
}

static void on_reply(void *ctx, bool ok, struct json_object *message,
                     const struct mr_err *err)
{
    struct mr_act *act = ctx;
    struct json_object *results = mr_json_get(message, "results");
    struct mr_operation *op = still_waiting(act);
    bool late = act->volume->act != act;

    mr_worker_end(act->worker);
    act->worker = NULL;
    if (op) {
        op->backoff_ns = 0;
        mr_detach_look_again(op);
    }
    if (late) {
        act_free(act); /* the answer was given, the end of the hold will show */
        return;
    }
    if (!ok || !json_object_is_type(results, json_type_array)) {
        failed(act, err);
        return;
    }
    act->ended_at_ms = mr_wall_ms();
    act->results = json_object_get(results);
    describe_results(act->results, mr_json_get(act->request, "holders"));
    MR_AUTO_JSON struct json_object *detail = json_object_new_object();
    mr_json_set_string(detail, "action", mr_action_name(act->action));
    mr_json_set(detail, "results", json_object_get(act->results));
    mr_volume_record(act->volume, "action_done", detail, NULL, NULL);
    act->scan = mr_scanner_request(act->engine->scanner, mr_holders_target(act->volume),
                                   on_scanned, act);
    if (!act->scan)
        answer_done(act, NULL);
}

/* It may still act when it comes back: until then no PUT brings the volume back, but
 * other actions may help it. */
static void leave_behind(struct mr_act *act)
{
    struct mr_volume *volume = act->volume;

    volume->act = NULL;
    act->next = volume->left_behind;
    volume->left_behind = act;
}

static void on_overdue(void *ctx)
{
    struct mr_act *act = ctx;
    struct mr_pending *pending = mr_take_ptr(act->pending);
    struct mr_err err;
    char stack[256];

    (void)mr_fail(&err, MR_E_WEDGED, ETIMEDOUT,
                  "the worker of '%s' hangs in the kernel: %s",
                  mr_action_name(act->action), mr_worker_stack(act->worker, stack));
    (void)mr_err_remedy(&err, 0,
                        "it is left behind; with a device that does not answer, "
                        "cut-transport makes it fail instead");
    record_failure(act, &err);
    leave_behind(act);
    if (pending)
        pending->slot = NULL;
    mr_pending_answer(pending, NULL, &err);
}

static void on_died(void *ctx, const struct mr_err *err)
{
    struct mr_act *act = ctx;
    act->worker = NULL; /* freed by its table */
    if (act->volume->act == act)
        failed(act, err);
    else
        act_free(act);
}

static const struct mr_worker_events act_events = {
    .reply = on_reply,
    .overdue = on_overdue,
    .died = on_died,
};

/* Mounts of other volumes that a listed row may be about. */
static struct json_object *other_mounts(const struct mr_act *act)
{
    const struct mr_engine *engine = act->engine;
    struct json_object *rows = mr_json_get(act->request, "holders");
    struct json_object *records = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(rows); i++) {
        const char *path = mr_json_get_string(json_object_array_get_idx(rows, i), "path");
        for (size_t v = 0; path && v < engine->volume_count; v++) {
            const struct mr_volume *other = engine->volumes[v];
            if (other != act->volume && other->mount.mount.id != 0 &&
                mr_mount_record_is_at(&other->mount, path))
                (void)json_object_array_add(records,
                                            mr_mount_record_to_json(&other->mount));
        }
    }
    return records;
}

static struct json_object *new_command(const struct mr_act *act, struct mr_operation *op)
{
    static const char *const copied[] = {"action", "holders", "signal"};
    const struct mr_volume *volume = act->volume;
    struct json_object *command = mr_operation_new_command(op, "act");

    for (size_t i = 0; i < sizeof(copied) / sizeof(copied[0]); i++)
        mr_json_set(command, copied[i],
                    json_object_get(mr_json_get(act->request, copied[i])));
    mr_json_set_string(command, "fs_type", volume->spec->fs_type);
    mr_json_set_bool(command, "read_only", volume->spec->read_only);
    mr_json_set(command, "mount",
                mr_holders_own_mount(volume) ? mr_mount_record_to_json(&volume->mount)
                                             : NULL);
    mr_json_set_string(command, "mount_path", volume->spec->mount_path);
    mr_json_set(command, "spare", other_mounts(act));
    return command;
}

static void on_durable(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_act *act = ctx;
    struct mr_operation *op = still_waiting(act);
    int64_t deadline_ns = mr_now_ns() + MR_ACT_DEADLINE_NS;
    struct mr_err why;

    if (rc < 0) {
        answer(act, NULL, err); /* nothing was done, and there is nowhere to write it */
        return;
    }
    if (!op) {
        (void)mr_fail(&why, MR_E_NOT_DETACHING, 0,
                      "the detach of '%s' has ended meanwhile; nothing was done",
                      act->volume->id);
        failed(act, &why);
        return;
    }
    act->was_accepted = op->accept_data_loss;
    if (mr_worker_start(act->engine->workers, NULL, deadline_ns, &act_events, act,
                        &act->worker, &why) < 0) {
        failed(act, &why);
        return;
    }
    if (mr_action_loses_data(act->action))
        op->accept_data_loss = true;
    mr_worker_command(act->worker, new_command(act, op), deadline_ns);
}

/* --- the decision --- */

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
    if (mr_engine_recovering(engine))
        return mr_refuse_recovering(err);
    if (!volume || volume->state == MR_STATE_ABSENT)
        return mr_refuse_unknown(id, err);
    const struct mr_operation *op = volume->op;
    if (!op || op->goal != MR_GOAL_ABSENT || op->ending || op->recovering) {
        int rc = mr_fail(err, MR_E_NOT_DETACHING, 0,
                         "volume '%s' is not being detached; nothing was done", id);
        return mr_err_remedy(err, rc, "DELETE it first: only a detach may end a hold");
    }
    /* With a PUT behind it this detach is as good as over, unless it hangs. */
    if (op->then && !volume->wedged)
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
    struct mr_pending *pending = act ? mr_pending_new(volume, fn, ctx) : NULL;
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
    mr_volume_record(volume, "action", act->request, on_durable, act);
    return pending;
}
