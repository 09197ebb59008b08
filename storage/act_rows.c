/* SPDX-License-Identifier: Apache-2.0
 *
 * Whom an action is about: those who were asked for and hold still, and what its worker
 * is told of them.
 */
#include <errno.h>
#include <signal.h>

#include "storage/act.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"

static bool has_ended(struct json_object *row)
{
    int64_t pid = mr_json_get_int(row, "pid", 0);
    int64_t start_time = mr_json_get_int(row, "start_time", 0);

    if (pid <= 0 || pid > INT32_MAX || start_time <= 0)
        return false;
    uint64_t now = mr_process_start_time((pid_t)pid); /* 0: cannot be told */
    return now != 0 ? now != (uint64_t)start_time
                    : kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

struct json_object *mr_act_keep_holding(struct mr_act *act, struct json_object *seen,
                                        bool complete)
{
    struct json_object *asked = mr_json_get(act->request, "holders");
    struct json_object *rows = json_object_new_array();

    act->gone = json_object_new_array();
    for (size_t i = 0; i < json_object_array_length(asked); i++) {
        struct json_object *row = json_object_array_get_idx(asked, i);
        const char *id = mr_json_get_string(row, "id");
        struct json_object *now = mr_holders_find(seen, id);
        if (now && mr_json_get_bool(now, "certain", true)) {
            (void)json_object_array_add(rows, json_object_get(row));
            continue;
        }
        struct json_object *result = json_object_new_object();
        mr_json_set_string(result, "holder", id);
        bool gone = complete || has_ended(row);
        mr_json_set_bool(result, "done", gone);
        mr_json_set_string(result, "detail",
                           gone ? "does not hold it any more; nothing was done"
                                : "was not seen again, but not all could be looked at; "
                                  "nothing was done");
        (void)json_object_array_add(act->gone, result);
    }
    return rows;
}

/* Mounts of other volumes that a listed row may be about. */
static struct json_object *other_mounts(const struct mr_act *act)
{
    const struct mr_engine *engine = act->engine;
    struct json_object *rows = mr_json_get(act->request, "holders");
    struct json_object *records = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(rows); i++) {
        const char *path = mr_json_get_string(json_object_array_get_idx(rows, i), "path");
        for (size_t v = 0; path && v < engine->volume_count; v++) {
            const struct mr_volume *other = engine->volumes[v];
            if (other != act->volume && other->mount.mount.id != 0 &&
                mr_mount_record_is_at(&other->mount, path))
                (void)json_object_array_add(records,
                                            mr_mount_record_to_json(&other->mount));
        }
    }
    return records;
}

struct json_object *mr_act_command(const struct mr_act *act,
                                   const struct mr_operation *op,
                                   struct json_object *rows)
{
    static const char *const copied[] = {"action", "signal"};
    const struct mr_volume *volume = act->volume;
    struct json_object *command = mr_operation_new_command(op, "act");

    for (size_t i = 0; i < sizeof(copied) / sizeof(copied[0]); i++)
        mr_json_set(command, copied[i],
                    json_object_get(mr_json_get(act->request, copied[i])));
    mr_json_set(command, "holders", json_object_get(rows));
    mr_json_set_string(command, "fs_type", volume->spec->fs_type);
    mr_json_set_bool(command, "read_only", volume->spec->read_only);
    mr_json_set(command, "mount",
                mr_holders_own_mount(volume) ? mr_mount_record_to_json(&volume->mount)
                                             : NULL);
    mr_json_set_string(command, "mount_path", volume->spec->mount_path);
    mr_json_set(command, "spare", other_mounts(act));
    return command;
}
