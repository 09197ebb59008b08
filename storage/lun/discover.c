/* SPDX-License-Identifier: Apache-2.0
 *
 * mooring-lun discover: which targets a portal offers (SendTargets, RFC 7143 appendix C),
 * and, where a login without credentials is admitted, which disks they have. Logs in only
 * at the portal that was asked, never where a target says.
 */
#include "storage/lun/oneshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/lun/identify.h"
#include "storage/lun/listing.h"
#include "storage/lun/question.h"
#include "storage/lun/reach.h"
#include "storage/lun/session.h"

#define CONNECT_NS MR_NS_PER_S /* for addresses that are not needed */
#define SHARE_MIN_NS (500 * MR_NS_PER_MS)
/* The answer is one message; 64 LUNs with an error each take some 70 KiB. */
#define ANSWER_BYTES (MR_MSG_MAX - 88 * 1024)
#define INQUIRY_BYTES 64

/* The list is only there during libiscsi's call. */
struct discovery {
    struct mr_session session;
    struct mr_lun_start start; /* portal, names; no target */
    struct mr_listed_targets list;
};

/* --- the discovery session --- */

static void on_targets(struct iscsi_context *iscsi, int status, void *command_data,
                       void *private_data)
{
    struct discovery *d = private_data;

    d->session.status = status;
    d->session.answered = true;
    if (status != SCSI_STATUS_GOOD) {
        (void)snprintf(d->session.why, sizeof(d->session.why), "%s",
                       iscsi_get_error(iscsi));
        return;
    }
    for (const struct iscsi_discovery_address *t = command_data; t; t = t->next) {
        struct mr_listed_target *target =
            t->target_name ? mr_listed_add(&d->list, t->target_name) : NULL;
        for (const struct iscsi_target_portal *p = target ? t->portals : NULL; p;
             p = p->next)
            mr_listed_add_portal(&d->list, target, p->portal);
    }
    mr_listed_sort(&d->list);
}

static int fail_portal(const struct discovery *d, int r, const char *step,
                       struct mr_err *err)
{
    const struct mr_session *s = &d->session;

    if (r == -ETIMEDOUT) {
        r = mr_fail(err, MR_E_TARGET_TIMEOUT, ETIMEDOUT, "portal %s: no answer to the %s",
                    s->portal, step);
        return mr_err_remedy(err, r,
                             "check that the portal answers and that no firewall drops "
                             "its packets");
    }
    if (r == -ECANCELED)
        return mr_fail(err, MR_E_INTERNAL, ECANCELED, "%s", step);
    r = mr_fail(err, MR_E_PORTAL_UNREACHABLE, 0, "portal %s: %s", s->portal,
                r < 0 ? "it closed the connection" : s->why);
    return mr_err_remedy(err, r, "check the portal's address and port, and the network");
}

static int fail_login(const struct discovery *d, const char *step, struct mr_err *err)
{
    const struct mr_session *s = &d->session;
    unsigned login = mr_login_status(s->why);
    int r;

    if (login == MR_LOGIN_AUTHENTICATION || login == MR_LOGIN_AUTHORIZATION ||
        (login == 0 && strstr(s->why, "CHAP"))) {
        r = mr_fail(err, MR_E_CHAP_REFUSED, EACCES,
                    "portal %s refused the discovery of '%s', which came without CHAP "
                    "credentials",
                    s->portal, d->start.initiator_name);
        return mr_err_remedy(err, r,
                             "targets can be attached by their name all the same");
    }
    return mr_fail(err, MR_E_DEVICE_ERROR, 0, "portal %s: %s failed: %s", s->portal, step,
                   s->why);
}

/* A session never has the ISID of another one of ours: the target would end that. */
static int random_token(struct mr_lun_start *start, struct mr_err *err)
{
    return mr_random_hex(16, start->token) < 0
               ? mr_fail(err, MR_E_INTERNAL, EIO, "random ISID")
               : 0;
}

static int create_context(struct discovery *d, struct mr_err *err)
{
    struct iscsi_context *iscsi = iscsi_create_context(d->start.initiator_name);
    uint32_t random;
    uint32_t qualifier;

    if (!iscsi)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "iSCSI context");
    d->session.iscsi = iscsi;
    iscsi_set_noautoreconnect(iscsi, 1);
    (void)iscsi_set_session_type(iscsi, ISCSI_SESSION_DISCOVERY);
    (void)iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE);
    mr_lun_isid(d->start.token, &random, &qualifier);
    (void)iscsi_set_isid_random(iscsi, random, qualifier);
    return 0;
}

/* Of the addresses of a name the one that takes connections. */
static int find_portal(struct discovery *d, int64_t deadline_ns, struct mr_err *err)
{
    const int64_t enough_ns = mr_now_ns() + CONNECT_NS;
    struct mr_reach reach;

    mr_reach((const char(*)[256])d->start.portals, 1,
             enough_ns < deadline_ns ? enough_ns : deadline_ns, deadline_ns, &reach);
    if (!reach.reachable) {
        *err = reach.err;
        return -EHOSTUNREACH;
    }
    memcpy(d->session.portal, reach.portal, sizeof(d->session.portal));
    return 0;
}

static int list_targets(struct discovery *d, int64_t deadline_ns, struct mr_err *err)
{
    struct mr_session *s = &d->session;
    int r = create_context(d, err);

    if (r < 0)
        return r;
    s->answered = false;
    if (iscsi_connect_async(s->iscsi, s->portal, mr_session_answer, s) != 0)
        return fail_portal(d, 0, "connection request", err);
    (void)fcntl(mr_session_fd(s), F_SETFD, FD_CLOEXEC);
    r = mr_session_wait(s, deadline_ns);
    if (r < 0 || s->status != SCSI_STATUS_GOOD)
        return fail_portal(d, r, "connection request", err);
    s->answered = false;
    if (iscsi_login_async(s->iscsi, mr_session_answer, s) != 0)
        return mr_fail(err, MR_E_INTERNAL, 0, "login: %s", iscsi_get_error(s->iscsi));
    r = mr_session_wait(s, deadline_ns);
    if (r < 0)
        return fail_portal(d, r, "login", err);
    if (s->status != SCSI_STATUS_GOOD)
        return fail_login(d, "the login", err);
    s->answered = false;
    if (iscsi_discovery_async(s->iscsi, on_targets, d) != 0)
        return mr_fail(err, MR_E_INTERNAL, 0, "discovery: %s", iscsi_get_error(s->iscsi));
    r = mr_session_wait(s, deadline_ns);
    if (r < 0)
        return fail_portal(d, r, "request for its targets", err);
    return s->status == SCSI_STATUS_GOOD ? 0 : fail_login(d, "the list of targets", err);
}

/* --- a target's LUNs --- */

static struct scsi_task *send_report_luns(struct mr_session *s, const void *arg)
{
    (void)arg;
    return iscsi_reportluns_task(s->iscsi, 0, 8 + 8 * (MR_LISTED_LUNS_MAX + 1),
                                 mr_session_answer, s);
}

static struct scsi_task *send_inquiry(struct mr_session *s, const void *arg)
{
    (void)arg;
    return iscsi_inquiry_task(s->iscsi, s->lun, 0, 0, INQUIRY_BYTES, mr_session_answer,
                              s);
}

/* 1 when it is a disk, 0 when it is none; else the session is of no more use. */
static int look_at(const struct mr_asker *a, struct json_object *json, struct mr_err *err)
{
    const struct mr_question question = {.name = "INQUIRY", .send = send_inquiry};
    char vendor[MR_INQUIRY_VENDOR];
    char product[MR_INQUIRY_PRODUCT];
    unsigned qualifier = 0;
    unsigned type = 0;
    struct mr_reply reply;
    int r = mr_ask(a, &question, &reply, err);

    if (r < 0)
        return r;
    if (reply.answer.kind != MR_ANSWER_GOOD ||
        mr_parse_inquiry(reply.data, reply.len, &qualifier, &type) < 0 ||
        qualifier != SCSI_INQUIRY_PERIPHERAL_QUALIFIER_CONNECTED ||
        type != SCSI_INQUIRY_PERIPHERAL_DEVICE_TYPE_DIRECT_ACCESS)
        return 0;
    mr_parse_inquiry_names(reply.data, reply.len, vendor, product);
    mr_json_set_string(json, "vendor", vendor);
    mr_json_set_string(json, "product", product);
    return 1;
}

/* Nothing is mapped or mounted by a look. */
static struct json_object *error_json(struct mr_err *err)
{
    err->residue = MR_RESIDUE_NONE;
    return mr_err_to_json(err);
}

static void say_facts(struct json_object *json, const struct mr_lun_facts *facts)
{
    mr_json_set_int(json, "size_bytes", (int64_t)facts->size_bytes);
    mr_json_set_int(json, "block_size", facts->block_size);
    mr_json_set_string(json, "serial", facts->serial);
    mr_json_set_string(json, "wwn", facts->wwn);
    mr_json_set_bool(json, "thin", facts->thin);
    mr_json_set_bool(json, "write_protected", facts->write_protected);
}

/* 0, or a negative errno when the session is of no more use. */
static int add_lun(const struct mr_asker *a, struct json_object *luns, struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *json = json_object_new_object();
    struct mr_lun_facts facts;
    struct mr_err why = {0};

    mr_json_set_int(json, "lun", a->s->lun);
    int r = look_at(a, json, err);
    if (r <= 0)
        return r;
    r = mr_lun_identify(a->s, a->target, a->deadline_ns, &facts, &why);
    if (r == 0)
        say_facts(json, &facts);
    else
        mr_json_set(json, "error", error_json(&why));
    (void)json_object_array_add(luns, mr_take_ptr(json));
    /* A LUN that refuses to be identified is its own matter; a session that is lost is
     * that of all. */
    bool lost =
        why.errnum == ETIMEDOUT || why.errnum == ECONNRESET || why.errnum == ECANCELED;
    if (r < 0 && lost && err)
        *err = why;
    return lost ? r : 0;
}

static int list_luns(const struct mr_asker *a, struct json_object *target,
                     struct mr_err *err)
{
    const struct mr_question question = {.name = "REPORT LUNS", .send = send_report_luns};
    struct json_object *luns = json_object_new_array();
    uint16_t numbers[MR_LISTED_LUNS_MAX];
    struct mr_reply reply;
    bool cut = true;

    mr_json_set(target, "luns", luns);
    a->s->lun = 0;
    int r = mr_ask(a, &question, &reply, err);
    if (r < 0)
        return r;
    int count = reply.answer.kind == MR_ANSWER_GOOD
                    ? mr_parse_report_luns(reply.data, reply.len, numbers,
                                           MR_LISTED_LUNS_MAX, &cut)
                    : -EIO;
    if (count < 0)
        return mr_ask_failed(a, &reply, "REPORT LUNS", err);
    for (int i = 0; r == 0 && i < count; i++) {
        a->s->lun = numbers[i];
        r = add_lun(a, luns, err);
    }
    mr_json_set_bool(target, "complete", r == 0 && !cut);
    return r;
}

static struct json_object *describe(const struct mr_listed_target *target)
{
    struct json_object *json = json_object_new_object();
    struct json_object *portals = json_object_new_array();

    mr_json_set_string(json, "name", target->name);
    for (size_t i = 0; i < target->portal_count; i++)
        (void)json_object_array_add(portals, json_object_new_string(target->portals[i]));
    mr_json_set(json, "portals", portals);
    mr_json_set_bool(json, "complete", false);
    mr_json_set(json, "luns", json_object_new_array());
    return json;
}

/* Whatever goes wrong is said of this target. */
static void look_into(struct discovery *d, const struct mr_listed_target *listed,
                      int64_t deadline_ns, struct json_object *json)
{
    struct mr_asker asker = {&d->session, listed->name, deadline_ns};
    struct mr_err err = {0};
    int r = random_token(&d->start, &err);

    memcpy(d->start.target, listed->name, sizeof(d->start.target));
    if (r == 0)
        r = mr_session_open(&d->session, &d->start, MR_LUN_CHANNEL_FD, deadline_ns, &err);
    if (r == 0) {
        r = list_luns(&asker, json, &err);
        if (r == 0)
            mr_session_leave(&d->session, deadline_ns);
        else
            mr_session_close(&d->session);
    }
    if (r < 0)
        mr_json_set(json, "error", error_json(&err));
}

/* --- the mode --- */

static int decode(struct json_object *request, struct mr_lun_start *start,
                  struct mr_err *err)
{
    start->portal_count = 1;
    start->timeout_ms = mr_json_get_int(request, "deadline_ms", 0);
    mr_json_copy_string(request, "portal", start->portals[0], sizeof(start->portals[0]));
    mr_json_copy_string(request, "initiator_name", start->initiator_name,
                        sizeof(start->initiator_name));
    if (!start->portals[0][0] || !start->initiator_name[0])
        return mr_fail(err, MR_E_INVALID_REQUEST, EINVAL,
                       "request: bad 'portal' or 'initiator_name'");
    return random_token(start, err);
}

/* When a target has had its share of the time that is left; 0: there is none left. */
static int64_t share(int64_t deadline_ns, size_t left)
{
    int64_t now = mr_now_ns();
    int64_t part = (deadline_ns - now) / (int64_t)left;

    if (now >= deadline_ns)
        return 0;
    if (part < SHARE_MIN_NS)
        part = SHARE_MIN_NS;
    return now + part < deadline_ns ? now + part : deadline_ns;
}

/* Those that no time is left for are named only. */
static bool look_into_all(struct discovery *d, int64_t deadline_ns,
                          struct json_object *targets)
{
    const size_t count = d->list.count;
    bool complete = !d->list.cut;
    size_t bytes = 0;

    for (size_t i = 0; i < count; i++) {
        const struct mr_listed_target *listed = &d->list.targets[i];
        int64_t until_ns = share(deadline_ns, count - i);
        if (bytes >= ANSWER_BYTES)
            return false;
        struct json_object *json = describe(listed);
        if (until_ns > 0)
            look_into(d, listed, until_ns, json);
        complete = complete && until_ns > 0;
        bytes += strlen(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN));
        (void)json_object_array_add(targets, json);
    }
    return complete;
}

int mr_discover(struct json_object *request, int64_t deadline_ns,
                struct json_object *answer, int *ret_fd, struct mr_err *err)
{
    static struct discovery d; /* too large for a stack frame */
    struct json_object *targets = json_object_new_array();

    (void)ret_fd;
    mr_json_set(answer, "targets", targets);
    d.session.watch_fd = MR_LUN_CHANNEL_FD;
    int r = decode(request, &d.start, err);
    if (r == 0)
        r = find_portal(&d, deadline_ns, err);
    if (r == 0)
        r = list_targets(&d, deadline_ns, err);
    if (r < 0) {
        mr_session_close(&d.session);
        return r;
    }
    mr_session_leave(&d.session, deadline_ns);
    memcpy(d.start.portals[0], d.session.portal, sizeof(d.session.portal));
    mr_json_set_bool(answer, "complete", look_into_all(&d, deadline_ns, targets));
    return 0;
}
