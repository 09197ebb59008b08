/* SPDX-License-Identifier: Apache-2.0
 *
 * How long a volume that is gone is remembered, with its proof of release: looked at when
 * one more is gone, and never in between. It is forgotten only when the journal has
 * forgotten it, so that no row of it can come back.
 */
#include <stdlib.h>
#include <string.h>

#include "storage/base/cleanup.h"
#include "storage/engine_internal.h"

#define MR_DROPS_AT_ONCE 100 /* records queue up behind them */

/* A time line that no jump of the wall clock bends: the newest time that was loaded, and
 * from there on the monotonic clock. */
static int64_t on_line_ms(const struct mr_engine *engine, int64_t now_ns)
{
    return engine->retention_newest_ms +
           (now_ns - engine->retention_start_ns) / MR_NS_PER_MS;
}

/* When it was gone, on that line. */
static int64_t gone_at_ms(const struct mr_volume *volume)
{
    return volume->gone_ns ? on_line_ms(volume->engine, volume->gone_ns)
                           : volume->updated_at_ms;
}

static bool in_use(const struct mr_volume *volume)
{
    const struct mr_engine *engine = volume->engine;

    if (volume->state != MR_STATE_ABSENT || volume->op || volume->act ||
        volume->left_behind || volume->adopting || volume->unsaved)
        return true;
    for (const struct mr_pending *p = engine->pendings; p; p = p->next)
        if (p->volume == volume)
            return true;
    for (const struct mr_operation *op = engine->operations; op; op = op->next)
        if (op->volume == volume && (!op->ended || op->watches))
            return true;
    return false;
}

static void drop_operations(struct mr_engine *engine, const struct mr_volume *volume)
{
    struct mr_operation **at = &engine->operations;

    while (*at) {
        struct mr_operation *op = *at;
        if (op->volume != volume) {
            at = &op->next;
            continue;
        }
        *at = op->next;
        engine->ended_count--;
        mr_operation_free(op);
    }
}

static void on_dropped(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_volume *volume = ctx;
    struct mr_engine *engine = volume->engine;
    int64_t number = volume->dropping;

    volume->dropping = 0;
    engine->dropping--;
    if (rc < 0) { /* a success says little: a record needs more room */
        mr_unsaved_result(engine, rc, err);
        volume->number = number; /* its row is still there */
        return;                  /* again when the next one is gone */
    }
    if (engine->dropping == 0 && engine->drop_more)
        mr_retention_look(engine);
    if (in_use(volume)) {
        if (volume->number == number) /* no record may follow under that one */
            volume->number = mr_journal_number(engine->journal);
        return;
    }
    drop_operations(engine, volume);
    mr_journal_forget(engine->journal, volume);
    mr_engine_remove(engine, volume);
}

static void drop(struct mr_volume *volume)
{
    volume->dropping = volume->number;
    volume->engine->dropping++;
    mr_journal_drop(volume->engine->journal, volume->number, on_dropped, volume);
}

void mr_retention_keep(struct mr_volume *volume)
{
    if (volume->dropping && volume->number == volume->dropping)
        volume->number = mr_journal_number(volume->engine->journal);
}

/* A tombstone without a proof tells nothing: of an attach that could not be begun. */
static bool is_void(const struct mr_volume *volume)
{
    return !volume->proof;
}

static bool is_tombstone(const struct mr_volume *volume)
{
    return volume->state == MR_STATE_ABSENT && !volume->op && !volume->dropping;
}

/* Oldest first, and before all those without a proof. */
static int by_age(const void *a, const void *b)
{
    const struct mr_volume *const *left = a;
    const struct mr_volume *const *right = b;

    if (is_void(*left) != is_void(*right))
        return is_void(*left) ? -1 : 1;
    int64_t difference = gone_at_ms(*left) - gone_at_ms(*right);
    return difference > 0 ? 1 : difference < 0 ? -1 : 0;
}

static size_t collect(struct mr_engine *engine, struct mr_volume **ret)
{
    size_t count = 0;

    for (size_t i = 0; i < engine->volume_count; i++)
        if (is_tombstone(engine->volumes[i]))
            ret[count++] = engine->volumes[i];
    qsort(ret, count, sizeof(struct mr_volume *), by_age);
    return count;
}

static void look(void *ctx)
{
    struct mr_engine *engine = ctx;
    const struct mr_config *config = engine->config;

    if (mr_engine_recovering(engine)) /* it goes through the table by place */
        return;                       /* at its end */
    MR_AUTO_FREE struct mr_volume **found =
        calloc(engine->volume_count + 1, sizeof(*found));
    size_t count = found ? collect(engine, found) : 0;
    size_t kept = count;
    int64_t oldest_ms = on_line_ms(engine, mr_now_ns()) - config->history_age_ms;
    for (size_t i = 0; i < count; i++) {
        struct mr_volume *volume = found[i];
        bool keep = !is_void(volume) && kept <= (size_t)config->proofs_kept &&
                    gone_at_ms(volume) >= oldest_ms;
        engine->drop_more = !keep && engine->dropping >= MR_DROPS_AT_ONCE;
        if (keep || engine->drop_more)
            return; /* all others are newer */
        if (in_use(volume))
            continue;
        kept--;
        drop(volume);
    }
}

void mr_retention_start(struct mr_engine *engine)
{
    const struct mr_journal_retention retention = {
        .max_age_ms = engine->config->history_age_ms,
        .max_bytes = engine->config->history_bytes,
    };

    mr_journal_retain(engine->journal, &retention);
    engine->retention_start_ns = mr_now_ns();
    for (size_t i = 0; i < engine->volume_count; i++)
        if (engine->volumes[i]->updated_at_ms > engine->retention_newest_ms)
            engine->retention_newest_ms = engine->volumes[i]->updated_at_ms;
    if (engine->retention_newest_ms > mr_wall_ms()) /* the clock was wrong then, or is */
        engine->retention_newest_ms = mr_wall_ms();
    mr_timer_init(&engine->retention, engine->loop, look, engine);
}

void mr_retention_look(struct mr_engine *engine)
{
    mr_timer_set(&engine->retention, 0); /* from the loop: what is gone is still in use */
}

void mr_retention_gone(struct mr_volume *volume)
{
    volume->gone_ns = mr_now_ns();
    mr_retention_look(volume->engine);
}
