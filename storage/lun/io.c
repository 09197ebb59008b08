/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/io.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>

#include "storage/base/clock.h"
#include "storage/lun/command.h"
#include "storage/lun/fuse_dev.h"

#define PAGE_BYTES 4096u
/* One WRITE SAME covers no more than this: a target that zeroes slowly must answer within
 * the command limit below. Giving space back is quicker than writing. */
#define WRITE_SAME_BYTES (64ull << 20)

int mr_io_geometry(const struct mr_lun_facts *facts, bool read_only,
                   struct mr_fuse_geometry *ret, struct mr_err *err)
{
    uint64_t max = (uint64_t)facts->max_transfer_blocks * facts->block_size;
    uint64_t granularity = (uint64_t)facts->unmap_granularity_blocks * facts->block_size;

    if (max == 0 || max > MR_FUSE_DATA_MAX)
        max = MR_FUSE_DATA_MAX;
    if (max < PAGE_BYTES)
        return mr_fail(err, MR_E_DEVICE_ERROR, ENOTSUP,
                       "the LUN takes at most %llu bytes per transfer",
                       (unsigned long long)max);
    /* loop(4) wants a power of two; what makes no sense is replaced by a page. */
    if (granularity < PAGE_BYTES || granularity > (1u << 30) ||
        (granularity & (granularity - 1)) != 0)
        granularity = PAGE_BYTES;
    *ret = (struct mr_fuse_geometry){
        .size_bytes = facts->size_bytes,
        .block_size = facts->block_size,
        .max_bytes = (uint32_t)(max / PAGE_BYTES * PAGE_BYTES),
        .granularity_bytes = (uint32_t)granularity,
        .writable = !read_only && !facts->write_protected,
    };
    return 0;
}

int mr_io_init(struct mr_io *io, int fuse_fd, struct mr_page *page, struct mr_err *err)
{
    memset(io, 0, sizeof(*io));
    io->fuse_fd = fuse_fd;
    io->page = page;
    io->age_check_ns = INT64_MAX;
    io->now_ns = mr_now_ns();
    TAILQ_INIT(&io->order);
    TAILQ_INIT(&io->work);
    if (getrandom(&io->mark, sizeof(io->mark), 0) != sizeof(io->mark))
        return mr_fail(err, MR_E_INTERNAL, errno, "getrandom");
    mr_replies_init(&io->replies, fuse_fd);
    return mr_pool_init(&io->pool, io, err);
}

void mr_io_done(struct mr_io *io)
{
    mr_replies_done(&io->replies);
    mr_pool_done(&io->pool);
}

void mr_io_serve(struct mr_io *io)
{
    struct mr_page *page = io->page;
    const struct mr_lun_facts *facts = &page->facts;
    const uint64_t same = facts->max_write_same_blocks;
    const uint64_t told = atomic_load(&page->size_bytes);

    io->geometry = page->geometry;
    if (told > 0)
        io->geometry.size_bytes = told;
    else
        atomic_store(&page->size_bytes, io->geometry.size_bytes);
    io->write_cache = facts->write_cache;
    io->thin = facts->thin;
    /* An earlier server may have left something to flush. */
    io->changes = io->geometry.writable;
    io->write_same_bytes = WRITE_SAME_BYTES;
    if (same > 0 && same < WRITE_SAME_BYTES / facts->block_size)
        io->write_same_bytes = same * facts->block_size;
    /* Before the first read. On a kernel that cannot do it the keeper starts no server
     * after one that died, so nothing is lost by a failure. */
    if (atomic_load(&page->initialised) && atomic_load(&page->can_resend))
        (void)mr_fuse_resend(io->fuse_fd);
    io->serving = true;
}

bool mr_io_usable(const struct mr_io *io)
{
    return io->mode == MR_IO_RUNNING && io->session->iscsi && !io->session->lost &&
           !(io->session->attention & MR_ATTENTION_IDENTITY);
}

void mr_io_add(_Atomic uint64_t *counter, uint64_t n)
{
    /* One writer: no locked instruction is needed. */
    atomic_store_explicit(counter,
                          atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static void count_error(struct mr_io *io, int error)
{
    if (error < 0 && error != -ENOSYS && error != -EOPNOTSUPP)
        mr_io_add(&io->page->counters.errors, 1);
}

int mr_io_reply(struct mr_io *io, uint64_t unique, int error, const struct iovec *body,
                int count)
{
    count_error(io, error);
    return mr_replies_send_one(&io->replies, unique, error, body, count);
}

static void reply_data(struct mr_slot *slot)
{
    const uint64_t length = slot->request.length;
    const int count = mr_slot_pieces(slot, length);
    struct iovec pieces[MR_FUSE_PIECES];

    for (int i = 0; i < count; i++)
        pieces[i] = (struct iovec){slot->iov[i].iov_base, slot->iov[i].iov_len};
    mr_io_add(&slot->io->page->counters.read_bytes, length);
    mr_replies_add_data(&slot->io->replies, slot->request.unique, pieces, count);
}

static void reply(struct mr_slot *slot, int error)
{
    struct mr_io *io = slot->io;
    const struct mr_fuse_request *request = &slot->request;

    count_error(io, error);
    if (error == 0 && request->kind == MR_FUSE_WRITE) {
        mr_io_add(&io->page->counters.written_bytes, request->length);
        mr_replies_add_written(&io->replies, request->unique, (uint32_t)request->length);
    } else if (error == 0 && request->kind == MR_FUSE_READ) {
        reply_data(slot);
    } else {
        mr_replies_add(&io->replies, request->unique, error);
    }
}

void mr_io_finish(struct mr_slot *slot, int error)
{
    struct mr_io *io = slot->io;

    reply(slot, error);
    TAILQ_REMOVE(&io->order, slot, order);
    io->in_flight--;
    if (slot->task)
        return;
    slot->state = MR_SLOT_FREE;
    mr_pool_give(&io->pool, slot);
}

void mr_io_begin(struct mr_slot *slot)
{
    struct mr_io *io = slot->io;
    const enum mr_fuse_kind kind = slot->request.kind;

    if (io->mode == MR_IO_REFUSING) {
        mr_io_finish(slot, -EIO);
    } else if ((kind == MR_FUSE_SYNC && io->changes == io->flushed) ||
               (kind == MR_FUSE_READ && slot->request.length == 0)) {
        /* Nothing was answered since the last flush. Also why a target that falls silent
         * does not keep loop(4) in LOOP_CONFIGURE, which syncs the file with the device
         * locked: others that were offered the same free device would wait with it. */
        mr_io_finish(slot, 0);
    } else if (kind == MR_FUSE_PUNCH && !io->thin) {
        mr_io_finish(slot, -EOPNOTSUPP);
    } else if (mr_io_usable(io)) {
        mr_command_send(slot);
    }
}

unsigned mr_io_in_flight(const struct mr_io *io)
{
    return io->in_flight;
}

int64_t mr_io_oldest(const struct mr_io *io)
{
    const struct mr_slot *slot = TAILQ_FIRST(&io->order);

    return slot ? slot->arrived_ns : 0;
}

/* For the page: how long the longest-waiting request has waited for a session. */
static void note_stall(struct mr_io *io)
{
    _Atomic uint64_t *max = &io->page->counters.stalls_ns_max;
    const struct mr_slot *slot = TAILQ_FIRST(&io->order);
    uint64_t waited_ns = slot ? (uint64_t)(io->now_ns - slot->arrived_ns) : 0;

    if (waited_ns > atomic_load_explicit(max, memory_order_relaxed))
        atomic_store_explicit(max, waited_ns, memory_order_relaxed);
}

static void begin_held(struct mr_io *io)
{
    struct mr_slot *slot;
    struct mr_slot *next;

    for (slot = TAILQ_FIRST(&io->order); slot && mr_io_usable(io); slot = next) {
        next = TAILQ_NEXT(slot, order);
        if (slot->state != MR_SLOT_HELD)
            continue;
        mr_io_add(&io->page->counters.replayed, slot->sent);
        mr_io_begin(slot);
    }
}

void mr_io_run(struct mr_io *io, struct mr_session *session)
{
    note_stall(io);
    io->session = session;
    io->mode = MR_IO_RUNNING;
    /* What the target had not flushed when the last session ended, and what was done
     * without an answer, shall be flushed by the next SYNC, whatever was counted. */
    io->changes += io->geometry.writable;
    begin_held(io);
    mr_replies_send(&io->replies);
}

/* The context is gone, and with it every reference to a slot's memory. */
static void hold_one(struct mr_slot *slot)
{
    if (slot->state == MR_SLOT_SETTLING || slot->state == MR_SLOT_DUE)
        TAILQ_REMOVE(&slot->io->work, slot, work);
    mr_command_forget(slot);
    slot->state = MR_SLOT_HELD;
    slot->done_bytes = 0;
    slot->started_ns = 0;
    if (slot->strikes >= MR_COMMAND_STRIKES)
        mr_io_finish(slot, -EIO);
}

static void hold_all(struct mr_io *io)
{
    struct mr_slot *slot;
    struct mr_slot *next;

    assert(!io->session || !io->session->iscsi);
    for (slot = TAILQ_FIRST(&io->order); slot; slot = next) {
        next = TAILQ_NEXT(slot, order);
        hold_one(slot);
    }
    while ((slot = TAILQ_FIRST(&io->work))) { /* answered, but not settled */
        TAILQ_REMOVE(&io->work, slot, work);
        mr_command_forget(slot);
        slot->state = MR_SLOT_FREE;
        mr_pool_give(&io->pool, slot);
    }
    io->session = NULL;
    io->age_check_ns = INT64_MAX;
    io->abort = (struct mr_io_abort){0};
}

void mr_io_pause(struct mr_io *io)
{
    if (io->mode == MR_IO_RUNNING)
        io->mode = MR_IO_HOLDING;
}

void mr_io_resume(struct mr_io *io)
{
    assert(io->mode == MR_IO_HOLDING && io->session);
    io->mode = MR_IO_RUNNING;
    begin_held(io);
    mr_replies_send(&io->replies);
}

void mr_io_hold(struct mr_io *io)
{
    io->mode = MR_IO_HOLDING;
    hold_all(io);
    mr_replies_send(&io->replies);
}

void mr_io_refuse(struct mr_io *io)
{
    note_stall(io);
    io->mode = MR_IO_REFUSING;
    hold_all(io);
    while (!TAILQ_EMPTY(&io->order))
        mr_io_begin(TAILQ_FIRST(&io->order));
    mr_replies_send(&io->replies);
}

int mr_io_resized(struct mr_io *io, uint64_t size_bytes)
{
    if (size_bytes < io->geometry.size_bytes)
        return -EINVAL;
    io->geometry.size_bytes = size_bytes;
    atomic_store(&io->page->size_bytes, size_bytes);
    return mr_fuse_grow(io->fuse_fd, size_bytes);
}
