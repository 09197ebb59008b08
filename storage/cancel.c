/* SPDX-License-Identifier: Apache-2.0
 *
 * A waiting detach, or the waiting undo of an attach, that another request calls off. It
 * ends as cancelled; what was asked then starts and looks at what is there: an attach
 * finds the device mapped and brings the volume back. Once the unmap is at the worker its
 * answer is awaited: gone, then attach afresh; put off by the kernel, then it is taken
 * back.
 */
#include <errno.h>

#include "storage/engine_internal.h"

static int then_start(struct mr_volume *volume, enum mr_goal goal,
                      struct mr_operation **ret_op, struct mr_err *err)
{
    struct mr_operation *op = volume->op;

    if (goal == MR_GOAL_ATTACHED && mr_refuse_forced(volume, err) < 0)
        return -EIO;
    if (mr_refuse_acting(volume, err) < 0)
        return -EBUSY;
    if (op->then && op->then->goal != goal)
        return mr_refuse_pending(volume, err);
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
    mr_spec_free(op->then_spec); /* the secrets may be new */
    op->then_spec = spec;
    mr_detach_cancel(op);
    return 0;
}

int mr_cancel_for_detach(struct mr_volume *volume, bool accept_data_loss,
                         struct mr_operation **ret_op, struct mr_err *err)
{
    int rc = then_start(volume, MR_GOAL_ABSENT, ret_op, err);
    if (rc < 0)
        return rc;
    (*ret_op)->accept_data_loss |= accept_data_loss;
    mr_detach_cancel(volume->op);
    return 0;
}

static void start_detach(struct mr_volume *volume, struct mr_operation *then)
{
    if (!mr_volume_has_residue(volume)) { /* the undo was faster */
        volume->op = then;
        mr_detach_finish(then);
        return;
    }
    then->prior_state = volume->state;
    mr_volume_set_state(volume, MR_STATE_DETACHING);
    mr_operation_start(then, mr_plan(MR_STATE_FAILED, MR_GOAL_ABSENT), "detach_intent");
}

static void start_attach(struct mr_volume *volume, struct mr_operation *then,
                         struct mr_spec *spec)
{
    struct mr_err err;

    if (mr_volume_has_residue(volume) && mr_refuse_forced(volume, &err) < 0) {
        mr_spec_free(spec);
        mr_request_failed(volume, then, &err);
    } else if (mr_volume_has_residue(volume)) {
        mr_spec_free(volume->spec);
        volume->spec = spec;
        mr_operation_start(then, mr_plan(MR_STATE_FAILED, MR_GOAL_ATTACHED), NULL);
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
        start_attach(op->volume, then, spec);
    }
}
