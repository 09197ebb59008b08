/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers on their way to the API, and the two that need no more than asking: who holds a
 * volume now, and what was its history.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "storage/base/json.h"
#include "storage/discovery.h"
#include "storage/engine_internal.h"

struct mr_pending *mr_pending_new(struct mr_engine *engine, struct mr_volume *volume,
                                  mr_answer_fn fn, void *ctx)
{
    struct mr_pending *pending = calloc(1, sizeof(*pending));
    if (!pending)
        return NULL;
    *pending = (struct mr_pending){
        .engine = engine,
        .next = engine->pendings,
        .volume = volume,
        .fn = fn,
        .ctx = ctx,
    };
    engine->pendings = pending;
    return pending;
}

void mr_pending_cancel(struct mr_pending *pending)
{
    if (!pending)
        return;
    for (struct mr_pending **at = &pending->engine->pendings; *at; at = &(*at)->next) {
        if (*at == pending) {
            *at = pending->next;
            break;
        }
    }
    mr_scanner_cancel(pending->scan);
    mr_watch_cancel(pending->watch);
    mr_survey_cancel(pending->survey);
    mr_discovery_cancel(pending->discovery);
    (void)json_object_put(pending->document);
    (void)json_object_put(pending->caller);
    mr_journal_forget(pending->engine->journal, pending);
    if (pending->slot)
        *pending->slot = NULL;
    free(pending);
}

void mr_pending_answer(struct mr_pending *pending, struct json_object *document,
                       const struct mr_err *err)
{
    if (!pending)
        return;
    mr_answer_fn fn = pending->fn;
    void *ctx = pending->ctx;

    mr_pending_cancel(pending);
    fn(ctx, document, err);
}

void mr_pending_stop(struct mr_engine *engine)
{
    while (engine->pendings)
        mr_pending_answer(engine->pendings, NULL, NULL);
}

/* --- GET /volumes/{id}/holders --- */

static void on_scanned(void *ctx, struct json_object *rows, bool complete,
                       const struct mr_err *err)
{
    struct mr_pending *pending = ctx;
    struct mr_volume *volume = pending->volume;
    bool known_held = volume->op && volume->op->known_held;

    pending->scan = NULL; /* freed by the scanner */
    if (!rows) {
        mr_pending_answer(pending, NULL, err);
        return;
    }
    mr_holders_update(volume, rows, complete, known_held);
    MR_AUTO_JSON struct json_object *json =
        mr_holders_document(volume, complete, known_held);
    mr_pending_answer(pending, json, NULL);
}

struct mr_pending *mr_engine_holders(struct mr_engine *engine, struct mr_volume *volume,
                                     mr_answer_fn fn, void *ctx)
{
    struct mr_pending *pending = mr_pending_new(engine, volume, fn, ctx);
    if (!pending)
        return NULL;
    pending->scan = mr_scanner_request(engine->scanner, mr_holders_target(volume),
                                       on_scanned, pending);
    if (!pending->scan)
        mr_pending_cancel(mr_take_ptr(pending));
    return pending;
}

/* --- GET /volumes/{id}/history --- */

static void on_history(void *ctx, struct json_object *rows, bool more,
                       const struct mr_err *err)
{
    struct mr_pending *pending = ctx;
    char token[24];

    if (!rows) {
        mr_pending_answer(pending, NULL, err);
        return;
    }
    MR_AUTO_JSON struct json_object *page = json_object_new_object();
    size_t count = json_object_array_length(rows);
    struct json_object *last =
        count > 0 ? json_object_array_get_idx(rows, count - 1) : NULL;
    (void)snprintf(token, sizeof(token), "%" PRId64, mr_json_get_int(last, "seq", 0));
    mr_json_set(page, "items", json_object_get(rows));
    mr_json_set_string(page, "next_page_token", more ? token : NULL);
    mr_pending_answer(pending, page, NULL);
}

struct mr_pending *mr_engine_history(struct mr_engine *engine, const char *id,
                                     int64_t after, unsigned limit, mr_answer_fn fn,
                                     void *ctx, struct mr_err *err)
{
    struct mr_volume *volume = mr_engine_lookup(engine, id);
    if (!volume) {
        (void)(mr_engine_recovering(engine) ? mr_refuse_recovering(err)
                                            : mr_refuse_unknown(id, err));
        return NULL;
    }
    struct mr_pending *pending = mr_pending_new(engine, volume, fn, ctx);
    if (!pending) {
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "read the history of '%s'", id);
        return NULL;
    }
    mr_journal_history(engine->journal, volume->number, after, limit, on_history,
                       pending);
    return pending;
}
