/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory that requests live in, all of it there before the first one: a slot with a
 * small buffer for each, and big blocks for the few that need more. It bounds what is in
 * flight: with no slot or no block free, nothing more is read from the kernel. A slot and
 * its memory belong to one request from before it is read until libiscsi can have no
 * reference to them any more.
 */
#ifndef MR_STORAGE_LUN_POOL_H
#define MR_STORAGE_LUN_POOL_H

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "storage/base/err.h"
#include "storage/lun/fuse_proto.h"

#define MR_POOL_SLOTS 256
#define MR_POOL_BLOCKS 20
#define MR_SLOT_BYTES 16384 /* of data; what a request has more goes into a block */
#define MR_BLOCK_BYTES (MR_FUSE_DATA_MAX - MR_SLOT_BYTES)

enum mr_slot_state {
    MR_SLOT_FREE = 0,
    MR_SLOT_HELD,      /* waits for a session */
    MR_SLOT_AT_TARGET, /* a command is with libiscsi */
    MR_SLOT_SETTLING,  /* answered; PDUs still to be sent may point at task and data */
    MR_SLOT_DUE,       /* to be sent (again) at due_ns */
};

struct mr_io;

struct mr_slot {
    TAILQ_ENTRY(mr_slot) order; /* the unanswered, as they arrived */
    TAILQ_ENTRY(mr_slot) work;  /* FREE; or SETTLING and DUE */
    struct mr_io *io;
    enum mr_slot_state state;
    bool again;     /* SETTLING: unanswered, another command follows */
    bool sent;      /* was at the target at least once */
    uint8_t *data;  /* MR_SLOT_BYTES; the head of a WRITE stands right before it */
    uint8_t *block; /* MR_BLOCK_BYTES, or NULL */
    struct mr_fuse_request request;
    struct scsi_iovec iov[2]; /* libiscsi keeps a pointer to them */
    struct scsi_task *task;   /* owned */
    uint64_t done_bytes;      /* of a PUNCH or ZERO, which may take several commands */
    uint64_t chunk_bytes;     /* what the command at the target covers */
    int64_t arrived_ns;
    int64_t started_ns; /* first try of this command in this session; 0: none yet */
    int64_t issued_ns;  /* this try */
    int64_t due_ns;
    unsigned retries;    /* of this command: because the target was busy */
    unsigned attentions; /* and because of unit attentions */
    unsigned strikes;    /* sessions that ended by this request's fault, it seems */
    uint64_t changes;    /* of a SYNC: those that it covers */
};

TAILQ_HEAD(mr_slot_list, mr_slot);

struct mr_pool {
    uint8_t *memory;
    uint8_t *zeroes; /* a page */
    uint8_t *blocks[MR_POOL_BLOCKS];
    unsigned block_count;     /* free ones */
    struct mr_slot_list free; /* last used first: its memory is still in the cache */
    struct mr_slot slots[MR_POOL_SLOTS];
};

/* Allocates and touches everything. */
int mr_pool_init(struct mr_pool *pool, struct mr_io *io, struct mr_err *err);
void mr_pool_done(struct mr_pool *pool);

/* Room for one more request of any size? */
bool mr_pool_ready(const struct mr_pool *pool);
/* What the next request is read into: the free slot, which stays free, and in iov[2] its
 * memory from head bytes before the data on, and a free block. Only when ready. */
struct mr_slot *mr_pool_next(const struct mr_pool *pool, size_t head,
                             struct iovec iov[2]);
/* Takes the slot that mr_pool_next() gave, and the block when data_bytes do not fit
 * without. */
void mr_pool_take(struct mr_pool *pool, struct mr_slot *slot, uint64_t data_bytes);
void mr_pool_give(struct mr_pool *pool, struct mr_slot *slot);

/* Describes the slot's memory for length bytes of data in slot->iov; returns the number
 * of pieces: 0, 1 or 2. */
int mr_slot_pieces(struct mr_slot *slot, uint64_t length);

#endif
