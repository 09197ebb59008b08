/* SPDX-License-Identifier: Apache-2.0
 *
 * mr_session_open(): which portal, which failure. */
#include "storage/lun/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/clock.h"
#include "storage/lun/login_text.h"
#include "storage/lun/sense.h"

#define SYN_RETRIES 3 /* 1 s, 2 s, 4 s apart; the deadline comes first */
/* RFC 7143 section 11.13.5 */
#define MR_LOGIN_INITIATOR_ERROR 0x0200
#define MR_LOGIN_INVALID_DURING 0x020b
#define MR_LOGIN_UNAVAILABLE 0x0301

static int fail_timeout(const struct mr_session *s, const struct mr_lun_start *start,
                        const char *what, struct mr_err *err)
{
    int r = mr_fail(err, MR_E_TARGET_TIMEOUT, ETIMEDOUT, "portal %s, target '%s': %s",
                    s->portal, start->target, what);

    return mr_err_remedy(err, r,
                         "check that the target answers and that no firewall drops "
                         "its packets");
}

static int fail_unreachable(const struct mr_session *s, const char *what,
                            struct mr_err *err)
{
    int r = mr_fail(err, MR_E_PORTAL_UNREACHABLE, 0, "portal %s: %s", s->portal, what);

    return mr_err_remedy(err, r, "check the portal's address and port, and the network");
}

static int fail_chap(const struct mr_session *s, const struct mr_lun_start *start,
                     struct mr_err *err)
{
    int r = mr_fail(err, MR_E_CHAP_REFUSED, EACCES,
                    "portal %s, target '%s' refused the login of '%s'%s", s->portal,
                    start->target, start->initiator_name,
                    start->chap ? "" : ", which came without CHAP credentials");

    return mr_err_remedy(err, r,
                         start->mutual ? "check chap.username and chap.password, that "
                                         "the target admits this initiator name, and "
                                         "that it has mutual credentials at all"
                                       : "check chap.username and chap.password, and "
                                         "that the target admits this initiator name");
}

static int fail_proof(const struct mr_session *s, const struct mr_lun_start *start,
                      struct mr_err *err)
{
    int r = mr_fail(err, MR_E_CHAP_REFUSED, EACCES,
                    "portal %s, target '%s' failed to prove itself: mutual CHAP",
                    s->portal, start->target);

    return mr_err_remedy(err, r,
                         "check chap.mutual.username and chap.mutual.password; if they "
                         "are right, something else answers as this target");
}

static int fail_not_found(const struct mr_session *s, const struct mr_lun_start *start,
                          struct mr_err *err)
{
    int r = mr_fail(err, MR_E_TARGET_NOT_FOUND, ENOENT,
                    "portal %s does not know target '%s'", s->portal, start->target);

    return mr_err_remedy(err, r,
                         "check the target's name, and that the target is exported to "
                         "'%s'",
                         start->initiator_name);
}

static int fail_digest(const struct mr_session *s, const struct mr_lun_start *start,
                       struct mr_err *err)
{
    int r = mr_fail(err, MR_E_DEVICE_ERROR, EPROTONOSUPPORT,
                    "portal %s, target '%s' does not agree to header digests", s->portal,
                    start->target);

    return mr_err_remedy(err, r,
                         "switch CRC32C header digests on at the target, or ask "
                         "for none");
}

/* For a while or for ever: LIO says the same of a name that it does not know
 * (drivers/target/iscsi/iscsi_target_nego.c, iscsi_target_locate_portal()). */
static int fail_unavailable(const struct mr_session *s, const struct mr_lun_start *start,
                            struct mr_err *err)
{
    int r = mr_fail(err, MR_E_DEVICE_ERROR, 0,
                    "portal %s does not serve target '%s' (service unavailable)",
                    s->portal, start->target);

    return mr_err_remedy(
        err, r, "check the target's name, and that it is enabled at this portal");
}

/* The target answered the login with a no. */
static int fail_login(const struct mr_session *s, const struct mr_lun_start *start,
                      struct mr_err *err)
{
    unsigned login = mr_login_status(s->why);

    if (s->status == SCSI_STATUS_REDIRECT)
        return mr_fail(err, MR_E_DEVICE_ERROR, 0,
                       "portal %s redirects target '%s' to %s: name that portal instead",
                       s->portal, start->target, iscsi_get_target_address(s->iscsi));
    if (mr_login_proof_failed(s->why))
        return fail_proof(s, start, err);
    if (login == MR_LOGIN_AUTHENTICATION || login == MR_LOGIN_AUTHORIZATION ||
        (login == 0 && strstr(s->why, "CHAP")))
        return fail_chap(s, start, err);
    if (login == MR_LOGIN_TARGET_NOT_FOUND)
        return fail_not_found(s, start, err);
    if (login == MR_LOGIN_UNAVAILABLE)
        return fail_unavailable(s, start, err);
    if (login == MR_LOGIN_INITIATOR_ERROR && start->header_digest)
        return fail_digest(s, start, err);
    return mr_fail(err, MR_E_DEVICE_ERROR, 0, "portal %s, target '%s': %s", s->portal,
                   start->target, s->why);
}

/* libiscsi's log function has no context argument: whose login it is that talks. */
static struct mr_session *listening;
static struct mr_login_answers heard;

static void take_line(int level, const char *line)
{
    (void)level;
    mr_login_take_line(&heard, line);
    /* Credentials that we do not have cannot be sent: the login stops here. */
    if (listening && heard.wants_chap && !listening->answered) {
        listening->status = SCSI_STATUS_ERROR;
        listening->answered = true;
    }
}

static void listen_to(struct mr_session *s, bool chap)
{
    heard = (struct mr_login_answers){0};
    listening = chap ? NULL : s;
    iscsi_set_log_fn(s->iscsi, take_line);
    iscsi_set_log_level(s->iscsi, 6);
}

static int set_credentials(struct mr_session *s, const struct mr_lun_start *start)
{
    int r = 0;

    if (start->chap)
        r = iscsi_set_initiator_username_pwd(s->iscsi, start->username, start->password);
    else if (!s->plain_login)
        /* libiscsi offers "CHAP,None" when there is a name: see take_line(). */
        r = iscsi_set_initiator_username_pwd(s->iscsi, "none", "none");
    if (r == 0 && start->mutual)
        r = iscsi_set_target_username_pwd(s->iscsi, start->mutual_username,
                                          start->mutual_password);
    return r;
}

static int create_context(struct mr_session *s, const struct mr_lun_start *start,
                          struct mr_err *err)
{
    uint32_t random;
    uint32_t qualifier;

    s->iscsi = iscsi_create_context(start->initiator_name);
    if (!s->iscsi)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "iSCSI context");
    iscsi_set_noautoreconnect(s->iscsi, 1);
    (void)iscsi_set_session_type(s->iscsi, ISCSI_SESSION_NORMAL);
    (void)iscsi_set_targetname(s->iscsi, start->target);
    mr_lun_isid(start->isid, &random, &qualifier);
    (void)iscsi_set_isid_random(s->iscsi, random, qualifier);
    iscsi_set_tcp_user_timeout(s->iscsi, (int)(s->timeout_ns / MR_NS_PER_MS));
    iscsi_set_tcp_syncnt(s->iscsi, SYN_RETRIES);
    (void)iscsi_set_header_digest(s->iscsi, start->header_digest
                                                ? ISCSI_HEADER_DIGEST_CRC32C
                                                : ISCSI_HEADER_DIGEST_NONE);
    if (set_credentials(s, start) != 0)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "iSCSI credentials");
    listen_to(s, start->chap);
    return 0;
}

static int connect_portal(struct mr_session *s, const struct mr_lun_start *start,
                          int64_t deadline_ns, struct mr_err *err)
{
    int r;

    s->answered = false;
    if (iscsi_connect_async(s->iscsi, s->portal, mr_session_answer, s) != 0)
        return fail_unreachable(s, iscsi_get_error(s->iscsi), err);
    (void)fcntl(mr_session_fd(s), F_SETFD, FD_CLOEXEC);
    r = mr_session_wait(s, deadline_ns);
    if (r == -ETIMEDOUT)
        return fail_timeout(s, start, "no answer to the connection request", err);
    if (r == -ECANCELED)
        return mr_fail(err, MR_E_INTERNAL, ECANCELED, "connect");
    if (r < 0)
        return fail_unreachable(s, "connection lost", err);
    if (s->status != SCSI_STATUS_GOOD)
        return fail_unreachable(s, s->why, err);
    return 0;
}

/* The target said yes; did it also do what it was asked for? libiscsi lets a digest drop
 * silently, and a target that leaves the security stage on its own skip its proof. */
static int check_answers(const struct mr_session *s, const struct mr_lun_start *start,
                         struct mr_err *err)
{
    if (start->mutual && !heard.proof)
        return fail_proof(s, start, err);
    return start->header_digest && !heard.header_digest ? fail_digest(s, start, err) : 0;
}

static int log_in(struct mr_session *s, const struct mr_lun_start *start,
                  int64_t deadline_ns, struct mr_err *err)
{
    int r;

    s->answered = false;
    if (iscsi_login_async(s->iscsi, mr_session_answer, s) != 0)
        return mr_fail(err, MR_E_INTERNAL, 0, "login: %s", iscsi_get_error(s->iscsi));
    r = mr_session_wait(s, deadline_ns);
    if (r == -ETIMEDOUT)
        return fail_timeout(s, start, "connected, but no answer to the login", err);
    if (r == -ECANCELED)
        return mr_fail(err, MR_E_INTERNAL, ECANCELED, "login");
    if (r < 0)
        return fail_unreachable(s, "it closed the connection during the login", err);
    if (s->status != SCSI_STATUS_GOOD)
        return fail_login(s, start, err);
    return check_answers(s, start, err);
}

/* A target may ask for CHAP because it was offered, or not like the keys that libiscsi
 * repeats behind the security stage. */
static bool stage_is_in_the_way(const struct mr_session *s,
                                const struct mr_lun_start *start)
{
    unsigned login = mr_login_status(s->why);

    return !start->chap && !s->plain_login && s->answered &&
           (heard.wants_chap || login == MR_LOGIN_INITIATOR_ERROR ||
            login == MR_LOGIN_INVALID_DURING);
}

static int try_once(struct mr_session *s, const struct mr_lun_start *start,
                    int64_t deadline_ns, struct mr_err *err)
{
    int r;

    s->lost = false;
    s->why[0] = '\0';
    s->nop_sent_ns = 0;
    s->resets = 0;
    s->attention = 0;
    r = create_context(s, start, err);
    if (r == 0)
        r = connect_portal(s, start, deadline_ns, err);
    if (r == 0)
        r = log_in(s, start, deadline_ns, err);
    listening = NULL;
    if (s->iscsi)
        iscsi_set_log_level(s->iscsi, 0);
    if (r < 0)
        mr_session_close(s);
    return r;
}

int mr_session_open_portal(struct mr_session *s, const struct mr_lun_start *start,
                           const char *portal, int64_t deadline_ns, struct mr_err *err)
{
    int r;

    (void)snprintf(s->portal, sizeof(s->portal), "%s", portal);
    r = try_once(s, start, deadline_ns, err);
    if (r < 0 && stage_is_in_the_way(s, start)) {
        s->plain_login = true;
        r = try_once(s, start, deadline_ns, err);
    }
    if (r < 0)
        return r;
    s->last_rx_ns = mr_now_ns();
    s->up = true;
    return 0;
}

static int try_portal(struct mr_session *s, const struct mr_lun_start *start,
                      const char *portal, int64_t deadline_ns, struct mr_err *err)
{
    char numeric[MR_PORTAL_TEXT];
    int r = mr_portal_resolve(portal, numeric, err);

    return r < 0 ? r : mr_session_open_portal(s, start, numeric, deadline_ns, err);
}

/* Of several portals' failures the one that says most is reported. */
static int weight(enum mr_code code)
{
    if (code == MR_E_PORTAL_UNREACHABLE)
        return 1;
    return code == MR_E_TARGET_TIMEOUT ? 2 : 3;
}

int mr_session_open(struct mr_session *s, const struct mr_lun_start *start, int watch_fd,
                    int64_t deadline_ns, struct mr_err *err)
{
    int result = -EINVAL;
    int best = 0;

    *s = (struct mr_session){
        .lun = start->lun,
        .watch_fd = watch_fd,
        .turn = s->turn,
        .turn_ctx = s->turn_ctx,
        .timeout_ns = start->timeout_ms * MR_NS_PER_MS,
    };
    for (size_t i = 0; i < start->portal_count; i++) {
        int64_t now = mr_now_ns();
        int64_t share = (deadline_ns - now) / (int64_t)(start->portal_count - i);
        struct mr_err why = {0};
        int r = try_portal(s, start, start->portals[i], now + share, &why);

        if (r == 0)
            return 0;
        if (weight(why.code) > best) {
            best = weight(why.code);
            result = r;
            if (err)
                *err = why;
        }
        /* More tries with wrong credentials may lock the account. */
        if (r == -ECANCELED || why.code == MR_E_CHAP_REFUSED)
            return result;
    }
    return result;
}
