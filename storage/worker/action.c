/* SPDX-License-Identifier: Apache-2.0
 *
 * The two commands of the action worker: what was asked for is read and checked here, the
 * device is proven to be the recorded one, then each act has its own file.
 */
#include "storage/worker/action.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/json.h"
#include "storage/fs_options.h"
#include "storage/protocol.h"
#include "storage/worker/commands.h"
#include "storage/worker/device.h"

#define ROWS_LIMIT_NS (15 * MR_NS_PER_S)

static int fail_command(struct mr_err *err, const char *what)
{
    return mr_fail(err, MR_E_INTERNAL, EINVAL, "action: %s", what);
}

/* What both commands have. */
static int read_common(const struct mr_worker *worker, struct json_object *cmd,
                       struct mr_act *act, struct mr_err *err)
{
    *act = (struct mr_act){
        .channel_fd = worker->channel_fd,
        .inotify_fd = worker->inotify_fd,
        .device_fd = -1,
        .read_only = mr_json_get_bool(cmd, "read_only", false),
    };
    const char *fs_type = mr_json_get_string(cmd, "fs_type");
    act->fs_type = fs_type && mr_fs_type_known(fs_type) ? fs_type : "";
    return mr_arg_identity(cmd, &act->identity, err);
}

/* Right before the act: what follows is about this device and no other. Does not wait for
 * it. */
static int take_device(struct mr_act *act, struct mr_err *err)
{
    return mr_device_open(&act->identity, O_RDONLY | O_NONBLOCK, &act->device_fd, err);
}

int mr_command_examine(struct mr_worker *worker, struct json_object *cmd,
                       struct json_object *reply, struct mr_err *err)
{
    struct mr_act act;

    int r = read_common(worker, cmd, &act, err);
    if (r == 0)
        r = take_device(&act, err);
    if (r == 0)
        r = mr_act_examine(&act, reply, err);
    mr_close(&act.device_fd);
    return r;
}

/* Volumes of ours that a row may be about. */
static int read_spares(struct json_object *cmd, struct mr_act *act, struct mr_err *err)
{
    static struct mr_mount_record record; /* large */
    struct json_object *spare = mr_json_get(cmd, "spare");
    size_t count =
        json_object_is_type(spare, json_type_array) ? json_object_array_length(spare) : 0;

    if (count == 0)
        return 0;
    act->spares = calloc(count, sizeof(*act->spares));
    if (!act->spares)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "action");
    for (size_t i = 0; i < count; i++) {
        mr_mount_record_from_json(&record, json_object_array_get_idx(spare, i));
        act->spares[i] = record.mount;
    }
    act->spare_count = count;
    return 0;
}

static int read_act(struct json_object *cmd, struct mr_act *act, enum mr_action *ret,
                    struct mr_err *err)
{
    const char *signal = mr_json_get_string(cmd, "signal");

    *ret = mr_action_from_name(mr_json_get_string(cmd, "action"));
    if (*ret == MR_ACTION_COUNT)
        return fail_command(err, "'action' names none");
    int r = mr_arg_driver(cmd, &act->driver, err);
    if (r == 0)
        r = mr_arg_token(cmd, &act->token, err);
    if (r == 0)
        r = mr_arg_text(cmd, "runtime_dir", &act->runtime_dir, err);
    if (r == 0)
        r = read_spares(cmd, act, err);
    act->mount_path = mr_json_get_string(cmd, "mount_path");
    act->has_mount = mr_json_get(cmd, "mount") != NULL;
    if (r == 0 && act->has_mount)
        r = mr_arg_mount(cmd, &act->mount, err);
    if (r < 0)
        return r;
    /* One that was never mounted by us has no id: nothing to spare, and no way in. */
    act->has_mount = act->has_mount && act->mount.mount.id != 0;
    act->signal = signal && strcmp(signal, "KILL") == 0 ? SIGKILL : SIGTERM;
    if (*ret == MR_ACTION_SIGNAL && act->signal == SIGTERM &&
        (!signal || strcmp(signal, "TERM") != 0))
        return fail_command(err, "'signal' is neither TERM nor KILL");
    return 0;
}

static pid_t read_pid(struct json_object *row, const char *key)
{
    int64_t pid = mr_json_get_int(row, key, 0);

    return pid > 0 && pid <= INT32_MAX ? (pid_t)pid : 0;
}

static void read_row(struct json_object *json, struct mr_target_row *ret)
{
    *ret = (struct mr_target_row){
        .id = mr_json_get_string(json, "id"),
        .kind = mr_holder_kind_from_name(mr_json_get_string(json, "kind")),
        .pid = read_pid(json, "pid"),
        .tid = read_pid(json, "tid"),
        .start_time = (uint64_t)mr_json_get_int(json, "start_time", 0),
        .mount_ns = (uint64_t)mr_json_get_int(json, "mount_ns", 0),
        .mount_id = (uint64_t)mr_json_get_int(json, "mount_id", 0),
        .path = mr_json_get_string(json, "path"),
    };
}

/* *ret is the caller's to free. */
static int read_rows(struct json_object *cmd, struct mr_target_row **ret,
                     size_t *ret_count, struct mr_err *err)
{
    struct json_object *rows = mr_json_get(cmd, "holders");
    size_t count =
        json_object_is_type(rows, json_type_array) ? json_object_array_length(rows) : 0;

    if (count == 0 || count > MR_SCAN_HOLDERS_MAX)
        return fail_command(err, "'holders' is no list of rows");
    *ret = calloc(count, sizeof(**ret));
    if (!*ret)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "action");
    for (size_t i = 0; i < count; i++) {
        read_row(json_object_array_get_idx(rows, i), &(*ret)[i]);
        if (!(*ret)[i].id)
            return fail_command(err, "a row of 'holders' has no id");
    }
    *ret_count = count;
    return 0;
}

static void add_result(struct json_object *results, const char *id,
                       const struct mr_outcome *outcome)
{
    struct json_object *json = json_object_new_object();

    mr_json_set_string(json, "holder", id);
    mr_json_set_bool(json, "done", outcome->done);
    mr_json_set_text(json, "detail", outcome->detail);
    if (json_object_array_add(results, json) < 0)
        (void)json_object_put(json);
}

static void unmount_rows(const struct mr_act *act, const struct mr_target_row *rows,
                         size_t count, struct mr_outcome *outcomes)
{
    for (size_t i = 0; i < count; i++) {
        if (mr_now_ns() < act->deadline_ns)
            mr_act_unmount(act, &rows[i], &outcomes[i]);
        else
            mr_outcome(&outcomes[i], false, "not tried: the others took too long");
    }
}

/* What does not apply is sorted out first: the rest is acted on together. */
static int act_on_rows(const struct mr_act *act, enum mr_action action,
                       struct json_object *cmd, struct json_object *results,
                       struct mr_err *err)
{
    MR_AUTO_FREE struct mr_target_row *rows = NULL;
    MR_AUTO_FREE struct mr_outcome *outcomes = NULL;
    struct mr_outcome refused;
    size_t count = 0;
    size_t kept = 0;

    int r = read_rows(cmd, &rows, &count, err);
    if (r < 0)
        return r;
    outcomes = calloc(count, sizeof(*outcomes));
    if (!outcomes)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "action");
    for (size_t i = 0; i < count; i++) {
        if (mr_holder_allows(rows[i].kind, action)) {
            rows[kept++] = rows[i];
            continue;
        }
        mr_outcome(&refused, false, "refused: '%s' does not apply to this holder",
                   mr_action_name(action));
        add_result(results, rows[i].id, &refused);
    }
    if (action == MR_ACTION_SIGNAL)
        mr_act_signal(act, rows, kept, outcomes);
    else
        unmount_rows(act, rows, kept, outcomes);
    for (size_t i = 0; i < kept; i++)
        add_result(results, rows[i].id, &outcomes[i]);
    return 0;
}

static int act_on_volume(const struct mr_act *act, enum mr_action action,
                         struct json_object *results, struct mr_err *err)
{
    struct mr_outcome outcome = {.detail = ""};
    int r = 0;

    if (action == MR_ACTION_THAW)
        mr_act_thaw(act, &outcome);
    else if (action == MR_ACTION_SHUTDOWN)
        mr_act_shutdown(act, &outcome);
    else
        r = mr_act_cut(act, &outcome, err);
    if (r == 0)
        add_result(results, NULL, &outcome);
    return r;
}

int mr_command_act(struct mr_worker *worker, struct json_object *cmd,
                   struct json_object *reply, struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *results = json_object_new_array();
    enum mr_action action = MR_ACTION_COUNT;
    struct mr_act act;

    int r = read_common(worker, cmd, &act, err);
    if (r == 0)
        r = read_act(cmd, &act, &action, err);
    if (r == 0)
        r = take_device(&act, err);
    act.deadline_ns = mr_now_ns() + ROWS_LIMIT_NS;
    if (r == 0 && mr_action_needs_holders(action))
        r = act_on_rows(&act, action, cmd, results, err);
    else if (r == 0)
        r = act_on_volume(&act, action, results, err);
    mr_close(&act.device_fd);
    free(act.spares);
    if (r == 0)
        mr_json_set(reply, "results", mr_take_ptr(results));
    return r;
}
