/* SPDX-License-Identifier: Apache-2.0
 *
 * mr_session_open(): which portal, which failure. */
#include "storage/lun/session.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "storage/base/clock.h"
#include "storage/lun/sense.h"

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

/* The target answered the login with a no. */
static int fail_login(const struct mr_session *s, const struct mr_lun_start *start,
                      struct mr_err *err)
{
    const char *text = s->why;
    unsigned login = mr_login_status(text);
    int r;

    if (s->status == SCSI_STATUS_REDIRECT)
        return mr_fail(err, MR_E_DEVICE_ERROR, 0,
                       "portal %s redirects target '%s' to %s: name that portal instead",
                       s->portal, start->target, iscsi_get_target_address(s->iscsi));
    if (login == MR_LOGIN_AUTHENTICATION || login == MR_LOGIN_AUTHORIZATION ||
        (login == 0 && strstr(text, "CHAP"))) {
        r = mr_fail(err, MR_E_CHAP_REFUSED, EACCES,
                    "portal %s, target '%s' refused the login of '%s'%s", s->portal,
                    start->target, start->initiator_name,
                    start->chap ? "" : ", which came without CHAP credentials");
        return mr_err_remedy(err, r,
                             "check chap.username and chap.password, and that the "
                             "target admits this initiator name");
    }
    if (login == MR_LOGIN_TARGET_NOT_FOUND) {
        r = mr_fail(err, MR_E_TARGET_NOT_FOUND, ENOENT,
                    "portal %s does not know target '%s'", s->portal, start->target);
        return mr_err_remedy(err, r,
                             "check the target's name, and that the target is "
                             "exported to '%s'",
                             start->initiator_name);
    }
    return mr_fail(err, MR_E_DEVICE_ERROR, 0, "portal %s, target '%s': %s", s->portal,
                   start->target, text);
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
    mr_lun_isid(start->token, &random, &qualifier);
    (void)iscsi_set_isid_random(s->iscsi, random, qualifier);
    iscsi_set_tcp_user_timeout(s->iscsi, (int)start->timeout_ms);
    if (start->chap &&
        iscsi_set_initiator_username_pwd(s->iscsi, start->username, start->password) != 0)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "iSCSI credentials");
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

static int login(struct mr_session *s, const struct mr_lun_start *start,
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
    return s->status == SCSI_STATUS_GOOD ? 0 : fail_login(s, start, err);
}

static int try_portal(struct mr_session *s, const struct mr_lun_start *start,
                      const char *portal, int64_t deadline_ns, struct mr_err *err)
{
    int r = mr_portal_resolve(portal, s->portal, err);

    if (r < 0)
        return r;
    r = create_context(s, start, err);
    if (r == 0)
        r = connect_portal(s, start, deadline_ns, err);
    if (r == 0)
        r = login(s, start, deadline_ns, err);
    if (r < 0)
        mr_session_close(s);
    return r;
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
