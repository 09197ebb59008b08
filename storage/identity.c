/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/identity.h"

#include <string.h>

#include "storage/base/json.h"

/* Numbers outside of 0..max are as good as missing. */
static uint64_t get_uint(struct json_object *json, const char *key, int64_t max)
{
    int64_t value = mr_json_get_int(json, key, 0);
    return value >= 0 && value <= max ? (uint64_t)value : 0;
}

static uint32_t get_u32(struct json_object *json, const char *key)
{
    return (uint32_t)get_uint(json, key, UINT32_MAX);
}

struct json_object *mr_identity_to_json(const struct mr_identity *identity)
{
    struct json_object *json = json_object_new_object();
    if (!json)
        return NULL;
    mr_json_set_string(json, "node", identity->node);
    mr_json_set_int(json, "major", identity->major);
    mr_json_set_int(json, "minor", identity->minor);
    mr_json_set_int(json, "diskseq", (int64_t)identity->diskseq);
    mr_json_set_int(json, "size_bytes", (int64_t)identity->size_bytes);
    mr_json_set_int(json, "block_size", identity->block_size);
    mr_json_set_string(json, "serial", identity->serial);
    mr_json_set_string(json, "wwn", identity->wwn);
    mr_json_set_string(json, "fs_uuid", identity->fs_uuid);
    mr_json_set_string(json, "source_key", identity->source_key);
    mr_json_set_int(json, "lun_pid", identity->lun_pid);
    mr_json_set_int(json, "lun_start_time", (int64_t)identity->lun_start_time);
    return json;
}

void mr_identity_from_json(struct mr_identity *identity, struct json_object *json)
{
    memset(identity, 0, sizeof(*identity));
    mr_json_copy_string(json, "node", identity->node, sizeof(identity->node));
    identity->major = get_u32(json, "major");
    identity->minor = get_u32(json, "minor");
    identity->diskseq = get_uint(json, "diskseq", INT64_MAX);
    identity->size_bytes = get_uint(json, "size_bytes", INT64_MAX);
    identity->block_size = get_u32(json, "block_size");
    mr_json_copy_string(json, "serial", identity->serial, sizeof(identity->serial));
    mr_json_copy_string(json, "wwn", identity->wwn, sizeof(identity->wwn));
    mr_json_copy_string(json, "fs_uuid", identity->fs_uuid, sizeof(identity->fs_uuid));
    mr_json_copy_string(json, "source_key", identity->source_key,
                        sizeof(identity->source_key));
    identity->lun_pid = (pid_t)get_uint(json, "lun_pid", INT32_MAX);
    identity->lun_start_time = get_uint(json, "lun_start_time", INT64_MAX);
}

struct json_object *mr_mount_record_to_json(const struct mr_mount_record *record)
{
    struct json_object *json = json_object_new_object();
    if (!json)
        return NULL;
    mr_json_set_int(json, "id", (int64_t)record->mount.id);
    mr_json_set_bool(json, "unique", record->mount.unique);
    mr_json_set_int(json, "major", record->mount.major);
    mr_json_set_int(json, "minor", record->mount.minor);
    mr_json_set_string(json, "root", record->root);
    mr_json_set_string(json, "path", record->path);
    mr_json_set_int(json, "created", record->created);
    return json;
}

void mr_mount_record_from_json(struct mr_mount_record *record, struct json_object *json)
{
    memset(record, 0, sizeof(*record));
    record->mount.id = get_uint(json, "id", INT64_MAX);
    record->mount.unique = mr_json_get_bool(json, "unique", false);
    record->mount.major = get_u32(json, "major");
    record->mount.minor = get_u32(json, "minor");
    mr_json_copy_string(json, "root", record->root, sizeof(record->root));
    mr_json_copy_string(json, "path", record->path, sizeof(record->path));
    record->created = get_u32(json, "created");
}

bool mr_mount_record_is_at(const struct mr_mount_record *record, const char *path)
{
    size_t root = strlen(record->root);
    return strncmp(path, record->root, root) == 0 && path[root] == '/' &&
           strcmp(path + root + 1, record->path) == 0;
}
