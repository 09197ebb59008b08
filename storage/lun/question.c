/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/question.h"

#include <errno.h>
#include <string.h>

#include "storage/base/clock.h"

#define RETRY_BUDGET 32
#define RETRY_PAUSE_NS (250 * MR_NS_PER_MS)

static void take_reply(struct mr_session *s, struct mr_reply *ret)
{
    struct scsi_task *task = s->task;

    ret->key = 0;
    ret->asc = 0;
    ret->len = 0;
    if (task && s->status == SCSI_STATUS_CHECK_CONDITION) {
        ret->key = (unsigned)task->sense.key;
        ret->asc = (unsigned)task->sense.ascq;
    } else if (task && task->datain.data && task->datain.size > 0) {
        ret->len = (size_t)task->datain.size < MR_REPLY_MAX ? (size_t)task->datain.size
                                                            : (size_t)MR_REPLY_MAX;
        memcpy(ret->data, task->datain.data, ret->len);
    }
    ret->answer = mr_answer_classify(s->status, ret->key, ret->asc);
    if (task && ret->answer.kind == MR_ANSWER_GOOD &&
        mr_sense_is_deferred(task->sense.error_type))
        ret->answer = (struct mr_answer){MR_ANSWER_RETRY, EIO};
    /* A target that asked for its data (R2T), which any command can be asked for, before
     * it answered has made libiscsi queue PDUs that point at it. They go out before the
     * next question; with the answer to that one they are gone. */
    scsi_free_scsi_task(s->spent);
    s->spent = task;
    s->task = NULL;
}

static int fail_wait(const struct mr_asker *a, const char *name, int r,
                     struct mr_err *err)
{
    if (r == -ETIMEDOUT) {
        r = mr_fail(err, MR_E_TARGET_TIMEOUT, ETIMEDOUT,
                    "portal %s, target '%s', LUN %d: no answer to %s", a->s->portal,
                    a->target, a->s->lun, name);
        return mr_err_remedy(err, r, "check the target");
    }
    return mr_fail(err, MR_E_DEVICE_ERROR, -r,
                   "portal %s, target '%s', LUN %d: connection lost at %s", a->s->portal,
                   a->target, a->s->lun, name);
}

/* Another LUN may be behind the number, and what libiscsi has still to send, before the
 * next question, is meant for ours. */
static bool others_are_queued(struct mr_session *s)
{
    return (s->attention & MR_ATTENTION_IDENTITY) && !mr_session_sent_all(s);
}

int mr_ask(const struct mr_asker *a, const struct mr_question *question,
           struct mr_reply *ret, struct mr_err *err)
{
    for (int budget = RETRY_BUDGET;; budget--) {
        int r;

        a->s->answered = false;
        if (!question->send(a->s, question->arg))
            return mr_fail(err, MR_E_INTERNAL, 0, "%s: %s", question->name,
                           iscsi_get_error(a->s->iscsi));
        r = mr_session_wait(a->s, a->deadline_ns);
        if (r < 0)
            return fail_wait(a, question->name, r, err);
        take_reply(a->s, ret);
        if (others_are_queued(a->s)) {
            mr_session_lose(a->s, "the target's LUNs have changed");
            return fail_wait(a, question->name, -ECONNRESET, err);
        }
        if (ret->answer.kind == MR_ANSWER_GOOD || ret->answer.kind == MR_ANSWER_FAILED ||
            budget == 0)
            return 0;
        r = ret->answer.kind == MR_ANSWER_RETRY_LATER
                ? mr_session_pause(a->s, RETRY_PAUSE_NS)
                : 0;
        if (r < 0)
            return fail_wait(a, question->name, r, err);
    }
}

int mr_ask_failed(const struct mr_asker *a, const struct mr_reply *reply,
                  const char *name, struct mr_err *err)
{
    return mr_fail(err, MR_E_DEVICE_ERROR, 0,
                   "portal %s, target '%s', LUN %d: %s failed (sense %x/%04x)",
                   a->s->portal, a->target, a->s->lun, name, reply->key, reply->asc);
}
