/* SPDX-License-Identifier: Apache-2.0
 *
 * What the agent knows about who holds a volume: the rows of the last scan, since when
 * each was seen, and the periodic scans of a waiting detach. Rows name; the claim proves.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/json.h"
#include "storage/engine_internal.h"

#define MR_FIRST_SCAN_NS (250 * MR_NS_PER_MS) /* most holds end before anybody asks */
#define MR_SCAN_MIN_NS (1 * MR_NS_PER_S)
#define MR_SCAN_MAX_NS (30 * MR_NS_PER_S)

struct mr_scan_wait {
    struct mr_engine *engine;
    struct mr_scan_wait *next;
    struct mr_volume *volume;
    struct mr_scan_request *request;
    mr_holders_fn fn;
    void *ctx;
};

static struct json_object *find_row(struct json_object *rows, const char *id)
{
    size_t count =
        json_object_is_type(rows, json_type_array) ? json_object_array_length(rows) : 0;
    for (size_t i = 0; id && i < count; i++) {
        struct json_object *row = json_object_array_get_idx(rows, i);
        const char *other = mr_json_get_string(row, "id");
        if (other && strcmp(other, id) == 0)
            return row;
    }
    return NULL;
}

static struct json_object *unowned_row(const struct mr_volume *volume)
{
    static const char *const nulls[] = {"pid",    "start_time", "tid",  "comm",
                                        "cgroup", "container",  "path", "mount_ns"};
    struct json_object *row = json_object_new_object();
    mr_json_set_string(row, "id", "unowned");
    mr_json_set_string(row, "kind", "unowned");
    for (size_t i = 0; i < sizeof(nulls) / sizeof(nulls[0]); i++)
        mr_json_set(row, nulls[i], NULL);
    mr_json_set_string(row, "device", volume->identity.node);
    return row;
}

/* All holders that a detach has waited for, each once, with the newest times. */
static void remember(struct mr_operation *op, struct json_object *rows)
{
    if (!op->waited_for)
        op->waited_for = json_object_new_array();
    for (size_t i = 0; i < json_object_array_length(rows); i++) {
        struct json_object *row = json_object_array_get_idx(rows, i);
        struct json_object *old = find_row(op->waited_for, mr_json_get_string(row, "id"));
        if (old)
            mr_json_set(old, "last_seen", json_object_get(mr_json_get(row, "last_seen")));
        else if (json_object_array_length(op->waited_for) < 1000)
            (void)json_object_array_add(op->waited_for, json_object_get(row));
    }
}

void mr_holders_update(struct mr_volume *volume, struct json_object *rows,
                       bool known_held)
{
    struct json_object *list = json_object_new_array();
    char now[MR_TIME_TEXT];

    volume->holders_at_ms = mr_wall_ms();
    (void)mr_time_text(volume->holders_at_ms, now);
    for (size_t i = 0; i < json_object_array_length(rows); i++)
        (void)json_object_array_add(list,
                                    json_object_get(json_object_array_get_idx(rows, i)));
    /* Never an empty list while held. */
    if (known_held && json_object_array_length(list) == 0)
        (void)json_object_array_add(list, unowned_row(volume));
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *row = json_object_array_get_idx(list, i);
        struct json_object *old =
            find_row(volume->holders, mr_json_get_string(row, "id"));
        const char *first = mr_json_get_string(old, "first_seen");
        mr_json_set_string(row, "first_seen", first ? first : now);
        mr_json_set_string(row, "last_seen", now);
    }
    (void)json_object_put(volume->holders);
    volume->holders = list;
    if (known_held && volume->op)
        remember(volume->op, list);
    mr_volume_touch(volume);
}

static struct json_object *new_target(const struct mr_volume *volume)
{
    const struct mr_operation *op = volume->op;
    /* Before the first look of an operation the record decides. */
    bool mounted = volume->mount.mount.id != 0 && volume->unmounted_at_ms == 0 &&
                   (!op || op->recovering || op->mounted || op->step <= MR_STEP_INSPECT);
    struct json_object *target = json_object_new_object();

    mr_json_set_string(target, "volume", volume->id);
    mr_json_set_int(target, "major", volume->identity.major);
    mr_json_set_int(target, "minor", volume->identity.minor);
    mr_json_set_int(target, "diskseq", (int64_t)volume->identity.diskseq);
    mr_json_set_string(target, "node", volume->identity.node);
    mr_json_set_string(target, "mount_path",
                       volume->spec ? volume->spec->mount_path : "");
    mr_json_set(target, "own_mount",
                mounted ? mr_mount_record_to_json(&volume->mount) : NULL);
    return target;
}

/* --- while a detach waits --- */

static void schedule(struct mr_operation *op)
{
    int64_t after = op->scan_after_ns ? op->scan_after_ns : MR_FIRST_SCAN_NS;
    op->scan_after_ns = op->scan_after_ns ? 2 * op->scan_after_ns : MR_SCAN_MIN_NS;
    if (op->scan_after_ns > MR_SCAN_MAX_NS)
        op->scan_after_ns = MR_SCAN_MAX_NS;
    mr_timer_set(&op->scan_timer, mr_now_ns() + after);
}

static void on_scanned(void *ctx, struct json_object *rows, bool complete,
                       const struct mr_err *err)
{
    struct mr_operation *op = ctx;

    (void)complete;
    (void)err; /* the next one may work; no rows, no claim about them */
    op->scan = NULL;
    if (!op->known_held)
        return;
    if (rows)
        mr_holders_update(op->volume, rows, true);
    schedule(op);
}

static void on_scan_timer(void *ctx)
{
    struct mr_operation *op = ctx;
    if (!op->scan)
        op->scan = mr_scanner_request(op->engine->scanner, new_target(op->volume),
                                      on_scanned, op);
    if (!op->scan)
        schedule(op);
}

void mr_holders_watch(struct mr_operation *op)
{
    mr_timer_init(&op->scan_timer, op->engine->loop, on_scan_timer, op);
    op->scan_after_ns = 0;
    schedule(op);
}

void mr_holders_unwatch(struct mr_operation *op)
{
    mr_timer_cancel(&op->scan_timer);
    mr_scanner_cancel(op->scan);
    op->scan = NULL;
}

/* --- GET /volumes/{id}/holders --- */

static struct json_object *document(const struct mr_volume *volume, bool complete,
                                    bool known_held)
{
    struct json_object *json = json_object_new_object();
    bool any = json_object_array_length(volume->holders) > 0;
    bool mapped = volume->identity.diskseq != 0 || mr_volume_has_residue(volume);
    char text[MR_TIME_TEXT];
    /* Under our own mount the exclusive open, the one proof of "free", cannot be had:
     * then nobody seen means unknown. */
    const char *held = any || known_held ? "held" : mapped ? "unknown" : "free";

    mr_json_set_string(json, "held", held);
    mr_json_set_bool(json, "complete", complete);
    mr_json_set_string(json, "scanned_at", mr_time_text(volume->holders_at_ms, text));
    mr_json_set(json, "holders", json_object_get(volume->holders));
    return json;
}

static void unlink_wait(struct mr_scan_wait *wait)
{
    for (struct mr_scan_wait **at = &wait->engine->scan_waits; *at; at = &(*at)->next) {
        if (*at == wait) {
            *at = wait->next;
            break;
        }
    }
}

static void on_asked(void *ctx, struct json_object *rows, bool complete,
                     const struct mr_err *err)
{
    struct mr_scan_wait *wait = ctx;
    struct mr_volume *volume = wait->volume;
    bool known_held = volume->op && volume->op->known_held;
    mr_holders_fn fn = wait->fn;
    void *fn_ctx = wait->ctx;

    unlink_wait(wait);
    free(wait);
    if (!rows) {
        fn(fn_ctx, NULL, err);
        return;
    }
    mr_holders_update(volume, rows, known_held);
    MR_AUTO_JSON struct json_object *json = document(volume, complete, known_held);
    fn(fn_ctx, json, NULL);
}

struct mr_scan_wait *mr_engine_holders(struct mr_engine *engine, struct mr_volume *volume,
                                       mr_holders_fn fn, void *ctx)
{
    struct mr_scan_wait *wait = calloc(1, sizeof(*wait));
    if (!wait)
        return NULL;
    *wait =
        (struct mr_scan_wait){.engine = engine, .volume = volume, .fn = fn, .ctx = ctx};
    wait->request =
        mr_scanner_request(engine->scanner, new_target(volume), on_asked, wait);
    if (!wait->request) {
        free(wait);
        return NULL;
    }
    wait->next = engine->scan_waits;
    engine->scan_waits = wait;
    return wait;
}

void mr_scan_wait_cancel(struct mr_scan_wait *wait)
{
    if (!wait)
        return;
    unlink_wait(wait);
    mr_scanner_cancel(wait->request);
    free(wait);
}

void mr_holders_stop(struct mr_engine *engine)
{
    while (engine->scan_waits) {
        struct mr_scan_wait *wait = engine->scan_waits;
        mr_holders_fn fn = wait->fn;
        void *fn_ctx = wait->ctx;
        mr_scan_wait_cancel(wait);
        fn(fn_ctx, NULL, NULL);
    }
}
