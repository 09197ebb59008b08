/* SPDX-License-Identifier: Apache-2.0
 *
 * look: is what the journal says of many volumes still so? Asks sysfs and mount tables,
 * never a device, a server or a path.
 */
#include "storage/worker/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/sysmacros.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/worker/claim.h"
#include "storage/worker/mount_table.h"

/* Our own mount table, read once for all whose mounts have no unique id. */
struct look {
    struct mr_mount_table table;
    bool tried;
    bool readable;
};

static void read_table(struct look *look)
{
    MR_AUTO_CLOSE int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

    look->tried = true;
    look->readable = self >= 0 && mr_mount_table_read(self, &look->table) == 0;
}

static enum mr_presence mounted(struct look *look, const struct mr_mount_id *mount)
{
    if (mount->id == 0)
        return MR_ABSENT_NOW;
    if (mount->unique)
        return mr_mount_present(mount);
    if (!look->tried)
        read_table(look);
    if (!look->readable)
        return MR_PRESENCE_UNKNOWN;
    const struct mr_mountinfo *entry = mr_mount_table_find(&look->table, mount->id);
    bool same = entry && entry->dev == makedev(mount->major, mount->minor);
    return same ? MR_PRESENT : MR_ABSENT_NOW;
}

static struct json_object *look_at(struct look *look, struct json_object *target)
{
    struct json_object *seen = json_object_new_object();
    struct mr_identity identity;
    struct mr_mount_record record;

    mr_identity_from_json(&identity, mr_json_get(target, "identity"));
    mr_mount_record_from_json(&record, mr_json_get(target, "mount"));
    enum mr_presence device = mr_device_present(&identity);
    mr_json_set_string(seen, "volume", mr_json_get_string(target, "volume"));
    if (device == MR_PRESENCE_UNKNOWN)
        mr_json_set(seen, "found", NULL);
    else
        mr_json_set_bool(seen, "found", device == MR_PRESENT);
    mr_json_set_string(seen, "mounted", mr_presence_name(mounted(look, &record.mount)));
    return seen;
}

int mr_command_look(struct mr_worker *worker, struct json_object *cmd,
                    struct json_object *reply, struct mr_err *err)
{
    struct json_object *targets = mr_json_get(cmd, "targets");
    struct json_object *volumes;
    struct look look = {.tried = false};

    (void)worker;
    if (!json_object_is_type(targets, json_type_array))
        return mr_fail(err, MR_E_INTERNAL, EINVAL, "worker command: member 'targets'");
    volumes = json_object_new_array();
    for (size_t i = 0; i < json_object_array_length(targets); i++)
        (void)json_object_array_add(
            volumes, look_at(&look, json_object_array_get_idx(targets, i)));
    mr_json_set(reply, "volumes", volumes);
    mr_mount_table_clear(&look.table);
    return 0;
}
