/* SPDX-License-Identifier: Apache-2.0
 *
 * One iSCSI session: connect, login, liveness, end. One libiscsi context is one session's
 * life; libiscsi reconnects nothing and times nothing out. When the session is lost it is
 * torn down once, every command still in it is called back or given up, and nothing is
 * sent any more. One thread; no call here but the waiting ones (open, wait, pause, reset,
 * logout) blocks, and in the server those go on with its loop meanwhile.
 *
 * The ISID is fixed by the attachment, and the login goes through the security stage also
 * without CHAP: a new session then takes the place of an old one that the target has not
 * missed yet (RFC 7143 section 6.3.5), so that nothing of the old one is carried out
 * behind our back. Some targets (tgtd) look for the old one in that stage only.
 */
#ifndef MR_STORAGE_LUN_SESSION_H
#define MR_STORAGE_LUN_SESSION_H

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/lun/portal.h"
#include "storage/lun/start.h"

struct mr_session {
    struct iscsi_context *iscsi; /* NULL: not connected, or torn down */
    int lun;
    int watch_fd; /* anything from it ends a wait; -1: none */
    /* The owner's loop, for waits: one turn, not past until_ns, in which it services this
     * session. 0, or negative to end the wait with that. NULL: waits poll by themselves.
     * Both are kept by mr_session_open(). */
    int (*turn)(void *ctx, int64_t until_ns);
    void *turn_ctx;
    char portal[MR_PORTAL_TEXT];
    int64_t timeout_ns;
    int64_t last_rx_ns;  /* when the target last sent something, at least */
    int64_t nop_sent_ns; /* an unanswered NOP-Out of ours; 0: none */
    bool plain_login;    /* this target gets on without the security stage only */
    bool up;             /* logged in */
    bool busy;           /* something is asked whose answer should not have to wait */
    bool lost;
    char down_reason[256]; /* why it was lost */
    /* The answer to the one command of a waiting caller. */
    bool waiting;
    bool answered;
    int status;              /* enum scsi_status */
    char why[128];           /* libiscsi's words for a status other than GOOD */
    struct scsi_task *task;  /* owned, or NULL */
    struct scsi_task *spent; /* the one before: see question.c */
    unsigned resets;         /* answers to callers that told of a reset (29/xx) */
    /* What unit attentions told in answers to callers, enum mr_attention. Who has read
     * anew what a bit is about clears it; the rest is for the session's owner. */
    unsigned attention;
};

/* Connects and logs in to the first portal that works, all before deadline_ns (shared out
 * among the portals); names are resolved. Refused credentials end it at once. Errors:
 * CHAP_REFUSED, TARGET_NOT_FOUND, PORTAL_UNREACHABLE, TARGET_TIMEOUT, DEVICE_ERROR;
 * -ECANCELED when watch_fd hung up. */
int mr_session_open(struct mr_session *s, const struct mr_lun_start *start, int watch_fd,
                    int64_t deadline_ns, struct mr_err *err);
/* The same for one portal in numeric form, nothing is resolved; for a session that is
 * closed. plain_login is kept from the last time. */
int mr_session_open_portal(struct mr_session *s, const struct mr_lun_start *start,
                           const char *portal, int64_t deadline_ns, struct mr_err *err);

/* The callback for mr_session_wait(). private_data is the session. */
void mr_session_answer(struct iscsi_context *iscsi, int status, void *command_data,
                       void *private_data);
/* Runs the session until mr_session_answer() was called. Returns 0, -ETIMEDOUT,
 * -ECONNRESET, -ECANCELED. After a failure the session can only be closed. */
int mr_session_wait(struct mr_session *s, int64_t deadline_ns);
/* Lets time pass, as a wait without an answer. 0 when it has passed. */
int mr_session_pause(struct mr_session *s, int64_t ns);

/* LOGICAL UNIT RESET: returns when every command of every session that was carried out
 * has ended (SAM-5 section 7.5). 0 also when the target knows no such function; an error
 * as mr_session_wait(). For a session without commands. */
int mr_session_reset_lun(struct mr_session *s, int64_t deadline_ns);

/* Loop side: poll(2) events for the fd, and what to do with them. Callbacks run inside of
 * service. As long as nothing is asked that is due, arriving data is no event: an idle
 * session costs one wake-up per interval of mr_session_check(). */
int mr_session_fd(const struct mr_session *s);
short mr_session_events(const struct mr_session *s);
void mr_session_service(struct mr_session *s, short revents, int64_t now_ns);
/* Sends what was queued, without waiting for poll. */
void mr_session_flush(struct mr_session *s, int64_t now_ns);
/* No queued or half-sent PDU is left that could refer to a command's memory. */
bool mr_session_sent_all(const struct mr_session *s);

/* Silence of the target: sends a NOP-Out after 5 s without a word (or half the timeout),
 * reads the answer to the last one when nothing else did, and marks the session lost when
 * the target said nothing for the timeout while something was asked since oldest_ns (0:
 * no command is out). From silence to loss it takes at most one interval more than the
 * timeout. Call before each poll. Returns when it wants to be called again. */
int64_t mr_session_check(struct mr_session *s, int64_t oldest_ns, int64_t now_ns);
/* Another limit for the target's silence, from now on. */
void mr_session_set_timeout(struct mr_session *s, int64_t timeout_ms);
/* Marks it lost; the first reason stays. */
void mr_session_lose(struct mr_session *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Logs out, bounded. True when the target said yes. */
bool mr_session_logout(struct mr_session *s, int64_t deadline_ns);
/* Closes; before that it logs out if there is time, for half a second but not past
 * deadline_ns. For sessions in which nothing can be lost. */
void mr_session_leave(struct mr_session *s, int64_t deadline_ns);
/* Tears the context down: commands still in it get their callback with
 * SCSI_STATUS_CANCELLED, but not all of them in all cases (libiscsi drops some on its
 * error paths). Never from a callback. */
void mr_session_close(struct mr_session *s);

#endif
