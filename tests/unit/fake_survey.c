/* SPDX-License-Identifier: Apache-2.0
 *
 * The fake engine's surveys of the kernel: orphans, their adoption, reconciling; and how
 * the start and the journal are.
 */
#include "fake_engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/json.h"

#define ZEROS "0000000000000000000000000000000"

static const char *const unknown[] = {"orphan-0" ZEROS, "orphan-1" ZEROS,
                                      "orphan-2" ZEROS, "orphan-a" ZEROS};

/* Of the first digit of its token. */
static size_t digit_of(const char *id)
{
    static const char digits[] = "0123456789abcdef";
    return (size_t)(strchr(digits, id[strlen("orphan-")]) - digits);
}

struct mr_recovery mr_engine_recovery(const struct mr_engine *engine)
{
    return (struct mr_recovery){.total = 7, .done = engine->recovering ? 3 : 7};
}

const struct mr_err *mr_engine_journal_error(const struct mr_engine *engine)
{
    static struct mr_err err;
    struct mr_engine *all = (struct mr_engine *)(uintptr_t)engine;

    (void)mr_fail(&err, MR_E_JOURNAL_UNAVAILABLE, ENOSPC, "write journal '/fake.db'");
    (void)mr_err_remedy(&err, 0, "free space on '/fake'");
    return mr_engine_find(all, "journal-full") ? &err : NULL;
}

static struct mr_pending *begin(struct mr_engine *engine, struct json_object *document,
                                mr_answer_fn fn, void *ctx)
{
    struct mr_pending *pending =
        fake_pending_begin(engine, NULL, document,
                           mr_engine_find(engine, "survey-slow") ? 10000 : 20, fn, ctx);

    pending->fails = mr_engine_find(engine, "survey-broken") != NULL;
    (void)mr_fail(&pending->err, MR_E_INTERNAL, 0, "the survey worker ended");
    return pending;
}

static bool refused(struct mr_engine *engine, struct mr_err *err)
{
    if (engine->recovering)
        (void)mr_fail(err, MR_E_RECOVERING, 0, "recovering");
    else if (mr_engine_find(engine, "survey-memory"))
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "survey the kernel");
    return engine->recovering || mr_engine_find(engine, "survey-memory");
}

static struct json_object *new_orphan(const char *id, const char *kind)
{
    struct json_object *item = json_object_new_object();
    mr_json_set_string(item, "id", id);
    mr_json_set_string(item, "kind", kind);
    return item;
}

static int by_id(const void *a, const void *b)
{
    return strcmp(mr_json_get_string(*(struct json_object *const *)a, "id"),
                  mr_json_get_string(*(struct json_object *const *)b, "id"));
}

static struct json_object *all_orphans(struct mr_engine *engine)
{
    struct json_object *items = json_object_new_array();

    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
        if (!engine->adopted[digit_of(unknown[i])])
            (void)json_object_array_add(items, new_orphan(unknown[i], "unknown"));
    for (struct mr_volume *v = mr_engine_next(engine, NULL); v;
         v = mr_engine_next(engine, v->id)) {
        if (!v->forgotten)
            continue;
        struct json_object *item = new_orphan(v->id, "forgotten");
        mr_json_set_string(item, "reason", v->reason);
        mr_json_set(item, "forgotten_by", json_object_get(v->caller));
        (void)json_object_array_add(items, item);
    }
    json_object_array_sort(items, by_id);
    return items;
}

struct mr_pending *mr_engine_orphans(struct mr_engine *engine, mr_answer_fn fn, void *ctx,
                                     struct mr_err *err)
{
    if (refused(engine, err))
        return NULL;
    struct json_object *document = json_object_new_object();
    if (!mr_engine_find(engine, "survey-odd"))
        mr_json_set(document, "items", all_orphans(engine));
    mr_json_set_bool(document, "complete", false);
    mr_json_set_string(document, "searched_at", "2026-11-22T10:14:00.000Z");
    return begin(engine, document, fn, ctx);
}

struct mr_pending *mr_engine_reconcile(struct mr_engine *engine, mr_answer_fn fn,
                                       void *ctx, struct mr_err *err)
{
    if (refused(engine, err))
        return NULL;
    struct json_object *document = json_object_new_object();
    mr_json_set_int(document, "looked", 2);
    mr_json_set_int(document, "orphans", (int64_t)(sizeof(unknown) / sizeof(unknown[0])));
    return begin(engine, document, fn, ctx);
}

static void adopted(struct mr_volume *volume)
{
    volume->state = "orphan";
    volume->forgotten = true;
    volume->generation++;
    volume->engine->adopted[digit_of(volume->id)] = true;
}

static void why_not(struct mr_engine *engine, const char *id, struct mr_pending *pending)
{
    size_t digit = digit_of(id);

    pending->fails = true;
    if (digit == 0xb)
        (void)mr_fail(&pending->err, MR_E_JOURNAL_UNAVAILABLE, ENOSPC, "write journal");
    else if (digit == 0xd)
        (void)mr_fail(&pending->err, MR_E_DEVICE_ERROR, 0, "the search was cut short");
    else if (digit > 2 && digit != 0xa && digit != 0xf)
        (void)mr_fail(&pending->err, MR_E_VOLUME_NOT_FOUND, 0, "there is no '%s'", id);
    else if (engine->adopted[digit] && !pending->volume->forgotten)
        (void)mr_fail(&pending->err, MR_E_VOLUME_NOT_FOUND, 0, "'%s' is gone", id);
    else
        pending->fails = false;
}

struct mr_pending *mr_engine_adopt(struct mr_engine *engine, const char *id,
                                   struct json_object *caller, mr_answer_fn fn, void *ctx,
                                   struct mr_err *err)
{
    if (refused(engine, err))
        return NULL;
    if (fake_starts(id, "orphan-e")) {
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "adopt '%s'", id);
        return NULL;
    }
    struct mr_volume *volume = fake_volume_slot(engine, id);
    int ms = volume->forgotten             ? 0
             : fake_starts(id, "orphan-2") ? 500
             : fake_starts(id, "orphan-f") ? 10000
                                           : 20;
    struct mr_pending *pending = fake_pending_begin(engine, volume, NULL, ms, fn, ctx);
    why_not(engine, id, pending);
    if (!pending->fails && !volume->forgotten) {
        (void)snprintf(volume->reason, sizeof(volume->reason), "adopted");
        (void)json_object_put(volume->caller);
        volume->caller = json_object_get(caller);
        pending->done = adopted;
    }
    return pending;
}
