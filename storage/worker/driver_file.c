/* SPDX-License-Identifier: Apache-2.0
 *
 * Driver "file": a regular file below a configured root as a loop device. An flock on the
 * open file that the loop device keeps holds the "one source, once" rule against other
 * agents, too, and needs no clean-up.
 */
#include "storage/worker/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fault.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/worker/loopdev.h"
#include "storage/worker/mounter_path.h"

#define LOCK_LIMIT_NS (200 * MR_NS_PER_MS)
#define LOCK_RETRY_NS (5 * MR_NS_PER_MS)
#define SECTOR_BYTES 512
#define POINTER "/source/path"

/* The part of path below root, or NULL. */
static const char *below_root(const char *root, const char *path)
{
    size_t n = strlen(root);

    while (n > 0 && root[n - 1] == '/')
        n--;
    return strncmp(root, path, n) == 0 && path[n] == '/' ? path + n + 1 : NULL;
}

static int fail_path(struct mr_err *err, int errnum, const char *path)
{
    switch (errnum) {
    case ELOOP:
        return mr_fail_at(err, MR_E_PATH_NOT_ALLOWED, POINTER,
                          "'%s' has a symbolic link below the configured root", path);
    case ENOENT:
    case ENOTDIR:
        return mr_fail_at(err, MR_E_INVALID_SPEC, POINTER, "no such file '%s'", path);
    default:
        return mr_fail(err, MR_E_DEVICE_ERROR, errnum, "open '%s'", path);
    }
}

/* The file as O_PATH: nothing is opened yet, so devices and pipes are not touched. */
static int find_file(const struct mr_map_request *request, const char *path, int *ret_fd,
                     struct mr_err *err)
{
    for (const char *const *root = request->file_roots; *root; root++) {
        const char *rest = below_root(*root, path);
        if (!rest)
            continue;
        if (!mr_relative_path_valid(rest))
            break;
        MR_AUTO_CLOSE int root_fd = open(*root, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root_fd < 0)
            return mr_fail(err, MR_E_DEVICE_ERROR, errno, "file root '%s'", *root);
        int fd = mr_open_beneath(root_fd, rest, O_PATH);
        if (fd < 0)
            return fail_path(err, -fd, path);
        *ret_fd = fd;
        return 0;
    }
    return mr_fail_at(err, MR_E_PATH_NOT_ALLOWED, POINTER,
                      "'%s' is not below a configured file root", path);
}

int mr_file_source_key(char dst[MR_KEY_TEXT], dev_t dev, uint64_t inode)
{
    return mr_format(dst, MR_KEY_TEXT, "file:%u:%u:%" PRIu64, major(dev), minor(dev),
                     inode);
}

static int check_file(const char *path, int fd, char key[MR_KEY_TEXT], struct mr_err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "fstat '%s'", path);
    if (!S_ISREG(st.st_mode))
        return mr_fail_at(err, MR_E_INVALID_SPEC, POINTER, "'%s' is no regular file",
                          path);
    if (st.st_size <= 0 || st.st_size % SECTOR_BYTES != 0)
        return mr_fail_at(err, MR_E_INVALID_SPEC, POINTER,
                          "the size of '%s', %jd bytes, is no multiple of %d above 0",
                          path, (intmax_t)st.st_size, SECTOR_BYTES);
    return mr_file_source_key(key, st.st_dev, st.st_ino);
}

/* A loop device that somebody else closed last is gone from sysfs a moment before the
 * kernel lets go of its file, and with it of the lock (drivers/block/loop.c). */
static int lock(int fd)
{
    int64_t deadline_ns = mr_now_ns() + LOCK_LIMIT_NS;

    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK || mr_now_ns() >= deadline_ns)
            return -errno;
        mr_sleep_ns(LOCK_RETRY_NS);
    }
    return 0;
}

static int fail_locked(const char *path, struct mr_err *err)
{
    char node[32];

    mr_loop_of_path(path, node);
    int r = mr_fail(err, MR_E_SOURCE_IN_USE, EBUSY, "'%s' is %s%s", path,
                    node[0] ? "mapped already, as " : "locked by another user", node);
    return node[0] ? mr_err_remedy(err, r, "GET /orphans lists what no volume knows") : r;
}

/* Opens the checked file for I/O and locks it. */
static int open_locked(const struct mr_map_request *request, int *ret_fd,
                       char key[MR_KEY_TEXT], struct mr_err *err)
{
    const char *path = mr_json_get_string(request->spec->source, "path");
    MR_AUTO_CLOSE int path_fd = -1;
    char link[32];

    if (!path || *path != '/')
        return mr_fail_at(err, MR_E_INVALID_SPEC, POINTER, "an absolute path is needed");
    int r = find_file(request, path, &path_fd, err);
    if (r == 0)
        r = check_file(path, path_fd, key, err);
    if (r < 0)
        return r;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", path_fd);
    MR_AUTO_CLOSE int fd =
        open(link, (request->spec->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (fd < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "open '%s'", path);
    r = lock(fd);
    if (r == -EWOULDBLOCK)
        return fail_locked(path, err);
    if (r < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, -r, "flock '%s'", path);
    *ret_fd = mr_take_fd(&fd);
    return 0;
}

static int file_map(const struct mr_map_request *request, struct mr_identity *ret,
                    struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    char key[MR_KEY_TEXT] = "";

    memset(ret, 0, sizeof(*ret));
    int r = open_locked(request, &fd, key, err);
    if (r == 0)
        r = mr_fault_fail("worker", "map", "inside", err);
    if (r == 0) {
        /* The device takes its own reference to this open file, and the lock with it. */
        struct mr_loop_setup setup = {
            .backing_fd = fd,
            .token = request->token,
            .runtime_dir = request->runtime_dir,
            .read_only = request->spec->read_only,
            .direct_io = true,
        };
        r = mr_loop_attach(&setup, ret, err);
    }
    memcpy(ret->source_key, key, sizeof(key));
    return r;
}

/* A moment's shared lock: who maps the file meanwhile tries again. */
static int check_unlocked(const char *path, int fd, struct mr_err *err)
{
    if (flock(fd, LOCK_SH | LOCK_NB) == 0)
        return flock(fd, LOCK_UN);
    return errno == EWOULDBLOCK
               ? fail_locked(path, err)
               : mr_fail(err, MR_E_DEVICE_ERROR, errno, "flock '%s'", path);
}

static int file_preflight(const struct mr_map_request *request, struct json_object *reply,
                          int *ret_fd, struct mr_err *err)
{
    const char *path = mr_json_get_string(request->spec->source, "path");
    MR_AUTO_CLOSE int path_fd = -1;
    char key[MR_KEY_TEXT];
    char link[32];
    struct stat st;

    if (!path || *path != '/')
        return mr_fail_at(err, MR_E_INVALID_SPEC, POINTER, "an absolute path is needed");
    int r = find_file(request, path, &path_fd, err);
    if (r == 0)
        r = check_file(path, path_fd, key, err);
    if (r < 0)
        return r;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", path_fd);
    MR_AUTO_CLOSE int fd = open(link, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "open '%s'", path);
    mr_json_set_string(reply, "source_key", key);
    mr_json_set_int(reply, "size_bytes", st.st_size);
    mr_json_set_int(reply, "block_size", SECTOR_BYTES);
    mr_json_set_bool(reply, "write_protected", access(link, W_OK) < 0);
    *ret_fd = mr_take_fd(&fd);
    return request->mapped ? 0 : check_unlocked(path, *ret_fd, err);
}

static int file_find(const char *token, const char *runtime_dir, struct mr_identity *ret,
                     struct mr_err *err)
{
    return mr_loop_find(token, runtime_dir, MR_LOOP_ON_FILE, ret, err);
}

static int file_unmap(const char *token, const char *runtime_dir,
                      const struct mr_identity *identity, int claim_fd,
                      struct mr_err *err)
{
    (void)token;
    (void)runtime_dir;
    (void)identity;
    return mr_loop_clear(claim_fd, err);
}

const struct mr_driver mr_driver_file = {
    .name = "file",
    .unmap_kind = MR_UNMAP_DEFERRED,
    .map = file_map,
    .preflight = file_preflight,
    .find = file_find,
    .unmap = file_unmap,
    .keep = mr_loop_keep,
};
