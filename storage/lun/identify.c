/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/identify.h"

#include <errno.h>

#include "storage/lun/question.h"

#define PAGE_MAX 255
#define READ_TRIES 4 /* while the LUN says that it changes */
#define CHANGED (MR_ATTENTION_CAPACITY | MR_ATTENTION_IDENTITY)

enum what {
    ASK_READY,
    ASK_INQUIRY,
    ASK_VPD,
    ASK_CAPACITY,
    ASK_MODE,
};

struct item {
    enum what what;
    int page;
};

static struct scsi_task *send_item(struct mr_session *s, const void *arg)
{
    const struct item *item = arg;

    switch (item->what) {
    case ASK_READY:
        return iscsi_testunitready_task(s->iscsi, s->lun, mr_session_answer, s);
    case ASK_INQUIRY:
        return iscsi_inquiry_task(s->iscsi, s->lun, 0, 0, PAGE_MAX, mr_session_answer, s);
    case ASK_VPD:
        return iscsi_inquiry_task(s->iscsi, s->lun, 1, item->page, PAGE_MAX,
                                  mr_session_answer, s);
    case ASK_CAPACITY:
        return iscsi_readcapacity16_task(s->iscsi, s->lun, mr_session_answer, s);
    case ASK_MODE:
        return iscsi_modesense6_task(s->iscsi, s->lun, 1, 0, item->page, 0, PAGE_MAX,
                                     mr_session_answer, s);
    }
    return NULL;
}

static int ask(const struct mr_asker *a, enum what what, int page, const char *name,
               struct mr_reply *ret, struct mr_err *err)
{
    const struct item item = {what, page};

    return mr_ask(a, &(struct mr_question){name, send_item, &item}, ret, err);
}

static int fail_no_lun(const struct mr_asker *a, struct mr_err *err)
{
    int r =
        mr_fail(err, MR_E_LUN_NOT_FOUND, ENXIO, "portal %s, target '%s' has no LUN %d",
                a->s->portal, a->target, a->s->lun);

    return mr_err_remedy(err, r,
                         "check the LUN number, and that it is mapped to this "
                         "initiator");
}

static int check_ready(const struct mr_asker *a, struct mr_err *err)
{
    struct mr_reply reply;
    int r = ask(a, ASK_READY, 0, "TEST UNIT READY", &reply, err);

    if (r < 0 || reply.answer.kind == MR_ANSWER_GOOD)
        return r;
    if (reply.key == MR_SENSE_ILLEGAL_REQUEST && reply.asc == MR_ASC_LUN_NOT_SUPPORTED)
        return fail_no_lun(a, err);
    /* Reserved by another node: reads of the identity still work. */
    if (reply.answer.errnum == EBADE)
        return 0;
    return mr_ask_failed(a, &reply, "TEST UNIT READY", err);
}

static int check_type(const struct mr_asker *a, struct mr_err *err)
{
    unsigned qualifier = 0;
    unsigned type = 0;
    struct mr_reply reply;
    int r = ask(a, ASK_INQUIRY, 0, "INQUIRY", &reply, err);

    if (r < 0)
        return r;
    if (reply.answer.kind != MR_ANSWER_GOOD ||
        mr_parse_inquiry(reply.data, reply.len, &qualifier, &type) < 0)
        return mr_ask_failed(a, &reply, "INQUIRY", err);
    if (qualifier != SCSI_INQUIRY_PERIPHERAL_QUALIFIER_CONNECTED)
        return fail_no_lun(a, err);
    if (type != SCSI_INQUIRY_PERIPHERAL_DEVICE_TYPE_DIRECT_ACCESS)
        return mr_fail(
            err, MR_E_DEVICE_ERROR, ENOTBLK,
            "portal %s, target '%s', LUN %d is no disk (SCSI device type 0x%02x)",
            a->s->portal, a->target, a->s->lun, type);
    return 0;
}

static int read_capacity(const struct mr_asker *a, struct mr_lun_facts *facts,
                         struct mr_err *err)
{
    struct mr_reply reply;
    int r = ask(a, ASK_CAPACITY, 0, "READ CAPACITY(16)", &reply, err);

    if (r < 0)
        return r;
    if (reply.answer.kind != MR_ANSWER_GOOD)
        return mr_ask_failed(a, &reply, "READ CAPACITY(16)", err);
    a->s->attention &= ~(unsigned)MR_ATTENTION_CAPACITY;
    r = mr_parse_capacity16(reply.data, reply.len, facts);
    if (r < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, -r,
                       "portal %s, target '%s', LUN %d: capacity or block size cannot be "
                       "used",
                       a->s->portal, a->target, a->s->lun);
    return 0;
}

/* Pages that a target may lack. */
static int read_optional(const struct mr_asker *a, struct mr_lun_facts *facts,
                         struct mr_err *err)
{
    static const struct {
        enum what what;
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
        struct mr_reply reply;
        int r = ask(a, pages[i].what, pages[i].page, pages[i].name, &reply, err);

        if (r < 0)
            return r;
        if (reply.answer.kind == MR_ANSWER_GOOD)
            (void)pages[i].parse(reply.data, reply.len, facts);
    }
    return 0;
}

static int read_facts(const struct mr_asker *a, struct mr_lun_facts *ret,
                      struct mr_err *err)
{
    int r;

    *ret = (struct mr_lun_facts){.write_cache = MR_WRITE_CACHE_UNKNOWN};
    r = check_type(a, err);
    if (r == 0)
        r = read_capacity(a, ret, err);
    if (r == 0)
        r = read_optional(a, ret, err);
    return r;
}

int mr_lun_identify(struct mr_session *s, const char *target, int64_t deadline_ns,
                    struct mr_lun_facts *ret, struct mr_err *err)
{
    const struct mr_asker asker = {s, target, deadline_ns};
    int r = check_ready(&asker, err);

    /* Told of a change in the middle of it: the facts may be those of two LUNs. */
    for (int tries = 0; r == 0 && tries < READ_TRIES; tries++) {
        s->attention &= ~(unsigned)CHANGED;
        r = read_facts(&asker, ret, err);
        if (r < 0 || !(s->attention & CHANGED))
            return r;
    }
    return r < 0 ? r
                 : mr_fail(err, MR_E_DEVICE_ERROR, EAGAIN,
                           "portal %s, target '%s', LUN %d does not stop changing",
                           s->portal, target, s->lun);
}

int mr_lun_ready(struct mr_session *s, const char *target, int64_t deadline_ns,
                 struct mr_err *err)
{
    const struct mr_asker asker = {s, target, deadline_ns};

    return check_ready(&asker, err);
}

int mr_lun_capacity(struct mr_session *s, const char *target, int64_t deadline_ns,
                    struct mr_lun_facts *facts, struct mr_err *err)
{
    const struct mr_asker asker = {s, target, deadline_ns};

    return read_capacity(&asker, facts, err);
}
