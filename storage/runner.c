/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs one operation's plan: worker, journal and timers meet here; what a step means is
 * in attach.c and detach.c.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/engine_internal.h"

#define MR_RESTART_MIN_NS (500 * MR_NS_PER_MS)
#define MR_RESTART_MAX_NS (30 * MR_NS_PER_S)

static void start_worker(struct mr_operation *op);

void mr_operation_release(struct mr_operation *op)
{
    mr_timer_cancel(&op->retry);
    mr_holders_unwatch(op);
    mr_scanner_cancel(op->gate);
    op->gate = NULL;
    mr_worker_end(op->worker);
    op->worker = NULL;
    if (op->wd >= 0)
        mr_checker_forget(op->engine->checker, op->wd);
    op->wd = -1;
}

/* --- journal --- */

static void append(struct mr_operation *op, enum mr_state state, const char *event,
                   struct json_object *detail, mr_journal_fn fn)
{
    struct mr_volume *volume = op->volume;
    MR_AUTO_JSON struct json_object *row = mr_volume_to_row(volume);
    MR_AUTO_JSON struct json_object *op_row =
        op->recovering ? NULL : mr_operation_to_row(op);
    struct mr_record record = {
        .volume_number = volume->number,
        .volume_id = volume->id,
        .state = mr_state_name(state),
        .volume = row,
        .operation_id = op->recovering ? NULL : op->id,
        .operation = op_row,
        .event = event,
        .detail = detail,
    };
    mr_journal_append(op->engine->journal, &record, fn, op);
}

static void on_durable(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_operation *op = ctx;
    mr_durable_fn fn = op->on_durable;

    op->on_durable = NULL;
    if (op->ending || op->ended || !fn)
        return;
    if (rc == 0)
        mr_operation_accepted(op);
    if (rc < 0)
        mr_operation_fail(op, err);
    else
        fn(op);
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
    if (op->recovering) {
        mr_reconcile_done(op);
        mr_operation_free(op);
        return;
    }
    engine->ended_count++;
    mr_cancel_go_on(op);
    mr_operation_tell(op);
    mr_engine_trim_operations(engine);
}

static void on_end_durable(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_operation *op = ctx;
    if (rc == 0 && op->forget) {
        (void)json_object_put(op->volume->forgotten);
        op->volume->forgotten = mr_take_ptr(op->forget);
    }
    if (rc < 0) {
        /* What is not in the journal is not said. The next request finds out what is
         * there. */
        op->ending = -1;
        op->error = *err;
        op->end_state = MR_STATE_FAILED;
        mr_volume_set_error(op->volume, err);
    }
    mr_operation_finish(op);
}

void mr_operation_end(struct mr_operation *op, int ended, enum mr_state state,
                      const char *event)
{
    mr_operation_release(op);
    op->ending = ended;
    op->end_state = state;
    op->ended_at_ms = mr_wall_ms();
    op->known_held = false;
    MR_AUTO_JSON struct json_object *detail =
        ended < 0 ? mr_err_to_json(&op->error) : json_object_get(op->proof);
    append(op, state, event, detail, on_end_durable);
}

void mr_operation_end_unrecorded(struct mr_operation *op, int ended, enum mr_state state)
{
    mr_operation_release(op);
    op->ending = ended;
    op->end_state = state;
    op->ended_at_ms = mr_wall_ms();
    op->known_held = false;
    mr_operation_finish(op);
}

/* --- worker --- */

static void recovered(struct mr_operation *op)
{
    if (op->volume->wedged) {
        op->volume->wedged = false;
        mr_volume_touch(op->volume);
    }
}

static void go_when_ready(struct mr_operation *op)
{
    if (op->ready && op->durable && !op->busy && op->step == MR_STEP_NONE)
        mr_operation_advance(op);
}

static void on_ready(void *ctx)
{
    struct mr_operation *op = ctx;
    op->ready = true;
    recovered(op);
    go_when_ready(op);
}

static void on_event(void *ctx, struct json_object *message)
{
    struct mr_operation *op = ctx;
    const char *event = mr_json_get_string(message, "event");
    if (event && strcmp(event, "armed") == 0)
        mr_detach_armed(op, (int)mr_json_get_int(message, "wd", -1));
}

static bool is_attach(const struct mr_operation *op)
{
    return op->goal == MR_GOAL_ATTACHED && !op->undoing;
}

static void on_reply(void *ctx, bool ok, struct json_object *message,
                     const struct mr_err *err)
{
    struct mr_operation *op = ctx;

    if (!op->busy)
        return; /* an answer that nobody asked for */
    op->busy = false;
    recovered(op);
    if (op->recovering)
        mr_reconcile_reply(op, ok, message, err);
    else if (is_attach(op))
        mr_attach_reply(op, ok, message, err);
    else
        mr_detach_reply(op, ok, message, err);
}

static void on_overdue(void *ctx)
{
    struct mr_operation *op = ctx;

    struct mr_volume *volume = op->volume;
    char stack[256];

    (void)mr_fail(&volume->wedged_why, MR_E_WEDGED, ETIMEDOUT, "step %s: %s",
                  op->step ? mr_step_name(op->step) : "start",
                  mr_worker_stack(op->worker, stack));
    (void)mr_err_remedy(&volume->wedged_why, 0,
                        "it recovers by itself when the device answers; while it is "
                        "being detached, cut-transport makes the device fail instead");
    volume->wedged = true;
    mr_volume_touch(volume);
    append(op, op->volume->state, "wedged", NULL, NULL);
    if (op->recovering)
        mr_reconcile_done(op);
}

static void on_died(void *ctx, const struct mr_err *err)
{
    struct mr_operation *op = ctx;

    op->worker = NULL; /* freed by its table */
    op->busy = false;
    mr_scanner_cancel(op->gate); /* the claim went with the worker */
    op->gate = NULL;
    op->on_durable =
        NULL; /* what would follow needs the worker; the next one starts anew */
    recovered(op);
    if (op->recovering) {
        mr_reconcile_reply(op, false, NULL, err);
        return;
    }
    if (is_attach(op)) {
        mr_operation_fail(op, err);
        return;
    }
    /* Nothing is lost: look at what is there, and go on from that. */
    if (op->restart_ns)
        mr_volume_set_error(op->volume, err); /* not for the first time: say so */
    op->restart_ns = op->restart_ns ? 2 * op->restart_ns : MR_RESTART_MIN_NS;
    if (op->restart_ns > MR_RESTART_MAX_NS)
        op->restart_ns = MR_RESTART_MAX_NS;
    mr_timer_set(&op->retry, mr_now_ns() + op->restart_ns);
}

static const struct mr_worker_events worker_events = {
    .ready = on_ready,
    .event = on_event,
    .reply = on_reply,
    .overdue = on_overdue,
    .died = on_died,
};

/* A new worker runs the plan from its start. */
static void start_worker(struct mr_operation *op)
{
    struct mr_engine *engine = op->engine;
    char path[PATH_MAX];
    struct mr_err err;

    op->ready = false;
    op->busy = false;
    op->step = MR_STEP_NONE;
    op->next_step = op->plan;
    int rc = mr_format(path, sizeof(path), "%s/locks/%lld.lock",
                       engine->config->state_dir, (long long)op->volume->number);
    if (rc < 0)
        rc =
            mr_fail(&err, MR_E_INTERNAL, -rc, "lock file of volume '%s'", op->volume->id);
    else
        rc = mr_worker_start(engine->workers, path,
                             mr_now_ns() + engine->config->worker_deadline_ns,
                             &worker_events, op, &op->worker, &err);
    if (rc == 0)
        return;
    op->worker = NULL;
    if (is_attach(op) && !op->recovering)
        mr_operation_fail(op, &err);
    else
        on_died(op, &err);
}

void mr_operation_command(struct mr_operation *op, struct json_object *command,
                          int64_t deadline_ns)
{
    op->busy = true;
    if (deadline_ns == 0)
        deadline_ns = op->engine->config->worker_deadline_ns;
    mr_worker_command(op->worker, command, mr_now_ns() + deadline_ns);
}

struct json_object *mr_operation_new_command(const struct mr_operation *op,
                                             const char *name)
{
    const struct mr_volume *volume = op->volume;
    struct json_object *command = json_object_new_object();

    mr_json_set_string(command, "cmd", name);
    mr_json_set_string(command, "token", volume->token);
    mr_json_set_string(command, "driver", volume->spec->driver);
    mr_json_set_string(command, "runtime_dir", op->engine->config->runtime_dir);
    mr_json_set(command, "identity", mr_identity_to_json(&volume->identity));
    return command;
}

/* --- the plan --- */

static void begin_inspect(struct mr_operation *op)
{
    struct json_object *command = mr_operation_new_command(op, "inspect");
    if (op->volume->mount.root[0])
        mr_json_set(command, "mount", mr_mount_record_to_json(&op->volume->mount));
    mr_operation_command(op, command, 0);
}

static void begin(struct mr_operation *op)
{
    if (op->step == MR_STEP_INSPECT)
        begin_inspect(op);
    else if (is_attach(op))
        mr_attach_begin(op);
    else
        mr_detach_begin(op);
}

void mr_operation_on_retry(void *ctx)
{
    struct mr_operation *op = ctx;
    if (!op->worker)
        start_worker(op);
    else if (!op->busy)
        begin(op);
}

void mr_operation_advance(struct mr_operation *op)
{
    op->step = *op->next_step;
    op->backoff_ns = 0;
    mr_volume_touch(op->volume);
    if (op->step == MR_STEP_NONE) {
        mr_detach_finish(op); /* attach ends with its last step */
        return;
    }
    op->next_step++;
    begin(op);
}

void mr_operation_retry_in(struct mr_operation *op, int64_t ns)
{
    mr_timer_set(&op->retry, mr_now_ns() + ns);
}

/* The intent could not be written: nothing was done, and the volume is as it was. */
static void intent_failed(struct mr_operation *op, const struct mr_err *err)
{
    op->error = *err;
    op->error.residue =
        mr_volume_has_residue(op->volume) ? MR_RESIDUE_POSSIBLE : MR_RESIDUE_NONE;
    mr_operation_end_unrecorded(op, -1, op->prior_state);
}

static void on_intent(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_operation *op = ctx;
    if (op->ending || op->ended)
        return;
    if (rc < 0) {
        intent_failed(op, err);
        return;
    }
    op->durable = true;
    mr_operation_accepted(op);
    go_when_ready(op);
}

static void on_announced(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_operation *op = ctx;
    (void)err; /* its start will find out, too */
    if (rc == 0 && !op->ended)
        mr_operation_accepted(op);
}

void mr_operation_announce(struct mr_operation *op)
{
    append(op, op->volume->state, "queued", NULL, on_announced);
}

void mr_operation_start(struct mr_operation *op, const enum mr_step *plan,
                        const char *event)
{
    op->plan = plan;
    op->volume->op = op;
    op->durable = event == NULL;
    op->journalled = op->journalled || event == NULL;
    mr_volume_touch(op->volume);
    if (event)
        append(op, op->volume->state, event, NULL, on_intent);
    start_worker(op);
}

static void start_undo(struct mr_operation *op)
{
    op->undoing = true;
    op->plan = mr_plan(MR_STATE_ATTACHING, MR_GOAL_ABSENT);
    op->next_step = op->plan;
    op->step = MR_STEP_NONE;
    op->on_durable = NULL;
    op->durable = true;
    if (!op->worker)
        start_worker(op);
    else
        go_when_ready(op);
}

/* A look at an existing attachment failed: nothing was changed, so it is what it was. */
static bool only_looked(const struct mr_operation *op, const struct mr_err *err)
{
    return is_attach(op) && !op->fresh && op->step <= MR_STEP_INSPECT &&
           op->prior_state != MR_STATE_ATTACHING && err->code != MR_E_DEVICE_MISMATCH;
}

void mr_operation_fail(struct mr_operation *op, const struct mr_err *err)
{
    if (op->ending || op->ended)
        return;
    mr_timer_cancel(&op->retry);
    if (!op->undoing) {
        op->error = *err;
        if (!op->error.step[0] && mr_step_name(op->step))
            (void)snprintf(op->error.step, sizeof(op->error.step), "%s",
                           mr_step_name(op->step));
        if (op->goal == MR_GOAL_ATTACHED && op->fresh) {
            start_undo(op);
            return;
        }
        if (only_looked(op, err)) {
            op->error.residue = MR_RESIDUE_POSSIBLE;
            mr_operation_end_unrecorded(op, -1, op->prior_state);
            return;
        }
    }
    /* An undo that failed keeps the reason for the undo, and says that something may be
     * left. */
    op->error.residue = MR_RESIDUE_POSSIBLE;
    mr_volume_set_error(op->volume, &op->error);
    mr_operation_end(op, -1, op->volume->forgotten ? MR_STATE_ORPHAN : MR_STATE_FAILED,
                     "failed");
}

void mr_operation_fail_with(struct mr_operation *op, enum mr_code code,
                            const char *remedy, const char *fmt, ...)
{
    struct mr_err err;
    char text[sizeof(err.message)];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    (void)mr_fail(&err, code, 0, "%s", text);
    (void)mr_err_remedy(&err, 0, "%s", remedy);
    mr_operation_fail(op, &err);
}
