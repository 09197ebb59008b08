/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/oneshot.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/json.h"
#include "storage/base/log.h"
#include "storage/base/msg.h"
#include "storage/lun/process.h"
#include "storage/lun/start.h"

#define REQUEST_MS 10000
#define OVERTIME_MS 500 /* for the answer, on top of the deadline */

/* sysexits(3) */
#define EXIT_USAGE 64
#define EXIT_SYSTEM 71

static int receive(struct json_object **ret, struct mr_err *err)
{
    struct pollfd channel = {.fd = MR_LUN_CHANNEL_FD, .events = POLLIN};

    if (poll(&channel, 1, REQUEST_MS) <= 0 ||
        mr_msg_recv(MR_LUN_CHANNEL_FD, ret, NULL, MSG_DONTWAIT, err) <= 0)
        return mr_fail(err, MR_E_INVALID_REQUEST, EINVAL, "no request at fd %d",
                       MR_LUN_CHANNEL_FD);
    return 0;
}

/* SIGALRM is left to its default: a name server that does not answer cannot be asked to
 * stop. */
static int limit(struct json_object *request, int64_t *ret_deadline_ns,
                 struct mr_err *err)
{
    int64_t ms = mr_json_get_int(request, "deadline_ms", 0);
    struct itimerval timer = {
        .it_value = {.tv_sec = (ms + OVERTIME_MS) / 1000,
                     .tv_usec = (ms + OVERTIME_MS) % 1000 * 1000},
    };

    if (ms < MR_ONESHOT_MIN_MS || ms > MR_ONESHOT_MAX_MS)
        return mr_fail(err, MR_E_INVALID_REQUEST, ERANGE, "request: bad 'deadline_ms'");
    *ret_deadline_ns = mr_now_ns() + ms * MR_NS_PER_MS;
    if (setitimer(ITIMER_REAL, &timer, NULL) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "timer");
    return 0;
}

int mr_oneshot_main(mr_oneshot_fn fn)
{
    MR_AUTO_JSON struct json_object *request = NULL;
    MR_AUTO_JSON struct json_object *answer = json_object_new_object();
    MR_AUTO_CLOSE int fd = -1;
    struct mr_err err = {0};
    int64_t deadline_ns = 0;

    mr_process_isolate();
    mr_process_limit();
    /* Not every wait looks at the channel: a name server's, a connection's. */
    if (!answer || !mr_process_follow(MR_LUN_CHANNEL_FD))
        return EXIT_SYSTEM;
    int r = receive(&request, &err);
    if (r == 0)
        r = limit(request, &deadline_ns, &err);
    if (r == 0)
        r = fn(request, deadline_ns, answer, &fd, &err);
    err.residue = MR_RESIDUE_NONE; /* nothing is mapped by a look */
    mr_json_set_bool(answer, "ok", r >= 0);
    if (r < 0)
        mr_json_set(answer, "error", mr_err_to_json(&err));
    if (mr_msg_send(MR_LUN_CHANNEL_FD, answer, fd, MSG_DONTWAIT, &err) < 0) {
        mr_log(MR_LOG_WARNING, "no answer to the worker: %s", err.message);
        return EXIT_SYSTEM;
    }
    return r < 0 && err.code == MR_E_INVALID_REQUEST ? EXIT_USAGE : 0;
}
