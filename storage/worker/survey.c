/* SPDX-License-Identifier: Apache-2.0
 *
 * look: is what the journal says of many volumes still so? Asks sysfs, procfs and mount
 * tables, never a device and never a server.
 */
#include "storage/worker/commands.h"

#include <errno.h>

#include "storage/base/json.h"
#include "storage/worker/claim.h"
#include "storage/worker/lun_server.h"
#include "storage/worker/survey_mounts.h"

/* The mooring-lun that is recorded. */
static const char *server_state(const struct mr_identity *identity)
{
    const struct mr_lun_server server = {
        .pid = identity->lun_pid,
        .start_time = identity->lun_start_time,
    };

    if (server.pid == 0)
        return "none";
    switch (mr_lun_presence(&server)) {
    case MR_PRESENT:
        return "alive";
    case MR_ABSENT_NOW:
        return "dead";
    case MR_PRESENCE_UNKNOWN:
        break;
    }
    return "unknown";
}

static struct json_object *look_at(const struct mr_mount_view *view,
                                   struct json_object *target)
{
    struct json_object *seen = json_object_new_object();
    struct mr_identity identity;
    struct mr_mount_record record;
    bool on_top = false;

    mr_identity_from_json(&identity, mr_json_get(target, "identity"));
    mr_mount_record_from_json(&record, mr_json_get(target, "mount"));
    enum mr_presence device = mr_device_present(&identity);
    enum mr_presence mounted = mr_mount_view_present(view, &record, &on_top);
    mr_json_set_string(seen, "volume", mr_json_get_string(target, "volume"));
    if (device == MR_PRESENCE_UNKNOWN)
        mr_json_set(seen, "found", NULL);
    else
        mr_json_set_bool(seen, "found", device == MR_PRESENT);
    if (device == MR_PRESENT)
        mr_json_set(seen, "identity", mr_identity_to_json(&identity));
    mr_json_set_string(seen, "mounted", mr_presence_name(mounted));
    mr_json_set_bool(seen, "on_top", on_top);
    mr_json_set_string(seen, "server", server_state(&identity));
    return seen;
}

int mr_command_look(struct mr_worker *worker, struct json_object *cmd,
                    struct json_object *reply, struct mr_err *err)
{
    MR_AUTO_VIEW struct mr_mount_view view = {0};
    struct json_object *targets = mr_json_get(cmd, "targets");

    (void)worker;
    if (!json_object_is_type(targets, json_type_array))
        return mr_fail(err, MR_E_INTERNAL, EINVAL, "worker command: member 'targets'");
    int r = mr_mount_view_read(&view, err);
    if (r < 0)
        return r;
    struct json_object *volumes = json_object_new_array();
    for (size_t i = 0; i < json_object_array_length(targets); i++)
        (void)json_object_array_add(
            volumes, look_at(&view, json_object_array_get_idx(targets, i)));
    mr_json_set(reply, "volumes", volumes);
    return 0;
}
