/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/abort.h"

#include "storage/base/clock.h"
#include "storage/lun/command.h"

/* For answers that are on their way, TASK ABORTED among them. */
#define GRACE_NS MR_NS_PER_S

void mr_io_doubt(struct mr_io *io)
{
    io->abort.doubt_ns = io->now_ns;
    io->age_check_ns = io->now_ns;
}

static void answered(struct iscsi_context *iscsi, int status, void *command_data,
                     void *private_data)
{
    struct mr_io *io = private_data;
    const uint32_t *response = command_data;

    (void)iscsi;
    io->abort.out = false;
    if (status != SCSI_STATUS_GOOD || !response)
        return; /* the end of the session */
    if (*response == ISCSI_TMR_FUNC_COMPLETE ||
        *response == ISCSI_TMR_TASK_DOES_NOT_EXIST)
        io->abort.ended = true;
    else
        io->abort.doubt_ns = 0; /* it cannot: the limit of a command's age is left */
}

/* libiscsi sends commands in the order in which they were queued, but ABORT TASK before
 * all that wait: a target would say that it has no such task, and then get it. */
static bool has_been_sent(const struct mr_slot *slot)
{
    return slot->issued_ns < slot->io->abort.sent_ns ||
           mr_session_sent_all(slot->io->session);
}

int64_t mr_abort_check(struct mr_slot *slot)
{
    struct mr_io *io = slot->io;
    const int64_t at_ns = slot->issued_ns + GRACE_NS;

    if (slot->state != MR_SLOT_AT_TARGET || slot->issued_ns >= io->abort.doubt_ns ||
        io->abort.out || io->abort.ended)
        return INT64_MAX;
    if (io->now_ns < at_ns)
        return at_ns;
    if (!has_been_sent(slot))
        return io->now_ns + GRACE_NS;
    io->abort.itt = slot->task->itt;
    io->abort.out = true;
    if (iscsi_task_mgmt_abort_task_async(io->session->iscsi, slot->task, answered, io) !=
        0) {
        io->abort.out = false;
        io->abort.doubt_ns = 0;
    }
    return INT64_MAX;
}

/* NULL: it was answered before. */
static struct mr_slot *find_aborted(const struct mr_io *io)
{
    struct mr_slot *slot;

    TAILQ_FOREACH(slot, &io->order, order)
    {
        if (slot->state == MR_SLOT_AT_TARGET && slot->task->itt == io->abort.itt)
            return slot;
    }
    return NULL;
}

void mr_abort_step(struct mr_io *io)
{
    struct mr_slot *slot;

    if (!io->abort.ended)
        return;
    io->abort.ended = false;
    io->age_check_ns = io->now_ns; /* the next one */
    slot = find_aborted(io);
    if (!slot)
        return;
    slot->state = MR_SLOT_SETTLING; /* the callback tells nothing */
    if (iscsi_scsi_cancel_task(io->session->iscsi, slot->task) != 0) {
        slot->state = MR_SLOT_AT_TARGET;
        mr_session_lose(io->session, "libiscsi does not know a command of ours");
        return;
    }
    mr_command_again(slot);
}
