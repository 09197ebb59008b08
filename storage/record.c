/* SPDX-License-Identifier: Apache-2.0
 *
 * What an operation writes into the journal, and what comes of it when that fails: an
 * intent is refused, a fresh attach undone; all else waits until it can be written, and
 * the end is said then.
 */
#include <string.h>

#include "storage/base/json.h"
#include "storage/engine_internal.h"

static void append(struct mr_operation *op, enum mr_state state, const char *event,
                   struct json_object *detail, mr_journal_fn fn)
{
    struct mr_volume *volume = op->volume;
    MR_AUTO_JSON struct json_object *row = mr_volume_to_row(volume);
    MR_AUTO_JSON struct json_object *op_row = mr_operation_to_row(op);
    struct mr_record record = {
        .volume_number = volume->number,
        .volume_id = volume->id,
        .state = mr_state_name(state),
        .volume = row,
        .operation_id = op->id,
        .operation = op_row,
        .event = event,
        .detail = detail,
    };
    if (fn)
        mr_journal_append(op->engine->journal, &record, fn, op);
    else
        mr_journal_append(op->engine->journal, &record, mr_unsaved_on_record, volume);
}

/* Nothing has failed and nothing is lost: what is next waits until this can be written.
 */
static void wait_for_journal(struct mr_operation *op)
{
    op->unwritten = true;
    mr_volume_touch(op->volume);
}

static void on_durable(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_operation *op = ctx;
    mr_durable_fn fn = op->on_durable;

    mr_unsaved_result(op->engine, rc, err);
    op->on_durable = NULL;
    if (op->ending || op->ended || !fn)
        return;
    if (rc == 0) {
        mr_operation_accepted(op);
        fn(op);
    } else if (op->goal == MR_GOAL_ATTACHED && op->fresh) {
        mr_operation_fail(op, err);
    } else {
        wait_for_journal(op);
    }
}

void mr_operation_record(struct mr_operation *op, const char *event,
                         struct json_object *detail, mr_durable_fn fn)
{
    /* An undo needs no record: a half-done attach is undone again at the next start. */
    bool wait = fn && !op->undoing;
    if (wait)
        op->on_durable = fn;
    append(op, op->volume->state, event, detail, wait ? on_durable : NULL);
    if (fn && !wait)
        fn(op);
}

/* --- the start --- */

/* The intent could not be written: nothing was done, and the volume is as it was. */
static void refused(struct mr_operation *op, const struct mr_err *err)
{
    struct mr_volume *volume = op->volume;
    bool mends = op->prior_state == MR_STATE_ATTACHING; /* of a detach that is over */

    volume->state = mends ? MR_STATE_FAILED : op->prior_state;
    if (op->before)
        mr_volume_restore(volume, op->before);
    op->error = *err;
    op->error.residue =
        mr_volume_has_residue(volume) ? MR_RESIDUE_POSSIBLE : MR_RESIDUE_NONE;
    if (mends)
        mr_volume_set_error(volume, &op->error);
    if (volume->state != MR_STATE_ABSENT || volume->proof)
        mr_unsaved_note(volume); /* a record behind it may have been written */
    mr_operation_end_unrecorded(op, -1, volume->state);
}

static void on_intent(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_operation *op = ctx;

    mr_unsaved_result(op->engine, rc, err);
    if (op->ending || op->ended) {
        op->durable = op->durable || rc == 0; /* should it go on after all */
        return;
    }
    if (rc < 0) {
        refused(op, err);
        return;
    }
    (void)json_object_put(op->before);
    op->before = NULL;
    op->durable = true;
    mr_operation_accepted(op);
    mr_operation_go_when_ready(op);
}

static void on_announced(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_operation *op = ctx;

    mr_unsaved_result(op->engine, rc, err);
    if (op->ended)
        return;
    if (rc == 0)
        mr_operation_accepted(op);
    else if (!mr_cancel_announce_failed(op, err))
        mr_unsaved_note(op->volume); /* it runs already */
}

void mr_operation_intend(struct mr_operation *op, const char *event)
{
    append(op, op->volume->state, event, NULL, on_intent);
}

void mr_operation_announce(struct mr_operation *op)
{
    append(op, mr_volume_row_state(op->volume), "queued", NULL, on_announced);
}

/* --- the end --- */

void mr_operation_finish(struct mr_operation *op)
{
    struct mr_engine *engine = op->engine;
    struct mr_volume *volume = op->volume;

    volume->state = op->end_state;
    volume->wedged = false;
    volume->op = NULL;
    mr_volume_touch(volume);
    op->ended = op->ending;
    mr_engine_check_mount(volume); /* what happened to it meanwhile was left to us */
    mr_recovery_resumed(op);
    engine->ended_count++;
    mr_cancel_go_on(op);
    mr_operation_tell(op);
    mr_engine_trim_operations(engine);
    if (volume->state == MR_STATE_ABSENT && !volume->op)
        mr_retention_gone(volume);
}

/* It was called off, but that cannot be written: who asked for it is refused, and it goes
 * on with a look at what is there. */
static void go_on_after_all(struct mr_operation *op, const struct mr_err *err)
{
    op->ending = 0;
    op->called_off = false;
    if (!op->undoing)
        memset(&op->error, 0, sizeof(op->error));
    mr_volume_set_error(op->volume, NULL);
    mr_unsaved_note(op->volume); /* other records may have called it ended already */
    (void)json_object_put(op->forget);
    op->forget = NULL;
    mr_cancel_refuse(op, err);
    mr_pending_answer(mr_take_ptr(op->forgetting), NULL, err);
    if (op->durable)
        mr_operation_retry_in(op, 0);
    else
        refused(op, err); /* it had not begun */
}

static void on_end_durable(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_operation *op = ctx;
    struct mr_volume *volume = op->volume;

    mr_unsaved_result(op->engine, rc, err);
    if (rc < 0 && op->before) {
        refused(op, err);
        return;
    }
    if (rc < 0 && op->called_off) {
        go_on_after_all(op, err);
        return;
    }
    if (rc < 0 && op->ending > 0) { /* what is not in the journal is not said */
        wait_for_journal(op);
        return;
    }
    if (rc < 0) /* but a failure is, at once */
        mr_unsaved_note(volume);
    if (op->forget) {
        (void)json_object_put(volume->forgotten);
        volume->forgotten = mr_take_ptr(op->forget);
    }
    mr_operation_finish(op);
}

static void append_end(struct mr_operation *op)
{
    MR_AUTO_JSON struct json_object *detail =
        op->ending < 0 ? mr_err_to_json(&op->error) : json_object_get(op->proof);
    append(op, op->end_state, op->end_event, detail, on_end_durable);
}

static void set_ending(struct mr_operation *op, int ended, enum mr_state state)
{
    mr_operation_release(op);
    op->ending = ended;
    op->end_state = state;
    op->ended_at_ms = mr_wall_ms();
    op->ended_ns = mr_now_ns();
    op->known_held = false;
}

void mr_operation_end(struct mr_operation *op, int ended, enum mr_state state,
                      const char *event)
{
    set_ending(op, ended, state);
    op->end_event = event;
    append_end(op);
}

void mr_operation_call_off(struct mr_operation *op, enum mr_state state,
                           const char *event)
{
    op->called_off = true;
    mr_operation_end(op, -1, state, event);
}

void mr_operation_end_unrecorded(struct mr_operation *op, int ended, enum mr_state state)
{
    set_ending(op, ended, state);
    mr_operation_finish(op);
}

void mr_operation_refuse(struct mr_operation *op, const struct mr_err *err)
{
    op->error = *err;
    set_ending(op, -1, MR_STATE_COUNT);
    op->ended = -1;
    op->engine->ended_count++;
    if (op->journalled) {
        MR_AUTO_JSON struct json_object *detail = mr_err_to_json(err);
        append(op, mr_volume_row_state(op->volume), "not_started", detail, NULL);
    }
    mr_operation_tell(op);
    mr_engine_trim_operations(op->engine);
}

void mr_operation_write_again(struct mr_operation *op)
{
    op->unwritten = false;
    mr_volume_touch(op->volume);
    if (op->ending)
        append_end(op);
    else if (op->goal == MR_GOAL_ABSENT)
        mr_detach_write_again(op);
    else
        mr_operation_on_retry(op); /* the step looks again, and then writes */
}
