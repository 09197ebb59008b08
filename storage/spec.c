/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/spec.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/fs_options.h"
#include "storage/spec_fields.h"

MR_DEFINE_CLEANUP(spec, struct mr_spec *, mr_spec_free);
#define AUTO_SPEC MR_CLEANUP(spec)

static int default_mount_path(struct json_object *full, const char *id,
                              const char *default_root, struct mr_err *err)
{
    char path[PATH_MAX];
    if (mr_json_get(full, "mount_path"))
        return 0;
    if (!id || !default_root)
        return mr_fail_at(err, MR_E_INVALID_SPEC, "/mount_path",
                          "/mount_path is missing");
    if (mr_format(path, sizeof(path), "%s/%s", default_root, id) < 0 ||
        !mr_path_valid(path))
        return mr_fail_at(err, MR_E_INVALID_SPEC, "/mount_path",
                          "/mount_path is missing and there is no valid default for '%s'",
                          id);
    mr_json_set_string(full, "mount_path", path);
    if (!mr_json_get(full, "mount_path"))
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "decode a volume spec");
    return 0;
}

/* Options were checked to be short and of harmless characters: they may be named. */
static int check_options(const struct mr_spec *spec, struct mr_err *err)
{
    for (size_t i = 0; i < json_object_array_length(spec->options); i++) {
        const char *option =
            json_object_get_string(json_object_array_get_idx(spec->options, i));
        char at[48];
        (void)snprintf(at, sizeof(at), "/filesystem/options/%zu", i);
        if (!mr_fs_option_allowed(spec->fs_type, option))
            return mr_fail_at(err, MR_E_INVALID_SPEC, at,
                              "%s: '%s' is not an allowed mount option of %s", at, option,
                              spec->fs_type);
        for (size_t j = 0; j < i; j++) {
            const char *other =
                json_object_get_string(json_object_array_get_idx(spec->options, j));
            if (mr_fs_options_conflict(spec->fs_type, other, option))
                return mr_fail_at(err, MR_E_INVALID_SPEC, at, "%s: '%s' contradicts '%s'",
                                  at, option, other);
        }
    }
    return 0;
}

static int fill(struct mr_spec *spec, enum mr_decode mode, struct mr_err *err)
{
    struct json_object *filesystem = mr_json_get(spec->full, "filesystem");

    spec->source = mr_json_get(spec->full, "source");
    spec->driver = mr_json_get_string(spec->source, "driver");
    spec->fs_type = mr_json_get_string(filesystem, "type");
    spec->format_if_blank =
        strcmp(mr_json_get_string(filesystem, "format"), "if-blank") == 0;
    spec->options = mr_json_get(filesystem, "options");
    spec->mount_path = mr_json_get_string(spec->full, "mount_path");
    spec->read_only = mr_json_get_bool(spec->full, "read_only", false);

    if (mode == MR_DECODE_ROW) /* what is attached is attached */
        return 0;
    if (spec->read_only && spec->format_if_blank)
        return mr_fail_at(err, MR_E_INVALID_SPEC, "/filesystem/format",
                          "/filesystem/format: if-blank contradicts read_only: true");
    return check_options(spec, err);
}

static int decode(struct json_object *json, enum mr_decode mode, const char *id,
                  const char *default_root, struct mr_spec **ret, struct mr_err *err)
{
    AUTO_SPEC struct mr_spec *spec = calloc(1, sizeof(*spec));
    if (!spec)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "decode a volume spec");
    int r = mr_fields_decode(mr_spec_fields, json, mode, &spec->full, err);
    if (r == 0)
        r = default_mount_path(spec->full, id, default_root, err);
    if (r == 0)
        r = fill(spec, mode, err);
    if (r == 0)
        *ret = mr_take_ptr(spec);
    return r;
}

int mr_spec_decode(struct json_object *json, const char *id, const char *default_root,
                   struct mr_spec **ret, struct mr_err *err)
{
    return decode(json, MR_DECODE_REQUEST, id, default_root, ret, err);
}

int mr_spec_decode_public(struct json_object *json, struct mr_spec **ret,
                          struct mr_err *err)
{
    return decode(json, MR_DECODE_PUBLIC, NULL, NULL, ret, err);
}

int mr_spec_decode_row(struct json_object *json, struct mr_spec **ret, struct mr_err *err)
{
    return decode(json, MR_DECODE_ROW, NULL, NULL, ret, err);
}

void mr_spec_free(struct mr_spec *spec)
{
    if (!spec)
        return;
    (void)json_object_put(spec->full);
    free(spec);
}

struct json_object *mr_spec_public(const struct mr_spec *spec)
{
    return mr_fields_public(mr_spec_fields, spec->full);
}

bool mr_spec_equal(const struct mr_spec *a, const struct mr_spec *b)
{
    return mr_fields_equal(mr_spec_fields, a->full, b->full);
}

int mr_spec_source_key(const struct mr_spec *spec, char *dst, size_t size)
{
    return mr_source_driver(spec->driver)->key(spec->source, dst, size);
}

bool mr_volume_id_valid(const char *id)
{
    size_t len = id ? strnlen(id, MR_VOLUME_ID_MAX + 1) : 0;
    if (len == 0 || len > MR_VOLUME_ID_MAX || !isascii(id[0]) ||
        !isalnum((unsigned char)id[0]))
        return false;
    for (size_t i = 1; i < len; i++)
        if (!isascii(id[i]) || (!isalnum((unsigned char)id[i]) && !strchr("._-", id[i])))
            return false;
    return true;
}
