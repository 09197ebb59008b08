/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/pr.h"

#include <errno.h>

#include "storage/lun/fence_judge.h"

#define READ_TRIES 4 /* while others change it */
#define CAPABILITIES_MAX 8
#define RESERVATION_MAX 64

struct out {
    int action; /* enum scsi_persistent_out_sa */
    uint64_t key;
    uint64_t action_key;
    bool ptpl;
};

static struct scsi_task *send_in(struct mr_session *s, const void *arg)
{
    const int *action = arg;
    uint16_t len = MR_REPLY_MAX;

    if (*action == SCSI_PERSISTENT_RESERVE_READ_RESERVATION)
        len = RESERVATION_MAX;
    if (*action == SCSI_PERSISTENT_RESERVE_REPORT_CAPABILITIES)
        len = CAPABILITIES_MAX;
    return iscsi_persistent_reserve_in_task(s->iscsi, s->lun, *action, len,
                                            mr_session_answer, s);
}

static struct scsi_task *send_out(struct mr_session *s, const void *arg)
{
    const struct out *out = arg;
    struct scsi_persistent_reserve_out_basic params = {
        .reservation_key = out->key,
        .service_action_reservation_key = out->action_key,
        .aptpl = out->ptpl,
    };

    return iscsi_persistent_reserve_out_task(
        s->iscsi, s->lun, out->action, SCSI_PERSISTENT_RESERVE_SCOPE_LU, MR_FENCE_TYPE,
        &params, mr_session_answer, s);
}

static const char *out_name(int action)
{
    switch (action) {
    case SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY:
        return "PERSISTENT RESERVE OUT (register)";
    case SCSI_PERSISTENT_RESERVE_RESERVE:
        return "PERSISTENT RESERVE OUT (reserve)";
    case SCSI_PERSISTENT_RESERVE_RELEASE:
        return "PERSISTENT RESERVE OUT (release)";
    default:
        return "PERSISTENT RESERVE OUT (preempt)";
    }
}

static bool unsupported(const struct mr_reply *reply)
{
    return reply->answer.kind == MR_ANSWER_FAILED && reply->answer.errnum == EREMOTEIO;
}

/* 0 when the target did it. -EBADE: it refused because of a reservation, or because the
 * key is not (or no longer) there. -EREMOTEIO: it does not know the action. */
static int tell(const struct mr_asker *a, const struct out *out, struct mr_err *err)
{
    const char *name = out_name(out->action);
    struct mr_reply reply;
    int r = mr_ask(a, &(struct mr_question){name, send_out, out}, &reply, err);

    if (r < 0 || reply.answer.kind == MR_ANSWER_GOOD)
        return r;
    r = mr_ask_failed(a, &reply, name, err);
    if (reply.answer.errnum == EBADE)
        return -EBADE;
    return unsupported(&reply) ? -EREMOTEIO : r;
}

static int ask_in(const struct mr_asker *a, int action, const char *name,
                  struct mr_reply *reply, struct mr_err *err)
{
    return mr_ask(a, &(struct mr_question){name, send_in, &action}, reply, err);
}

int mr_pr_fail(const struct mr_asker *a, const char *what, struct mr_err *err)
{
    return mr_fail(err, MR_E_DEVICE_ERROR, 0, "portal %s, target '%s', LUN %d: %s",
                   a->s->portal, a->target, a->s->lun, what);
}

static int fail_unsupported(const struct mr_asker *a, struct mr_err *err)
{
    (void)mr_fail(err, MR_E_DEVICE_ERROR, 0,
                  "portal %s, target '%s', LUN %d knows no persistent reservations",
                  a->s->portal, a->target, a->s->lun);
    return mr_err_remedy(err, -EOPNOTSUPP,
                         "fencing cannot be had from this target: set \"fencing\" to "
                         "\"off\"");
}

static int read_keys(const struct mr_asker *a, struct mr_reservation *ret,
                     struct mr_err *err)
{
    struct mr_reply reply;
    int r = ask_in(a, SCSI_PERSISTENT_RESERVE_READ_KEYS, "READ KEYS", &reply, err);

    if (r < 0)
        return r;
    if (unsupported(&reply))
        return fail_unsupported(a, err);
    if (reply.answer.kind != MR_ANSWER_GOOD)
        return mr_ask_failed(a, &reply, "READ KEYS", err);
    if (mr_parse_pr_keys(reply.data, reply.len, ret) < 0)
        return mr_pr_fail(a, "its list of keys cannot be used", err);
    return 0;
}

static int read_holder(const struct mr_asker *a, struct mr_reservation *ret,
                       uint32_t *ret_generation, struct mr_err *err)
{
    struct mr_reply reply;
    int r = ask_in(a, SCSI_PERSISTENT_RESERVE_READ_RESERVATION, "READ RESERVATION",
                   &reply, err);

    if (r < 0)
        return r;
    if (unsupported(&reply))
        return fail_unsupported(a, err);
    if (reply.answer.kind != MR_ANSWER_GOOD)
        return mr_ask_failed(a, &reply, "READ RESERVATION", err);
    if (mr_parse_pr_reservation(reply.data, reply.len, ret, ret_generation) < 0)
        return mr_pr_fail(a, "its reservation cannot be read", err);
    return 0;
}

/* Keys and reservation of one generation. */
int mr_pr_look(const struct mr_asker *a, struct mr_reservation *ret, struct mr_err *err)
{
    ret->known = false;
    for (int i = 0; i < READ_TRIES; i++) {
        uint32_t generation = 0;
        int r = read_keys(a, ret, err);

        if (r == 0)
            r = read_holder(a, ret, &generation, err);
        if (r < 0)
            return r;
        if (generation == ret->generation) {
            ret->known = true;
            a->s->attention &= ~(unsigned)MR_ATTENTION_RESERVATION;
            return 0;
        }
    }
    return mr_pr_fail(a, "its registrations change all the time", err);
}

int mr_pr_register(const struct mr_asker *a, uint64_t key, bool ptpl, struct mr_err *err)
{
    const struct out out = {
        .action = SCSI_PERSISTENT_RESERVE_REGISTER_AND_IGNORE_EXISTING_KEY,
        .action_key = key,
        .ptpl = ptpl,
    };

    return tell(a, &out, err);
}

/* PREEMPT AND ABORT also ends what the other has in flight; tgtd does not know it. */
int mr_pr_remove(const struct mr_asker *a, uint64_t key, uint64_t other,
                 struct mr_err *err)
{
    struct out out = {SCSI_PERSISTENT_RESERVE_PREEMPT_AND_ABORT, key, other, false};
    int r = -EREMOTEIO;

    if (other != key) /* it would abort our own commands */
        r = tell(a, &out, err);
    if (r == -EREMOTEIO) {
        out.action = SCSI_PERSISTENT_RESERVE_PREEMPT;
        r = tell(a, &out, err);
    }
    return r;
}

int mr_pr_keeps_over_power_loss(const struct mr_asker *a, bool *ret_ptpl,
                                struct mr_err *err)
{
    struct mr_reply reply;
    int r = ask_in(a, SCSI_PERSISTENT_RESERVE_REPORT_CAPABILITIES, "REPORT CAPABILITIES",
                   &reply, err);

    *ret_ptpl = false;
    if (r == 0 && reply.answer.kind == MR_ANSWER_GOOD)
        (void)mr_parse_pr_capabilities(reply.data, reply.len, ret_ptpl);
    return r;
}

int mr_pr_reserve(const struct mr_asker *a, uint64_t key, struct mr_err *err)
{
    return tell(a, &(struct out){.action = SCSI_PERSISTENT_RESERVE_RESERVE, .key = key},
                err);
}

int mr_pr_release(const struct mr_asker *a, uint64_t key, struct mr_err *err)
{
    return tell(a, &(struct out){.action = SCSI_PERSISTENT_RESERVE_RELEASE, .key = key},
                err);
}
