/* SPDX-License-Identifier: Apache-2.0
 *
 * An operation as a document and as a row, its life, and those who wait for its end.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/engine_internal.h"

/* --- documents --- */

const char *mr_operation_id(const struct mr_operation *op)
{
    return op->id;
}

enum mr_goal mr_operation_goal(const struct mr_operation *op)
{
    return op->goal;
}

struct mr_volume *mr_operation_volume(const struct mr_operation *op)
{
    return op->volume;
}

int mr_operation_ended(const struct mr_operation *op)
{
    return op->ended;
}

bool mr_operation_created(const struct mr_operation *op)
{
    return op->created;
}

struct json_object *mr_operation_proof(const struct mr_operation *op)
{
    return op->ended > 0 ? op->proof : NULL;
}

const struct mr_err *mr_operation_error(const struct mr_operation *op)
{
    return op->ended < 0 ? &op->error : NULL;
}

static struct json_object *document(const struct mr_operation *op, int ended)
{
    struct json_object *json = json_object_new_object();
    char text[MR_TIME_TEXT];

    if (!json)
        return NULL;
    mr_json_set_string(json, "id", op->id);
    mr_json_set_string(json, "kind", op->goal == MR_GOAL_ATTACHED ? "attach" : "detach");
    mr_json_set_string(json, "volume", op->volume_id);
    mr_json_set_string(json, "state",
                       ended == 0  ? "running"
                       : ended > 0 ? "done"
                                   : "failed");
    mr_json_set_string(json, "step", ended == 0 ? mr_step_name(op->step) : NULL);
    mr_json_set_string(json, "started_at", mr_time_text(op->started_at_ms, text));
    mr_json_set_string(json, "ended_at",
                       ended ? mr_time_text(op->ended_at_ms, text) : NULL);
    mr_json_set(json, "error", ended < 0 ? mr_err_to_json(&op->error) : NULL);
    mr_json_set(json, "result", ended > 0 ? json_object_get(op->proof) : NULL);
    return json;
}

struct json_object *mr_operation_document(const struct mr_operation *op)
{
    return document(op, op->ended);
}

/* The document plus what only we read back. */
struct json_object *mr_operation_to_row(const struct mr_operation *op)
{
    struct json_object *row = document(op, op->ending);
    mr_json_set_int(row, "started_at_ms", op->started_at_ms);
    mr_json_set_int(row, "ended_at_ms", op->ended_at_ms);
    mr_json_set_bool(row, "created", op->created);
    return row;
}

struct mr_operation *mr_operation_from_row(struct mr_engine *engine, const char *id,
                                           struct json_object *row)
{
    const char *volume_id = mr_json_get_string(row, "volume");
    const char *kind = mr_json_get_string(row, "kind");
    const char *state = mr_json_get_string(row, "state");
    struct mr_volume *volume = volume_id ? mr_engine_lookup(engine, volume_id) : NULL;

    if (!volume || !kind || !state)
        return NULL;
    struct mr_operation *op = mr_operation_new(
        engine, volume, strcmp(kind, "attach") == 0 ? MR_GOAL_ATTACHED : MR_GOAL_ABSENT,
        id);
    if (!op)
        return NULL;
    op->started_at_ms = mr_json_get_int(row, "started_at_ms", 0);
    op->ended_at_ms = mr_json_get_int(row, "ended_at_ms", 0);
    op->created = mr_json_get_bool(row, "created", false);
    op->proof = json_object_get(mr_json_get(row, "result"));
    if (strcmp(state, "done") == 0)
        op->ended = 1;
    else if (strcmp(state, "failed") == 0)
        op->ended = -1;
    mr_err_from_json(&op->error, mr_json_get(row, "error"));
    return op;
}

/* --- life --- */

static struct mr_watch *take_accepted(struct mr_operation *op)
{
    for (struct mr_watch **at = &op->watches; *at; at = &(*at)->next) {
        struct mr_watch *watch = *at;
        if (!watch->accepted)
            continue;
        *at = watch->next;
        return watch;
    }
    return NULL;
}

void mr_operation_accepted(struct mr_operation *op)
{
    struct mr_watch *watch;

    op->journalled = true;
    while ((watch = take_accepted(op))) {
        mr_operation_fn fn = watch->fn;
        void *fn_ctx = watch->ctx;
        free(watch);
        fn(fn_ctx, op);
    }
}

static void on_notify(void *ctx)
{
    struct mr_operation *op = ctx;
    if (op->ended)
        mr_operation_tell(op);
    else
        mr_operation_accepted(op);
}

void mr_operation_tell(struct mr_operation *op)
{
    while (op->watches) {
        struct mr_watch *watch = op->watches;
        mr_operation_fn fn = watch->fn;
        void *fn_ctx = watch->ctx;
        op->watches = watch->next;
        free(watch);
        fn(fn_ctx, op->ended ? op : NULL);
    }
}

struct mr_operation *mr_operation_new(struct mr_engine *engine, struct mr_volume *volume,
                                      enum mr_goal goal, const char *id)
{
    struct mr_operation *op = calloc(1, sizeof(*op));
    if (!op)
        return NULL;
    op->engine = engine;
    op->volume = volume;
    op->goal = goal;
    op->wd = -1;
    op->started_at_ms = mr_wall_ms();
    memcpy(op->volume_id, volume->id, sizeof(op->volume_id));
    mr_timer_init(&op->notify, engine->loop, on_notify, op);
    mr_timer_init(&op->retry, engine->loop, mr_operation_on_retry, op);
    (void)snprintf(op->id, sizeof(op->id), "op-");
    if (id) {
        (void)snprintf(op->id, sizeof(op->id), "%s", id);
    } else if (mr_random_hex(8, op->id + 3) < 0) {
        free(op);
        return NULL;
    }
    return op;
}

void mr_operation_free(struct mr_operation *op)
{
    if (!op)
        return;
    mr_operation_release(op);
    mr_timer_cancel(&op->notify);
    mr_journal_forget(op->engine->journal, op);
    mr_operation_tell(op);
    (void)json_object_put(op->proof);
    (void)json_object_put(op->waited_for);
    (void)json_object_put(op->evidence);
    (void)json_object_put(op->before);
    mr_spec_free(op->then_spec);
    (void)json_object_put(op->forget);
    free(op);
}

static struct mr_watch *add_watch(struct mr_operation *op, bool accepted,
                                  mr_operation_fn fn, void *ctx)
{
    struct mr_watch *watch = malloc(sizeof(*watch));
    if (!watch)
        return NULL;
    *watch = (struct mr_watch){
        .op = op, .next = op->watches, .accepted = accepted, .fn = fn, .ctx = ctx};
    op->watches = watch;
    return watch;
}

struct mr_watch *mr_operation_watch(struct mr_operation *op, mr_operation_fn fn,
                                    void *ctx)
{
    struct mr_watch *watch = add_watch(op, false, fn, ctx);
    if (watch && op->ended)
        mr_timer_set(&op->notify, 0);
    return watch;
}

struct mr_watch *mr_operation_watch_accepted(struct mr_operation *op, mr_operation_fn fn,
                                             void *ctx)
{
    struct mr_watch *watch = add_watch(op, true, fn, ctx);
    if (watch && mr_operation_is_accepted(op))
        mr_timer_set(&op->notify, 0);
    return watch;
}

bool mr_operation_is_accepted(const struct mr_operation *op)
{
    return op->journalled || op->ended;
}

void mr_watch_cancel(struct mr_watch *watch)
{
    if (!watch)
        return;
    for (struct mr_watch **at = &watch->op->watches; *at; at = &(*at)->next) {
        if (*at == watch) {
            *at = watch->next;
            break;
        }
    }
    free(watch);
}
