/* SPDX-License-Identifier: Apache-2.0
 *
 * One iSCSI session: connect, login, liveness, end. One libiscsi context is one session's
 * life; libiscsi reconnects nothing and times nothing out. When the session is lost it is
 * torn down once, every command still in it is called back or given up, and nothing is
 * sent any more. One thread; no call here but the waiting ones (open, wait, logout)
 * blocks.
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
    char portal[MR_PORTAL_TEXT];
    int64_t timeout_ns;
    int64_t last_rx_ns;  /* when the target last sent something */
    int64_t nop_sent_ns; /* an unanswered NOP-Out of ours; 0: none */
    bool lost;
    char down_reason[256]; /* why it was lost */
    /* The answer to the one command of a waiting caller. */
    bool answered;
    int status;             /* enum scsi_status */
    char why[128];          /* libiscsi's words for a status other than GOOD */
    struct scsi_task *task; /* owned, or NULL */
};

/* Connects and logs in to the first portal that works, all before deadline_ns (shared out
 * among the portals). Refused credentials end it at once. Errors: CHAP_REFUSED,
 * TARGET_NOT_FOUND, PORTAL_UNREACHABLE, TARGET_TIMEOUT, DEVICE_ERROR; -ECANCELED when
 * watch_fd hung up. */
int mr_session_open(struct mr_session *s, const struct mr_lun_start *start, int watch_fd,
                    int64_t deadline_ns, struct mr_err *err);

/* The callback for mr_session_wait(). private_data is the session. */
void mr_session_answer(struct iscsi_context *iscsi, int status, void *command_data,
                       void *private_data);
/* Runs the session until mr_session_answer() was called. Returns 0, -ETIMEDOUT,
 * -ECONNRESET, -ECANCELED. After a failure the session can only be closed. */
int mr_session_wait(struct mr_session *s, int64_t deadline_ns);
/* Lets time pass, as a wait without an answer. 0 when it has passed. */
int mr_session_pause(struct mr_session *s, int64_t ns);

/* Loop side: poll(2) events for the fd, and what to do with them. Callbacks run inside of
 * service. */
int mr_session_fd(const struct mr_session *s);
short mr_session_events(const struct mr_session *s);
void mr_session_service(struct mr_session *s, short revents, int64_t now_ns);
/* Sends what was queued, without waiting for poll. */
void mr_session_flush(struct mr_session *s, int64_t now_ns);
/* No queued or half-sent PDU is left that could refer to a command's memory. */
bool mr_session_sent_all(const struct mr_session *s);

/* Silence of the target: sends a NOP-Out when it is due and marks the session lost when
 * the target said nothing for the timeout while something was asked since oldest_ns (0:
 * no command is out). Returns when it wants to be called again. */
int64_t mr_session_check(struct mr_session *s, int64_t oldest_ns, int64_t now_ns);
/* Marks it lost; the first reason stays. */
void mr_session_lose(struct mr_session *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Logs out, bounded. True when the target said yes. */
bool mr_session_logout(struct mr_session *s, int64_t deadline_ns);
/* Tears the context down: commands still in it get their callback with
 * SCSI_STATUS_CANCELLED, but not all of them in all cases (libiscsi drops some on its
 * error paths). Never from a callback. */
void mr_session_close(struct mr_session *s);

#endif
