/* SPDX-License-Identifier: Apache-2.0
 *
 * One SCSI question over a session, asked until it has a final answer: unit attentions
 * and a busy target are retried within a budget; what an attention told is kept in the
 * session. A waiting caller's tool: nothing else may wait in the session meanwhile, and
 * every wait ends at the deadline.
 */
#ifndef MR_STORAGE_LUN_QUESTION_H
#define MR_STORAGE_LUN_QUESTION_H

#include <stddef.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/lun/sense.h"
#include "storage/lun/session.h"

#define MR_REPLY_MAX 2056 /* READ KEYS with 256 keys */

/* Who is asked, and until when (CLOCK_MONOTONIC). */
struct mr_asker {
    struct mr_session *s;
    const char *target; /* for messages */
    int64_t deadline_ns;
};

struct mr_question {
    const char *name; /* of the command, for messages */
    /* Queues it with mr_session_answer() and s as its private data. NULL: could not. */
    struct scsi_task *(*send)(struct mr_session *s, const void *arg);
    const void *arg;
};

struct mr_reply {
    struct mr_answer answer;
    unsigned key; /* sense, of CHECK CONDITION */
    unsigned asc;
    size_t len; /* of the data that came; what is beyond MR_REPLY_MAX is dropped */
    uint8_t data[MR_REPLY_MAX];
};

/* Returns 0 with the final answer, good or not, in *ret. Negative: TARGET_TIMEOUT,
 * DEVICE_ERROR or INTERNAL; the session is of no more use and can only be closed. */
int mr_ask(const struct mr_asker *a, const struct mr_question *question,
           struct mr_reply *ret, struct mr_err *err);

/* The error for an answer that was final but not good. */
int mr_ask_failed(const struct mr_asker *a, const struct mr_reply *reply,
                  const char *name, struct mr_err *err);

#endif
