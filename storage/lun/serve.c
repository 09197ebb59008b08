/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/serve.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/lun/process.h"

#define STOP_NS (2 * MR_NS_PER_S)
/* libiscsi may have no event to wait for; then it wants to be called now and then. */
#define NO_EVENTS_NS (100 * MR_NS_PER_MS)

enum {
    FD_FUSE,
    FD_ISCSI,
    FD_CONTROL,
    FD_COUNT = FD_CONTROL + MR_CONTROL_FDS,
};

static const char *state_name(enum mr_server_state state)
{
    switch (state) {
    case MR_SERVER_UP:
        return "up";
    case MR_SERVER_FAILED:
        return "failed";
    case MR_SERVER_STOPPING:
        return "stopping";
    }
    return "failed";
}

static struct json_object *counters_json(const struct mr_io_counters *counters)
{
    struct json_object *json = json_object_new_object();

    mr_json_set_int(json, "reads", (int64_t)counters->reads);
    mr_json_set_int(json, "writes", (int64_t)counters->writes);
    mr_json_set_int(json, "flushes", (int64_t)counters->flushes);
    mr_json_set_int(json, "discards", (int64_t)counters->discards);
    mr_json_set_int(json, "zeroes", (int64_t)counters->zeroes);
    mr_json_set_int(json, "errors", (int64_t)counters->errors);
    mr_json_set_int(json, "retries", (int64_t)counters->retries);
    mr_json_set_int(json, "unit_attentions", (int64_t)counters->unit_attentions);
    return json;
}

struct json_object *mr_server_status(const struct mr_server *server)
{
    struct json_object *json = json_object_new_object();

    if (!json)
        return NULL;
    mr_control_say_version(json);
    mr_json_set_bool(json, "ok", true);
    mr_json_set_string(json, "token", server->start.token);
    mr_json_set_int(json, "pid", getpid());
    mr_json_set_int(json, "start_time", (int64_t)mr_process_start_time(getpid()));
    mr_json_set_string(json, "state", state_name(server->state));
    mr_json_set_string(json, "target", server->start.target);
    mr_json_set_int(json, "lun", server->start.lun);
    mr_json_set_string(json, "portal", server->session.portal);
    mr_json_set_int(json, "size_bytes", (int64_t)server->facts.size_bytes);
    mr_json_set_int(json, "block_size", server->facts.block_size);
    mr_json_set_string(json, "serial", server->facts.serial);
    mr_json_set_string(json, "wwn", server->facts.wwn);
    mr_json_set_bool(json, "writable", server->io.geometry.writable);
    mr_json_set_int(json, "in_flight", mr_io_in_flight(&server->io));
    mr_json_set_bool(json, "cut", server->cut);
    mr_json_set(json, "counters", counters_json(&server->io.counters));
    if (server->session.lost)
        mr_json_set_string(json, "down_reason", server->session.down_reason);
    return json;
}

static struct json_object *answer(void *ctx, struct json_object *request)
{
    struct mr_server *server = ctx;
    const char *cmd = mr_json_get_string(request, "cmd");
    struct json_object *refusal = mr_control_refuse(request, server->start.token);
    struct mr_err err;

    if (refusal)
        return refusal;
    if (cmd && strcmp(cmd, "status") == 0)
        return mr_server_status(server);
    if (cmd && strcmp(cmd, "cut") == 0) {
        server->cut = true;
        mr_session_lose(&server->session, "it was cut off on request"); /* next turn */
        return mr_server_status(server);
    }
    (void)mr_fail(&err, MR_E_INVALID_REQUEST, EINVAL, "unknown command");
    return mr_control_error(server->start.token, &err);
}

/* A lost session is torn down here, outside of libiscsi's callbacks. */
static void notice_loss(struct mr_server *server)
{
    if (!server->session.lost || !server->session.iscsi)
        return;
    if (server->state == MR_SERVER_UP)
        server->state = MR_SERVER_FAILED;
    mr_io_fail(&server->io);
}

/* Everything that goes by the clock. Returns the time of the next such thing. */
static int64_t check_clock(struct mr_server *server)
{
    struct mr_io *io = &server->io;
    int64_t io_ns = mr_io_check(io);
    int64_t session_ns = mr_session_check(&server->session, mr_io_oldest(io), io->now_ns);
    int64_t next = io_ns < session_ns ? io_ns : session_ns;

    notice_loss(server);
    if (server->session.iscsi && mr_session_events(&server->session) == 0 &&
        next > io->now_ns + NO_EVENTS_NS)
        next = io->now_ns + NO_EVENTS_NS;
    return next;
}

static int poll_ms(int64_t now_ns, int64_t until_ns)
{
    int64_t ms;

    if (until_ns == INT64_MAX)
        return -1;
    ms = (until_ns - now_ns + MR_NS_PER_MS - 1) / MR_NS_PER_MS;
    if (ms < 0)
        return 0;
    return ms < 60000 ? (int)ms : 60000;
}

/* One turn: waits for events (not past until_ns), handles them. */
static void turn(struct mr_server *server, int64_t until_ns)
{
    struct mr_io *io = &server->io;
    struct pollfd fds[FD_COUNT];
    int64_t next = check_clock(server);

    fds[FD_FUSE] =
        (struct pollfd){.fd = mr_io_ready(io) ? io->fuse_fd : -1, .events = POLLIN};
    fds[FD_ISCSI] = (struct pollfd){.fd = mr_session_fd(&server->session),
                                    .events = mr_session_events(&server->session)};
    mr_control_poll(&server->control, fds + FD_CONTROL);
    if (poll(fds, FD_COUNT, poll_ms(io->now_ns, next < until_ns ? next : until_ns)) < 0)
        memset(fds, 0, sizeof(fds)); /* EINTR, ENOMEM: no events, the clock goes on */
    io->now_ns = mr_now_ns();
    mr_process_watchdog(io->now_ns);
    if (fds[FD_ISCSI].revents || mr_session_events(&server->session) == 0)
        mr_session_service(&server->session, fds[FD_ISCSI].revents, io->now_ns);
    notice_loss(server);
    if (fds[FD_FUSE].revents)
        mr_io_receive(io);
    mr_io_step(io);
    mr_control_handle(&server->control, fds + FD_CONTROL, answer, server);
}

/* The kernel has released the file: nobody waits for an answer any more, but what the
 * target was told to do shall be done before the session ends. */
static bool stop(struct mr_server *server)
{
    const int64_t deadline_ns = mr_now_ns() + STOP_NS;
    bool out;

    server->state = MR_SERVER_STOPPING;
    while (mr_io_in_flight(&server->io) > 0 && !server->session.lost &&
           mr_now_ns() < deadline_ns)
        turn(server, deadline_ns);
    out = mr_session_logout(&server->session, deadline_ns);
    if (!out)
        mr_session_lose(&server->session, "the logout got no answer");
    mr_io_fail(&server->io);
    return out;
}

bool mr_server_run(struct mr_server *server)
{
    mr_process_limit();
    while (!server->io.gone)
        turn(server, INT64_MAX);
    return stop(server);
}
