/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/identity.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/json.h"

#define MARK_PREFIX "mooring:"
#define TOKEN_DIGITS (MR_TOKEN_TEXT - 1)

bool mr_token_valid(const char *token)
{
    return token && strspn(token, "0123456789abcdef") == TOKEN_DIGITS &&
           token[TOKEN_DIGITS] == '\0';
}

uint64_t mr_text_hash(const char *text, size_t len)
{
    uint64_t hash = 0xcbf29ce484222325; /* draft-eastlake-fnv */

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3;
    return hash;
}

/* One directory, however many slashes end it. */
static uint64_t owner_of(const char *runtime_dir)
{
    size_t len = strlen(runtime_dir);

    while (len > 1 && runtime_dir[len - 1] == '/')
        len--;
    return mr_text_hash(runtime_dir, len);
}

void mr_mark(char dst[MR_MARK_TEXT], const char *token, const char *runtime_dir)
{
    (void)snprintf(dst, MR_MARK_TEXT, MARK_PREFIX "%.*s:%016" PRIx64, TOKEN_DIGITS, token,
                   owner_of(runtime_dir));
}

bool mr_mark_read(const char *text, const char *runtime_dir, char token[MR_TOKEN_TEXT])
{
    const size_t prefix = sizeof(MARK_PREFIX) - 1;
    char mark[MR_MARK_TEXT];

    if (strncmp(text, MARK_PREFIX, prefix) != 0 ||
        strnlen(text, MR_MARK_TEXT) != MR_MARK_TEXT - 1)
        return false;
    memcpy(token, text + prefix, TOKEN_DIGITS);
    token[TOKEN_DIGITS] = '\0';
    if (!mr_token_valid(token))
        return false;
    mr_mark(mark, token, runtime_dir);
    return strcmp(mark, text) == 0;
}

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
