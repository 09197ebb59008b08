/* SPDX-License-Identifier: Apache-2.0
 *
 * PUT while a detach (or the undo of an attach) of the same spec waits: the detach ends
 * as cancelled, and an attach that finds the device mapped brings the volume back. Once
 * the unmap is at the worker its answer is waited for: gone, then attach afresh; put off
 * by the kernel, then it is taken back.
 */
#include <errno.h>

#include "storage/engine_internal.h"

int mr_cancel_detach(struct mr_volume *volume, struct mr_spec *spec,
                     struct mr_operation **ret_op, struct mr_err *err)
{
    struct mr_operation *op = volume->op;

    if (!op->then) {
        struct mr_operation *then = mr_request_operation(volume, MR_GOAL_ATTACHED, err);
        if (!then)
            return -ENOMEM;
        then->prior_state = MR_STATE_FAILED;
        op->then = then;
    }
    mr_spec_free(op->then_spec); /* the secrets may be new */
    op->then_spec = spec;
    *ret_op = op->then;
    mr_detach_cancel(op);
    return 0;
}

void mr_cancel_go_on(struct mr_operation *op)
{
    struct mr_volume *volume = op->volume;
    struct mr_operation *then = op->then;
    struct mr_spec *spec = op->then_spec;
    struct mr_err err;

    op->then = NULL;
    op->then_spec = NULL;
    if (!then)
        return;
    if (mr_volume_has_residue(volume)) {
        mr_spec_free(volume->spec);
        volume->spec = spec;
        mr_operation_start(then, mr_plan(MR_STATE_FAILED, MR_GOAL_ATTACHED), NULL);
    } else if (mr_request_attach_fresh(volume, then, spec, &err) < 0) {
        mr_request_failed(volume, then, &err);
    }
}
