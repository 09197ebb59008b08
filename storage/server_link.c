/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/server_link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/log.h"
#include "storage/base/msg.h"
#include "storage/engine_internal.h"

#define WATCH_VERSION 3 /* of the control protocol: the first one with `watch` */
#define MR_LINK_AGAIN_MIN_NS (50 * MR_NS_PER_MS)
#define MR_LINK_AGAIN_MAX_NS (30 * MR_NS_PER_S)

struct mr_server_link {
    struct mr_volume *volume;
    int fd; /* -1: not connected; then the timer runs, or it was given up */
    struct mr_io *io;
    struct mr_timer again;
    int64_t backoff_ns;
    char why[128]; /* nothing is known */
};

/* --- what is known --- */

bool mr_server_link_is_asking(const struct mr_volume *volume)
{
    return volume->link && volume->link->fd >= 0 && !volume->transport;
}

struct json_object *mr_server_link_transport(const struct mr_volume *volume)
{
    const struct mr_server_link *link = volume->link;
    const struct mr_identity *identity = &volume->identity;

    if (volume->transport)
        return json_object_get(volume->transport);
    if (identity->diskseq == 0 || identity->lun_pid <= 0 || volume->server_lost)
        return NULL;
    return mr_transport_unknown(
        link && link->why[0] ? link->why : "mooring-lun has not answered yet");
}

static void set_documents(struct mr_volume *volume, struct json_object *transport,
                          struct json_object *fencing)
{
    if (json_object_equal(volume->transport, transport) &&
        json_object_equal(volume->fencing, fencing))
        return;
    (void)json_object_put(volume->transport);
    (void)json_object_put(volume->fencing);
    volume->transport = json_object_get(transport);
    volume->fencing = json_object_get(fencing);
    mr_volume_touch(volume);
}

static void take(struct mr_volume *volume, const struct mr_transport_report *report)
{
    const char *before = mr_json_get_string(volume->transport, "state");
    const char *reason = mr_json_get_string(report->transport, "reason");
    bool bad = report->state != MR_TRANSPORT_CONNECTING &&
               report->state != MR_TRANSPORT_UP && report->state != MR_TRANSPORT_STOPPING;

    if (mr_transport_from_name(before) != report->state)
        mr_log(bad ? MR_LOG_WARNING : MR_LOG_INFO, "volume '%s': transport %s%s%s",
               volume->id, mr_transport_name(report->state), bad && reason ? ": " : "",
               bad && reason ? reason : "");
    set_documents(volume, report->transport, report->fencing);
    mr_server_said(volume, report->state);
}

/* --- the connection --- */

static void disconnect(struct mr_server_link *link, const char *why)
{
    bool news = strcmp(link->why, why) != 0;

    (void)snprintf(link->why, sizeof(link->why), "%s", why);
    mr_io_remove(link->io);
    link->io = NULL;
    mr_close(&link->fd);
    set_documents(link->volume, NULL, NULL);
    if (news)
        mr_volume_touch(link->volume);
    mr_recovery_told(link->volume->engine);
}

static void try_again(struct mr_server_link *link)
{
    disconnect(link, "mooring-lun does not answer");
    mr_timer_set(&link->again, mr_now_ns() + link->backoff_ns);
    link->backoff_ns *= 2;
    if (link->backoff_ns > MR_LINK_AGAIN_MAX_NS)
        link->backoff_ns = MR_LINK_AGAIN_MAX_NS;
}

static void give_up(struct mr_server_link *link, const char *why)
{
    disconnect(link, why);
    mr_log(MR_LOG_WARNING, "volume '%s': nothing is known of its transport: %s",
           link->volume->id, why);
}

/* An answer says which versions it could be in: lun/control.h. */
static bool knows_watch(struct json_object *message)
{
    int64_t newest = mr_json_get_int(message, "version", 1);

    return newest >= WATCH_VERSION &&
           mr_json_get_int(message, "oldest", newest) <= WATCH_VERSION;
}

static void read_message(struct mr_server_link *link, struct json_object *message)
{
    struct mr_volume *volume = link->volume;
    const char *token = mr_json_get_string(message, "token");
    struct mr_transport_report report;
    struct mr_err err;

    if (!knows_watch(message)) {
        give_up(link, "mooring-lun is of another version");
    } else if (!mr_json_get_bool(message, "ok", false)) {
        mr_err_from_json(&err, mr_json_get(message, "error"));
        mr_log(MR_LOG_DEBUG, "volume '%s': mooring-lun does not let us watch: %s",
               volume->id, err.message);
        try_again(link);
    } else if (!token || strcmp(token, volume->token) != 0 ||
               mr_json_get_int(message, "pid", 0) != volume->identity.lun_pid) {
        give_up(link, "another mooring-lun has answered");
    } else if (mr_transport_read(message, &report, &err) < 0) {
        give_up(link, err.message);
    } else {
        link->backoff_ns = MR_LINK_AGAIN_MIN_NS;
        take(volume, &report);
        mr_recovery_told(volume->engine);
        mr_transport_report_done(&report);
    }
}

static void on_readable(void *ctx, uint32_t events)
{
    struct mr_server_link *link = ctx;
    MR_AUTO_JSON struct json_object *message = NULL;
    int rc = mr_msg_recv(link->fd, &message, NULL, MSG_DONTWAIT, NULL);

    (void)events;
    if (rc > 0)
        read_message(link, message);
    else if (rc == -EBADMSG)
        give_up(link, "mooring-lun does not speak its protocol");
    else if (rc != -EAGAIN)
        try_again(link);
}

/* -EPERM when another process listens there: its word is not taken. */
static int check_peer(const struct mr_server_link *link, int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return -errno;
    return peer.pid == link->volume->identity.lun_pid ? 0 : -EPERM;
}

static int ask(int fd)
{
    MR_AUTO_JSON struct json_object *request = json_object_new_object();

    if (!request)
        return -ENOMEM;
    mr_json_set_int(request, "version", WATCH_VERSION);
    mr_json_set_string(request, "cmd", "watch");
    return mr_msg_send(fd, request, -1, MSG_DONTWAIT, NULL);
}

/* Never waits: with a full queue connect(2) says EAGAIN, unix(7). */
static int open_link(struct mr_server_link *link)
{
    const struct mr_volume *volume = link->volume;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    MR_AUTO_CLOSE int fd =
        socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    int rc = mr_format(address.sun_path, sizeof(address.sun_path), "%s/lun/%s.sock",
                       volume->engine->config->runtime_dir, volume->token);
    if (rc < 0)
        return rc;
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    rc = check_peer(link, fd);
    if (rc == 0)
        rc = ask(fd);
    if (rc == 0)
        rc = mr_loop_add(volume->engine->loop, fd, EPOLLIN, on_readable, link, &link->io,
                         NULL);
    if (rc == 0)
        link->fd = mr_take_fd(&fd);
    return rc;
}

static void connect_now(void *ctx)
{
    struct mr_server_link *link = ctx;
    int rc = open_link(link);

    if (rc == -EPERM || rc == -ENAMETOOLONG)
        give_up(link, rc == -EPERM ? "another process has its control socket"
                                   : "the path of its control socket is too long");
    else if (rc < 0)
        try_again(link);
}

void mr_server_link_start(struct mr_volume *volume)
{
    if (volume->link)
        return;
    struct mr_server_link *link = calloc(1, sizeof(*link));
    if (!link) {
        mr_log(MR_LOG_WARNING, "volume '%s': nothing is known of its transport: %s",
               volume->id, strerror(ENOMEM));
        return;
    }
    link->volume = volume;
    link->fd = -1;
    link->backoff_ns = MR_LINK_AGAIN_MIN_NS;
    mr_timer_init(&link->again, volume->engine->loop, connect_now, link);
    volume->link = link;
    connect_now(link);
}

void mr_server_link_stop(struct mr_volume *volume)
{
    struct mr_server_link *link = volume->link;

    if (!link)
        return;
    volume->link = NULL;
    mr_timer_cancel(&link->again);
    disconnect(link, "");
    free(link);
}
