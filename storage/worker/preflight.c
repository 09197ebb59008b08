/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of `mooring-worker probe`: what could be attached, and what an attach
 * would meet. They change nothing and need no lock.
 */
#include <errno.h>
#include <sys/stat.h>

#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/spec.h"
#include "storage/worker/commands.h"
#include "storage/worker/filesystem.h"
#include "storage/worker/lun_oneshot.h"
#include "storage/worker/mounter.h"

MR_DEFINE_CLEANUP(spec, struct mr_spec *, mr_spec_free);

int mr_command_discover(struct mr_worker *worker, struct json_object *cmd,
                        struct json_object *reply, struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *message = json_object_new_object();
    MR_AUTO_JSON struct json_object *answer = NULL;
    const char *libexec_dir = NULL;
    const char *portal = NULL;
    const char *initiator = NULL;

    (void)worker;
    int r = mr_arg_text(cmd, "libexec_dir", &libexec_dir, err);
    if (r == 0)
        r = mr_arg_text(cmd, "portal", &portal, err);
    if (r == 0)
        r = mr_arg_text(cmd, "initiator_name", &initiator, err);
    if (r < 0)
        return r;
    mr_json_set_string(message, "portal", portal);
    mr_json_set_string(message, "initiator_name", initiator);
    r = mr_lun_oneshot(libexec_dir, "discover", message,
                       mr_json_get_int(cmd, "deadline_ms", 0), &answer, NULL, err);
    if (r < 0)
        return r;
    mr_json_set_bool(reply, "complete", mr_json_get_bool(answer, "complete", false));
    mr_json_set(reply, "targets", json_object_get(mr_json_get(answer, "targets")));
    return 0;
}

/* What the step `check` of an attach would find. */
static int check_content(int fd, struct json_object *reply, struct mr_err *err)
{
    uint32_t block_size = (uint32_t)mr_json_get_int(reply, "block_size", 0);
    int64_t size_bytes = mr_json_get_int(reply, "size_bytes", -1);
    struct mr_probe probe;
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != size_bytes)
        return mr_fail(err, MR_E_INTERNAL, EBADMSG,
                       "what is to be probed is no file of "
                       "the source's size");
    int r = mr_filesystem_probe_file(fd, block_size, &probe, err);
    if (r == 0 && probe.read_errno)
        r = mr_fail(err, MR_E_DEVICE_ERROR, probe.read_errno, "look at the source: %s",
                    probe.detail);
    if (r < 0)
        return r;
    mr_json_set_string(reply, "content", mr_content_name(probe.content));
    mr_json_set_string(reply, "fs_type", probe.type);
    mr_json_set_string(reply, "fs_uuid", probe.uuid);
    mr_json_set_string(reply, "label", probe.label);
    mr_json_set_string(reply, "detail", probe.detail);
    return 0;
}

static void check_place(struct json_object *cmd, const struct mr_spec *spec,
                        struct json_object *reply)
{
    struct mr_mount_request request = {.fs_type = spec->fs_type};
    struct mr_err err = {0};
    int r = mr_arg_text(cmd, "root", &request.root, &err);

    if (r == 0)
        r = mr_arg_text(cmd, "path", &request.path, &err);
    if (r == 0)
        r = mr_mounter_check(&request, &err);
    if (r < 0)
        mr_json_set(reply, "mount_error", mr_err_to_json(&err));
}

static int check_writable(const struct mr_spec *spec, struct json_object *reply,
                          struct mr_err *err)
{
    if (spec->read_only || !mr_json_get_bool(reply, "write_protected", false))
        return 0;
    int r = mr_fail(err, MR_E_DEVICE_ERROR, EROFS, "the source is write-protected");
    return mr_err_remedy(err, r, "attach it with read_only: true");
}

int mr_command_preflight(struct mr_worker *worker, struct json_object *cmd,
                         struct json_object *reply, struct mr_err *err)
{
    MR_CLEANUP(spec) struct mr_spec *spec = NULL;
    const char *roots[MR_FILE_ROOTS_MAX + 1];
    struct mr_map_request request;
    MR_AUTO_CLOSE int fd = -1;

    (void)worker;
    int r = mr_arg_map_request(cmd, roots, &spec, &request, err);
    if (r < 0)
        return r;
    const struct mr_driver *driver = mr_driver_find(spec->driver);
    if (!driver)
        return mr_fail(err, MR_E_INTERNAL, EINVAL, "no driver '%.32s'", spec->driver);
    request.mapped = mr_json_get_bool(cmd, "mapped", false);
    if (!request.mapped)
        check_place(cmd, spec, reply);
    r = driver->preflight(&request, reply, &fd, err);
    if (fd >= 0) {
        struct mr_err why = {0};
        int seen = check_content(fd, reply, &why);
        if (r == 0)
            r = check_writable(spec, reply, err);
        if (r == 0 && seen < 0)
            *err = why;
        r = r < 0 ? r : seen;
    }
    return r;
}
