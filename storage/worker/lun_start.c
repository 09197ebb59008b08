/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/lun_start.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/base/spawn.h"
#include "storage/lun/start.h" /* the message and its fd; nothing to link */
#include "storage/worker/cgroup.h"

#define ANSWER_GRACE_MS 5000 /* on top of the target's own timeout */
#define END_MS 5000          /* one whose file was released logs out within 2 s */

void mr_lun_child_close(struct mr_lun_child *server)
{
    mr_close(&server->channel);
    mr_close(&server->mount_fd);
}

void mr_lun_reap(struct mr_lun_child *server)
{
    struct pollfd end = {.fd = server->pidfd, .events = POLLIN};
    siginfo_t info;

    mr_lun_child_close(server);
    if (server->pidfd < 0)
        return;
    if (poll(&end, 1, END_MS) == 0)
        (void)pidfd_send_signal(server->pidfd, SIGKILL, NULL, 0);
    (void)waitid(P_PIDFD, (id_t)server->pidfd, &info, WEXITED);
    mr_close(&server->pidfd);
}

static int copy_member(struct json_object *from, const char *key, struct json_object *to)
{
    struct json_object *value = mr_json_get(from, key);

    if (value)
        mr_json_set(to, key, json_object_get(value));
    return value ? 0 : -EINVAL;
}

struct json_object *mr_lun_start_message(const struct mr_map_request *request)
{
    struct json_object *json = json_object_new_object();
    int64_t seconds;

    if (!json)
        return NULL;
    mr_json_set_string(json, "token", request->token);
    mr_json_set_string(json, "runtime_dir", request->runtime_dir);
    mr_json_set_string(json, "initiator_name", request->initiator_name);
    mr_json_set_int(json, "timeout_ms", request->iscsi_timeout_ms);
    mr_json_set_bool(json, "read_only", request->spec->read_only);
    /* What is missing is refused by the server, by name. */
    (void)copy_member(request->spec->source, "portals", json);
    (void)copy_member(request->spec->source, "target", json);
    (void)copy_member(request->spec->source, "lun", json);
    (void)copy_member(request->spec->source, "chap", json);
    (void)copy_member(request->spec->source, "header_digest", json);
    (void)copy_member(request->spec->source, "fencing", json);
    (void)copy_member(request->spec->source, "preempt", json);
    seconds = mr_json_get_int(request->spec->source, "replacement_timeout_s",
                              MR_LUN_REPLACEMENT_MS / 1000);
    mr_json_set_int(json, "replacement_ms", seconds < 0 ? -1 : seconds * 1000);
    return json;
}

/* Before it allocates anything: it waits for its start message. Best effort, it says what
 * is amiss. */
static void give_group(const struct mr_map_request *request, pid_t pid,
                       struct json_object *message)
{
    char path[PATH_MAX];
    struct mr_err why;

    if (mr_cgroup_join(request->runtime_dir, request->token, pid, path, sizeof(path),
                       &why) == 0)
        mr_json_set_text(message, "cgroup", path);
    else
        mr_json_set_text(message, "cgroup_problem", why.message);
}

/* See mr_lun_start.isid. The source lock sees to it that there is one session at a time.
 */
static void give_isid(const struct mr_map_request *request, struct json_object *message)
{
    char key[MR_KEY_TEXT] = "";
    char text[PATH_MAX + MR_KEY_TEXT];
    char digits[17];

    if (mr_spec_source_key(request->spec, key, sizeof(key)) < 0 ||
        mr_format(text, sizeof(text), "%s %s", request->runtime_dir, key) < 0)
        return;
    (void)snprintf(digits, sizeof(digits), "%016" PRIx64,
                   mr_text_hash(text, strlen(text)));
    digits[MR_ISID_DIGITS] = '\0';
    mr_json_set_string(message, "isid", digits);
}

int mr_lun_spawn(const struct mr_map_request *request, int lock_fd,
                 struct mr_lun_child *server, struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *message = mr_lun_start_message(request);
    MR_AUTO_CLOSE int theirs = -1;
    char path[PATH_MAX];
    const char *argv[] = {path, "serve", NULL};
    struct mr_spawn_fd fds[] = {
        {.to = MR_LUN_CHANNEL_FD},
        {.from = lock_fd, .to = MR_LUN_LOCK_FD},
    };
    struct mr_spawn spawn = {
        .argv = argv,
        .fds = fds,
        .fd_count = 2,
        .stdout_fd = -1,
        .stderr_fd = -1,
        .new_session = true,
    };
    int pair[2];
    int r;

    if (!message)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "start message");
    if (mr_format(path, sizeof(path), "%s/mooring-lun", request->libexec_dir) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "path of mooring-lun");
    r = mr_msg_pair(pair, err);
    if (r < 0)
        return r;
    server->channel = pair[0];
    theirs = pair[1];
    fds[0].from = theirs;
    r = mr_spawn_start(&spawn, &server->pid, &server->pidfd, err);
    if (r < 0)
        return mr_err_context(err, r, "start '%s'", path);
    give_group(request, server->pid, message);
    give_isid(request, message);
    return mr_msg_send(server->channel, message, -1, 0, err);
}

int mr_lun_answer(const struct mr_map_request *request, struct mr_lun_child *server,
                  struct json_object **ret, struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *answer = NULL;
    struct pollfd channel = {.fd = server->channel, .events = POLLIN};
    int r;

    do
        r = poll(&channel, 1, (int)request->iscsi_timeout_ms + ANSWER_GRACE_MS);
    while (r < 0 && errno == EINTR);
    if (r == 0)
        return mr_fail(err, MR_E_TARGET_TIMEOUT, ETIMEDOUT, "no answer from mooring-lun");
    r = mr_msg_recv(server->channel, &answer, &server->mount_fd, MSG_DONTWAIT, err);
    if (r <= 0)
        return mr_fail(err, MR_E_INTERNAL, EIO, "mooring-lun ended without an answer");
    if (!mr_json_get_bool(answer, "ok", false)) {
        mr_err_from_json(err, mr_json_get(answer, "error"));
        err->residue = MR_RESIDUE_NONE;
        return err->errnum ? -err->errnum : -EIO;
    }
    if (server->mount_fd < 0 || mr_json_get_int(answer, "pid", 0) != server->pid)
        return mr_fail(err, MR_E_INTERNAL, EBADMSG, "bad answer from mooring-lun");
    *ret = mr_take_ptr(answer);
    return 0;
}
