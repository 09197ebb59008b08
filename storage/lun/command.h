/* SPDX-License-Identifier: Apache-2.0
 *
 * The SCSI side of a request: which command, and what its answer means for the request.
 * Inner part of io.h.
 */
#ifndef MR_STORAGE_LUN_COMMAND_H
#define MR_STORAGE_LUN_COMMAND_H

#include <sys/uio.h>

#include "storage/lun/io.h"

/* A request that costs the session so often gets EIO. */
#define MR_COMMAND_STRIKES 3
/* A command that the target neither answers nor fails for so many times the session's
 * timeout, while it goes on answering others, ends the session. */
#define MR_COMMAND_TIMEOUTS 4

/* Queues the slot's (next) command; it is on no list but the order. The session must be
 * usable. A command that cannot be queued loses the session. */
void mr_command_send(struct mr_slot *slot);

/* The slot's command, which libiscsi has forgotten, was not carried out: as if the target
 * had been busy. */
void mr_command_again(struct mr_slot *slot);

/* Frees what the command at libiscsi needed: it can have no reference any more. */
void mr_command_forget(struct mr_slot *slot);

/* --- from io.c --- */

bool mr_io_usable(const struct mr_io *io);
/* Sends a held request, or answers it when that needs no target. */
void mr_io_begin(struct mr_slot *slot);
/* What cannot be said as it was meant is said as an error: somebody waits. Returns 0, or
 * -ENOENT when nobody does. */
int mr_io_reply(struct mr_io *io, uint64_t unique, int error, const struct iovec *body,
                int count);
/* The one reply to a request: error 0 or a negative errno. Afterwards the slot is FREE,
 * or SETTLING when it has a task. */
void mr_io_finish(struct mr_slot *slot, int error);
void mr_io_add(_Atomic uint64_t *counter, uint64_t n);

#endif
