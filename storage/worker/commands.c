/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/commands.h"

#include <errno.h>
#include <string.h>

#include "storage/base/fault.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/worker/mounter_path.h"

static const struct {
    const char *name;
    mr_command_fn run;
    enum mr_worker_mode mode;
} commands[] = {
    {"inspect", mr_command_inspect, MR_WORKER_VOLUME},
    {"map", mr_command_map, MR_WORKER_VOLUME},
    {"identify", mr_command_identify, MR_WORKER_VOLUME},
    {"check", mr_command_check, MR_WORKER_VOLUME},
    {"format", mr_command_format, MR_WORKER_VOLUME},
    {"mount", mr_command_mount, MR_WORKER_VOLUME},
    {"unmount", mr_command_unmount, MR_WORKER_VOLUME},
    {"claim", mr_command_claim, MR_WORKER_VOLUME},
    {"keep", mr_command_keep, MR_WORKER_VOLUME},
    {"unmap", mr_command_unmap, MR_WORKER_VOLUME},
    {"gone", mr_command_gone, MR_WORKER_VOLUME},
    {"examine", mr_command_examine, MR_WORKER_ACTION},
    {"act", mr_command_act, MR_WORKER_ACTION},
    {"look", mr_command_look, MR_WORKER_SURVEY},
    {"search", mr_command_search, MR_WORKER_SURVEY},
    {"discover", mr_command_discover, MR_WORKER_PROBE},
    {"preflight", mr_command_preflight, MR_WORKER_PROBE},
};

static int fail_member(struct mr_err *err, const char *key, const char *what)
{
    return mr_fail(err, MR_E_INTERNAL, EINVAL, "worker command: member '%s' %s", key,
                   what);
}

int mr_arg_text(struct json_object *cmd, const char *key, const char **ret,
                struct mr_err *err)
{
    *ret = mr_json_get_string(cmd, key);
    return *ret ? 0 : fail_member(err, key, "is no text");
}

int mr_arg_token(struct json_object *cmd, const char **ret, struct mr_err *err)
{
    int r = mr_arg_text(cmd, "token", ret, err);

    if (r == 0 && !mr_token_valid(*ret))
        r = fail_member(err, "token", "is no attach token");
    return r;
}

int mr_arg_driver(struct json_object *cmd, const struct mr_driver **ret,
                  struct mr_err *err)
{
    const char *name = NULL;
    int r = mr_arg_text(cmd, "driver", &name, err);

    if (r < 0)
        return r;
    *ret = mr_driver_find(name);
    return *ret ? 0 : fail_member(err, "driver", "names no driver");
}

int mr_arg_identity(struct json_object *cmd, struct mr_identity *ret, struct mr_err *err)
{
    mr_identity_from_json(ret, mr_json_get(cmd, "identity"));
    if (strncmp(ret->node, "/dev/", 5) != 0 || strstr(ret->node, "..") ||
        ret->diskseq == 0 || ret->major == 0)
        return fail_member(err, "identity", "is no device");
    return 0;
}

int mr_arg_mount(struct json_object *cmd, struct mr_mount_record *ret, struct mr_err *err)
{
    mr_mount_record_from_json(ret, mr_json_get(cmd, "mount"));
    if (ret->root[0] != '/' || !mr_relative_path_valid(ret->path))
        return fail_member(err, "mount", "is no mount record");
    return 0;
}

const char *mr_presence_name(enum mr_presence presence)
{
    switch (presence) {
    case MR_PRESENT:
        return "present";
    case MR_ABSENT_NOW:
        return "absent";
    case MR_PRESENCE_UNKNOWN:
        break;
    }
    return "unknown";
}

static int run_command(struct mr_worker *worker, const char *name,
                       struct json_object *cmd, struct json_object *reply,
                       struct mr_err *err)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        const char *known = commands[i].name;
        if (strcmp(known, name) != 0 || commands[i].mode != worker->mode)
            continue;
        int r = mr_fault_fail("worker", known, "before", err);
        if (r == 0)
            r = commands[i].run(worker, cmd, reply, err);
        return r == 0 ? mr_fault_fail("worker", known, "after", err) : r;
    }
    return mr_fail(err, MR_E_INTERNAL, EINVAL, "worker command: '%.32s' is unknown",
                   name);
}

/* cmd NULL: what came was no message; receive_err says why. */
static int answer(struct mr_worker *worker, struct json_object *cmd,
                  const struct mr_err *receive_err, struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *reply = json_object_new_object();
    const char *name = mr_json_get_string(cmd, "cmd");
    struct mr_err failure = {0};

    if (!reply)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "worker reply");
    int r = -EBADMSG;
    if (receive_err)
        failure = *receive_err;
    else
        r = run_command(worker, name ? name : "", cmd, reply, &failure);
    mr_json_set_string(reply, "reply", name ? name : "");
    mr_json_set_bool(reply, "ok", r >= 0);
    if (r < 0)
        mr_json_set(reply, "error", mr_err_to_json(&failure));
    r = mr_msg_send(worker->channel_fd, reply, -1, 0, err);
    return r == -EPIPE ? 0 : r; /* the agent died: the next receive says so */
}

int mr_worker_run(struct mr_worker *worker, struct mr_err *err)
{
    for (;;) {
        MR_AUTO_JSON struct json_object *cmd = NULL;
        struct mr_err receive_err = {0};
        int r = mr_msg_recv(worker->channel_fd, &cmd, NULL, 0, &receive_err);
        if (r == 0)
            return 0;
        if (r == -ECONNRESET) /* closed with our reply unread */
            return 0;
        if (r < 0 && r != -EBADMSG) {
            if (err)
                *err = receive_err;
            return r;
        }
        r = answer(worker, cmd, r < 0 ? &receive_err : NULL, err);
        if (r < 0 || worker->mode == MR_WORKER_ACTION || worker->mode == MR_WORKER_PROBE)
            return r;
    }
}
