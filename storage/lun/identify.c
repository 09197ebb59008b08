/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/identify.h"

#include <errno.h>
#include <string.h>

#include "storage/base/clock.h"
#include "storage/lun/sense.h"

#define RETRY_BUDGET 32
#define RETRY_PAUSE_NS (250 * MR_NS_PER_MS)
#define PAGE_MAX 255

enum question {
    ASK_READY,
    ASK_INQUIRY,
    ASK_VPD,
    ASK_CAPACITY,
    ASK_MODE,
};

struct reply {
    struct mr_answer answer;
    unsigned key;
    unsigned asc;
    size_t len;
    uint8_t data[PAGE_MAX];
};

/* Who is asked, and until when. */
struct asker {
    struct mr_session *s;
    const char *target;
    int64_t deadline_ns;
};

static struct scsi_task *issue(struct mr_session *s, enum question what, int page)
{
    switch (what) {
    case ASK_READY:
        return iscsi_testunitready_task(s->iscsi, s->lun, mr_session_answer, s);
    case ASK_INQUIRY:
        return iscsi_inquiry_task(s->iscsi, s->lun, 0, 0, PAGE_MAX, mr_session_answer, s);
    case ASK_VPD:
        return iscsi_inquiry_task(s->iscsi, s->lun, 1, page, PAGE_MAX, mr_session_answer,
                                  s);
    case ASK_CAPACITY:
        return iscsi_readcapacity16_task(s->iscsi, s->lun, mr_session_answer, s);
    case ASK_MODE:
        return iscsi_modesense6_task(s->iscsi, s->lun, 1, 0, page, 0, PAGE_MAX,
                                     mr_session_answer, s);
    }
    return NULL;
}

static void take_reply(struct mr_session *s, struct reply *ret)
{
    struct scsi_task *task = s->task;

    *ret = (struct reply){.len = 0};
    if (task && s->status == SCSI_STATUS_CHECK_CONDITION) {
        ret->key = (unsigned)task->sense.key;
        ret->asc = (unsigned)task->sense.ascq;
    } else if (task && task->datain.data && task->datain.size > 0) {
        ret->len = (size_t)task->datain.size < PAGE_MAX ? (size_t)task->datain.size
                                                        : (size_t)PAGE_MAX;
        memcpy(ret->data, task->datain.data, ret->len);
    }
    ret->answer = mr_answer_classify(s->status, ret->key, ret->asc);
    scsi_free_scsi_task(task);
    s->task = NULL;
}

static int fail_wait(const struct asker *a, const char *name, int r, struct mr_err *err)
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

/* One question until it has a final answer, which *ret holds. Negative: the session is of
 * no more use. */
static int ask(const struct asker *a, enum question what, int page, const char *name,
               struct reply *ret, struct mr_err *err)
{
    for (int budget = RETRY_BUDGET;; budget--) {
        int r;

        a->s->answered = false;
        if (!issue(a->s, what, page))
            return mr_fail(err, MR_E_INTERNAL, 0, "%s: %s", name,
                           iscsi_get_error(a->s->iscsi));
        r = mr_session_wait(a->s, a->deadline_ns);
        if (r < 0)
            return fail_wait(a, name, r, err);
        take_reply(a->s, ret);
        if (ret->answer.kind == MR_ANSWER_GOOD || ret->answer.kind == MR_ANSWER_FAILED ||
            budget == 0)
            return 0;
        r = ret->answer.kind == MR_ANSWER_RETRY_LATER
                ? mr_session_pause(a->s, RETRY_PAUSE_NS)
                : 0;
        if (r < 0)
            return fail_wait(a, name, r, err);
    }
}

static int fail_device(const struct asker *a, const struct reply *reply, const char *name,
                       struct mr_err *err)
{
    return mr_fail(err, MR_E_DEVICE_ERROR, 0,
                   "portal %s, target '%s', LUN %d: %s failed (sense %x/%04x)",
                   a->s->portal, a->target, a->s->lun, name, reply->key, reply->asc);
}

static int fail_no_lun(const struct asker *a, struct mr_err *err)
{
    int r =
        mr_fail(err, MR_E_LUN_NOT_FOUND, ENXIO, "portal %s, target '%s' has no LUN %d",
                a->s->portal, a->target, a->s->lun);

    return mr_err_remedy(err, r,
                         "check the LUN number, and that it is mapped to this "
                         "initiator");
}

static int check_ready(const struct asker *a, struct mr_err *err)
{
    struct reply reply;
    int r = ask(a, ASK_READY, 0, "TEST UNIT READY", &reply, err);

    if (r < 0 || reply.answer.kind == MR_ANSWER_GOOD)
        return r;
    if (reply.key == MR_SENSE_ILLEGAL_REQUEST && reply.asc == MR_ASC_LUN_NOT_SUPPORTED)
        return fail_no_lun(a, err);
    /* Reserved by another node: reads of the identity still work. */
    if (reply.answer.errnum == EBADE)
        return 0;
    return fail_device(a, &reply, "TEST UNIT READY", err);
}

static int check_type(const struct asker *a, struct mr_err *err)
{
    unsigned qualifier = 0;
    unsigned type = 0;
    struct reply reply;
    int r = ask(a, ASK_INQUIRY, 0, "INQUIRY", &reply, err);

    if (r < 0)
        return r;
    if (reply.answer.kind != MR_ANSWER_GOOD ||
        mr_parse_inquiry(reply.data, reply.len, &qualifier, &type) < 0)
        return fail_device(a, &reply, "INQUIRY", err);
    if (qualifier != SCSI_INQUIRY_PERIPHERAL_QUALIFIER_CONNECTED)
        return fail_no_lun(a, err);
    if (type != SCSI_INQUIRY_PERIPHERAL_DEVICE_TYPE_DIRECT_ACCESS)
        return mr_fail(
            err, MR_E_DEVICE_ERROR, ENOTBLK,
            "portal %s, target '%s', LUN %d is no disk (SCSI device type 0x%02x)",
            a->s->portal, a->target, a->s->lun, type);
    return 0;
}

static int read_capacity(const struct asker *a, struct mr_lun_facts *facts,
                         struct mr_err *err)
{
    struct reply reply;
    int r = ask(a, ASK_CAPACITY, 0, "READ CAPACITY(16)", &reply, err);

    if (r < 0)
        return r;
    if (reply.answer.kind != MR_ANSWER_GOOD)
        return fail_device(a, &reply, "READ CAPACITY(16)", err);
    r = mr_parse_capacity16(reply.data, reply.len, facts);
    if (r < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, -r,
                       "portal %s, target '%s', LUN %d: capacity or block size cannot be "
                       "used",
                       a->s->portal, a->target, a->s->lun);
    return 0;
}

/* Pages that a target may lack. */
static int read_optional(const struct asker *a, struct mr_lun_facts *facts,
                         struct mr_err *err)
{
    static const struct {
        enum question what;
        int page;
        const char *name;
        int (*parse)(const uint8_t *data, size_t len, struct mr_lun_facts *facts);
    } pages[] = {
        {ASK_VPD, 0x80, "INQUIRY page 0x80", mr_parse_vpd_serial},
        {ASK_VPD, 0x83, "INQUIRY page 0x83", mr_parse_vpd_device_id},
        {ASK_VPD, 0xb0, "INQUIRY page 0xB0", mr_parse_vpd_limits},
        {ASK_MODE, 0x08, "MODE SENSE page 0x08", mr_parse_mode_sense6},
    };

    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
        struct reply reply;
        int r = ask(a, pages[i].what, pages[i].page, pages[i].name, &reply, err);

        if (r < 0)
            return r;
        if (reply.answer.kind == MR_ANSWER_GOOD)
            (void)pages[i].parse(reply.data, reply.len, facts);
    }
    return 0;
}

int mr_lun_identify(struct mr_session *s, const char *target, int64_t deadline_ns,
                    struct mr_lun_facts *ret, struct mr_err *err)
{
    const struct asker asker = {s, target, deadline_ns};
    int r;

    *ret = (struct mr_lun_facts){.write_cache = MR_WRITE_CACHE_UNKNOWN};
    r = check_ready(&asker, err);
    if (r == 0)
        r = check_type(&asker, err);
    if (r == 0)
        r = read_capacity(&asker, ret, err);
    if (r == 0)
        r = read_optional(&asker, ret, err);
    return r;
}
