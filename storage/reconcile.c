/* SPDX-License-Identifier: Apache-2.0
 *
 * The start: what the journal says is checked against the kernel before it is acted on.
 * Another boot: nothing is attached. An attached volume is looked at and left alone; a
 * half-done attach is undone, unless it was to bring back what had been attached; a
 * detach goes on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/json.h"
#include "storage/engine_internal.h"

#define MR_RECOVER_AT_ONCE 8 /* workers of the start-up inspection */

static const enum mr_step inspect_only[] = {MR_STEP_INSPECT, MR_STEP_NONE};

/* What the row says of the operation that was running. */
struct unfinished {
    char operation[MR_OPERATION_ID_TEXT];
    struct json_object *waited_for;
    bool accept_data_loss;
    bool mending;
    struct json_object *expected; /* what was attached before the mend, or NULL */
};

static struct mr_operation *revive(struct mr_volume *volume, enum mr_goal goal,
                                   const struct unfinished *last)
{
    struct mr_engine *engine = volume->engine;
    struct mr_operation *op =
        last->operation[0] ? mr_engine_find_operation(engine, last->operation) : NULL;

    if (op && op->ended == 0 && op->goal == goal) {
        op->journalled = true;
        return op;
    }
    op = mr_operation_new(engine, volume, goal, NULL);
    if (op) {
        mr_engine_keep_operation(engine, op);
        mr_operation_announce(op);
    }
    return op;
}

static int resume(struct mr_volume *volume, const struct unfinished *last,
                  struct mr_err *err)
{
    bool attaching = volume->state == MR_STATE_ATTACHING;
    enum mr_goal goal = MR_GOAL_ABSENT;
    enum mr_state from = volume->state;
    struct mr_operation *op =
        revive(volume, attaching ? MR_GOAL_ATTACHED : MR_GOAL_ABSENT, last);

    if (!op)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "resume the operation of '%s'",
                       volume->id);
    op->resumed = true;
    op->accept_data_loss = last->accept_data_loss;
    op->waited_for = json_object_get(last->waited_for);
    op->prior_state = volume->state;
    if (attaching && last->mending) {
        if (last->expected)
            mr_identity_from_json(&op->expected, last->expected);
        goal = MR_GOAL_ATTACHED;
        from = MR_STATE_FAILED; /* what the mend looks at is whatever is left */
    } else if (attaching) {
        op->undoing = true;
        (void)mr_fail(&op->error, MR_E_INTERNAL, 0,
                      "the agent ended during this attach; what it had done was undone");
        (void)mr_err_remedy(&op->error, 0, "PUT the volume again");
    }
    mr_operation_start(op, mr_plan(from, goal), NULL);
    return 0;
}

static void lose(struct mr_volume *volume)
{
    mr_volume_clear_facts(volume);
    mr_volume_set_error(volume, NULL);
    mr_volume_set_state(volume, MR_STATE_LOST_BY_REBOOT);
    mr_volume_record(volume, "lost_by_reboot", NULL, NULL, NULL);
}

/* --- loading --- */

static int load_volume(void *ctx, int64_t number, const char *id, const char *state,
                       struct json_object *row)
{
    struct mr_engine *engine = ctx;
    struct mr_volume *volume = mr_volume_new(engine, id);

    if (!volume)
        return -ENOMEM;
    volume->number = number;
    volume->state = mr_state_from_name(state);
    int rc = volume->state == MR_STATE_COUNT ? -EBADMSG
                                             : mr_volume_from_row(volume, row, NULL);
    /* A row that asks for action needs its spec. */
    if (rc == 0 && !volume->spec && volume->state != MR_STATE_ABSENT)
        rc = -EBADMSG;
    if (rc == 0)
        rc = mr_engine_insert(engine, volume, NULL);
    if (rc < 0) {
        mr_volume_free(volume);
        return rc;
    }
    /* Kept until resume(): the operations are loaded after the volumes. */
    volume->unfinished = json_object_get(row);
    return 0;
}

static int load_operation(void *ctx, const char *id, struct json_object *row)
{
    struct mr_engine *engine = ctx;
    struct mr_operation *op = mr_operation_from_row(engine, id, row);
    if (op)
        mr_engine_keep_operation(engine, op);
    return 0;
}

static int start_volume(struct mr_volume *volume, struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *row = mr_take_ptr(volume->unfinished);
    bool other_boot = strcmp(volume->boot_id, volume->engine->boot_id) != 0;

    if (mr_volume_has_residue(volume) && other_boot) {
        lose(volume);
        return 0;
    }
    if (volume->state != MR_STATE_ATTACHING && volume->state != MR_STATE_DETACHING)
        return 0;
    struct unfinished last = {
        .waited_for = mr_json_get(row, "waited_for"),
        .accept_data_loss = mr_json_get_bool(row, "accept_data_loss", false),
        .mending = mr_json_get_bool(row, "mending", false),
        .expected = mr_json_get(row, "expected"),
    };
    mr_json_copy_string(row, "operation", last.operation, sizeof(last.operation));
    return resume(volume, &last, err);
}

/* An operation that no volume goes on with (its volume was lost, say) does not run. */
static void close_stale_operations(struct mr_engine *engine)
{
    for (struct mr_operation *op = engine->operations; op; op = op->next) {
        if (op->ended != 0 || op->volume->op == op)
            continue;
        op->ended = -1;
        op->ended_at_ms = mr_wall_ms();
        engine->ended_count++;
        (void)mr_fail(&op->error, MR_E_INTERNAL, 0,
                      "the agent or the machine ended during it");
    }
}

int mr_reconcile_load(struct mr_engine *engine, struct mr_err *err)
{
    int rc = mr_journal_load(engine->journal, load_volume, load_operation,
                             MR_OPERATIONS_KEPT, engine, err);
    if (rc < 0)
        return rc;
    for (struct mr_operation *op = engine->operations; op; op = op->next)
        engine->ended_count += op->ended != 0;
    for (size_t i = 0; i < engine->volume_count; i++) {
        rc = start_volume(engine->volumes[i], err);
        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < engine->volume_count; i++)
        mr_act_note_lost(engine->volumes[i]);
    close_stale_operations(engine);
    mr_reconcile_next(engine);
    return 0;
}

/* --- attached volumes: look, change nothing --- */

static bool wants_inspection(const struct mr_volume *volume)
{
    return volume->state == MR_STATE_ATTACHED && !volume->op;
}

void mr_reconcile_next(struct mr_engine *engine)
{
    while (engine->recovering < MR_RECOVER_AT_ONCE &&
           engine->recover_next < engine->volume_count) {
        struct mr_volume *volume = engine->volumes[engine->recover_next++];
        if (!wants_inspection(volume))
            continue;
        struct mr_operation *op =
            mr_operation_new(engine, volume, MR_GOAL_ATTACHED, NULL);
        if (!op)
            abort(); /* 1 KiB at start; going on would report what was not looked at */
        op->recovering = true;
        op->counted = true;
        op->prior_state = volume->state;
        engine->recovering++;
        mr_operation_start(op, inspect_only, NULL);
    }
}

void mr_reconcile_done(struct mr_operation *op)
{
    struct mr_engine *engine = op->engine;
    if (!op->counted)
        return;
    op->counted = false;
    engine->recovering--;
    mr_reconcile_next(engine);
}

/* In words, what is wrong with an attachment that the journal calls attached; 0 when
 * nothing is. */
static int compare(const struct mr_volume *volume, bool ok, struct json_object *message,
                   struct mr_err *err)
{
    const char *mounted = mr_json_get_string(message, "mounted");
    struct mr_identity found;

    if (!ok)
        return -EIO; /* the worker's own error stays */
    mr_identity_from_json(&found, mr_json_get(message, "identity"));
    if (!mr_json_get_bool(message, "found", false))
        return mr_fail(err, MR_E_DEVICE_MISMATCH, 0,
                       "device %s of this attachment is gone", volume->identity.node);
    if (found.diskseq != volume->identity.diskseq)
        return mr_fail(err, MR_E_DEVICE_MISMATCH, 0,
                       "device %s has diskseq %llu, recorded was %llu", found.node,
                       (unsigned long long)found.diskseq,
                       (unsigned long long)volume->identity.diskseq);
    if (!mounted || strcmp(mounted, "unknown") == 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, 0,
                       "cannot tell whether '%s' is still mounted",
                       volume->spec->mount_path);
    if (strcmp(mounted, "present") != 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, 0, "'%s' was unmounted by somebody else",
                       volume->spec->mount_path);
    return 0;
}

void mr_reconcile_reply(struct mr_operation *op, bool ok, struct json_object *message,
                        const struct mr_err *err)
{
    struct mr_volume *volume = op->volume;
    struct mr_err why = *err;

    if (compare(volume, ok, message, &why) == 0) {
        mr_operation_end_unrecorded(op, 1, MR_STATE_ATTACHED);
        return;
    }
    why.residue = MR_RESIDUE_POSSIBLE;
    (void)mr_err_remedy(&why, 0, "PUT the same spec to attach it again, or DELETE it");
    op->error = why;
    mr_volume_set_error(volume, &why);
    mr_operation_end(op, -1, MR_STATE_FAILED, "not_as_recorded");
}
