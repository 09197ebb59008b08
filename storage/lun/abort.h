/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands that the target has ended without a word. A reset of the LUN by another
 * initiator ends ours too, and a target need not tell more than a unit attention to the
 * command that comes next (SAM-5 sections 5.3.3 and 7.5, TAS bit of SPC-4 section 7.5.8).
 * What was sent before that and has no answer after a while is aborted by name. With the
 * response to ABORT TASK the command has either been answered before or is at the target
 * no longer and will never be carried out (RFC 7143 section 11.6.1): only then it is sent
 * again. Nobody else's commands are touched by that; a new session with a reset of its
 * own would end theirs, and two nodes could go on doing that to each other.
 *
 * Inner part of io.h. One ABORT TASK is out at any time.
 */
#ifndef MR_STORAGE_LUN_ABORT_H
#define MR_STORAGE_LUN_ABORT_H

#include "storage/lun/io.h"

/* What becomes of the slot's command by the clock: aborts it, or returns when that is
 * due. INT64_MAX: not in doubt, or another one is being aborted. */
int64_t mr_abort_check(struct mr_slot *slot);
/* Once per turn, outside of callbacks, with a usable session: the command that is at the
 * target no longer is sent again. */
void mr_abort_step(struct mr_io *io);

#endif
