/* SPDX-License-Identifier: Apache-2.0
 *
 * A waiting detach, or the waiting undo of an attach, that another request calls off. It
 * ends as cancelled; what was asked then starts and looks at what is there: an attach
 * finds the device mapped and brings the volume back. Once the unmap is at the worker its
 * answer is awaited: gone, then attach afresh; put off by the kernel, then it is taken
 * back. What gives errors only is never brought back: the detach goes to its end first.
 */
#include <errno.h>

#include "storage/base/cleanup.h"
#include "storage/engine_internal.h"

bool mr_cancel_waits_for_end(const struct mr_operation *op)
{
    return op->then && op->then->goal == MR_GOAL_ATTACHED &&
           (op->volume->forced || mr_server_is_dead(op->volume));
}

void mr_cancel_operation(struct mr_operation *op)
{
    const char *event = op->undoing ? "undo_cancelled" : "detach_cancelled";

    if (op->ending || op->ended || mr_detach_must_answer(op))
        return;
    /* What gives errors only is not brought back: to its end, then afresh. */
    if (mr_cancel_waits_for_end(op))
        return;
    if (!op->undoing) /* an undo keeps its reason */
        (void)mr_fail(&op->error, MR_E_DETACH_CANCELLED, 0,
                      "a PUT of the same spec cancelled the detach of volume '%s'",
                      op->volume->id);
    op->error.residue = MR_RESIDUE_POSSIBLE;
    if (op->then->goal == MR_GOAL_ATTACHED) {
        /* One record: after a crash in between the start goes on with the attach. */
        mr_operation_call_off(op, MR_STATE_ATTACHING, event);
        return;
    }
    mr_volume_set_error(op->volume, &op->error);
    mr_operation_call_off(op, MR_STATE_FAILED, event);
}

int mr_cancel_may_follow(const struct mr_volume *volume, enum mr_goal goal,
                         struct mr_err *err)
{
    const struct mr_operation *op = volume->op;

    if (goal == MR_GOAL_ATTACHED && mr_refuse_forced(volume, err) < 0)
        return -EIO;
    if (mr_refuse_acting(volume, err) < 0)
        return -EBUSY;
    return op->then && op->then->goal != goal ? mr_refuse_pending(volume, err) : 0;
}

static int then_start(struct mr_volume *volume, enum mr_goal goal,
                      struct mr_operation **ret_op, struct mr_err *err)
{
    struct mr_operation *op = volume->op;
    int rc = mr_cancel_may_follow(volume, goal, err);

    if (rc < 0)
        return rc;
    if (!op->then) {
        op->then = mr_request_operation(volume, goal, err);
        if (!op->then)
            return -ENOMEM;
        op->then->prior_state = MR_STATE_ATTACHING;
        mr_operation_announce(op->then);
    }
    *ret_op = op->then;
    return 0;
}

int mr_cancel_for_attach(struct mr_volume *volume, struct mr_spec *spec,
                         struct mr_operation **ret_op, struct mr_err *err)
{
    struct mr_operation *op = volume->op;

    int rc = then_start(volume, MR_GOAL_ATTACHED, ret_op, err);
    if (rc < 0)
        return rc;
    mr_preempt_keep(op->then_spec, spec);
    mr_spec_free(op->then_spec); /* the secrets may be new */
    op->then_spec = spec;
    mr_cancel_operation(op);
    return 0;
}

int mr_cancel_for_detach(struct mr_volume *volume, bool accept_data_loss,
                         struct mr_operation **ret_op, struct mr_err *err)
{
    int rc = then_start(volume, MR_GOAL_ABSENT, ret_op, err);
    if (rc < 0)
        return rc;
    (*ret_op)->accept_data_loss |= accept_data_loss;
    mr_cancel_operation(volume->op);
    return 0;
}

static void start_detach(struct mr_volume *volume, struct mr_operation *then)
{
    then->prior_state = volume->state;
    if (!mr_volume_has_residue(volume)) { /* the undo was faster */
        mr_request_end_at_once(volume, then);
        return;
    }
    mr_volume_set_state(volume, MR_STATE_DETACHING);
    mr_operation_start(then, mr_plan(MR_STATE_FAILED, MR_GOAL_ABSENT), "detach_intent");
}

/* op: the detach that has ended. */
static void start_attach(const struct mr_operation *op, struct mr_operation *then,
                         struct mr_spec *spec)
{
    struct mr_volume *volume = op->volume;
    struct mr_err err;

    if (mr_volume_has_residue(volume) && mr_refuse_forced(volume, &err) < 0) {
        mr_spec_free(spec);
        mr_request_failed(volume, then, &err);
    } else if (mr_volume_has_residue(volume) && mr_server_is_dead(volume) &&
               !op->called_off) {
        mr_spec_free(spec);
        mr_operation_refuse(then, &op->error);
    } else if (mr_volume_has_residue(volume)) {
        mr_spec_free(volume->spec);
        volume->spec = spec;
        then->prior_state = volume->state;
        mr_operation_start(then, mr_plan(MR_STATE_FAILED, MR_GOAL_ATTACHED),
                           then->journalled ? NULL : "mend_asked");
    } else {
        then->prior_state = volume->state;
        if (mr_request_attach_fresh(volume, then, spec, &err) < 0)
            mr_request_failed(volume, then, &err);
    }
}

void mr_cancel_go_on(struct mr_operation *op)
{
    struct mr_operation *then = op->then;
    struct mr_spec *spec = op->then_spec;

    op->then = NULL;
    op->then_spec = NULL;
    if (!then)
        return;
    if (op->volume->forgotten) {
        mr_spec_free(spec);
        mr_request_failed(op->volume, then, &op->error);
    } else if (then->goal == MR_GOAL_ABSENT) {
        start_detach(op->volume, then);
    } else {
        start_attach(op, then, spec);
    }
}

void mr_cancel_refuse(struct mr_operation *op, const struct mr_err *err)
{
    struct mr_operation *then = mr_take_ptr(op->then);

    mr_spec_free(op->then_spec);
    op->then_spec = NULL;
    if (then)
        mr_operation_refuse(then, err);
}

bool mr_cancel_announce_failed(struct mr_operation *op, const struct mr_err *err)
{
    struct mr_operation *first = op->volume->op;

    if (!first || first->then != op)
        return false;
    /* It is being called off for op: whether that is written decides. */
    if (!first->called_off)
        mr_cancel_refuse(first, err);
    return true;
}

/* --- what gives errors only --- */

int mr_cancel_detach_first(struct mr_volume *volume, struct mr_spec *spec,
                           struct mr_operation **ret_op, struct mr_err *err)
{
    struct mr_operation *detach = NULL;
    int rc = mr_request_detach(volume, false, &detach, err);

    if (rc == 0)
        rc = mr_cancel_for_attach(volume, spec, ret_op, err);
    if (rc < 0)
        mr_spec_free(spec);
    return rc;
}

void mr_cancel_for_delete(struct mr_operation *op)
{
    struct mr_err err;

    if (!mr_cancel_waits_for_end(op))
        return;
    (void)mr_fail(&err, MR_E_OPERATION_PENDING, 0,
                  "a DELETE of volume '%s' came before it could be attached afresh",
                  op->volume->id);
    (void)mr_err_remedy(&err, 0, "PUT it again when it is detached");
    err.residue = MR_RESIDUE_POSSIBLE;
    mr_cancel_refuse(op, &err);
}
