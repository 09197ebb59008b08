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
#define MR_WAITED_FOR_MAX 200 /* rows in a proof; those who left long ago make room */

struct json_object *mr_holders_find(struct json_object *rows, const char *id)
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

/* A row that no scan can make, in the shape of theirs. */
static struct json_object *own_row(const struct mr_volume *volume,
                                   enum mr_holder_kind kind)
{
    static const char *const nulls[] = {
        "pid",     "start_time", "tid",  "comm",     "uid",      "user", "cgroup",
        "runtime", "container",  "unit", "mount_ns", "mount_id", "path"};
    struct json_object *row = json_object_new_object();
    mr_json_set_string(row, "id", mr_holder_kind_name(kind));
    mr_json_set_string(row, "kind", mr_holder_kind_name(kind));
    mr_json_set_bool(row, "certain", true);
    for (size_t i = 0; i < sizeof(nulls) / sizeof(nulls[0]); i++)
        mr_json_set(row, nulls[i], NULL);
    mr_json_set_string(row, "device", volume->identity.node);
    mr_json_set(row, "actions", mr_holder_actions(kind, false));
    mr_json_set_string(row, "remedy", mr_holder_remedy(kind));
    return row;
}

static bool any_certain(struct json_object *rows)
{
    for (size_t i = 0; i < json_object_array_length(rows); i++)
        if (mr_json_get_bool(json_object_array_get_idx(rows, i), "certain", true))
            return true;
    return false;
}

/* --- times: when was it seen first, last, no more? --- */

/* before: the same row in an earlier look, NULL when it is new; elapsed_ms since then by
 * the monotonic clock, -1 when that look was not this agent's last one. */
static void set_seen(struct json_object *row, struct json_object *before, int64_t now_ms,
                     int64_t elapsed_ms)
{
    int64_t first_ms = mr_time_ms(mr_json_get_string(before, "first_seen"));
    int64_t last_ms = mr_time_ms(mr_json_get_string(before, "last_seen"));

    if (elapsed_ms < 0 && last_ms > 0 && last_ms < now_ms) /* the wall clock may jump */
        elapsed_ms = now_ms - last_ms;
    if (elapsed_ms < 0 || first_ms == 0)
        elapsed_ms = 0;
    mr_document_set_time(row, "first_seen", first_ms ? first_ms : now_ms);
    mr_document_set_time(row, "last_seen", now_ms);
    mr_json_set(row, "gone_at", NULL);
    mr_json_set_int(row, "seen_for_ms",
                    mr_json_get_int(before, "seen_for_ms", 0) + elapsed_ms);
}

/* Into the proof: each holder once, with the newest times. old: its row there, or NULL.
 */
static void remember(struct mr_operation *op, struct json_object *row,
                     struct json_object *old)
{
    static const char *const newest[] = {"last_seen", "gone_at", "seen_for_ms"};
    size_t i = 0;

    if (!op->waited_for)
        op->waited_for = json_object_new_array();
    for (; old && i < sizeof(newest) / sizeof(newest[0]); i++)
        mr_json_set(old, newest[i], json_object_get(mr_json_get(row, newest[i])));
    size_t count = json_object_array_length(op->waited_for);
    if (old)
        return;
    while (count == MR_WAITED_FOR_MAX && i < count &&
           !mr_json_get(json_object_array_get_idx(op->waited_for, i), "gone_at"))
        i++;
    if (count == MR_WAITED_FOR_MAX && i < count)
        (void)json_object_array_del_idx(op->waited_for, i, 1);
    if (count < MR_WAITED_FOR_MAX || i < count)
        (void)json_object_array_add(op->waited_for, json_object_get(row));
}

/* What the history keeps of one who let go. */
static struct json_object *farewell(struct json_object *row)
{
    static const char *const keys[] = {"id",   "kind",       "pid",       "comm",
                                       "path", "first_seen", "last_seen", "gone_at"};
    struct json_object *json = json_object_new_object();

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        mr_json_set(json, keys[i], json_object_get(mr_json_get(row, keys[i])));
    return json;
}

static void record_change(struct mr_operation *op, struct json_object *appeared,
                          struct json_object *left)
{
    if (json_object_array_length(appeared) == 0 && json_object_array_length(left) == 0)
        return;
    MR_AUTO_JSON struct json_object *detail = json_object_new_object();
    mr_json_set(detail, "appeared", json_object_get(appeared));
    mr_json_set(detail, "let_go", json_object_get(left));
    mr_operation_record(op, "holders", detail, NULL);
}

/* Who leaves the list has let go, except for those of whom nobody ever knew for sure that
 * they held. */
static bool can_leave(struct json_object *row)
{
    return mr_json_get_bool(row, "certain", true) &&
           mr_holder_kind_from_name(mr_json_get_string(row, "kind")) != MR_HOLDER_UNOWNED;
}

/* Those it waited for that are not in list any more; list NULL: all. */
static struct json_object *note_left(struct mr_operation *op, struct json_object *list,
                                     const char *gone_at)
{
    struct json_object *left = json_object_new_array();
    size_t count = op->waited_for ? json_object_array_length(op->waited_for) : 0;

    for (size_t i = 0; i < count; i++) {
        struct json_object *row = json_object_array_get_idx(op->waited_for, i);
        bool still = list && (!can_leave(row) ||
                              mr_holders_find(list, mr_json_get_string(row, "id")));
        if (still || mr_json_get_string(row, "gone_at"))
            continue;
        mr_json_set_string(row, "gone_at", gone_at);
        (void)json_object_array_add(left, farewell(row));
    }
    return left;
}

static void note_held(struct mr_operation *op, struct json_object *list, bool complete,
                      const char *now)
{
    MR_AUTO_JSON struct json_object *appeared = json_object_new_array();
    /* Not to be seen in half a look is not to be gone. */
    MR_AUTO_JSON struct json_object *left =
        complete ? note_left(op, list, now) : json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *row = json_object_array_get_idx(list, i);
        struct json_object *old =
            mr_holders_find(op->waited_for, mr_json_get_string(row, "id"));
        bool back = old && mr_json_get(old, "gone_at");
        remember(op, row, old);
        /* Who finds no room in the proof is not told of at every look, either. */
        if (back ||
            (!old && mr_holders_find(op->waited_for, mr_json_get_string(row, "id"))))
            (void)json_object_array_add(appeared, json_object_get(row));
    }
    record_change(op, appeared, left);
}

void mr_holders_exited(struct mr_operation *op, pid_t pid, int64_t start_time)
{
    MR_AUTO_JSON struct json_object *none = json_object_new_array();
    MR_AUTO_JSON struct json_object *left = json_object_new_array();
    size_t count = op->waited_for ? json_object_array_length(op->waited_for) : 0;
    char now[MR_TIME_TEXT];

    (void)mr_time_text(mr_wall_ms(), now);
    for (size_t i = 0; i < count; i++) {
        struct json_object *row = json_object_array_get_idx(op->waited_for, i);
        /* A mount is only shown with a process: it may live on with others. */
        if (mr_json_get_int(row, "pid", 0) != pid || mr_json_get(row, "mount_id") ||
            mr_json_get_int(row, "start_time", 0) != start_time || !can_leave(row) ||
            mr_json_get_string(row, "gone_at"))
            continue;
        mr_json_set_string(row, "gone_at", now);
        (void)json_object_array_add(left, farewell(row));
    }
    record_change(op, none, left);
}

void mr_holders_released(struct mr_operation *op)
{
    MR_AUTO_JSON struct json_object *none = json_object_new_array();
    char now[MR_TIME_TEXT];
    MR_AUTO_JSON struct json_object *left =
        note_left(op, NULL, mr_time_text(mr_wall_ms(), now));

    record_change(op, none, left);
}

void mr_holders_update(struct mr_volume *volume, struct json_object *rows, bool complete,
                       bool known_held)
{
    MR_AUTO_JSON struct json_object *before = mr_take_ptr(volume->holders);
    struct json_object *list = json_object_new_array();
    struct mr_operation *op = volume->op;
    int64_t before_ns = volume->holders_ns;
    char now[MR_TIME_TEXT];

    volume->holders_ns = mr_now_ns();
    volume->holders_at_ms = mr_wall_ms();
    (void)mr_time_text(volume->holders_at_ms, now);
    for (size_t i = 0; i < json_object_array_length(rows); i++)
        (void)json_object_array_add(list,
                                    json_object_get(json_object_array_get_idx(rows, i)));
    if (known_held && op && op->frozen)
        (void)json_object_array_add(list, own_row(volume, MR_HOLDER_FROZEN));
    /* Never an empty list while held, and never candidates alone. */
    if (known_held && !any_certain(list))
        (void)json_object_array_add(list, own_row(volume, MR_HOLDER_UNOWNED));
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *row = json_object_array_get_idx(list, i);
        const char *id = mr_json_get_string(row, "id");
        struct json_object *old = mr_holders_find(before, id);
        int64_t elapsed_ms = old ? (volume->holders_ns - before_ns) / MR_NS_PER_MS : -1;
        if (!old && op) /* before the agent was started again */
            old = mr_holders_find(op->waited_for, id);
        set_seen(row, old, volume->holders_at_ms, elapsed_ms);
        /* Nothing is done to who only might hold. */
        if (!mr_json_get_bool(row, "certain", true))
            mr_json_set(row, "actions", json_object_new_array());
    }
    volume->holders = list;
    if (known_held && op)
        note_held(op, list, complete, now);
    mr_volume_touch(volume);
}

struct json_object *mr_holders_scanned(const struct mr_volume *volume)
{
    struct json_object *rows = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(volume->holders); i++) {
        struct json_object *row = json_object_array_get_idx(volume->holders, i);
        enum mr_holder_kind kind =
            mr_holder_kind_from_name(mr_json_get_string(row, "kind"));
        if (kind != MR_HOLDER_FROZEN && kind != MR_HOLDER_UNOWNED)
            (void)json_object_array_add(rows, json_object_get(row));
    }
    return rows;
}

bool mr_holders_own_mount(const struct mr_volume *volume)
{
    const struct mr_operation *op = volume->op;
    /* Before the first look of an operation the record decides. */
    return volume->mount.mount.id != 0 && volume->unmounted_at_ms == 0 &&
           (!op || op->mounted || op->step <= MR_STEP_INSPECT);
}

struct json_object *mr_holders_target(const struct mr_volume *volume)
{
    const struct mr_operation *op = volume->op;
    struct json_object *target = json_object_new_object();

    mr_json_set_string(target, "volume", volume->id);
    mr_json_set_int(target, "major", volume->identity.major);
    mr_json_set_int(target, "minor", volume->identity.minor);
    mr_json_set_int(target, "diskseq", (int64_t)volume->identity.diskseq);
    mr_json_set_string(target, "node", volume->identity.node);
    mr_json_set_string(target, "mount_path",
                       volume->spec ? volume->spec->mount_path : "");
    mr_json_set(target, "own_mount",
                mr_holders_own_mount(volume) ? mr_mount_record_to_json(&volume->mount)
                                             : NULL);
    mr_json_set_bool(target, "held", op && op->known_held);
    return target;
}

struct json_object *mr_holders_document(const struct mr_volume *volume, bool complete,
                                        bool known_held)
{
    struct json_object *json = json_object_new_object();
    bool mapped = volume->identity.diskseq != 0 || mr_volume_has_residue(volume);
    char text[MR_TIME_TEXT];
    /* Under our own mount the exclusive open, the one proof of "free", cannot be had:
     * then nobody seen means unknown. */
    const char *held = known_held || any_certain(volume->holders) ? "held"
                       : mapped                                   ? "unknown"
                                                                  : "free";

    mr_json_set_string(json, "held", held);
    mr_json_set_bool(json, "complete", complete);
    mr_json_set_string(json, "scanned_at", mr_time_text(volume->holders_at_ms, text));
    mr_json_set(json, "holders", json_object_get(volume->holders));
    return json;
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

    (void)err; /* the next one may work; no rows, no claim about them */
    op->scan = NULL;
    if (!op->known_held)
        return;
    schedule(op);
    if (!rows)
        return;
    mr_holders_update(op->volume, rows, complete, true);
    mr_exits_watch(op, rows);
    /* Once in any case: a frozen file system may hide behind others. */
    if (op->wd < 0 || op->examine_at_ns == 0 || !any_certain(rows))
        mr_examine(op);
}

static void on_scan_timer(void *ctx)
{
    struct mr_operation *op = ctx;
    if (!op->scan)
        op->scan = mr_scanner_request(op->engine->scanner, mr_holders_target(op->volume),
                                      on_scanned, op);
    if (!op->scan)
        schedule(op);
}

void mr_holders_watch(struct mr_operation *op)
{
    mr_timer_init(&op->scan_timer, op->engine->loop, on_scan_timer, op);
    op->scan_after_ns = 0;
    op->engine->held += !op->watching;
    op->watching = true;
    schedule(op);
}

void mr_holders_unwatch(struct mr_operation *op)
{
    mr_timer_cancel(&op->scan_timer);
    mr_scanner_cancel(op->scan);
    op->scan = NULL;
    op->frozen = false;
    mr_examine_end(op);
    mr_exits_forget(op);
    if (!op->watching)
        return;
    op->watching = false;
    if (--op->engine->held == 0)
        mr_checker_forget_copies(op->engine->checker);
}
