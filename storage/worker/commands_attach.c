/* SPDX-License-Identifier: Apache-2.0
 *
 * The way up: inspect, map, identify, check, format, mount.
 */
#include "storage/worker/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

#include "storage/base/clock.h"
#include "storage/base/fault.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/spec.h"
#include "storage/worker/claim.h"
#include "storage/worker/device.h"
#include "storage/worker/filesystem.h"
#include "storage/worker/mounter.h"
#include "storage/worker/mounter_path.h"

MR_DEFINE_CLEANUP(spec, struct mr_spec *, mr_spec_free);

/* Our mount, by its id; or, when an attach died before it wrote the id down, by device
 * and place. */
static int inspect_mount(struct json_object *cmd, const struct mr_identity *found,
                         struct json_object *reply, struct mr_err *err)
{
    enum mr_presence present = MR_ABSENT_NOW;
    struct mr_mount_record record;
    bool on_top = false;

    if (mr_json_get(cmd, "mount")) {
        int r = mr_arg_mount(cmd, &record, err);
        if (r == 0 && record.mount.id != 0) {
            present = mr_mounter_present(&record, &on_top);
        } else if (r == 0 && found) {
            r = mr_mounter_adopt(found, &record, err);
            if (r == 1) {
                present = MR_PRESENT;
                on_top = true;
                mr_json_set(reply, "mount", mr_mount_record_to_json(&record));
            }
        }
        if (r < 0)
            return r;
    }
    mr_json_set_string(reply, "mounted", mr_presence_name(present));
    mr_json_set_bool(reply, "on_top", on_top);
    return 0;
}

int mr_command_inspect(struct mr_worker *worker, struct json_object *cmd,
                       struct json_object *reply, struct mr_err *err)
{
    const struct mr_driver *driver = NULL;
    const char *token = NULL;
    const char *runtime_dir = NULL;
    struct mr_identity identity;

    (void)worker;
    /* The recorded diskseq is proof enough; only without it every device has to be asked
     * for the token. */
    bool recorded = mr_arg_identity(cmd, &identity, NULL) == 0;
    int r = mr_arg_driver(cmd, &driver, err);
    if (r == 0)
        r = mr_arg_token(cmd, &token, err);
    if (r == 0)
        r = mr_arg_text(cmd, "runtime_dir", &runtime_dir, err);
    if (r == 0 && recorded && mr_device_present(&identity) == MR_PRESENT)
        r = 1;
    else if (r == 0)
        r = driver->find(token, runtime_dir, &identity, err);
    if (r < 0)
        return r;
    bool found = r > 0;
    r = mr_fault_fail("worker", "inspect", "inside", err);
    if (r < 0)
        return r;
    mr_json_set_bool(reply, "found", found);
    if (found)
        mr_json_set(reply, "identity", mr_identity_to_json(&identity));
    return inspect_mount(cmd, found ? &identity : NULL, reply, err);
}

static int read_roots(struct json_object *config,
                      const char *roots[MR_FILE_ROOTS_MAX + 1], struct mr_err *err)
{
    struct json_object *list = mr_json_get(config, "file_roots");
    size_t n = 0;

    if (json_object_is_type(list, json_type_array))
        n = json_object_array_length(list);
    if (n > MR_FILE_ROOTS_MAX)
        return mr_fail(err, MR_E_INTERNAL, E2BIG, "worker command: file_roots");
    for (size_t i = 0; i < n; i++) {
        struct json_object *item = json_object_array_get_idx(list, i);
        if (!json_object_is_type(item, json_type_string))
            return mr_fail(err, MR_E_INTERNAL, EINVAL, "worker command: file_roots");
        roots[i] = json_object_get_string(item);
    }
    roots[n] = NULL;
    return 0;
}

static const char *text_or_empty(struct json_object *json, const char *key)
{
    const char *text = mr_json_get_string(json, key);

    return text ? text : "";
}

int mr_arg_map_request(struct json_object *cmd, const char *roots[MR_FILE_ROOTS_MAX + 1],
                       struct mr_spec **ret_spec, struct mr_map_request *ret,
                       struct mr_err *err)
{
    struct json_object *config = mr_json_get(cmd, "config");

    *ret = (struct mr_map_request){
        .runtime_dir = text_or_empty(config, "runtime_dir"),
        .libexec_dir = text_or_empty(config, "libexec_dir"),
        .initiator_name = text_or_empty(config, "initiator_name"),
        .iscsi_timeout_ms = mr_json_get_int(config, "iscsi_timeout_ms", 0),
        .file_roots = roots,
    };
    int r = mr_arg_token(cmd, &ret->token, err);
    if (r == 0)
        r = read_roots(config, roots, err);
    if (r == 0) /* the spec is complete: id and default root are for defaults only */
        r = mr_spec_decode(mr_json_get(cmd, "spec"), "volume", "/", ret_spec, err);
    ret->spec = *ret_spec;
    return r;
}

int mr_command_map(struct mr_worker *worker, struct json_object *cmd,
                   struct json_object *reply, struct mr_err *err)
{
    MR_CLEANUP(spec) struct mr_spec *spec = NULL;
    const char *roots[MR_FILE_ROOTS_MAX + 1];
    struct mr_identity identity = {0};
    struct mr_map_request request;

    (void)worker;
    int r = mr_arg_map_request(cmd, roots, &spec, &request, err);
    if (r < 0)
        return r;
    const struct mr_driver *driver = mr_driver_find(spec->driver);
    if (!driver)
        return mr_fail(err, MR_E_INTERNAL, EINVAL, "no driver '%.32s'", spec->driver);
    r = driver->map(&request, &identity, err);
    if (r < 0) {
        if (err->code == MR_E_SOURCE_IN_USE)
            mr_json_set_string(reply, "source_key", identity.source_key);
        return r;
    }
    mr_json_set(reply, "identity", mr_identity_to_json(&identity));
    return 0;
}

static int fail_differs(struct mr_err *err, const struct mr_identity *identity,
                        const char *what, uint64_t recorded, uint64_t now)
{
    return mr_fail(err, MR_E_DEVICE_MISMATCH, ESTALE,
                   "%s of '%s' was %" PRIu64 " and is %" PRIu64, what, identity->node,
                   recorded, now);
}

int mr_command_identify(struct mr_worker *worker, struct json_object *cmd,
                        struct json_object *reply, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    struct mr_identity identity;
    uint64_t size = 0;
    int block_size = 0;

    (void)worker;
    int r = mr_arg_identity(cmd, &identity, err);
    if (r == 0)
        r = mr_device_open(&identity, O_RDONLY, &fd, err);
    if (r == 0)
        r = mr_fault_fail("worker", "identify", "inside", err);
    if (r < 0)
        return r;
    if (ioctl(fd, BLKGETSIZE64, &size) < 0 || ioctl(fd, BLKSSZGET, &block_size) < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "size of '%s'", identity.node);
    if (identity.size_bytes != 0 && identity.size_bytes != size)
        return fail_differs(err, &identity, "size", identity.size_bytes, size);
    if (identity.block_size != 0 && identity.block_size != (uint32_t)block_size)
        return fail_differs(err, &identity, "block size", identity.block_size,
                            (uint32_t)block_size);
    identity.size_bytes = size;
    identity.block_size = (uint32_t)block_size;
    mr_json_set(reply, "identity", mr_identity_to_json(&identity));
    return 0;
}

int mr_command_check(struct mr_worker *worker, struct json_object *cmd,
                     struct json_object *reply, struct mr_err *err)
{
    struct mr_identity identity;
    struct mr_probe probe;

    (void)worker;
    int r = mr_arg_identity(cmd, &identity, err);
    if (r == 0)
        r = mr_filesystem_probe(&identity, &probe, err);
    if (r == 0 && probe.read_errno)
        r = mr_fail(err, MR_E_DEVICE_ERROR, probe.read_errno, "look at '%s': %s",
                    identity.node, probe.detail);
    if (r < 0)
        return r;
    mr_json_set_string(reply, "content", mr_content_name(probe.content));
    mr_json_set_string(reply, "detail", probe.detail);
    if (probe.content == MR_CONTENT_FORMATTED) {
        mr_json_set_string(reply, "fs_type", probe.type);
        mr_json_set_string(reply, "fs_uuid", probe.uuid);
    }
    return 0;
}

int mr_command_format(struct mr_worker *worker, struct json_object *cmd,
                      struct json_object *reply, struct mr_err *err)
{
    struct mr_identity identity;
    const char *type = NULL;
    const char *uuid = NULL;

    (void)reply;
    int r = mr_arg_identity(cmd, &identity, err);
    if (r == 0)
        r = mr_arg_text(cmd, "fs_type", &type, err);
    if (r == 0)
        r = mr_arg_text(cmd, "fs_uuid", &uuid, err);
    int64_t limit_ms = mr_json_get_int(cmd, "deadline_ms", 0);
    if (r == 0 && limit_ms <= 0)
        r = mr_fail(err, MR_E_INTERNAL, ERANGE, "worker command: member 'deadline_ms'");
    if (r < 0)
        return r;
    return mr_filesystem_format(&identity, type, uuid, worker->lock_fd,
                                mr_now_ns() + limit_ms * MR_NS_PER_MS, err);
}

/* Never mounted unseen: type and UUID must be what the journal or the spec says. uuid "":
 * any, then *ret_uuid is what was found. */
static int check_content(const struct mr_mount_request *request, const char *uuid,
                         char ret_uuid[40], struct mr_err *err)
{
    const struct mr_identity *identity = request->identity;
    struct mr_probe probe;
    bool same = false;
    int r = 0;

    if (*uuid)
        r = mr_filesystem_is(identity, request->fs_type, uuid, &same, err);
    if (same)
        return mr_format(ret_uuid, 40, "%s", uuid);
    if (r == 0)
        r = mr_filesystem_probe(identity, &probe, err);
    if (r < 0)
        return r;
    if (probe.content != MR_CONTENT_FORMATTED ||
        strcmp(probe.type, request->fs_type) != 0)
        return mr_fail(err, MR_E_WRONG_FILESYSTEM, 0, "%s expected on '%s', found: %s",
                       request->fs_type, identity->node, probe.detail);
    if (*uuid)
        return mr_fail(err, MR_E_DEVICE_MISMATCH, 0,
                       "file system with UUID %s expected on '%s', found: %s", uuid,
                       identity->node, probe.detail);
    memcpy(ret_uuid, probe.uuid, sizeof(probe.uuid));
    return 0;
}

static int undo_mount(const struct mr_mount_record *record, int r, struct mr_err *err)
{
    char detail[200];

    if (mr_mounter_unmount(record, detail, NULL) != MR_UNMOUNT_DONE)
        err->residue = MR_RESIDUE_POSSIBLE;
    return r;
}

int mr_command_mount(struct mr_worker *worker, struct json_object *cmd,
                     struct json_object *reply, struct mr_err *err)
{
    struct mr_identity identity;
    struct mr_mount_record record;
    char uuid[40];
    struct mr_mount_request request = {
        .identity = &identity,
        .options = mr_json_get(cmd, "options"),
        .read_only = mr_json_get_bool(cmd, "read_only", false),
    };

    (void)worker;
    int r = mr_arg_identity(cmd, &identity, err);
    if (r == 0)
        r = mr_arg_text(cmd, "fs_type", &request.fs_type, err);
    if (r == 0)
        r = mr_arg_text(cmd, "root", &request.root, err);
    if (r == 0)
        r = mr_arg_text(cmd, "path", &request.path, err);
    if (r == 0)
        r = check_content(&request, text_or_empty(cmd, "fs_uuid"), uuid, err);
    if (r == 0)
        r = mr_mounter_mount(&request, &record, err);
    if (r < 0)
        return r;
    r = mr_filesystem_harden(&identity, request.fs_type, err);
    if (r < 0)
        return undo_mount(&record, r, err);
    mr_json_set(reply, "mount", mr_mount_record_to_json(&record));
    mr_json_set_string(reply, "fs_uuid", uuid);
    return 0;
}
