/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs one operation's plan: worker, journal and timers meet here; what a step means is
 * in attach.c and detach.c.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/fault.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/engine_internal.h"

#define MR_RESTART_MIN_NS (500 * MR_NS_PER_MS)
#define MR_RESTART_MAX_NS (30 * MR_NS_PER_S)

static void start_worker(struct mr_operation *op);

void mr_operation_release(struct mr_operation *op)
{
    mr_timer_cancel(&op->retry);
    op->unwritten = false;
    mr_holders_unwatch(op);
    mr_scanner_cancel(op->gate);
    op->gate = NULL;
    mr_worker_end(op->worker);
    op->worker = NULL;
    if (op->wd >= 0)
        mr_checker_forget(op->engine->checker, op->wd);
    op->wd = -1;
}

/* --- worker --- */

static void recovered(struct mr_operation *op)
{
    if (op->volume->wedged) {
        op->volume->wedged = false;
        mr_volume_touch(op->volume);
    }
}

void mr_operation_go_when_ready(struct mr_operation *op)
{
    /* One that was ready may have died, and the next one not be started yet. */
    if (op->worker && op->ready && op->durable && !op->busy && op->step == MR_STEP_NONE)
        mr_operation_advance(op);
}

static void on_ready(void *ctx)
{
    struct mr_operation *op = ctx;
    op->ready = true;
    recovered(op);
    mr_recovery_resumed(op);
    mr_operation_go_when_ready(op);
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

/* False when a test made the operation fail here. */
static bool pass(struct mr_operation *op, const char *when)
{
    const char *step = op->step == MR_STEP_INSPECT ? "inspect" : mr_step_name(op->step);
    struct mr_err err;

    if (mr_fault_fail(op->undoing ? "undo" : "core", step, when, &err) == 0)
        return true;
    mr_operation_fail(op, &err);
    return false;
}

static void on_reply(void *ctx, bool ok, struct json_object *message,
                     const struct mr_err *err)
{
    struct mr_operation *op = ctx;

    if (!op->busy)
        return; /* an answer that nobody asked for */
    op->busy = false;
    recovered(op);
    if (!pass(op, "reply"))
        return;
    if (is_attach(op))
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
    mr_operation_record(op, "wedged", NULL, NULL);
    mr_recovery_resumed(op);
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
    op->unwritten = false;
    recovered(op);
    mr_recovery_resumed(op);
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
    int rc = mr_lock_file_path(op->volume, path, sizeof(path));
    if (rc < 0)
        rc =
            mr_fail(&err, MR_E_INTERNAL, -rc, "lock file of volume '%s'", op->volume->id);
    else
        rc = mr_worker_start(engine->workers, "volume", path,
                             mr_now_ns() + engine->config->worker_deadline_ns,
                             &worker_events, op, &op->worker, &err);
    if (rc == 0)
        return;
    op->worker = NULL;
    if (is_attach(op))
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
    if (!pass(op, "begin"))
        return;
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

void mr_operation_start(struct mr_operation *op, const enum mr_step *plan,
                        const char *event)
{
    op->plan = plan;
    op->volume->op = op;
    op->volume->asked = false;
    op->durable = event == NULL;
    op->journalled = op->journalled || event == NULL;
    mr_volume_touch(op->volume);
    if (event)
        mr_operation_intend(op, event);
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
        mr_operation_go_when_ready(op);
}

/* A look at an existing attachment failed: nothing was changed, so it is what it was. */
static bool only_looked(const struct mr_operation *op, const struct mr_err *err)
{
    return is_attach(op) && !op->fresh && op->step <= MR_STEP_INSPECT &&
           op->volume->state != MR_STATE_ATTACHING && err->code != MR_E_DEVICE_MISMATCH;
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
    mr_operation_end(op, -1, mr_server_failed_state(op->volume), "failed");
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
