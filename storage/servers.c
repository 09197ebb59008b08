/* SPDX-License-Identifier: Apache-2.0
 *
 * The mooring-lun processes of attached volumes. The end of one is seen at once, by its
 * pidfd; that it was fenced, cut off, or found another LUN, it says itself. From then on
 * every read and write of its device fails, and nothing brings this attachment back. It
 * is said, and only a detach is left.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/log.h"
#include "storage/engine_internal.h"

struct mr_server_watch {
    struct mr_io *io;
    int pidfd;
    pid_t pid;
    uint64_t start_time;
};

/* --- what it means --- */

#define ERRORS_ONLY                                                                      \
    "every read and write of %s fails; what was written since the last fsync may be "    \
    "lost"
#define DETACH_FIRST                                                                     \
    "PUT the same spec: what is left is detached, then it is attached afresh; or "       \
    "DELETE "                                                                            \
    "it"

bool mr_server_is_dead(const struct mr_volume *volume)
{
    return volume->server_lost || volume->transport_end != MR_TRANSPORT_UNKNOWN;
}

/* Of what the server has said last; never empty. */
static const char *said(struct json_object *json, const char *key, const char *unknown)
{
    const char *text = mr_json_get_string(json, key);

    return text ? text : unknown;
}

static void error_of_fencing(const struct mr_volume *volume, struct mr_err *err)
{
    struct json_object *source = volume->spec->source;

    (void)mr_fail(
        err, MR_E_FENCED, 0,
        "this node, whose key was %s, was fenced from LUN %d of %s: the "
        "reservation is held by %s; " ERRORS_ONLY " (%s)",
        said(volume->fencing, "key", "not known"), (int)mr_json_get_int(source, "lun", 0),
        said(source, "target", "its target"), said(volume->fencing, "holder", "nobody"),
        volume->identity.node, said(volume->transport, "reason", "no reason was given"));
    (void)mr_err_remedy(err, 0,
                        "find out who uses the LUN now; then DELETE it, or PUT the same "
                        "spec: what is left is detached, then it is attached afresh");
}

void mr_server_error(const struct mr_volume *volume, struct mr_err *err)
{
    const struct mr_identity *identity = &volume->identity;

    if (volume->transport_end == MR_TRANSPORT_FENCED) {
        error_of_fencing(volume, err);
    } else if (volume->transport_end == MR_TRANSPORT_MISMATCH) {
        (void)mr_fail(err, MR_E_DEVICE_MISMATCH, 0,
                      "after a new login the LUN is not the one that was attached (%s): "
                      "nothing is written to it any more, " ERRORS_ONLY,
                      said(volume->transport, "reason", "its identity or size differs"),
                      identity->node);
        (void)mr_err_remedy(err, 0, "look at the target first; then " DETACH_FIRST);
    } else if (volume->transport_end == MR_TRANSPORT_CUT) {
        (void)mr_fail(err, MR_E_DEVICE_ERROR, 0,
                      "its transport was cut on request: " ERRORS_ONLY, identity->node);
        (void)mr_err_remedy(err, 0, DETACH_FIRST);
    } else {
        (void)mr_fail(err, MR_E_DEVICE_ERROR, 0,
                      "mooring-lun (process %d) has ended: " ERRORS_ONLY,
                      (int)identity->lun_pid, identity->node);
        (void)mr_err_remedy(err, 0, DETACH_FIRST);
    }
    err->residue = MR_RESIDUE_POSSIBLE;
}

/* Only what is at rest: an operation that runs finds out by itself. */
static bool says_attached(const struct mr_volume *volume)
{
    return volume->state == MR_STATE_ATTACHED && !volume->op && mr_server_is_dead(volume);
}

enum mr_state mr_server_failed_state(const struct mr_volume *volume)
{
    if (volume->forgotten)
        return MR_STATE_ORPHAN;
    return volume->transport_end == MR_TRANSPORT_FENCED ? MR_STATE_FENCED
                                                        : MR_STATE_FAILED;
}

static void say_failed(struct mr_volume *volume)
{
    struct mr_err err;

    mr_server_error(volume, &err);
    mr_volume_set_error(volume, &err);
    mr_volume_set_state(volume, mr_server_failed_state(volume));
}

bool mr_server_check(struct mr_volume *volume)
{
    if (!says_attached(volume))
        return false;
    say_failed(volume);
    MR_AUTO_JSON struct json_object *detail = mr_err_to_json(&volume->error);
    mr_volume_record(volume, "failed", detail, NULL, NULL);
    return true;
}

/* When its server died: what is in the history. */
static struct json_object *new_detail(const struct mr_volume *volume)
{
    const struct mr_identity *identity = &volume->identity;
    const struct mr_operation *op = volume->op;
    struct json_object *detail = json_object_new_object();

    mr_json_set_int(detail, "pid", identity->lun_pid);
    mr_json_set_int(detail, "start_time", (int64_t)identity->lun_start_time);
    mr_json_set_string(detail, "device", identity->node);
    mr_json_set_int(detail, "diskseq", (int64_t)identity->diskseq);
    mr_json_set_string(detail, "state", mr_state_name(volume->state));
    mr_json_set_string(detail, "step", op ? mr_step_name(op->step) : NULL);
    return detail;
}

static void lost(struct mr_volume *volume)
{
    const struct mr_operation *op = volume->op;

    mr_server_forget(volume);
    /* It ends by itself when the kernel lets go of its file. */
    if (volume->server_lost || (op && op->unmapping))
        return;
    MR_AUTO_JSON struct json_object *detail = new_detail(volume);
    volume->server_lost = true;
    if (says_attached(volume))
        say_failed(volume);
    mr_volume_touch(volume);
    mr_volume_record(volume, "server_lost", detail, NULL, NULL);
}

void mr_server_said(struct mr_volume *volume, enum mr_transport state)
{
    static const char *const events[MR_TRANSPORT_COUNT] = {
        [MR_TRANSPORT_CUT] = "transport_cut",
        [MR_TRANSPORT_MISMATCH] = "transport_mismatch",
        [MR_TRANSPORT_FENCED] = "fenced",
    };
    bool leaving = volume->op && volume->op->unmapping;

    if (!mr_transport_is_final(state) || mr_server_is_dead(volume))
        return;
    if (leaving) { /* no news, but should the kernel put it off nothing brings it back */
        volume->transport_end = state;
        return;
    }
    MR_AUTO_JSON struct json_object *detail = new_detail(volume);
    mr_json_set(detail, "transport", json_object_get(volume->transport));
    mr_json_set(detail, "fencing", json_object_get(volume->fencing));
    volume->transport_end = state;
    if (says_attached(volume))
        say_failed(volume);
    mr_volume_touch(volume);
    mr_volume_record(volume, events[state], detail, NULL, NULL);
}

/* --- the watch --- */

static void on_end(void *ctx, uint32_t events)
{
    (void)events;
    lost(ctx);
}

/* The pidfd of the recorded process: -ESRCH when that has ended, also when another one
 * has its number by now. */
static int open_server(const struct mr_identity *identity)
{
    MR_AUTO_CLOSE int pidfd = pidfd_open(identity->lun_pid, 0);

    if (pidfd < 0) /* EINVAL, ENOENT: the number of a thread; pidfd_open(2) */
        return errno == EINVAL || errno == ENOENT ? -ESRCH : -errno;
    /* Read after the pidfd was opened, which cannot change to another process any more. 0
     * as a start time is "cannot tell": then the pidfd decides. */
    uint64_t start_time = mr_process_start_time(identity->lun_pid);
    if (start_time != 0 && identity->lun_start_time != 0 &&
        start_time != identity->lun_start_time)
        return -ESRCH;
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    if (poll(&end, 1, 0) > 0)
        return -ESRCH;
    return mr_take_fd(&pidfd);
}

static int watch(struct mr_volume *volume, int pidfd)
{
    struct mr_server_watch *server = calloc(1, sizeof(*server));
    struct mr_err err = {0};

    if (!server)
        return -ENOMEM;
    int rc = mr_loop_add(volume->engine->loop, pidfd, EPOLLIN, on_end, volume,
                         &server->io, &err);
    if (rc < 0) {
        free(server);
        return rc;
    }
    server->pidfd = pidfd;
    server->pid = volume->identity.lun_pid;
    server->start_time = volume->identity.lun_start_time;
    volume->server = server;
    mr_server_link_start(volume);
    return 0;
}

static bool is_watched(const struct mr_volume *volume)
{
    const struct mr_identity *identity = &volume->identity;
    const struct mr_server_watch *server = volume->server;

    return server && server->pid == identity->lun_pid &&
           server->start_time == identity->lun_start_time;
}

void mr_server_watch(struct mr_volume *volume)
{
    if (is_watched(volume))
        return;
    mr_server_forget(volume);
    (void)mr_server_check(volume); /* an earlier agent may have seen its end */
    if (volume->server_lost || volume->identity.lun_pid <= 0 ||
        volume->identity.diskseq == 0)
        return;
    int rc = open_server(&volume->identity);
    MR_AUTO_CLOSE int pidfd = rc;
    if (rc >= 0)
        rc = watch(volume, pidfd);
    if (rc == 0)
        (void)mr_take_fd(&pidfd);
    else if (rc == -ESRCH)
        lost(volume);
    else
        mr_log(MR_LOG_WARNING, "volume '%s': mooring-lun %d cannot be watched: %s",
               volume->id, (int)volume->identity.lun_pid, strerror(-rc));
}

void mr_server_forget(struct mr_volume *volume)
{
    struct mr_server_watch *server = volume->server;

    mr_server_link_stop(volume);
    if (!server)
        return;
    volume->server = NULL;
    mr_io_remove(server->io);
    mr_close(&server->pidfd);
    free(server);
}
