/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of io.h's slots outside of commands: memory, settling, clocks. */
#include "storage/lun/io.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "storage/base/clock.h"

#define PAGE_BYTES 4096u
#define SLOT_BYTES (PAGE_BYTES + MR_FUSE_DATA_MAX)
#define POOL_BYTES ((size_t)MR_IO_SLOTS * SLOT_BYTES + PAGE_BYTES)
/* One WRITE SAME covers no more than this: a target that zeroes slowly must answer within
 * the command limit below. Giving space back is quicker than writing. */
#define WRITE_SAME_BYTES (64ull << 20)
/* A command that the target neither answers nor fails, while it goes on answering others.
 */
#define COMMAND_TIMEOUTS 4

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

int mr_io_init(struct mr_io *io, int fuse_fd, struct mr_session *session,
               const struct mr_lun_facts *facts, const struct mr_fuse_geometry *geometry,
               struct mr_err *err)
{
    void *pool = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    uint64_t same = facts->max_write_same_blocks;

    if (pool == MAP_FAILED)
        return mr_fail(err, MR_E_INTERNAL, errno, "request buffers");
    memset(io, 0, sizeof(*io));
    io->fuse_fd = fuse_fd;
    io->session = session;
    io->geometry = *geometry;
    io->write_cache = facts->write_cache;
    io->thin = facts->thin;
    /* The first flush goes to the target: it may hold what an earlier session wrote and
     * lost sight of. */
    io->changes = geometry->writable;
    io->write_same_bytes = WRITE_SAME_BYTES;
    io->pool = pool;
    io->zeroes = io->pool + (size_t)MR_IO_SLOTS * SLOT_BYTES;
    io->now_ns = mr_now_ns();
    if (same > 0 && same < WRITE_SAME_BYTES / facts->block_size)
        io->write_same_bytes = same * facts->block_size;
    for (size_t i = 0; i < MR_IO_SLOTS; i++) {
        io->slots[i].io = io;
        io->slots[i].buffer = io->pool + i * SLOT_BYTES;
    }
    return 0;
}

void mr_io_done(struct mr_io *io)
{
    if (io->pool)
        (void)munmap(io->pool, POOL_BYTES);
    io->pool = NULL;
}

bool mr_io_ready(const struct mr_io *io)
{
    if (io->gone)
        return false;
    for (size_t i = 0; i < MR_IO_SLOTS; i++) {
        if (io->slots[i].state == MR_SLOT_FREE)
            return true;
    }
    return false;
}

unsigned mr_io_in_flight(const struct mr_io *io)
{
    unsigned count = 0;

    for (size_t i = 0; i < MR_IO_SLOTS; i++) {
        const struct mr_slot *slot = &io->slots[i];

        if (slot->state == MR_SLOT_AT_TARGET || slot->state == MR_SLOT_DUE ||
            (slot->state == MR_SLOT_SETTLING && slot->again))
            count++;
    }
    return count;
}

int64_t mr_io_oldest(const struct mr_io *io)
{
    int64_t oldest = 0;

    for (size_t i = 0; i < MR_IO_SLOTS; i++) {
        const struct mr_slot *slot = &io->slots[i];

        if (slot->state == MR_SLOT_AT_TARGET && (!oldest || slot->issued_ns < oldest))
            oldest = slot->issued_ns;
    }
    return oldest;
}

int64_t mr_io_check(struct mr_io *io)
{
    const int64_t limit_ns = COMMAND_TIMEOUTS * io->session->timeout_ns;
    int64_t next = INT64_MAX;

    for (size_t i = 0; i < MR_IO_SLOTS; i++) {
        const struct mr_slot *slot = &io->slots[i];
        int64_t at;

        if (slot->state == MR_SLOT_DUE)
            at = slot->due_ns;
        else if (slot->state == MR_SLOT_AT_TARGET)
            at = slot->started_ns + limit_ns;
        else if (slot->state ==
                 MR_SLOT_SETTLING) /* answered, but its data is not taken */
            at = slot->issued_ns + limit_ns;
        else
            continue;
        if (slot->state != MR_SLOT_DUE && io->now_ns >= at)
            mr_session_lose(io->session, "a command got no answer for %lld ms",
                            (long long)(limit_ns / MR_NS_PER_MS));
        if (at < next)
            next = at;
    }
    return next;
}
