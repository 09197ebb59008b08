/* SPDX-License-Identifier: Apache-2.0
 *
 * A held device of which no scan can tell why: a worker joins the live super block to see
 * whether it is frozen, and to arm the IN_UNMOUNT watch that a restart has lost. It
 * disturbs (a mount for a moment), so it is done seldom.
 */
#include <string.h>

#include "storage/base/json.h"
#include "storage/engine_internal.h"

#define MR_EXAMINE_FIRST_NS (2 * MR_NS_PER_S) /* until the second time, then doubled */
#define MR_EXAMINE_DEADLINE_NS (10 * MR_NS_PER_S)

static void on_event(void *ctx, struct json_object *message)
{
    struct mr_operation *op = ctx;
    const char *event = mr_json_get_string(message, "event");
    int wd = (int)mr_json_get_int(message, "wd", -1);

    /* The same inode gives the same watch again. */
    if (event && strcmp(event, "armed") == 0 && wd >= 0 && wd != op->wd)
        mr_detach_armed(op, wd);
}

static void on_reply(void *ctx, bool ok, struct json_object *message,
                     const struct mr_err *err)
{
    struct mr_operation *op = ctx;
    const char *frozen = ok ? mr_json_get_string(message, "frozen") : NULL;
    bool is = frozen && strcmp(frozen, "yes") == 0;
    bool changed = is != op->frozen;

    (void)err; /* the next one may work */
    mr_examine_end(op);
    op->frozen = is;
    if (changed && op->known_held && op->volume->holders) {
        MR_AUTO_JSON struct json_object *rows = mr_holders_scanned(op->volume);
        mr_holders_update(op->volume, rows, false, true);
    }
    if (op->known_held)
        mr_detach_look_again(op); /* our own mount may have been in the way */
}

static void on_overdue(void *ctx)
{
    mr_examine_end(ctx);
}

static void on_died(void *ctx, const struct mr_err *err)
{
    struct mr_operation *op = ctx;
    (void)err;
    op->examiner = NULL; /* freed by its table */
}

static const struct mr_worker_events examiner_events = {
    .event = on_event,
    .reply = on_reply,
    .overdue = on_overdue,
    .died = on_died,
};

void mr_examine_end(struct mr_operation *op)
{
    mr_worker_end(op->examiner);
    op->examiner = NULL;
}

void mr_examine(struct mr_operation *op)
{
    const struct mr_volume *volume = op->volume;
    int64_t now_ns = mr_now_ns();

    /* To join a dying super block waits for its end, and to come after it mounts anew. */
    if (op->examiner || op->step != MR_STEP_DRAIN || op->mounted || op->unmap_asked ||
        op->dying || now_ns < op->examine_at_ns)
        return;
    op->examine_after_ns =
        op->examine_after_ns ? 2 * op->examine_after_ns : MR_EXAMINE_FIRST_NS;
    op->examine_at_ns = now_ns + op->examine_after_ns;
    if (mr_worker_start(op->engine->workers, "action", NULL,
                        now_ns + MR_EXAMINE_DEADLINE_NS, &examiner_events, op,
                        &op->examiner, NULL) < 0)
        return;
    struct json_object *command = mr_operation_new_command(op, "examine");
    mr_json_set_string(command, "fs_type", volume->spec->fs_type);
    mr_json_set_bool(command, "read_only", volume->spec->read_only);
    mr_worker_command(op->examiner, command, now_ns + MR_EXAMINE_DEADLINE_NS);
}
