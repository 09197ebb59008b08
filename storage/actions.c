/* SPDX-License-Identifier: Apache-2.0
 *
 * An operator ends a hold: written to the journal with who asked, and only then done, to
 * those who still hold, by a worker of its own: the volume's may hang in the kernel.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/act.h"
#include "storage/base/json.h"

#define MR_ACT_DEADLINE_NS (30 * MR_NS_PER_S)

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
    (void)json_object_put(act->gone);
    free(act);
}

void mr_act_stop(struct mr_volume *volume)
{
    while (volume->act || volume->left_behind)
        act_free(volume->act ? volume->act : volume->left_behind);
}

bool mr_act_may_touch(const struct mr_volume *volume)
{
    for (const struct mr_act *act = volume->left_behind; act; act = act->next)
        if (strcmp(act->token, volume->token) == 0)
            return true;
    return volume->act != NULL;
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

void mr_act_set_acting(struct mr_volume *volume, struct json_object *request)
{
    (void)json_object_put(volume->acting);
    volume->acting = request;
}

static void record_failure(struct mr_act *act, const struct mr_err *err)
{
    mr_act_set_acting(act->volume, NULL);
    MR_AUTO_JSON struct json_object *detail = mr_err_to_json(err);
    mr_json_set_string(detail, "action", mr_action_name(act->action));
    mr_volume_record(act->volume, "action_failed", detail, NULL, NULL);
}

static void failed(struct mr_act *act, const struct mr_err *err)
{
    record_failure(act, err);
    answer(act, NULL, err);
}

/* The same, and surely nothing was done: what was accepted for it counts no more. */
static void not_done(struct mr_act *act, const struct mr_err *err)
{
    struct mr_operation *op = still_waiting(act);

    if (op && mr_action_loses_data(act->action))
        op->accept_data_loss = act->was_accepted;
    act->volume->forced = act->volume->forced && act->was_forced;
    failed(act, err);
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

/* results: taken. */
static void finish(struct mr_act *act, struct json_object *results)
{
    act->ended_at_ms = mr_wall_ms();
    act->results = results;
    for (size_t i = 0; act->gone && i < json_object_array_length(act->gone); i++)
        (void)json_object_array_add(
            act->results, json_object_get(json_object_array_get_idx(act->gone, i)));
    describe_results(act->results, mr_json_get(act->request, "holders"));
    mr_act_set_acting(act->volume, NULL);
    MR_AUTO_JSON struct json_object *detail = json_object_new_object();
    mr_json_set_string(detail, "action", mr_action_name(act->action));
    mr_json_set(detail, "results", json_object_get(act->results));
    mr_volume_record(act->volume, "action_done", detail, NULL, NULL);
    act->scan = mr_scanner_request(act->engine->scanner, mr_holders_target(act->volume),
                                   on_scanned, act);
    if (!act->scan)
        answer_done(act, NULL);
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
    if (ok && json_object_is_type(results, json_type_array))
        finish(act, json_object_get(results));
    else if (err->code == MR_E_ACTION_UNSUPPORTED)
        not_done(act, err);
    else
        failed(act, err);
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

static void start(struct mr_act *act, struct json_object *rows)
{
    struct mr_operation *op = still_waiting(act);
    int64_t deadline_ns = mr_now_ns() + MR_ACT_DEADLINE_NS;
    struct mr_err why;

    if (!op) {
        (void)mr_fail(&why, MR_E_NOT_DETACHING, 0,
                      "the detach of '%s' has ended meanwhile; nothing was done",
                      act->volume->id);
        not_done(act, &why);
        return;
    }
    if (mr_worker_start(act->engine->workers, "action", NULL, deadline_ns, &act_events,
                        act, &act->worker, &why) < 0) {
        not_done(act, &why);
        return;
    }
    mr_worker_command(act->worker, mr_act_command(act, op, rows), deadline_ns);
}

static void on_looked_again(void *ctx, struct json_object *seen, bool complete,
                            const struct mr_err *err)
{
    struct mr_act *act = ctx;

    act->scan = NULL;
    if (!seen) {
        not_done(act, err);
        return;
    }
    MR_AUTO_JSON struct json_object *rows = mr_act_keep_holding(act, seen, complete);
    if (json_object_array_length(rows) > 0)
        start(act, rows);
    else
        finish(act, json_object_new_array());
}

static void on_durable(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_act *act = ctx;
    struct mr_err why;

    mr_unsaved_result(act->engine, rc, err);
    if (rc < 0) {
        mr_act_set_acting(act->volume, NULL);
        act->volume->forced = act->was_forced;
        mr_unsaved_note(act->volume); /* another record may have said it */
        answer(act, NULL, err); /* nothing was done, and there is nowhere to write it */
        return;
    }
    struct mr_operation *op = still_waiting(act);
    if (op)
        act->was_accepted = op->accept_data_loss;
    if (op && mr_action_loses_data(act->action))
        op->accept_data_loss = true;
    if (!mr_action_needs_holders(act->action)) {
        start(act, mr_json_get(act->request, "holders"));
        return;
    }
    act->scan = mr_scanner_request(act->engine->scanner, mr_holders_target(act->volume),
                                   on_looked_again, act);
    if (!act->scan) {
        (void)mr_fail(&why, MR_E_INTERNAL, ENOMEM, "look at the holders again");
        not_done(act, &why);
    }
}

void mr_act_note_lost(struct mr_volume *volume)
{
    if (!volume->acting)
        return;
    MR_AUTO_JSON struct json_object *detail = json_object_new_object();
    mr_json_set(detail, "action", json_object_get(mr_json_get(volume->acting, "action")));
    mr_json_set_string(detail, "message",
                       "the agent ended meanwhile: it may be done, or not");
    mr_act_set_acting(volume, NULL);
    mr_volume_record(volume, "action_lost", detail, NULL, NULL);
}

void mr_act_start(struct mr_act *act)
{
    struct mr_volume *volume = act->volume;

    act->was_forced = volume->forced;
    volume->forced = volume->forced || mr_action_loses_data(act->action);
    mr_act_set_acting(volume, json_object_get(act->request));
    mr_volume_record(volume, "action", act->request, on_durable, act);
}
