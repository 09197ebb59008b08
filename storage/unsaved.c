/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal cannot be written: new work is refused by whoever asked for it, what runs
 * waits or is remembered here, and all of it is written as soon as that works. While it
 * does not, one write at a time is tried; while it does, nothing wakes up.
 */
#include "storage/base/log.h"
#include "storage/engine_internal.h"

#define MR_TRY_MIN_NS (1 * MR_NS_PER_S)
#define MR_TRY_MAX_NS (10 * MR_NS_PER_S)

const struct mr_err *mr_engine_journal_error(const struct mr_engine *engine)
{
    return engine->journal_bad ? &engine->journal_why : NULL;
}

static void try_later(struct mr_engine *engine)
{
    engine->unsaved_after_ns =
        engine->unsaved_after_ns ? 2 * engine->unsaved_after_ns : MR_TRY_MIN_NS;
    if (engine->unsaved_after_ns > MR_TRY_MAX_NS)
        engine->unsaved_after_ns = MR_TRY_MAX_NS;
    mr_timer_set(&engine->unsaved, mr_now_ns() + engine->unsaved_after_ns);
}

/* Its row can be written: what a running operation has not yet written itself would be
 * told before its time. */
static bool can_save(const struct mr_volume *volume)
{
    return volume->unsaved && (!volume->op || volume->op->durable);
}

static bool waits(const struct mr_volume *volume)
{
    return volume->op && volume->op->unwritten;
}

static void save(struct mr_volume *volume)
{
    volume->unsaved = false;
    mr_volume_record(volume, "state_saved_late", NULL, NULL, NULL);
}

static void on_probed(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_engine *engine = ctx;

    engine->probing = false;
    mr_unsaved_result(engine, rc, err);
}

static void probe(struct mr_engine *engine)
{
    if (engine->probing)
        return;
    engine->probing = true;
    mr_journal_probe(engine->journal, on_probed, engine);
}

/* One write that has to be made anyway, if there is any. */
static void try_one(struct mr_engine *engine)
{
    for (size_t i = 0; i < engine->volume_count; i++) {
        struct mr_volume *volume = engine->volumes[i];
        if (waits(volume) && volume->op->ending) {
            mr_operation_write_again(volume->op);
            return;
        }
        if (can_save(volume) && !waits(volume)) {
            save(volume);
            return;
        }
    }
    probe(engine);
}

/* True when there was anything. */
static bool write_all(struct mr_engine *engine)
{
    bool any = false;

    for (size_t i = 0; i < engine->volume_count; i++) {
        struct mr_volume *volume = engine->volumes[i];
        any = any || volume->unsaved || waits(volume);
        if (can_save(volume))
            save(volume);
        if (waits(volume))
            mr_operation_write_again(volume->op);
    }
    return any;
}

static void on_timer(void *ctx)
{
    struct mr_engine *engine = ctx;

    if (engine->journal_bad) {
        try_one(engine);
        try_later(engine);
    } else if (write_all(engine)) {
        try_later(engine); /* is it all written then? */
    } else {
        engine->unsaved_after_ns = 0;
        if (engine->journal_told)
            mr_log(MR_LOG_NOTICE, "the journal is written again");
        engine->journal_told = false;
    }
}

void mr_unsaved_init(struct mr_engine *engine)
{
    mr_timer_init(&engine->unsaved, engine->loop, on_timer, engine);
}

void mr_unsaved_start(struct mr_engine *engine)
{
    probe(engine);
}

void mr_unsaved_result(struct mr_engine *engine, int rc, const struct mr_err *err)
{
    if (rc == 0 && engine->journal_bad) {
        engine->journal_bad = false;
        mr_timer_set(&engine->unsaved, 0);
    }
    if (rc == 0)
        return;
    engine->journal_bad = true;
    engine->journal_why = *err;
    if (!engine->journal_told)
        mr_log(MR_LOG_ERR, "new work is refused, what is attached is served on: %s",
               err->message);
    engine->journal_told = true;
    if (engine->unsaved.heap_index == 0)
        try_later(engine);
}

void mr_unsaved_on_record(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_volume *volume = ctx;

    mr_unsaved_result(volume->engine, rc, err);
    if (rc < 0)
        mr_unsaved_note(volume);
}

void mr_unsaved_note(struct mr_volume *volume)
{
    struct mr_engine *engine = volume->engine;

    volume->unsaved = true;
    if (engine->unsaved.heap_index == 0)
        try_later(engine);
}

void mr_unsaved_stop(struct mr_engine *engine)
{
    mr_timer_cancel(&engine->unsaved);
    for (size_t i = 0; i < engine->volume_count; i++) {
        struct mr_volume *volume = engine->volumes[i];
        if (waits(volume) && volume->op->ending)
            mr_operation_write_again(volume->op);
        else if (can_save(volume))
            save(volume);
    }
}
