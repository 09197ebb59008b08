/* SPDX-License-Identifier: Apache-2.0
 *
 * The fake engine's answers that take a while: holders, history, actions, forgetting.
 */
#include "fake_engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/clock.h"
#include "storage/base/json.h"

#define HISTORY_ITEMS 5

static void drop(struct mr_pending *pending)
{
    mr_timer_cancel(&pending->timer);
    *pending->link = pending->next;
    if (pending->next)
        pending->next->link = pending->link;
    (void)json_object_put(pending->document);
    free(pending);
}

void fake_pending_free(struct mr_engine *engine)
{
    while (engine->pending)
        drop(engine->pending);
    for (size_t i = 0; i < VOLUMES_MAX; i++)
        (void)json_object_put(engine->volumes[i].caller);
}

static void answer(void *ctx)
{
    struct mr_pending *pending = ctx;
    struct mr_pending copy = *pending;

    if (copy.done)
        copy.done(copy.volume);
    struct json_object *document =
        copy.document ? json_object_get(copy.document) : mr_volume_document(copy.volume);
    drop(pending);
    if (copy.fn && copy.fails)
        copy.fn(copy.ctx, NULL, &copy.err);
    else if (copy.fn)
        copy.fn(copy.ctx, document, NULL);
    (void)json_object_put(document);
}

struct mr_pending *fake_pending_begin(struct mr_engine *engine, struct mr_volume *volume,
                                      struct json_object *document, int ms,
                                      mr_answer_fn fn, void *ctx)
{
    struct mr_pending *pending = calloc(1, sizeof(*pending));

    if (!pending)
        abort();
    pending->volume = volume;
    pending->fn = fn;
    pending->ctx = ctx;
    pending->document = document;
    pending->next = engine->pending;
    pending->link = &engine->pending;
    if (pending->next)
        pending->next->link = &pending->next;
    engine->pending = pending;
    mr_timer_init(&pending->timer, engine->loop, answer, pending);
    mr_timer_set(&pending->timer, mr_now_ns() + ms * MR_NS_PER_MS);
    return pending;
}

static struct mr_pending *begin(struct mr_volume *volume, struct json_object *document,
                                mr_answer_fn fn, void *ctx)
{
    int ms = fake_starts(volume->id, "slow")        ? 10000
             : fake_starts(volume->id, "held-long") ? 500
                                                    : 20;
    struct mr_pending *pending =
        fake_pending_begin(volume->engine, volume, document, ms, fn, ctx);

    pending->fails = fake_starts(volume->id, "broken");
    (void)mr_fail(&pending->err, MR_E_JOURNAL_UNAVAILABLE, 28, "write journal");
    return pending;
}

void mr_pending_cancel(struct mr_pending *pending)
{
    if (pending)
        pending->fn = NULL;
}

struct mr_pending *mr_engine_holders(struct mr_engine *engine, struct mr_volume *volume,
                                     mr_answer_fn fn, void *ctx)
{
    struct json_object *document = json_object_new_object();
    (void)engine;
    mr_json_set_string(document, "held", "free");
    return begin(volume, document, fn, ctx);
}

/* The volume of a request, or NULL and why not. */
static struct mr_volume *find(struct mr_engine *engine, const char *id,
                              struct mr_err *err)
{
    struct mr_volume *volume = mr_engine_find(engine, id);
    if (engine->recovering)
        (void)mr_fail(err, MR_E_RECOVERING, 0, "recovering");
    else if (!volume)
        (void)mr_fail(err, MR_E_VOLUME_NOT_FOUND, 0, "no volume '%s'", id);
    return engine->recovering ? NULL : volume;
}

static struct mr_volume *find_detaching(struct mr_engine *engine, const char *id,
                                        struct mr_err *err)
{
    struct mr_volume *volume = find(engine, id, err);
    if (!volume || (volume->running && volume->running->goal == MR_GOAL_ABSENT))
        return volume;
    (void)mr_fail(err, MR_E_NOT_DETACHING, 0, "'%s' is not being detached", id);
    return NULL;
}

struct mr_pending *mr_engine_history(struct mr_engine *engine, const char *id,
                                     int64_t after, unsigned limit, mr_answer_fn fn,
                                     void *ctx, struct mr_err *err)
{
    struct mr_volume *volume = find(engine, id, err);
    struct json_object *items = json_object_new_array();
    struct json_object *document = json_object_new_object();
    int64_t seq = after + 1;
    char token[24];

    mr_json_set(document, "items", items);
    mr_json_set_int(document, "limit", limit);
    if (!volume) {
        (void)json_object_put(document);
        return NULL;
    }
    for (; seq <= HISTORY_ITEMS && limit > 0; seq++, limit--) {
        struct json_object *item = json_object_new_object();
        mr_json_set_int(item, "seq", seq);
        (void)json_object_array_add(items, item);
    }
    (void)snprintf(token, sizeof(token), "%lld", (long long)seq - 1);
    mr_json_set_string(document, "next_page_token", seq <= HISTORY_ITEMS ? token : NULL);
    return begin(volume, document, fn, ctx);
}

static void acted(struct mr_volume *volume)
{
    volume->actions_done++;
    volume->generation++;
}

/* Repeats the request in its answer. */
struct mr_pending *mr_engine_act(struct mr_engine *engine, const char *id,
                                 const struct mr_action_request *request, mr_answer_fn fn,
                                 void *ctx, struct mr_err *err)
{
    struct mr_volume *volume = find_detaching(engine, id, err);
    struct json_object *first =
        request->holders ? json_object_array_get_idx(request->holders, 0) : NULL;

    if (!volume)
        return NULL;
    if (first && strcmp(json_object_get_string(first), "gone") == 0) {
        (void)mr_fail(err, MR_E_HOLDER_NOT_FOUND, 0, "no holder 'gone'");
        return NULL;
    }
    if (mr_action_loses_data(request->action) && !request->accept_data_loss) {
        (void)mr_fail(err, MR_E_LOSS_NOT_ACCEPTED, 0, "12 MiB would be lost");
        return NULL;
    }
    if (request->action == MR_ACTION_CUT_TRANSPORT) {
        (void)mr_fail(err, MR_E_ACTION_UNSUPPORTED, 0, "a file has no transport");
        return NULL;
    }
    struct json_object *document = json_object_new_object();
    mr_json_set_string(document, "action", mr_action_name(request->action));
    mr_json_set_string(document, "volume", id);
    mr_json_set(document, "holders", json_object_get(request->holders));
    mr_json_set_string(document, "signal", request->signal);
    mr_json_set_bool(document, "accept_data_loss", request->accept_data_loss);
    mr_json_set(document, "caller", json_object_get(request->caller));
    struct mr_pending *pending = begin(volume, document, fn, ctx);
    pending->done = acted;
    return pending;
}

struct mr_pending *mr_engine_forget(struct mr_engine *engine, const char *id,
                                    const char *reason, struct json_object *caller,
                                    mr_answer_fn fn, void *ctx, struct mr_err *err)
{
    struct mr_volume *volume = find_detaching(engine, id, err);
    if (!volume)
        return NULL;
    struct mr_operation *op = volume->running;
    volume->state = "orphan";
    volume->forgotten = true;
    (void)snprintf(volume->reason, sizeof(volume->reason), "%s", reason ? reason : "-");
    (void)json_object_put(volume->caller);
    volume->caller = json_object_get(caller);
    (void)mr_fail(&op->err, MR_E_ORPHAN, 0, "the wait for '%s' was given up", id);
    fake_operation_end(op, -1);
    return begin(volume, NULL, fn, ctx);
}
