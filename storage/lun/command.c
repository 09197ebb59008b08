/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/command.h"

#include <errno.h>
#include <string.h>

#include "storage/base/clock.h"

#define UA_BUDGET 16
#define PAUSE_NS (20 * MR_NS_PER_MS) /* doubled up to four times */
#define PAUSE_SHIFT_MAX 4
#define MARK_STEP 4096u
#define WRITE_SAME_BLOCKS 4096

/* libiscsi does not say how much data it put into the buffer of a READ. So that a target
 * which sends less than it says does not make the reader see what the buffer held before,
 * each page of it and its end hold a random mark until the data is there. */
static uint64_t *mark_at(const struct scsi_iovec *piece, size_t end)
{
    return (uint64_t *)(void *)((uint8_t *)piece->iov_base + end - sizeof(uint64_t));
}

static void set_marks(struct mr_slot *slot, int pieces)
{
    for (int i = 0; i < pieces; i++) {
        const struct scsi_iovec *piece = &slot->iov[i];

        for (size_t end = MARK_STEP; end < piece->iov_len; end += MARK_STEP)
            *mark_at(piece, end) = slot->io->mark;
        *mark_at(piece, piece->iov_len) = slot->io->mark;
    }
}

static bool marks_left(const struct mr_slot *slot)
{
    const int pieces = slot->request.length > MR_SLOT_BYTES ? 2 : 1;

    for (int i = 0; i < pieces; i++) {
        const struct scsi_iovec *piece = &slot->iov[i];

        for (size_t end = MARK_STEP; end < piece->iov_len; end += MARK_STEP) {
            if (*mark_at(piece, end) == slot->io->mark)
                return true;
        }
        if (*mark_at(piece, piece->iov_len) == slot->io->mark)
            return true;
    }
    return false;
}

/* GOOD, but not all bytes moved. */
static bool short_transfer(const struct mr_slot *slot, const struct scsi_task *task)
{
    if (slot->request.kind == MR_FUSE_READ)
        return task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL || marks_left(slot);
    return slot->request.kind == MR_FUSE_WRITE &&
           task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL;
}

static bool changes_lun(const struct mr_slot *slot)
{
    return slot->request.kind == MR_FUSE_WRITE || slot->request.kind == MR_FUSE_PUNCH ||
           slot->request.kind == MR_FUSE_ZERO;
}

/* LIO does no longer WRITE SAME than this, and says so only of LUNs with thin
 * provisioning: drivers/target/target_core_spc.c, spc_emulate_evpd_b0(). Was it that?
 * Then all further ones are as short. */
static bool was_too_long(const struct mr_slot *slot)
{
    struct mr_io *io = slot->io;
    const uint64_t bytes = WRITE_SAME_BLOCKS * (uint64_t)io->geometry.block_size;

    if ((slot->request.kind != MR_FUSE_PUNCH && slot->request.kind != MR_FUSE_ZERO) ||
        slot->chunk_bytes <= bytes)
        return false;
    io->write_same_bytes = bytes;
    return true;
}

/* ILLEGAL REQUEST from the target: it does not know the command or one of its fields. */
static int refused(const struct mr_slot *slot)
{
    if (slot->request.kind == MR_FUSE_SYNC)
        /* Only a cache that is known to be off needs no flush. */
        return slot->io->write_cache == MR_WRITE_CACHE_OFF ? 0 : -EIO;
    if (slot->request.kind == MR_FUSE_PUNCH || slot->request.kind == MR_FUSE_ZERO)
        return -EOPNOTSUPP;
    return -EIO;
}

void mr_command_forget(struct mr_slot *slot)
{
    scsi_free_scsi_task(slot->task);
    slot->task = NULL;
}

/* The command is answered. What libiscsi has still to send may point at its task and its
 * data, whatever it was: a target can ask for the data of any command (R2T) before it
 * answers that one. With nothing left to send both are free at once. */
static void settle(struct mr_slot *slot, bool again)
{
    struct mr_io *io = slot->io;

    slot->again = again;
    slot->state = MR_SLOT_SETTLING;
    if (slot->task && mr_session_sent_all(io->session)) {
        mr_command_forget(slot);
        slot->state = again ? MR_SLOT_DUE : MR_SLOT_SETTLING;
    }
    if (again || slot->task)
        TAILQ_INSERT_TAIL(&io->work, slot, work);
}

static void again(struct mr_slot *slot, int64_t due_ns)
{
    slot->due_ns = due_ns;
    settle(slot, true);
}

static void done(struct mr_slot *slot, int error)
{
    settle(slot, false);
    mr_io_finish(slot, error);
}

static void command_good(struct mr_slot *slot)
{
    struct mr_io *io = slot->io;
    const enum mr_fuse_kind kind = slot->request.kind;

    if (kind == MR_FUSE_SYNC && slot->changes > io->flushed)
        io->flushed = slot->changes;
    slot->done_bytes += slot->chunk_bytes;
    if ((kind == MR_FUSE_PUNCH || kind == MR_FUSE_ZERO) &&
        slot->done_bytes < slot->request.length) {
        slot->started_ns = 0;
        again(slot, io->now_ns);
    } else {
        done(slot, 0);
    }
}

/* For how long a target may be busy before a request fails: as long as it may be away. */
static bool patience_is_over(const struct mr_slot *slot)
{
    const struct mr_io *io = slot->io;
    int64_t ms = atomic_load_explicit(&io->page->replacement_ms, memory_order_relaxed);
    int64_t limit_ns = io->session->timeout_ns;

    if (ms < 0)
        return false;
    if (ms > limit_ns / MR_NS_PER_MS)
        limit_ns = ms * MR_NS_PER_MS;
    return io->now_ns - slot->started_ns > limit_ns;
}

static void command_retry(struct mr_slot *slot, const struct mr_answer *answer)
{
    struct mr_io *io = slot->io;
    unsigned shift = slot->retries < PAUSE_SHIFT_MAX ? slot->retries : PAUSE_SHIFT_MAX;
    const bool at_once = answer->kind == MR_ANSWER_RETRY;

    if (at_once)
        mr_io_add(&io->page->counters.unit_attentions, 1);
    if (at_once ? slot->attentions >= UA_BUDGET : patience_is_over(slot)) {
        done(slot, -answer->errnum);
        return;
    }
    slot->attentions += at_once;
    slot->retries += !at_once;
    mr_io_add(&io->page->counters.retries, 1);
    again(slot, at_once ? io->now_ns : io->now_ns + (PAUSE_NS << shift));
}

/* For mr_io_rest_ns(). */
static void note_latency(const struct mr_slot *slot)
{
    struct mr_io *io = slot->io;

    if (!slot->block)
        io->latency_ns += (io->now_ns - slot->issued_ns - io->latency_ns) / 16;
}

/* What is sent now could reach another disk: nothing is, before the next session has
 * looked. This command was not carried out; it is sent again then. */
static void lose_sight(struct mr_slot *slot, unsigned key)
{
    if (key == MR_SENSE_UNIT_ATTENTION)
        mr_io_add(&slot->io->page->counters.unit_attentions, 1);
    else
        slot->strikes++; /* a LUN that is there for all but this command */
    mr_session_lose(slot->io->session, key == MR_SENSE_UNIT_ATTENTION
                                           ? "the target's LUNs have changed"
                                           : "the LUN is gone");
}

void mr_command_again(struct mr_slot *slot)
{
    command_retry(slot, &(struct mr_answer){MR_ANSWER_RETRY_LATER, EIO});
}

static void take_answer(struct mr_slot *slot, int status, const struct scsi_task *task)
{
    struct mr_io *io = slot->io;
    const unsigned key = (unsigned)task->sense.key;
    const unsigned asc = (unsigned)task->sense.ascq;
    struct mr_answer answer = mr_answer_classify(status, key, asc);
    unsigned attention = mr_answer_attention(status, key, asc);

    if (attention & MR_ATTENTION_IDENTITY) {
        lose_sight(slot, key);
        return;
    }
    io->attention |= attention;
    if (slot->issued_ns > io->abort.sent_ns)
        io->abort.sent_ns = slot->issued_ns;
    if (attention & MR_ATTENTION_RESET)
        mr_io_add(&io->page->counters.power_on_resets, 1);
    /* Also one that failed may have been done in part. */
    io->changes += changes_lun(slot);
    if (answer.kind == MR_ANSWER_GOOD && mr_sense_is_deferred(task->sense.error_type))
        answer = (struct mr_answer){MR_ANSWER_RETRY, EIO};
    if (answer.kind == MR_ANSWER_GOOD && short_transfer(slot, task))
        answer = (struct mr_answer){MR_ANSWER_FAILED, EIO};
    /* The attention makes the owner look: either our registration was taken away, then
     * everything is refused, or the next session has it again. */
    if (status == SCSI_STATUS_RESERVATION_CONFLICT && io->page->fence.reserve)
        answer.kind = MR_ANSWER_RETRY_LATER;
    switch (answer.kind) {
    case MR_ANSWER_GOOD:
        note_latency(slot);
        command_good(slot);
        break;
    case MR_ANSWER_RETRY:
    case MR_ANSWER_RETRY_LATER:
        command_retry(slot, &answer);
        break;
    case MR_ANSWER_FAILED:
        if (answer.errnum == EREMOTEIO && was_too_long(slot))
            again(slot, io->now_ns);
        else
            done(slot, answer.errnum == EREMOTEIO ? refused(slot) : -answer.errnum);
        break;
    }
}

/* libiscsi's callback. It comes at most once per command, in iscsi_service() or at the
 * end of the session. Without an answer of the target the slot stays as it is: the
 * session is over, and mr_io_hold() follows. */
static void command_done(struct iscsi_context *iscsi, int status, void *command_data,
                         void *private_data)
{
    struct mr_slot *slot = private_data;
    const struct scsi_task *task = command_data;

    (void)iscsi;
    if (slot->state != MR_SLOT_AT_TARGET)
        return;
    if (status == SCSI_STATUS_CANCELLED) {
        mr_session_lose(slot->io->session, "the connection was closed");
    } else if (status == SCSI_STATUS_ERROR || !task) {
        slot->strikes++; /* out of memory, or an answer that makes no sense */
        mr_session_lose(slot->io->session, "libiscsi gave up on a command");
    } else {
        take_answer(slot, status, task);
    }
}

static struct scsi_task *queue_command(struct mr_slot *slot)
{
    struct mr_io *io = slot->io;
    struct iscsi_context *iscsi = io->session->iscsi;
    const struct mr_fuse_request *request = &slot->request;
    const int lun = io->session->lun;
    const int block = (int)io->geometry.block_size;
    const uint64_t lba = (request->offset + slot->done_bytes) / io->geometry.block_size;
    const uint32_t bytes = (uint32_t)slot->chunk_bytes;
    int pieces;

    switch (request->kind) {
    case MR_FUSE_READ:
        pieces = mr_slot_pieces(slot, bytes);
        set_marks(slot, pieces);
        return iscsi_read16_iov_task(iscsi, lun, lba, bytes, block, 0, 0, 0, 0, 0,
                                     command_done, slot, slot->iov, pieces);
    case MR_FUSE_WRITE:
        pieces = mr_slot_pieces(slot, bytes);
        return iscsi_write16_iov_task(iscsi, lun, lba, NULL, bytes, block, 0, 0, 0, 0, 0,
                                      command_done, slot, slot->iov, pieces);
    case MR_FUSE_SYNC: /* no blocks: the whole LUN */
        return iscsi_synchronizecache16_task(iscsi, lun, 0, 0, 0, 0, command_done, slot);
    case MR_FUSE_PUNCH:
    case MR_FUSE_ZERO:
        return iscsi_writesame16_task(
            iscsi, lun, lba, io->pool.zeroes, (uint32_t)block, bytes / (uint32_t)block, 0,
            request->kind == MR_FUSE_PUNCH, 0, 0, command_done, slot);
    case MR_FUSE_NO_REPLY:
    case MR_FUSE_ANSWER:
    case MR_FUSE_INIT:
    case MR_FUSE_ATTR:
    case MR_FUSE_OPEN:
    case MR_FUSE_RELEASE:
    case MR_FUSE_STATFS:
        break;
    }
    return NULL;
}

void mr_command_send(struct mr_slot *slot)
{
    struct mr_io *io = slot->io;
    uint64_t left = slot->request.length - slot->done_bytes;

    slot->chunk_bytes = left;
    if ((slot->request.kind == MR_FUSE_PUNCH || slot->request.kind == MR_FUSE_ZERO) &&
        left > io->write_same_bytes)
        slot->chunk_bytes = io->write_same_bytes;
    if (!slot->started_ns) {
        slot->started_ns = io->now_ns;
        slot->retries = 0;
        slot->attentions = 0;
    }
    slot->issued_ns = io->now_ns;
    slot->changes = io->changes;
    slot->sent = true;
    slot->state = MR_SLOT_AT_TARGET;
    io->lone = !changes_lun(slot);
    if (io->age_check_ns == INT64_MAX)
        io->age_check_ns = io->now_ns + MR_COMMAND_TIMEOUTS * io->session->timeout_ns;
    slot->task = queue_command(slot);
    if (!slot->task && slot->state == MR_SLOT_AT_TARGET) {
        slot->strikes++;
        mr_session_lose(io->session, "a command could not be queued");
    }
}
