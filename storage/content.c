/* SPDX-License-Identifier: Apache-2.0
 *
 * The steps check and format of an attach: what may be done with what is on the device.
 * Unknown is never blank, and nothing is formatted that was not asked for.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/engine_internal.h"

/* Is this the trace of an mkfs of ours that was cut off? */
static bool interrupted_mkfs(const struct mr_volume *volume, const char *uuid)
{
    const struct mr_format_record *format = &volume->format;
    return format->fs_uuid[0] && !format->done &&
           (!uuid || strcmp(uuid, format->fs_uuid) == 0);
}

/* The same mkfs may be run again only on the very device on which it was begun. */
static bool may_format_again(const struct mr_operation *op)
{
    const struct mr_format_record *format = &op->volume->format;
    return strcmp(format->boot_id, op->engine->boot_id) == 0 &&
           format->diskseq == op->volume->identity.diskseq;
}

static int fail_interrupted(const char *detail, struct mr_err *err)
{
    int r = mr_fail(err, MR_E_NOT_BLANK, 0,
                    "interrupted mkfs: a format of this volume was begun and did not end "
                    "(%s)",
                    detail);
    return mr_err_remedy(err, r,
                         "if nothing on it is wanted, wipe it (wipefs -a, blkdiscard -z) "
                         "and PUT again");
}

static bool is(const struct mr_content *content, const char *what)
{
    return content->content && strcmp(content->content, what) == 0;
}

/* Whatever was here before, can this be what is asked for? */
static int judge(const struct mr_spec *spec, const struct mr_content *content,
                 bool *ret_format, struct mr_err *err)
{
    int r;

    *ret_format = false;
    if (is(content, "formatted") && content->fs_type &&
        strcmp(content->fs_type, spec->fs_type) == 0)
        return 0;
    if (is(content, "formatted")) {
        r = mr_fail(err, MR_E_WRONG_FILESYSTEM, 0, "asked for %s, found %s",
                    spec->fs_type, content->detail);
        return mr_err_remedy(
            err, r,
            "ask for what is there, or wipe it yourself if nothing on it is wanted");
    }
    if (is(content, "blank") && spec->format_if_blank) {
        *ret_format = true;
        return 0;
    }
    if (is(content, "blank")) {
        r = mr_fail(err, MR_E_WRONG_FILESYSTEM, 0, "asked for %s, the device is blank",
                    spec->fs_type);
        return mr_err_remedy(err, r, "use \"format\": \"if-blank\" to make one");
    }
    r = mr_fail(err, spec->format_if_blank ? MR_E_NOT_BLANK : MR_E_WRONG_FILESYSTEM, 0,
                "no %s and not blank: %s", spec->fs_type, content->detail);
    return mr_err_remedy(err, r,
                         "look at the device; if nothing on it is wanted, wipe it and "
                         "PUT again");
}

static const char *detail_or_none(const char *detail)
{
    return detail ? detail : "the content could not be told";
}

int mr_content_judge(const struct mr_volume *volume, const struct mr_spec *spec,
                     const struct mr_content *content, bool *ret_format,
                     struct mr_err *err)
{
    const struct mr_content seen = {
        .content = content->content,
        .fs_type = content->fs_type,
        .fs_uuid = content->fs_uuid,
        .detail = detail_or_none(content->detail),
    };

    *ret_format = false;
    if (volume && !is(&seen, "blank") && mr_request_same_source(volume->spec, spec) &&
        interrupted_mkfs(volume, is(&seen, "formatted") ? seen.fs_uuid : NULL))
        return fail_interrupted(seen.detail, err);
    return judge(spec, &seen, ret_format, err);
}

void mr_content_checked(struct mr_operation *op, struct json_object *message)
{
    struct mr_volume *volume = op->volume;
    const struct mr_content content = {
        .content = mr_json_get_string(message, "content"),
        .fs_type = mr_json_get_string(message, "fs_type"),
        .fs_uuid = mr_json_get_string(message, "fs_uuid"),
        .detail = detail_or_none(mr_json_get_string(message, "detail")),
    };
    const char *uuid = content.fs_uuid;
    bool formatted = is(&content, "formatted");
    struct mr_err err;
    int r = 0;

    if (op->expected.fs_uuid[0] &&
        (!formatted || !uuid || strcmp(uuid, op->expected.fs_uuid) != 0)) {
        mr_operation_fail_with(op, MR_E_DEVICE_MISMATCH,
                               "DELETE the volume, look at the source, then PUT it again",
                               "file system %s was attached here, found: %s",
                               op->expected.fs_uuid, content.detail);
        return;
    }
    if (is(&content, "blank") || !interrupted_mkfs(volume, formatted ? uuid : NULL)) {
        r = judge(volume->spec, &content, &op->needs_format, &err);
        if (r == 0 && formatted && uuid)
            (void)snprintf(volume->identity.fs_uuid, sizeof(volume->identity.fs_uuid),
                           "%s", uuid);
    } else if (may_format_again(op)) {
        op->needs_format = true;
    } else {
        r = fail_interrupted(content.detail, &err);
    }
    if (r < 0)
        mr_operation_fail(op, &err);
    else
        mr_operation_advance(op);
}

void mr_content_begin_check(struct mr_operation *op)
{
    struct json_object *command = mr_operation_new_command(op, "check");
    mr_json_set_string(command, "fs_type", op->volume->spec->fs_type);
    mr_operation_command(op, command, 0);
}

/* RFC 9562, version 4. dst holds 37 bytes. */
static int random_uuid(char *dst)
{
    char hex[33];
    int rc = mr_random_hex(16, hex);
    if (rc < 0)
        return rc;
    hex[12] = '4';
    hex[16] = "89ab"[hex[16] & 3];
    return mr_format(dst, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12,
                     hex + 16, hex + 20);
}

static void format_begun(struct mr_operation *op)
{
    const struct mr_config *config = op->engine->config;
    struct json_object *command = mr_operation_new_command(op, "format");
    mr_json_set_string(command, "fs_type", op->volume->spec->fs_type);
    mr_json_set_string(command, "fs_uuid", op->volume->format.fs_uuid);
    mr_json_set_int(command, "deadline_ms", config->format_deadline_ns / MR_NS_PER_MS);
    mr_operation_command(op, command,
                         config->format_deadline_ns + config->worker_deadline_ns);
}

void mr_content_begin_format(struct mr_operation *op)
{
    struct mr_volume *volume = op->volume;
    struct mr_format_record *format = &volume->format;
    struct mr_err err;

    if (!op->needs_format) {
        mr_operation_advance(op);
        return;
    }
    memset(format, 0, sizeof(*format));
    if (random_uuid(format->fs_uuid) < 0) {
        (void)mr_fail(&err, MR_E_INTERNAL, EIO, "choose a file-system UUID");
        mr_operation_fail(op, &err);
        return;
    }
    memcpy(format->boot_id, op->engine->boot_id, sizeof(format->boot_id));
    format->diskseq = volume->identity.diskseq;
    MR_AUTO_JSON struct json_object *detail = json_object_new_object();
    mr_json_set_string(detail, "fs_uuid", format->fs_uuid);
    mr_operation_record(op, "format_begun", detail, format_begun);
}

void mr_content_formatted(struct mr_operation *op, struct json_object *message)
{
    (void)message;
    struct mr_volume *volume = op->volume;
    volume->format.done = true;
    memcpy(volume->identity.fs_uuid, volume->format.fs_uuid,
           sizeof(volume->identity.fs_uuid));
    mr_operation_record(op, "format_done", NULL, NULL);
    mr_operation_advance(op);
}
