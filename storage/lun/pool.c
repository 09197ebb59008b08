/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/pool.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096u
/* The head of a message ends where a page begins, so that its data is aligned. */
#define SLOT_STRIDE (PAGE_BYTES + MR_SLOT_BYTES)
#define SLOTS_BYTES ((size_t)MR_POOL_SLOTS * SLOT_STRIDE)
#define BLOCKS_BYTES ((size_t)MR_POOL_BLOCKS * MR_BLOCK_BYTES)
#define POOL_BYTES (BLOCKS_BYTES + SLOTS_BYTES + PAGE_BYTES)

_Static_assert(MR_BLOCK_BYTES % PAGE_BYTES == 0, "blocks are aligned to pages");

int mr_pool_init(struct mr_pool *pool, struct mr_io *io, struct mr_err *err)
{
    uint8_t *memory = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (memory == MAP_FAILED)
        return mr_fail(err, MR_E_INTERNAL, errno, "request buffers");
    pool->memory = memory;
    pool->zeroes = memory + BLOCKS_BYTES + SLOTS_BYTES;
    pool->block_count = 0;
    for (size_t i = 0; i < MR_POOL_BLOCKS; i++)
        pool->blocks[pool->block_count++] = memory + i * MR_BLOCK_BYTES;
    TAILQ_INIT(&pool->free);
    for (size_t i = 0; i < MR_POOL_SLOTS; i++) {
        struct mr_slot *slot = &pool->slots[i];

        *slot = (struct mr_slot){.io = io, .state = MR_SLOT_FREE};
        slot->data = memory + BLOCKS_BYTES + i * SLOT_STRIDE + PAGE_BYTES;
        TAILQ_INSERT_TAIL(&pool->free, slot, work);
    }
    return 0;
}

void mr_pool_done(struct mr_pool *pool)
{
    if (pool->memory)
        (void)munmap(pool->memory, POOL_BYTES);
    pool->memory = NULL;
}

bool mr_pool_ready(const struct mr_pool *pool)
{
    return pool->block_count > 0 && !TAILQ_EMPTY(&pool->free);
}

struct mr_slot *mr_pool_next(const struct mr_pool *pool, size_t head, struct iovec iov[2])
{
    struct mr_slot *slot = TAILQ_FIRST(&pool->free);

    assert(head <= PAGE_BYTES && mr_pool_ready(pool));
    iov[0] = (struct iovec){slot->data - head, head + MR_SLOT_BYTES};
    iov[1] = (struct iovec){pool->blocks[pool->block_count - 1], MR_BLOCK_BYTES};
    return slot;
}

void mr_pool_take(struct mr_pool *pool, struct mr_slot *slot, uint64_t data_bytes)
{
    assert(slot->state == MR_SLOT_FREE && !slot->block && data_bytes <= MR_FUSE_DATA_MAX);
    TAILQ_REMOVE(&pool->free, slot, work);
    if (data_bytes > MR_SLOT_BYTES)
        slot->block = pool->blocks[--pool->block_count];
}

void mr_pool_give(struct mr_pool *pool, struct mr_slot *slot)
{
    assert(slot->state == MR_SLOT_FREE && !slot->task);
    if (slot->block)
        pool->blocks[pool->block_count++] = slot->block;
    slot->block = NULL;
    TAILQ_INSERT_HEAD(&pool->free, slot, work);
}

int mr_slot_pieces(struct mr_slot *slot, uint64_t length)
{
    const bool fits = length <= MR_SLOT_BYTES;

    slot->iov[0] = (struct scsi_iovec){slot->data, fits ? (size_t)length : MR_SLOT_BYTES};
    if (fits)
        return length > 0;
    slot->iov[1] = (struct scsi_iovec){slot->block, (size_t)length - MR_SLOT_BYTES};
    return 2;
}
