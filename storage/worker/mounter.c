/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/mounter.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libmount.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fault.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/fs_options.h"
#include "storage/worker/device.h"
#include "storage/worker/mounter_path.h"

#define OPTIONS_TEXT 1024
#define BUSY_TRIES 6
#define BUSY_RETRY_NS (20 * MR_NS_PER_MS)

MR_DEFINE_CLEANUP(dir, DIR *, (void)closedir);
MR_DEFINE_CLEANUP(context, struct libmnt_context *, mnt_free_context);
MR_DEFINE_CLEANUP(table, struct libmnt_table *, mnt_unref_table);

/* Nothing may be mounted on it and nothing may be in it: both would be hidden by our
 * mount. */
static int check_target(const struct mr_place *place,
                        const struct mr_mount_request *request, struct mr_err *err)
{
    struct mr_mount_id there;
    int r = mr_place_mount(place, &there);

    if (r == 0)
        return mr_fail(err, MR_E_MOUNT_PATH_BUSY, EBUSY,
                       "'%s/%s' has a mount on it (id %" PRIu64 ", device %" PRIu32
                       ":%" PRIu32 ")",
                       request->root, request->path, there.id, there.major, there.minor);
    if (r != -ENOENT)
        return mr_fail(err, MR_E_DEVICE_ERROR, -r, "mount table at '%s/%s'",
                       request->root, request->path);
    int fd = mr_open_beneath(place->parent_fd, place->name, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return mr_fail(err, MR_E_MOUNT_PATH_BUSY, -fd, "open '%s/%s'", request->root,
                       request->path);
    MR_CLEANUP(dir) DIR *dir = fdopendir(fd);
    if (!dir) {
        (void)close(fd);
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "fdopendir");
    }
    errno = 0;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            return mr_fail(err, MR_E_MOUNT_PATH_BUSY, ENOTEMPTY,
                           "directory '%s/%s' holds '%.64s'", request->root,
                           request->path, entry->d_name);
    }
    if (errno != 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "read directory '%s/%s'",
                       request->root, request->path);
    return 0;
}

static bool has_option(struct json_object *options, const char *name)
{
    for (size_t i = 0; i < json_object_array_length(options); i++) {
        const char *text = json_object_get_string(json_object_array_get_idx(options, i));
        if (text && strcmp(text, name) == 0)
            return true;
    }
    return false;
}

/* The allow list is asked again here: this process is the one that has the rights. */
static int option_text(const struct mr_mount_request *request, char dst[OPTIONS_TEXT],
                       struct mr_err *err)
{
    struct json_object *options = request->options;
    bool list = json_object_is_type(options, json_type_array);
    int r = mr_format(dst, OPTIONS_TEXT, "%s%s%s", request->read_only ? "ro" : "rw",
                      list && has_option(options, "suid") ? "" : ",nosuid",
                      list && has_option(options, "dev") ? "" : ",nodev");

    if (options && !list)
        return mr_fail(err, MR_E_INTERNAL, EINVAL, "mount options are no array");
    for (size_t i = 0; r == 0 && list && i < json_object_array_length(options); i++) {
        struct json_object *item = json_object_array_get_idx(options, i);
        const char *text = json_object_is_type(item, json_type_string)
                               ? json_object_get_string(item)
                               : "";
        if (!mr_fs_option_allowed(request->fs_type, text))
            return mr_fail_at(err, MR_E_INVALID_SPEC, "/filesystem/options",
                              "mount option '%.64s' is not allowed", text);
        size_t used = strlen(dst);
        r = mr_format(dst + used, OPTIONS_TEXT - used, ",%s", text);
    }
    if (r < 0)
        return mr_fail_at(err, MR_E_INVALID_SPEC, "/filesystem/options",
                          "mount options are too long");
    return 0;
}

static int fail_mount(struct mr_err *err, int errnum,
                      const struct mr_mount_request *request)
{
    enum mr_code code = MR_E_DEVICE_ERROR;
    const char *remedy = "the kernel log says more";

    switch (errnum) {
    case EBUSY:
        code = MR_E_DEVICE_HELD;
        remedy = "somebody else uses the device, or it is mounted with other flags";
        break;
    case ENODEV:
        code = MR_E_FILESYSTEM_UNSUPPORTED;
        remedy = "this kernel has no driver for the file system";
        break;
    case EUCLEAN:
    case EBADMSG:
        remedy = strcmp(request->fs_type, "xfs") == 0
                     ? "the file system is damaged: run xfs_repair on the source"
                     : "the file system is damaged: run e2fsck on the source";
        break;
    case EROFS:
    case EACCES:
        remedy = "the device is read-only (a dirty log cannot be replayed on it either)";
        break;
    case EINVAL:
        remedy = "bad superblock, unknown option, or a file system with this UUID is "
                 "mounted already: the kernel log says which";
        break;
    default:
        break;
    }
    int r =
        mr_fail(err, code, errnum, "mount %s file system of '%s' on '%s/%s'",
                request->fs_type, request->identity->node, request->root, request->path);
    return mr_err_remedy(err, r, "%s", remedy);
}

/* One mount(2) by libmount. Returns 0, a negative errno of the system call, or -ENOMEM.
 */
static int mount_once(const struct mr_mount_request *request, const char *options)
{
    MR_CLEANUP(context) struct libmnt_context *cxt = mnt_new_context();

    if (!cxt)
        return -ENOMEM;
    /* Canonicalisation would turn "." back into a path that may have changed meanwhile.
     * Without rwonly, libmount silently mounts a write-protected device read-only. */
    if (mnt_context_disable_canonicalize(cxt, 1) < 0 ||
        mnt_context_disable_helpers(cxt, 1) < 0 || mnt_context_disable_mtab(cxt, 1) < 0 ||
        mnt_context_enable_rwonly_mount(cxt, !request->read_only) < 0 ||
        mnt_context_set_optsmode(cxt, MNT_OMODE_NOTAB) < 0 ||
        mnt_context_set_source(cxt, request->identity->node) < 0 ||
        mnt_context_set_target(cxt, ".") < 0 ||
        mnt_context_set_fstype(cxt, request->fs_type) < 0 ||
        mnt_context_set_options(cxt, options) < 0)
        return -ENOMEM;
    int r = mnt_context_mount(cxt);
    if (r == 0 && mnt_context_get_status(cxt) == 1)
        return 0;
    if (mnt_context_syscall_called(cxt) && mnt_context_get_syscall_errno(cxt) != 0)
        return -mnt_context_get_syscall_errno(cxt);
    return r < 0 ? r : -EINVAL;
}

/* A prober that opens the device exclusively for a moment makes mount(2) fail with EBUSY:
 * tried again. */
static int mount_here(int target_fd, const struct mr_mount_request *request,
                      const char *options, struct mr_err *err)
{
    int r;

    for (unsigned tries = 1;; tries++) {
        if (fchdir(target_fd) < 0)
            return mr_fail(err, MR_E_MOUNT_PATH_BUSY, errno, "enter '%s/%s'",
                           request->root, request->path);
        r = mount_once(request, options);
        if (chdir("/") < 0 && r == 0)
            r = -errno;
        if (r != -EBUSY || tries == BUSY_TRIES)
            break;
        mr_sleep_ns(BUSY_RETRY_NS);
    }
    return r < 0 ? fail_mount(err, -r, request) : 0;
}

static bool is_device(const struct mr_mount_id *id, const struct mr_identity *identity)
{
    return id->major == identity->major && id->minor == identity->minor;
}

/* Only a topmost mount of our device is taken down again; a foreign one that came in
 * between stays. */
static int fail_not_ours(const struct mr_place *place,
                         const struct mr_mount_request *request, int errnum,
                         struct mr_err *err)
{
    int r = mr_fail(err, MR_E_MOUNT_PATH_BUSY, errnum,
                    "after mounting, the topmost mount at '%s/%s' is not '%s'",
                    request->root, request->path, request->identity->node);
    struct mr_mount_id top;

    if (mr_place_mount(place, &top) != 0 || !is_device(&top, request->identity) ||
        mr_place_umount(place, 0) != 0) {
        if (err)
            err->residue = MR_RESIDUE_POSSIBLE;
    }
    return r;
}

static int mount_at(const struct mr_place *place, const struct mr_mount_request *request,
                    struct mr_mount_id *ret, struct mr_err *err)
{
    MR_AUTO_CLOSE int target_fd = -1;
    MR_AUTO_CLOSE int device_fd = -1;
    char options[OPTIONS_TEXT];
    int r = check_target(place, request, err);

    if (r == 0)
        r = option_text(request, options, err);
    if (r < 0)
        return r;
    target_fd = mr_open_beneath(place->parent_fd, place->name, O_PATH | O_DIRECTORY);
    if (target_fd < 0)
        return mr_fail(err, MR_E_MOUNT_PATH_BUSY, -target_fd, "open '%s/%s'",
                       request->root, request->path);
    /* Kept open over the mount: the kernel then defers a clear of the loop device, so the
     * node cannot become another device between this check and mount(2), which needs a
     * path. */
    r = mr_device_open(request->identity, O_RDONLY, &device_fd, err);
    if (r == 0)
        r = mount_here(target_fd, request, options, err);
    if (r == 0)
        (void)mr_fault("worker", "mount", "inside"); /* to stop or to die, not to fail */
    if (r < 0)
        return r;
    r = mr_place_mount(place, ret);
    if (r < 0 || !is_device(ret, request->identity))
        return fail_not_ours(place, request, r < 0 ? -r : EBUSY, err);
    return 0;
}

int mr_mounter_mount(const struct mr_mount_request *request, struct mr_mount_record *ret,
                     struct mr_err *err)
{
    MR_AUTO_PLACE struct mr_place place = MR_PLACE_NONE;

    memset(ret, 0, sizeof(*ret));
    if (mr_format(ret->root, sizeof(ret->root), "%s", request->root) < 0 ||
        mr_format(ret->path, sizeof(ret->path), "%s", request->path) < 0)
        return mr_fail(err, MR_E_PATH_NOT_ALLOWED, ENAMETOOLONG, "mount path");
    if (!mr_fs_type_known(request->fs_type))
        return mr_fail(err, MR_E_FILESYSTEM_UNSUPPORTED, EINVAL, "file system '%.32s'",
                       request->fs_type);
    int r = mr_place_create(request->root, request->path, &place, &ret->created, err);
    if (r < 0)
        return r;
    r = mount_at(&place, request, &ret->mount, err);
    if (r < 0)
        mr_place_remove(place.root_fd, request->path, ret->created);
    return r;
}

int mr_mounter_check(const struct mr_mount_request *request, struct mr_err *err)
{
    MR_AUTO_PLACE struct mr_place place = MR_PLACE_NONE;
    int r = mr_place_open(request->root, request->path, &place, err);

    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    MR_AUTO_CLOSE int fd =
        mr_open_beneath(place.parent_fd, place.name, O_PATH | O_DIRECTORY);
    if (fd == -ENOENT)
        return 0;
    if (fd == -ELOOP)
        return mr_fail(err, MR_E_PATH_NOT_ALLOWED, ELOOP,
                       "mount path '%s/%s' is a symbolic link", request->root,
                       request->path);
    if (fd < 0)
        return mr_fail(err, MR_E_MOUNT_PATH_BUSY, -fd, "mount path '%s/%s'",
                       request->root, request->path);
    return check_target(&place, request, err);
}

/* Is the device mounted anywhere in our own mount namespace? */
static enum mr_presence device_mounted(const struct mr_identity *identity)
{
    MR_CLEANUP(table)
    struct libmnt_table *table = mnt_new_table_from_file("/proc/self/mountinfo");
    dev_t device = makedev(identity->major, identity->minor);

    if (!table)
        return MR_PRESENCE_UNKNOWN;
    return mnt_table_find_devno(table, device, MNT_ITER_BACKWARD) ? MR_PRESENT
                                                                  : MR_ABSENT_NOW;
}

int mr_mounter_adopt(const struct mr_identity *identity, struct mr_mount_record *record,
                     struct mr_err *err)
{
    /* Then the path does not matter, and may be one that was refused. */
    if (device_mounted(identity) == MR_ABSENT_NOW)
        return 0;

    MR_AUTO_PLACE struct mr_place place = MR_PLACE_NONE;
    struct mr_mount_id top;
    const char *why = NULL;
    int r = mr_place_open(record->root, record->path, &place, err);

    if (r == 0)
        r = mr_place_mount(&place, &top);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, -r, "mount table at '%s/%s'", record->root,
                       record->path);
    if (!is_device(&top, identity))
        return 0;
    /* The number alone says nothing: it may be another device by now. */
    enum mr_presence state = mr_device_state(identity, &why);
    if (state == MR_ABSENT_NOW)
        return 0;
    if (state != MR_PRESENT)
        return mr_fail(err, MR_E_DEVICE_ERROR, 0, "cannot tell whether '%s' is there: %s",
                       identity->node, why);
    record->mount = top;
    return 1;
}
