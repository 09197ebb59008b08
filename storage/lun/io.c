/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/io.h"

#include <errno.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/lun/fuse_dev.h"
#include "storage/lun/sense.h"

#define HEAD_ROOM 4096
#define UA_BUDGET 16
#define PAUSE_NS (20 * MR_NS_PER_MS) /* doubled up to four times */

static uint8_t *slot_data(const struct mr_slot *slot)
{
    return slot->buffer + HEAD_ROOM;
}

static void reply(struct mr_slot *slot, int error, void *body, size_t len)
{
    struct mr_io *io = slot->io;

    if (error < 0 && error != -ENOSYS && error != -EOPNOTSUPP)
        io->counters.errors++;
    (void)mr_fuse_reply(io->fuse_fd, slot->request.unique, error, error ? NULL : body,
                        error ? 0 : len);
}

/* The one reply to a request that went, or would have gone, to the target. */
static void finish(struct mr_slot *slot, int error)
{
    struct fuse_write_out written = {.size = (uint32_t)slot->request.length};

    slot->again = false;
    if (slot->request.kind == MR_FUSE_READ)
        reply(slot, error, slot_data(slot), (size_t)slot->request.length);
    else if (slot->request.kind == MR_FUSE_WRITE)
        reply(slot, error, &written, sizeof(written));
    else
        reply(slot, error, NULL, 0);
}

/* ILLEGAL REQUEST from the target: it does not know the command or one of its fields. */
static int refused(const struct mr_slot *slot)
{
    switch (slot->request.kind) {
    case MR_FUSE_SYNC:
        /* Only a cache that is known to be off needs no flush. */
        return slot->io->write_cache == MR_WRITE_CACHE_OFF ? 0 : -EIO;
    case MR_FUSE_PUNCH:
    case MR_FUSE_ZERO:
        return -EOPNOTSUPP;
    case MR_FUSE_NO_REPLY:
    case MR_FUSE_ANSWER:
    case MR_FUSE_INIT:
    case MR_FUSE_ATTR:
    case MR_FUSE_OPEN:
    case MR_FUSE_STATFS:
    case MR_FUSE_READ:
    case MR_FUSE_WRITE:
        break;
    }
    return -EIO;
}

static void again(struct mr_slot *slot, int64_t due_ns)
{
    slot->again = true;
    slot->due_ns = due_ns;
}

static void command_good(struct mr_slot *slot)
{
    struct mr_io *io = slot->io;

    if (slot->request.kind == MR_FUSE_SYNC && slot->changes > io->flushed)
        io->flushed = slot->changes;
    else if (slot->request.kind != MR_FUSE_SYNC && slot->request.kind != MR_FUSE_READ)
        io->changes++;
    slot->done_bytes += slot->chunk_bytes;
    if (slot->done_bytes < slot->request.length &&
        (slot->request.kind == MR_FUSE_PUNCH || slot->request.kind == MR_FUSE_ZERO)) {
        slot->started_ns = 0;
        again(slot, io->now_ns);
    } else {
        finish(slot, 0);
    }
}

static void command_retry(struct mr_slot *slot, const struct mr_answer *answer)
{
    struct mr_io *io = slot->io;
    unsigned shift = slot->retries < 4 ? slot->retries : 4;

    if (answer->kind == MR_ANSWER_RETRY) {
        io->counters.unit_attentions++;
        if (slot->retries >= UA_BUDGET) {
            finish(slot, -answer->errnum);
            return;
        }
        shift = 0;
    } else if (io->now_ns - slot->started_ns > io->session->timeout_ns) {
        finish(slot, -answer->errnum);
        return;
    }
    slot->retries++;
    io->counters.retries++;
    again(slot, answer->kind == MR_ANSWER_RETRY ? io->now_ns
                                                : io->now_ns + (PAUSE_NS << shift));
}

/* GOOD, but not all bytes moved: the buffer holds something else in part. */
static bool short_transfer(const struct mr_slot *slot, const struct scsi_task *task)
{
    return (slot->request.kind == MR_FUSE_READ || slot->request.kind == MR_FUSE_WRITE) &&
           task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL;
}

/* libiscsi's callback. It comes at most once per command, in iscsi_service() or at the
 * end of the session. */
static void command_done(struct iscsi_context *iscsi, int status, void *command_data,
                         void *private_data)
{
    struct mr_slot *slot = private_data;
    const struct scsi_task *task = command_data;
    struct mr_answer answer = {MR_ANSWER_FAILED, EIO};

    (void)iscsi;
    if (slot->state != MR_SLOT_AT_TARGET)
        return;
    slot->state = MR_SLOT_SETTLING;
    slot->again = false;
    if (status == SCSI_STATUS_CANCELLED)
        mr_session_lose(slot->io->session, "the connection was closed");
    else if (status ==
             SCSI_STATUS_ERROR) /* libiscsi's own: out of memory, or a broken answer */
        mr_session_lose(slot->io->session, "libiscsi gave up on a command");
    else if (task)
        answer = mr_answer_classify(status, (unsigned)task->sense.key,
                                    (unsigned)task->sense.ascq);
    if (answer.kind == MR_ANSWER_GOOD && task && short_transfer(slot, task))
        answer = (struct mr_answer){MR_ANSWER_FAILED, EIO};
    switch (answer.kind) {
    case MR_ANSWER_GOOD:
        command_good(slot);
        break;
    case MR_ANSWER_RETRY:
    case MR_ANSWER_RETRY_LATER:
        command_retry(slot, &answer);
        break;
    case MR_ANSWER_FAILED:
        finish(slot, answer.errnum == EREMOTEIO ? refused(slot) : -answer.errnum);
        break;
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
    const uint32_t blocks = (uint32_t)(slot->chunk_bytes / io->geometry.block_size);

    switch (request->kind) {
    case MR_FUSE_READ:
        return iscsi_read16_iov_task(iscsi, lun, lba, (uint32_t)slot->chunk_bytes, block,
                                     0, 0, 0, 0, 0, command_done, slot, &slot->iov, 1);
    case MR_FUSE_WRITE:
        return iscsi_write16_iov_task(iscsi, lun, lba, NULL, (uint32_t)slot->chunk_bytes,
                                      block, 0, 0, 0, 0, 0, command_done, slot,
                                      &slot->iov, 1);
    case MR_FUSE_SYNC: /* no blocks: the whole LUN */
        return iscsi_synchronizecache16_task(iscsi, lun, 0, 0, 0, 0, command_done, slot);
    case MR_FUSE_PUNCH:
    case MR_FUSE_ZERO:
        return iscsi_writesame16_task(iscsi, lun, lba, io->zeroes, (uint32_t)block,
                                      blocks, 0, request->kind == MR_FUSE_PUNCH, 0, 0,
                                      command_done, slot);
    case MR_FUSE_NO_REPLY:
    case MR_FUSE_ANSWER:
    case MR_FUSE_INIT:
    case MR_FUSE_ATTR:
    case MR_FUSE_OPEN:
    case MR_FUSE_STATFS:
        break;
    }
    return NULL;
}

/* Sends the slot's (next) command. */
static void issue(struct mr_slot *slot)
{
    struct mr_io *io = slot->io;
    uint64_t left = slot->request.length - slot->done_bytes;
    struct scsi_task *task;

    if (slot->request.kind == MR_FUSE_PUNCH || slot->request.kind == MR_FUSE_ZERO)
        slot->chunk_bytes = left < io->write_same_bytes ? left : io->write_same_bytes;
    else
        slot->chunk_bytes = slot->request.length;
    slot->iov = (struct scsi_iovec){slot_data(slot), (size_t)slot->chunk_bytes};
    slot->issued_ns = io->now_ns;
    if (!slot->started_ns) {
        slot->started_ns = io->now_ns;
        slot->retries = 0;
    }
    slot->state = MR_SLOT_AT_TARGET;
    task = queue_command(slot);
    slot->task = task;
    if (!task && slot->state == MR_SLOT_AT_TARGET) {
        slot->state = MR_SLOT_SETTLING;
        finish(slot, -EIO);
    }
}

static void count(struct mr_io *io, enum mr_fuse_kind kind)
{
    io->counters.reads += kind == MR_FUSE_READ;
    io->counters.writes += kind == MR_FUSE_WRITE;
    io->counters.flushes += kind == MR_FUSE_SYNC;
    io->counters.discards += kind == MR_FUSE_PUNCH;
    io->counters.zeroes += kind == MR_FUSE_ZERO;
}

/* A request for the target. The slot stays free when it was answered on the spot. */
static void start(struct mr_slot *slot)
{
    struct mr_io *io = slot->io;

    count(io, slot->request.kind);
    if (!io->session->iscsi || io->session->lost) {
        finish(slot, -EIO);
    } else if (slot->request.kind == MR_FUSE_SYNC && io->changes == io->flushed) {
        /* Nothing was answered since the last flush. Also why a target that falls silent
         * does not keep loop(4) in LOOP_CONFIGURE, which syncs the file with the device
         * locked: others that were offered the same free device would wait with it. */
        finish(slot, 0);
    } else if (slot->request.kind == MR_FUSE_READ && slot->request.length == 0) {
        finish(slot, 0);
    } else if (slot->request.kind == MR_FUSE_PUNCH && !io->thin) {
        finish(slot, -EOPNOTSUPP);
    } else {
        slot->done_bytes = 0;
        slot->started_ns = 0;
        slot->again = false;
        slot->changes = io->changes;
        issue(slot);
    }
}

static void dispatch(struct mr_slot *slot)
{
    const struct mr_fuse_geometry *geometry = &slot->io->geometry;
    union {
        struct fuse_init_out init;
        struct fuse_attr_out attr;
        struct fuse_open_out open;
        struct fuse_statfs_out statfs;
    } out;

    switch (slot->request.kind) {
    case MR_FUSE_NO_REPLY:
        break;
    case MR_FUSE_ANSWER:
        reply(slot, slot->request.error, NULL, 0);
        break;
    case MR_FUSE_INIT:
        mr_fuse_init_out(&slot->request, geometry, &out.init);
        reply(slot, 0, &out.init, sizeof(out.init));
        break;
    case MR_FUSE_ATTR:
        mr_fuse_attr_out(geometry, &out.attr);
        reply(slot, 0, &out.attr, sizeof(out.attr));
        break;
    case MR_FUSE_OPEN:
        mr_fuse_open_out(&out.open);
        reply(slot, 0, &out.open, sizeof(out.open));
        break;
    case MR_FUSE_STATFS:
        mr_fuse_statfs_out(geometry, &out.statfs);
        reply(slot, 0, &out.statfs, sizeof(out.statfs));
        break;
    case MR_FUSE_READ:
    case MR_FUSE_WRITE:
    case MR_FUSE_SYNC:
    case MR_FUSE_PUNCH:
    case MR_FUSE_ZERO:
        start(slot);
        break;
    }
}

static struct mr_slot *free_slot(struct mr_io *io)
{
    for (size_t i = 0; i < MR_IO_SLOTS; i++) {
        if (io->slots[i].state == MR_SLOT_FREE)
            return &io->slots[i];
    }
    return NULL;
}

void mr_io_receive(struct mr_io *io)
{
    struct mr_slot *slot;

    while (!io->gone && (slot = free_slot(io))) {
        /* The data of a WRITE starts on a page, behind its head. */
        uint8_t *message = slot->buffer + HEAD_ROOM - MR_FUSE_WRITE_HEAD;
        ssize_t n = read(io->fuse_fd, message, MR_FUSE_WRITE_HEAD + MR_FUSE_DATA_MAX);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0 && (errno == EINTR || errno == ENOENT))
            continue; /* ENOENT: the request was interrupted before we got it */
        if (n < 0) {
            io->gone = true; /* ENODEV: the super block is gone */
            return;
        }
        if (mr_fuse_decode(message, (size_t)n, &io->geometry, &slot->request) == 0)
            dispatch(slot);
    }
}

/* Nothing that libiscsi still has to send points at the slot. */
static bool settled(const struct mr_slot *slot, bool sent_all)
{
    return sent_all || !slot->task || slot->task->xfer_dir != SCSI_XFER_WRITE;
}

void mr_io_step(struct mr_io *io)
{
    /* A target may answer before it took all the data of a write: what is queued then
     * still points at the task and at the buffer. */
    bool sent_all = mr_session_sent_all(io->session);

    for (size_t i = 0; i < MR_IO_SLOTS; i++) {
        struct mr_slot *slot = &io->slots[i];

        if (slot->state == MR_SLOT_SETTLING && settled(slot, sent_all)) {
            scsi_free_scsi_task(slot->task);
            slot->task = NULL;
            slot->state = slot->again ? MR_SLOT_DUE : MR_SLOT_FREE;
        }
        if (slot->state == MR_SLOT_DUE && io->session->iscsi && !io->session->lost &&
            slot->due_ns <= io->now_ns)
            issue(slot);
    }
    mr_session_flush(io->session, io->now_ns);
}

void mr_io_fail(struct mr_io *io)
{
    mr_session_close(io->session);
    for (size_t i = 0; i < MR_IO_SLOTS; i++) {
        struct mr_slot *slot = &io->slots[i];

        if (slot->state == MR_SLOT_AT_TARGET || slot->state == MR_SLOT_DUE ||
            (slot->state == MR_SLOT_SETTLING && slot->again)) {
            slot->state = MR_SLOT_SETTLING;
            finish(slot, -EIO);
        }
    }
    mr_io_step(io);
}
