/* SPDX-License-Identifier: Apache-2.0
 *
 * Why a request cannot start now, in words: what is in the way, and what to do.
 */
#include <errno.h>

#include "storage/engine_internal.h"

int mr_refuse_unknown(const char *id, struct mr_err *err)
{
    return mr_fail(err, MR_E_VOLUME_NOT_FOUND, 0, "there is no volume '%s'", id);
}

int mr_refuse_recovering(struct mr_err *err)
{
    int rc = mr_fail(err, MR_E_RECOVERING, 0,
                     "the agent compares its journal with the kernel; nothing was done");
    return mr_err_remedy(err, rc, "try again in a moment");
}

int mr_refuse_absent(const struct mr_engine *engine, const struct mr_volume *volume,
                     const char *id, struct mr_err *err)
{
    if (mr_engine_recovering(engine))
        return mr_refuse_recovering(err);
    if (!volume || volume->state == MR_STATE_ABSENT)
        return mr_refuse_unknown(id, err);
    return 0;
}

int mr_refuse_wedged(const struct mr_volume *volume, struct mr_err *err)
{
    int rc = mr_fail(err, MR_E_WEDGED, 0,
                     "a worker of volume '%s' does not answer: a system call hangs",
                     volume->id);
    return mr_err_remedy(
        err, rc, "the volume recovers by itself when the device or its target answers");
}

int mr_refuse_pending(const struct mr_volume *volume, struct mr_err *err)
{
    const char *what = volume->op->goal == MR_GOAL_ABSENT ? "detached"
                       : volume->op->undoing ? "cleaned up after a failed attach"
                                             : "attached";
    int rc = mr_fail(err, MR_E_OPERATION_PENDING, 0, "volume '%s' is being %s (%s)",
                     volume->id, what, volume->op->id);
    return mr_err_remedy(err, rc, "wait for operation %s", volume->op->id);
}

int mr_refuse_lost_writes(const struct mr_volume *volume, struct mr_err *err)
{
    if (volume->has_error && volume->error.code == MR_E_DATA_NOT_WRITTEN) {
        *err = volume->error;
        return -EIO;
    }
    int rc = mr_fail(err, MR_E_DATA_NOT_WRITTEN, 0,
                     "an earlier detach of volume '%s' found that data was not written",
                     volume->id);
    return mr_err_remedy(
        err, rc,
        "repair the device and PUT the volume, or repeat with accept_data_loss=true");
}

int mr_refuse_acting(const struct mr_volume *volume, struct mr_err *err)
{
    if (!mr_act_may_touch(volume))
        return 0;
    int rc = mr_fail(err, MR_E_OPERATION_PENDING, 0,
                     "an action on the holders of volume '%s' may still be at work",
                     volume->id);
    return mr_err_remedy(err, rc < 0 ? rc : -EBUSY, "try again when it has ended");
}

int mr_refuse_forced(const struct mr_volume *volume, struct mr_err *err)
{
    if (!volume->forced)
        return 0;
    int rc = mr_fail(err, MR_E_DATA_NOT_WRITTEN, 0,
                     "an action made the file system or the device of volume '%s' fail; "
                     "what is still mapped gives errors only",
                     volume->id);
    return mr_err_remedy(err, rc < 0 ? rc : -EIO, "DELETE it to its end, then PUT it");
}

int mr_refuse_orphan(const struct mr_volume *volume, struct mr_err *err)
{
    if (volume->op) {
        int rc = mr_fail(err, MR_E_ORPHAN, 0,
                         "volume '%s' was given up and is being taken down as an orphan",
                         volume->id);
        return mr_err_remedy(err, rc, "wait for operation %s", volume->op->id);
    }
    int rc = mr_fail(err, MR_E_ORPHAN, 0,
                     "the detach of volume '%s' was given up; '%s' is still mapped",
                     volume->id, volume->identity.node);
    (void)mr_err_remedy(err, rc, "take it down with DELETE /orphans/%s", volume->id);
    err->residue = MR_RESIDUE_POSSIBLE;
    return rc;
}

int mr_refuse_other_spec(const struct mr_volume *volume, struct mr_err *err)
{
    int rc = mr_fail(err, MR_E_SPEC_CONFLICT, 0,
                     "volume '%s' is attached with another spec", volume->id);
    return mr_err_remedy(err, rc, "DELETE it first, or PUT the same spec");
}
