/* SPDX-License-Identifier: Apache-2.0
 *
 * One source, once, for sources that have no file of their own to lock: an flock on
 * RUNTIME/lun/HASH.lock, which mooring-lun inherits and keeps until its end. It needs no
 * journal, no clean-up, and no answer from anybody. The files stay, one for every source,
 * until the next boot; they name the attach token of who locked it last.
 */
#ifndef MR_STORAGE_WORKER_SOURCE_LOCK_H
#define MR_STORAGE_WORKER_SOURCE_LOCK_H

#include <stdint.h>

#include "storage/base/err.h"
#include "storage/identity.h"

/* Takes the lock for this source key. Waits at most wait_ms: the server before may be
 * about to end. 0 and *ret_fd (the caller passes it on or closes it), -EWOULDBLOCK when
 * another one has it (its token is in holder, "" when that is not known), or another
 * negative errno; err in both cases. */
int mr_source_lock(const char *runtime_dir, const char *key, const char *token,
                   int64_t wait_ms, int *ret_fd, char holder[MR_TOKEN_TEXT],
                   struct mr_err *err);

/* Does a server have it now? Waits for nothing, makes nothing. 0 when none has, or as
 * above. */
int mr_source_look(const char *runtime_dir, const char *key, char holder[MR_TOKEN_TEXT],
                   struct mr_err *err);

#endif
