/* SPDX-License-Identifier: Apache-2.0
 *
 * FUSE requests become SCSI commands and their answers FUSE replies. Every request gets
 * exactly one reply. A request outlives sessions: while there is none it is held, and
 * with the next one all that are held are sent again in the order in which they came.
 * What is at the target when a session is lost may have been done or not; done twice it
 * has the same effect. Nothing here costs time by the number of slots, only by what is in
 * flight. One thread.
 */
#ifndef MR_STORAGE_LUN_IO_H
#define MR_STORAGE_LUN_IO_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/lun/fuse_proto.h"
#include "storage/lun/inquiry.h"
#include "storage/lun/page.h"
#include "storage/lun/pool.h"
#include "storage/lun/replies.h"
#include "storage/lun/sense.h"
#include "storage/lun/session.h"

enum mr_io_mode {
    MR_IO_HOLDING = 0, /* no session: requests wait */
    MR_IO_RUNNING,
    MR_IO_REFUSING, /* no session: requests get EIO */
};

/* See abort.h. */
struct mr_io_abort {
    int64_t doubt_ns; /* what was queued before may have been ended unsaid; 0: nothing */
    int64_t sent_ns;  /* what was queued before has been sent: one of then was answered */
    uint32_t itt;     /* task tag of the command that ABORT TASK is, or was, out for */
    bool out;
    bool ended; /* the target has it no longer; still to be looked at */
};

struct mr_io {
    int fuse_fd;
    struct mr_page *page;
    struct mr_session *session; /* while running */
    enum mr_io_mode mode;
    bool serving;         /* the LUN is known */
    bool gone;            /* the kernel has released the file */
    bool drain;           /* set by the owner: nothing more is read */
    unsigned attention;   /* enum mr_attention; the owner clears it */
    int64_t now_ns;       /* of this loop turn; set by the owner */
    int64_t mount_ns;     /* not before this time; the file is not mounted yet */
    int64_t age_check_ns; /* no command is too old before this time */
    struct mr_fuse_geometry geometry;
    enum mr_write_cache write_cache;
    bool thin;
    uint64_t write_same_bytes; /* at most, per command */
    uint64_t mark;             /* see command.c */
    uint64_t changes; /* commands that may have changed the LUN, answered so far */
    uint64_t flushed; /* how many of them the target has flushed */
    struct mr_io_abort abort;
    bool lone; /* the last thing queued is a command without data */
    unsigned in_flight;
    int64_t latency_ns;        /* of small commands, as it was lately */
    struct mr_slot_list order; /* unanswered requests as they arrived */
    struct mr_slot_list work;  /* SETTLING and DUE */
    struct mr_pool pool;
    struct mr_replies replies; /* of this turn */
};

/* What the kernel will be told about the LUN. -ENOTSUP with DEVICE_ERROR when the
 * target's limits are too small to work with. Pure. */
int mr_io_geometry(const struct mr_lun_facts *facts, bool read_only,
                   struct mr_fuse_geometry *ret, struct mr_err *err);

/* Before the login: allocates and touches all memory. Requests are held from the start.
 */
int mr_io_init(struct mr_io *io, int fuse_fd, struct mr_page *page, struct mr_err *err);
void mr_io_done(struct mr_io *io);

/* page->known is set: takes geometry and limits from the page; after a server that died,
 * asks the kernel to give again what that one had read. From now on requests are read. */
void mr_io_serve(struct mr_io *io);

/* Is there room to read another request, and one to be expected? */
bool mr_io_ready(const struct mr_io *io);
/* For poll(2): without room only the end of the connection is waited for. */
struct pollfd mr_io_poll(const struct mr_io *io);
/* At any event of it: reads and starts requests until there are none, there is no room
 * left, or it was enough for one turn. */
void mr_io_receive(struct mr_io *io);
/* Once per turn, last: sends what is due and what was queued, frees what has settled. */
void mr_io_step(struct mr_io *io);

/* How long the answers of a deep queue of small commands shall gather before they are
 * looked at: this thread would else be woken for each of them, which costs more than the
 * rest of the work. A small part of the time that they take anyway; mostly 0. */
int64_t mr_io_rest_ns(const struct mr_io *io);

/* The session is up and this LUN was found to be the same: everything held goes out in
 * order of arrival. */
void mr_io_run(struct mr_io *io, struct mr_session *session);
/* Nothing more is sent into the session that is still there: what is at the target may be
 * answered, all else waits. mr_io_resume(), mr_io_hold() or mr_io_refuse() follows. */
void mr_io_pause(struct mr_io *io);
/* What waited goes out into the same session, also when that is lost meanwhile. */
void mr_io_resume(struct mr_io *io);
/* The session was closed (mr_session_close() has returned), before anything else is
 * called here: what was at the target is held. */
void mr_io_hold(struct mr_io *io);
/* As hold; everything held gets EIO, and new requests at once, until mr_io_run(). */
void mr_io_refuse(struct mr_io *io);

/* An attention told that commands sent so far may have been ended at the target: those
 * that stay without an answer are aborted and sent again. */
void mr_io_doubt(struct mr_io *io);

/* The LUN has grown: tells the kernel. It may have been told already, or not, by a server
 * that died in between. -EINVAL when the LUN is smaller than that. */
int mr_io_resized(struct mr_io *io, uint64_t size_bytes);

/* Requests without a reply. */
unsigned mr_io_in_flight(const struct mr_io *io);
/* When the oldest of them arrived; 0: there is none. */
int64_t mr_io_oldest(const struct mr_io *io);
/* The next time mr_io_step() or mr_io_receive() has something to do by the clock,
 * INT64_MAX: none. Loses the session when a command got no answer for several timeouts,
 * although the target answers others. */
int64_t mr_io_check(struct mr_io *io);

#endif
