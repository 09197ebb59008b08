/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/session.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/clock.h"

#define NOP_IDLE_NS (5 * MR_NS_PER_S)
#define POLL_SLICE_MS 100

/* The library's words must be taken here: its next lines overwrite them. */
static void keep_reason(struct mr_session *s, const char *text)
{
    static const char noise[] = "iscsi_service: ";

    if (strncmp(text, noise, sizeof(noise) - 1) == 0)
        text += sizeof(noise) - 1;
    (void)snprintf(s->why, sizeof(s->why), "%.*s", (int)strcspn(text, "\n"), text);
}

void mr_session_answer(struct iscsi_context *iscsi, int status, void *command_data,
                       void *private_data)
{
    struct mr_session *s = private_data;

    scsi_free_scsi_task(s->task);
    s->task = command_data;
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
    return s->iscsi ? (short)iscsi_which_events(s->iscsi) : 0;
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

/* One call of the library. It gives up a lost session in three ways: an error, a quiet
 * deferral of the reconnect that it is forbidden to make (which ends the login), and
 * cancelled commands. */
static int service_once(struct mr_session *s, short revents)
{
    /* libiscsi drops the connection on a hang-up without reading what came before it. */
    if (revents & POLLIN)
        revents = (short)(revents & ~(POLLHUP | POLLERR));
    return iscsi_service(s->iscsi, revents);
}

void mr_session_service(struct mr_session *s, short revents, int64_t now_ns)
{
    if (!s->iscsi || s->lost)
        return;
    if (revents & POLLIN)
        s->last_rx_ns = now_ns;
    if (service_once(s, revents) < 0)
        mr_session_lose(s, "the connection was lost");
    else if (!iscsi_is_logged_in(s->iscsi))
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

int mr_session_wait(struct mr_session *s, int64_t deadline_ns)
{
    while (!s->answered) {
        int64_t left = deadline_ns - mr_now_ns();
        struct pollfd fds[2] = {
            {.fd = mr_session_fd(s), .events = mr_session_events(s)},
            {.fd = s->watch_fd, .events = POLLIN},
        };
        int n;

        if (left <= 0)
            return -ETIMEDOUT;
        n = poll(fds, 2,
                 to_ms(left < POLL_SLICE_MS * MR_NS_PER_MS
                           ? left
                           : POLL_SLICE_MS * MR_NS_PER_MS));
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n <= 0)
            continue;
        if (fds[1].revents)
            return -ECANCELED;
        if (fds[0].revents & POLLIN)
            s->last_rx_ns = mr_now_ns();
        if (service_once(s, fds[0].revents) < 0 && !s->answered)
            return -ECONNRESET;
    }
    return 0;
}

int mr_session_pause(struct mr_session *s, int64_t ns)
{
    int r;

    s->answered = false;
    r = mr_session_wait(s, mr_now_ns() + ns);
    return r == -ETIMEDOUT ? 0 : r;
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

int64_t mr_session_check(struct mr_session *s, int64_t oldest_ns, int64_t now_ns)
{
    int64_t idle = s->timeout_ns / 2 < NOP_IDLE_NS ? s->timeout_ns / 2 : NOP_IDLE_NS;
    int64_t asked_ns;
    int64_t dead_ns;

    if (!s->iscsi || s->lost)
        return INT64_MAX;
    if (s->nop_sent_ns == 0 && now_ns - s->last_rx_ns >= idle) {
        s->nop_sent_ns = now_ns;
        if (iscsi_nop_out_async(s->iscsi, nop_answered, NULL, 0, s) < 0)
            mr_session_lose(s, "no ping: %s", iscsi_get_error(s->iscsi));
        mr_session_flush(s, now_ns);
    }
    asked_ns = oldest_ns;
    if (s->nop_sent_ns && (!asked_ns || s->nop_sent_ns < asked_ns))
        asked_ns = s->nop_sent_ns;
    if (!asked_ns)
        return s->last_rx_ns + idle;
    dead_ns = (asked_ns > s->last_rx_ns ? asked_ns : s->last_rx_ns) + s->timeout_ns;
    if (now_ns >= dead_ns)
        mr_session_lose(s, "the target was silent for %lld ms",
                        (long long)(s->timeout_ns / MR_NS_PER_MS));
    if (s->nop_sent_ns == 0 && s->last_rx_ns + idle < dead_ns)
        return s->last_rx_ns + idle;
    return dead_ns;
}

bool mr_session_logout(struct mr_session *s, int64_t deadline_ns)
{
    if (!s->iscsi || s->lost)
        return false;
    s->answered = false;
    s->watch_fd = -1;
    if (iscsi_logout_async(s->iscsi, mr_session_answer, s) != 0)
        return false;
    return mr_session_wait(s, deadline_ns) == 0 && s->status == SCSI_STATUS_GOOD;
}

void mr_session_close(struct mr_session *s)
{
    if (s->iscsi)
        (void)iscsi_destroy_context(s->iscsi);
    s->iscsi = NULL;
    s->nop_sent_ns = 0;
    scsi_free_scsi_task(s->task);
    s->task = NULL;
}
