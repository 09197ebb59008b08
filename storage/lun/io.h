/* SPDX-License-Identifier: Apache-2.0
 *
 * FUSE requests become SCSI commands and their answers FUSE replies. One slot, with a
 * buffer of its own, belongs to a request from before it is read until libiscsi can have
 * no reference to the slot's memory any more; slots are fixed at start, and with none
 * free /dev/fuse is not read. Every request gets exactly one reply; after the session is
 * lost that reply is EIO. One thread.
 */
#ifndef MR_STORAGE_LUN_IO_H
#define MR_STORAGE_LUN_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/lun/fuse_proto.h"
#include "storage/lun/inquiry.h"
#include "storage/lun/session.h"

#define MR_IO_SLOTS                                                                      \
    64 /* times 1 MiB and a page: the memory in flight is bounded by this */

enum mr_slot_state {
    MR_SLOT_FREE = 0,
    MR_SLOT_AT_TARGET, /* a command is with libiscsi */
    MR_SLOT_SETTLING,  /* answered; PDUs still to be sent may point at task and buffer */
    MR_SLOT_DUE,       /* to be sent (again) at due_ns */
};

struct mr_io;

struct mr_slot {
    struct mr_io *io;
    enum mr_slot_state state;
    bool again;      /* MR_SLOT_SETTLING: another command follows */
    uint8_t *buffer; /* a page of head room, then MR_FUSE_DATA_MAX bytes of data */
    struct mr_fuse_request request;
    struct scsi_iovec iov;  /* libiscsi keeps a pointer to it */
    struct scsi_task *task; /* owned */
    uint64_t done_bytes;    /* of a PUNCH or ZERO, which may take several commands */
    uint64_t chunk_bytes;   /* what the command at the target covers */
    int64_t started_ns;     /* first try of this command */
    int64_t issued_ns;      /* this try */
    int64_t due_ns;
    unsigned retries;
    uint64_t changes; /* of a SYNC: those that it covers */
};

struct mr_io_counters {
    uint64_t reads;
    uint64_t writes;
    uint64_t flushes;
    uint64_t discards;
    uint64_t zeroes;
    uint64_t errors;
    uint64_t retries;
    uint64_t unit_attentions;
};

struct mr_io {
    int fuse_fd;
    struct mr_session *session;
    struct mr_fuse_geometry geometry;
    enum mr_write_cache write_cache;
    bool thin;
    uint64_t write_same_bytes; /* at most, per command */
    uint8_t *pool;
    uint8_t *zeroes; /* one block */
    struct mr_slot slots[MR_IO_SLOTS];
    int64_t now_ns;   /* of this loop turn */
    bool gone;        /* the kernel has released the file */
    uint64_t changes; /* commands that changed the LUN, answered so far */
    uint64_t flushed; /* how many of them the target has flushed */
    struct mr_io_counters counters;
};

/* What the kernel will be told about the LUN. -ENOTSUP with DEVICE_ERROR when the
 * target's limits are too small to work with. Pure. */
int mr_io_geometry(const struct mr_lun_facts *facts, bool read_only,
                   struct mr_fuse_geometry *ret, struct mr_err *err);

/* Allocates and touches all buffers. */
int mr_io_init(struct mr_io *io, int fuse_fd, struct mr_session *session,
               const struct mr_lun_facts *facts, const struct mr_fuse_geometry *geometry,
               struct mr_err *err);
void mr_io_done(struct mr_io *io);

/* Is there room to read another request? */
bool mr_io_ready(const struct mr_io *io);
/* Reads and starts requests until there are none or no room is left. */
void mr_io_receive(struct mr_io *io);
/* Frees what has settled and sends what is due. */
void mr_io_step(struct mr_io *io);
/* The session was lost or is over: tears it down and answers everything with EIO. */
void mr_io_fail(struct mr_io *io);

unsigned mr_io_in_flight(const struct mr_io *io);
/* When the longest-waiting command went out, 0: none is at the target. */
int64_t mr_io_oldest(const struct mr_io *io);
/* The next time mr_io_step() has something to do by the clock, INT64_MAX: none. Loses the
 * session when a command got no final answer for several timeouts. */
int64_t mr_io_check(struct mr_io *io);

#endif
