/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/session.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "storage/base/clock.h"
#include "storage/lun/sense.h"

#define NOP_IDLE_NS (5 * MR_NS_PER_S)
#define POLL_SLICE_MS 100
#define LEAVE_NS (500 * MR_NS_PER_MS)
#define DRAIN_MAX 64 /* PDUs that may have come in one idle interval, far too many */

/* The library's words must be taken here: its next lines overwrite them. */
static void keep_reason(struct mr_session *s, const char *text)
{
    static const char noise[] = "iscsi_service: ";

    if (strncmp(text, noise, sizeof(noise) - 1) == 0)
        text += sizeof(noise) - 1;
    (void)snprintf(s->why, sizeof(s->why), "%.*s", (int)strcspn(text, "\n"), text);
}

/* A conflict of reservations is the caller's to see; an attention is told only once, to
 * whoever asks next. */
static void take_attention(struct mr_session *s, const struct scsi_task *task)
{
    const unsigned attention =
        mr_answer_attention(SCSI_STATUS_CHECK_CONDITION, (unsigned)task->sense.key,
                            (unsigned)task->sense.ascq);

    s->attention |= attention;
    s->resets += (attention & MR_ATTENTION_RESET) != 0;
}

void mr_session_answer(struct iscsi_context *iscsi, int status, void *command_data,
                       void *private_data)
{
    struct mr_session *s = private_data;

    scsi_free_scsi_task(s->task);
    s->task = command_data;
    if (s->task && status == SCSI_STATUS_CHECK_CONDITION)
        take_attention(s, s->task);
    s->status = status;
    s->answered = true;
    if (status != SCSI_STATUS_GOOD)
        keep_reason(s, iscsi_get_error(iscsi));
}

int mr_session_fd(const struct mr_session *s)
{
    return s->iscsi ? iscsi_get_fd(s->iscsi) : -1;
}

short mr_session_events(const struct mr_session *s)
{
    short events;

    if (!s->iscsi || s->lost)
        return 0;
    events = (short)iscsi_which_events(s->iscsi);
    if (s->up && !s->busy && !s->waiting)
        events = (short)((events & ~POLLIN) | POLLRDHUP);
    return events;
}

bool mr_session_sent_all(const struct mr_session *s)
{
    return !s->iscsi || (!(iscsi_which_events(s->iscsi) & POLLOUT) &&
                         iscsi_out_queue_length(s->iscsi) == 0);
}

void mr_session_lose(struct mr_session *s, const char *fmt, ...)
{
    va_list ap;

    if (s->lost)
        return;
    s->lost = true;
    va_start(ap, fmt);
    (void)vsnprintf(s->down_reason, sizeof(s->down_reason), fmt, ap);
    va_end(ap);
}

/* libiscsi gives up a lost session in three ways: an error, a quiet deferral of the
 * reconnect that it is forbidden to make (which ends the login), and cancelled commands.
 */
void mr_session_service(struct mr_session *s, short revents, int64_t now_ns)
{
    if (!s->iscsi || s->lost)
        return;
    /* It drops the connection on a hang-up without reading what came before it. */
    if (revents & (POLLIN | POLLRDHUP))
        revents = (short)((revents | POLLIN) & ~(POLLHUP | POLLERR | POLLRDHUP));
    if (revents & POLLIN)
        s->last_rx_ns = now_ns;
    if (iscsi_service(s->iscsi, revents) < 0)
        mr_session_lose(s, "the connection was lost");
    else if (s->up && !iscsi_is_logged_in(s->iscsi))
        mr_session_lose(s, "the target ended the session");
}

void mr_session_flush(struct mr_session *s, int64_t now_ns)
{
    if (s->iscsi && !s->lost && (iscsi_which_events(s->iscsi) & POLLOUT))
        mr_session_service(s, POLLOUT, now_ns);
}

static int to_ms(int64_t ns)
{
    return (int)((ns + MR_NS_PER_MS - 1) / MR_NS_PER_MS);
}

/* A turn of a session that has no loop around it. */
static int poll_turn(struct mr_session *s, int64_t until_ns)
{
    int64_t left = until_ns - mr_now_ns();
    struct pollfd fds[2] = {
        {.fd = mr_session_fd(s), .events = mr_session_events(s)},
        {.fd = s->watch_fd, .events = POLLIN},
    };
    int n;

    if (left > POLL_SLICE_MS * MR_NS_PER_MS)
        left = POLL_SLICE_MS * MR_NS_PER_MS;
    n = poll(fds, 2, left > 0 ? to_ms(left) : 0);
    if (n < 0 && errno != EINTR)
        return -errno;
    if (n <= 0)
        return 0;
    if (fds[1].revents)
        return -ECANCELED;
    mr_session_service(s, fds[0].revents, mr_now_ns());
    return 0;
}

int mr_session_wait(struct mr_session *s, int64_t deadline_ns)
{
    int r = 0;

    s->waiting = true;
    while (r == 0 && !s->answered) {
        if (s->lost)
            r = -ECONNRESET;
        else if (mr_now_ns() >= deadline_ns)
            r = -ETIMEDOUT;
        else
            r = s->turn ? s->turn(s->turn_ctx, deadline_ns) : poll_turn(s, deadline_ns);
    }
    s->waiting = false;
    return s->answered ? 0 : r;
}

int mr_session_pause(struct mr_session *s, int64_t ns)
{
    int r;

    s->answered = false;
    r = mr_session_wait(s, mr_now_ns() + ns);
    return r == -ETIMEDOUT ? 0 : r;
}

/* What it answers makes no difference: a target that has no such function is held to
 * what it promises for a session that takes the place of another. */
static void reset_answered(struct iscsi_context *iscsi, int status, void *command_data,
                           void *private_data)
{
    (void)command_data; /* not a task */
    mr_session_answer(iscsi, status, NULL, private_data);
}

int mr_session_reset_lun(struct mr_session *s, int64_t deadline_ns)
{
    s->answered = false;
    if (!s->iscsi || s->lost ||
        iscsi_task_mgmt_lun_reset_async(s->iscsi, (uint32_t)s->lun, reset_answered, s) !=
            0)
        return -ECONNRESET;
    return mr_session_wait(s, deadline_ns);
}

static void nop_answered(struct iscsi_context *iscsi, int status, void *command_data,
                         void *private_data)
{
    struct mr_session *s = private_data;

    (void)iscsi;
    (void)status;
    (void)command_data;
    s->nop_sent_ns = 0;
}

/* Reads what came while nobody waited for it: the answer to a NOP-Out, or the target's
 * own. When that was is not known: the time of our question is the safe guess. */
static void drain(struct mr_session *s, int64_t now_ns)
{
    int64_t asked_ns = s->nop_sent_ns > s->last_rx_ns ? s->nop_sent_ns : s->last_rx_ns;

    for (int i = 0; i < DRAIN_MAX && !s->lost; i++) {
        struct pollfd fd = {.fd = mr_session_fd(s), .events = POLLIN};

        if (poll(&fd, 1, 0) <= 0)
            break;
        mr_session_service(s, fd.revents, now_ns);
        s->last_rx_ns = asked_ns;
    }
}

static void ping(struct mr_session *s, int64_t now_ns)
{
    s->nop_sent_ns = now_ns;
    if (iscsi_nop_out_async(s->iscsi, nop_answered, NULL, 0, s) < 0)
        mr_session_lose(s, "no ping: %s", iscsi_get_error(s->iscsi));
}

int64_t mr_session_check(struct mr_session *s, int64_t oldest_ns, int64_t now_ns)
{
    int64_t idle = s->timeout_ns / 2 < NOP_IDLE_NS ? s->timeout_ns / 2 : NOP_IDLE_NS;
    int64_t quiet_ns = s->nop_sent_ns ? s->nop_sent_ns : s->last_rx_ns;
    int64_t asked_ns = oldest_ns;
    int64_t dead_ns;

    if (s->lost && s->iscsi)
        return now_ns; /* somebody has to tear it down */
    if (!s->up)
        return INT64_MAX;
    if (!s->busy && now_ns - quiet_ns >= idle)
        drain(s, now_ns);
    if (!s->lost && s->nop_sent_ns == 0 && now_ns - s->last_rx_ns >= idle)
        ping(s, now_ns);
    mr_session_flush(s, now_ns);
    if (s->lost)
        return now_ns;
    s->busy = oldest_ns || (s->nop_sent_ns && now_ns - s->nop_sent_ns >= idle);
    if (s->nop_sent_ns && (!asked_ns || s->nop_sent_ns < asked_ns))
        asked_ns = s->nop_sent_ns;
    if (!asked_ns)
        return s->last_rx_ns + idle;
    dead_ns = (asked_ns > s->last_rx_ns ? asked_ns : s->last_rx_ns) + s->timeout_ns;
    if (now_ns >= dead_ns)
        mr_session_lose(s, "the target was silent for %lld ms",
                        (long long)(s->timeout_ns / MR_NS_PER_MS));
    if (!s->busy && s->nop_sent_ns + idle < dead_ns)
        return s->nop_sent_ns + idle;
    if (s->nop_sent_ns == 0 && s->last_rx_ns + idle < dead_ns)
        return s->last_rx_ns + idle;
    return dead_ns;
}

void mr_session_set_timeout(struct mr_session *s, int64_t timeout_ms)
{
    unsigned ms = (unsigned)timeout_ms;

    s->timeout_ns = timeout_ms * MR_NS_PER_MS;
    if (s->iscsi)
        (void)setsockopt(mr_session_fd(s), IPPROTO_TCP, TCP_USER_TIMEOUT, &ms,
                         sizeof(ms));
}

bool mr_session_logout(struct mr_session *s, int64_t deadline_ns)
{
    if (!s->up || s->lost)
        return false;
    s->answered = false;
    s->watch_fd = -1;
    s->up = false; /* what ends the session now is no loss */
    if (iscsi_logout_async(s->iscsi, mr_session_answer, s) != 0)
        return false;
    return mr_session_wait(s, deadline_ns) == 0 && s->status == SCSI_STATUS_GOOD;
}

void mr_session_leave(struct mr_session *s, int64_t deadline_ns)
{
    const int64_t enough_ns = mr_now_ns() + LEAVE_NS;

    (void)mr_session_logout(s, enough_ns < deadline_ns ? enough_ns : deadline_ns);
    mr_session_close(s);
}

void mr_session_close(struct mr_session *s)
{
    if (s->iscsi)
        (void)iscsi_destroy_context(s->iscsi);
    s->iscsi = NULL;
    s->up = false;
    s->busy = false;
    s->nop_sent_ns = 0;
    scsi_free_scsi_task(s->task);
    s->task = NULL;
    scsi_free_scsi_task(s->spent);
    s->spent = NULL;
}
