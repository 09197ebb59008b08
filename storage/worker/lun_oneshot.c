/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/lun_oneshot.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/base/spawn.h"
#include "storage/lun/start.h" /* the message and its fd; nothing to link */
#include "storage/worker/lun_start.h"
#include "storage/worker/source_lock.h"

#define GRACE_MS 1000 /* it ends itself after half of it */
#define END_MS 1000   /* after its answer */

struct child {
    pid_t pid;
    int pidfd;
    int channel;
};

static bool readable(int fd, int64_t limit_ms)
{
    const int64_t deadline_ns = mr_now_ns() + limit_ms * MR_NS_PER_MS;
    struct pollfd one = {.fd = fd, .events = POLLIN};
    int r;

    do {
        int64_t left_ms = (deadline_ns - mr_now_ns()) / MR_NS_PER_MS;
        r = poll(&one, 1, left_ms > 0 ? (int)left_ms : 0);
    } while (r < 0 && errno == EINTR);
    return r > 0;
}

static int start(const char *libexec_dir, const char *mode, struct child *child,
                 struct mr_err *err)
{
    char path[PATH_MAX];
    const char *argv[] = {path, mode, NULL};
    struct mr_spawn_fd fds[] = {{.to = MR_LUN_CHANNEL_FD}};
    const struct mr_spawn spawn = {
        .argv = argv,
        .fds = fds,
        .fd_count = 1,
        .stdout_fd = -1,
        .stderr_fd = -1,
        .new_session = true,
    };
    int pair[2];

    if (mr_format(path, sizeof(path), "%s/mooring-lun", libexec_dir) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "path of mooring-lun");
    int r = mr_msg_pair(pair, err);
    if (r < 0)
        return r;
    child->channel = pair[0];
    MR_AUTO_CLOSE int theirs = pair[1];
    fds[0].from = theirs;
    r = mr_spawn_start(&spawn, &child->pid, &child->pidfd, err);
    return r < 0 ? mr_err_context(err, r, "start '%s'", path) : 0;
}

static void reap(struct child *child)
{
    siginfo_t info;

    mr_close(&child->channel);
    if (child->pidfd < 0)
        return;
    if (!readable(child->pidfd, END_MS))
        (void)pidfd_send_signal(child->pidfd, SIGKILL, NULL, 0);
    (void)waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED);
    mr_close(&child->pidfd);
}

static int take_answer(const struct child *child, int64_t limit_ms,
                       struct json_object **ret, int *ret_fd, struct mr_err *err)
{
    const int64_t late_ns = mr_now_ns() + (limit_ms - GRACE_MS) * MR_NS_PER_MS;
    bool spoke = readable(child->channel, limit_ms) &&
                 mr_msg_recv(child->channel, ret, ret_fd, MSG_DONTWAIT, err) > 0;

    if (!spoke && mr_now_ns() >= late_ns) /* as when a name server is silent */
        return mr_fail(err, MR_E_TARGET_TIMEOUT, ETIMEDOUT,
                       "no answer from mooring-lun within its time");
    if (!spoke)
        return mr_fail(err, MR_E_INTERNAL, EIO, "mooring-lun ended without an answer");
    if (mr_json_get_bool(*ret, "ok", false))
        return 0;
    mr_err_from_json(err, mr_json_get(*ret, "error"));
    return err->errnum > 0 ? -err->errnum : -EIO;
}

int mr_lun_oneshot(const char *libexec_dir, const char *mode, struct json_object *message,
                   int64_t deadline_ms, struct json_object **ret, int *ret_fd,
                   struct mr_err *err)
{
    struct child child = {.pidfd = -1, .channel = -1};
    int r = start(libexec_dir, mode, &child, err);

    mr_json_set_int(message, "deadline_ms", deadline_ms);
    if (r == 0)
        r = mr_msg_send(child.channel, message, -1, 0, err);
    if (r == 0)
        r = take_answer(&child, deadline_ms + GRACE_MS, ret, ret_fd, err);
    reap(&child);
    if (r < 0)
        err->residue = MR_RESIDUE_NONE;
    return r;
}

/* --- preflight --- */

static int check_source(const struct mr_map_request *request, struct json_object *reply,
                        struct mr_err *err)
{
    char key[MR_KEY_TEXT];
    char holder[MR_TOKEN_TEXT];

    if (mr_spec_source_key(request->spec, key, sizeof(key)) < 0)
        return mr_fail(err, MR_E_INVALID_SPEC, ENAMETOOLONG, "target name");
    mr_json_set_string(reply, "source_key", key);
    if (request->mapped)
        return 0;
    int r = mr_source_look(request->runtime_dir, key, holder, err);
    if (r != -EWOULDBLOCK)
        return r;
    (void)mr_fail(err, MR_E_SOURCE_IN_USE, EBUSY,
                  "the LUN is served by another mooring-lun (attach token %s)",
                  holder[0] ? holder : "not known");
    return mr_err_remedy(err, r, "GET /orphans lists what no volume knows");
}

int mr_lun_preflight(const struct mr_map_request *request, struct json_object *reply,
                     int *ret_fd, struct mr_err *err)
{
    static const char *const members[] = {"portals",         "credentials", "size_bytes",
                                          "block_size",      "serial",      "wwn",
                                          "write_protected", "thin"};
    MR_AUTO_JSON struct json_object *message = mr_lun_start_message(request);
    MR_AUTO_JSON struct json_object *answer = NULL;
    struct mr_err in_use = {0};
    int used = check_source(request, reply, &in_use);

    if (!message)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "start message");
    /* As long again as an attach waits for the target, for reading. */
    int r = mr_lun_oneshot(request->libexec_dir, "preflight", message,
                           2 * request->iscsi_timeout_ms, &answer, ret_fd, err);
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        struct json_object *value = mr_json_get(answer, members[i]);
        if (value)
            mr_json_set(reply, members[i], json_object_get(value));
    }
    if (used < 0) /* an attach would not come further than that */
        *err = in_use;
    return used < 0 ? used : r;
}
