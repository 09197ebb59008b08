/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fault.h"
#include "storage/base/fd.h"
#include "storage/base/spawn.h"
#include "storage/worker/claim.h"
#include "storage/worker/device.h"

#define CLAIM_BUDGET_MS 2000
#define ARGS_MAX 12

static const char *const tool_dirs[] = {"/usr/sbin", "/sbin", "/usr/bin", "/bin"};

struct mkfs {
    const char *type;
    const char *program;
    const char *package;
    const char *args[ARGS_MAX]; /* "UUID" and "NODE" are replaced */
};

/* Nothing is discarded: on a network device that takes minutes and gives nothing on a
 * blank one. ext4 leaves the inode tables to the kernel (lazy_itable_init): with many TB
 * mkfs would write for hours. */
static const struct mkfs makers[] = {
    {"xfs", "mkfs.xfs", "xfsprogs", {"-f", "-q", "-K", "-m", "uuid=UUID", "NODE"}},
    {"ext4",
     "mkfs.ext4",
     "e2fsprogs",
     {"-F", "-q", "-E", "nodiscard,lazy_itable_init=1", "-U", "UUID", "NODE"}},
};

static const struct mkfs *find_maker(const char *type)
{
    for (size_t i = 0; i < sizeof(makers) / sizeof(makers[0]); i++) {
        if (strcmp(makers[i].type, type) == 0)
            return &makers[i];
    }
    return NULL;
}

static int find_tool(const struct mkfs *maker, char *dst, size_t size, struct mr_err *err)
{
    for (size_t i = 0; i < sizeof(tool_dirs) / sizeof(tool_dirs[0]); i++) {
        if (mr_format(dst, size, "%s/%s", tool_dirs[i], maker->program) == 0 &&
            access(dst, X_OK) == 0)
            return 0;
    }
    (void)mr_fail(err, MR_E_FILESYSTEM_UNSUPPORTED, 0, "%s is not installed",
                  maker->program);
    return mr_err_remedy(err, -ENOENT, "install the package %s", maker->package);
}

static const char *one_line(char *text)
{
    size_t n = strlen(text);

    while (n > 0 && text[n - 1] == '\n')
        text[--n] = '\0';
    for (char *c = strchr(text, '\n'); c; c = strchr(c, '\n'))
        *c = ' ';
    return text;
}

static int run_maker(const struct mkfs *maker, const struct mr_identity *identity,
                     const char *uuid, int keep_fd, int64_t deadline_ns,
                     struct mr_err *err)
{
    const char *argv[ARGS_MAX + 2] = {0};
    char program[64];
    char xfs_uuid[sizeof("uuid=") + sizeof(identity->fs_uuid)];
    char output[400] = "";
    int r = find_tool(maker, program, sizeof(program), err);

    if (r < 0)
        return r;
    if (mr_format(xfs_uuid, sizeof(xfs_uuid), "uuid=%s", uuid) < 0)
        return mr_fail(err, MR_E_INTERNAL, EINVAL, "file-system UUID");
    argv[0] = program;
    for (size_t i = 0; i < ARGS_MAX && maker->args[i]; i++) {
        const char *arg = maker->args[i];
        argv[i + 1] = strcmp(arg, "UUID") == 0        ? uuid
                      : strcmp(arg, "uuid=UUID") == 0 ? xfs_uuid
                      : strcmp(arg, "NODE") == 0      ? identity->node
                                                      : arg;
    }
    r = mr_spawn_run(argv, &keep_fd, keep_fd >= 0 ? 1 : 0, deadline_ns, output,
                     sizeof(output), err);
    if (r == -ETIMEDOUT)
        return mr_fail(err, MR_E_DEVICE_ERROR, ETIMEDOUT, "%s on '%s'", maker->program,
                       identity->node);
    if (r > 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, 0, "%s on '%s' ended with %d: %s",
                       maker->program, identity->node, r, one_line(output));
    return r;
}

static int take_claim(const struct mr_identity *identity, int *ret_fd, struct mr_err *err)
{
    unsigned tries = 0;

    switch (mr_claim(identity, CLAIM_BUDGET_MS, ret_fd, &tries, err)) {
    case MR_CLAIM_OK:
        return 0;
    case MR_CLAIM_BUSY:
        return mr_fail(err, MR_E_DEVICE_HELD, EBUSY, "cannot format '%s'",
                       identity->node);
    case MR_CLAIM_GONE:
        return mr_fail(err, MR_E_DEVICE_MISMATCH, ENODEV, "cannot format '%s'",
                       identity->node);
    case MR_CLAIM_UNKNOWN:
        break;
    }
    return mr_err_context(err, -EIO, "cannot format '%s'", identity->node);
}

/* What counts is what can be read back, not the tool's exit status. */
static int verify(const struct mr_identity *identity, const char *type, const char *uuid,
                  struct mr_err *err)
{
    struct mr_probe probe;
    int r = mr_filesystem_probe(identity, &probe, err);

    if (r < 0)
        return r;
    if (probe.content != MR_CONTENT_FORMATTED || strcmp(probe.type, type) != 0 ||
        strcasecmp(probe.uuid, uuid) != 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, 0,
                       "after mkfs of %s with UUID %s there is on '%s': %s", type, uuid,
                       identity->node, probe.detail);
    return 0;
}

int mr_filesystem_format(const struct mr_identity *identity, const char *type,
                         const char *uuid, int keep_fd, int64_t deadline_ns,
                         struct mr_err *err)
{
    const struct mkfs *maker = find_maker(type);
    MR_AUTO_CLOSE int claim_fd = -1;
    MR_AUTO_CLOSE int fd = -1;

    if (!maker)
        return mr_fail(err, MR_E_FILESYSTEM_UNSUPPORTED, EINVAL, "mkfs of '%.32s'", type);
    int r = take_claim(identity, &claim_fd, err);
    if (r == 0)
        r = mr_device_open(identity, O_RDONLY, &fd, err);
    if (r < 0)
        return r;
    /* mkfs opens the device exclusively itself, so the claim must go just before; from
     * then on its own O_EXCL keeps others out, this fd keeps a loop device from becoming
     * another one, and the lock keeps udev away. */
    mr_close(&claim_fd);
    mr_device_lock(fd);
    r = mr_device_check(identity, fd, err);
    if (r == 0)
        r = run_maker(maker, identity, uuid, keep_fd, deadline_ns, err);
    if (r == 0)
        r = mr_fault_fail("worker", "format", "inside", err);
    if (r < 0)
        return r;
    if (fsync(fd) < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "fsync of '%s' after mkfs",
                       identity->node);
    r = mr_device_check(identity, fd, err);
    if (r < 0)
        return r;
    return verify(identity, type, uuid, err);
}

int mr_filesystem_harden(const struct mr_identity *identity, const char *type,
                         struct mr_err *err)
{
    char path[96];
    char value[8] = "";
    const char *name = strrchr(identity->node, '/');

    if (strcmp(type, "xfs") != 0)
        return 0;
    /* Without it, umount of a failing device waits for ever in xfs_ail_push_all_sync().
     */
    int r = mr_format(path, sizeof(path), "/sys/fs/xfs/%s/error/fail_at_unmount",
                      name ? name + 1 : identity->node);
    if (r == 0)
        r = (int)mr_read_text(AT_FDCWD, path, value, sizeof(value));
    if (r >= 0 && strcmp(value, "1") != 0) {
        MR_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
        r = fd < 0 ? -errno : mr_write_all(fd, "1", 1);
        if (r == 0)
            r = (int)mr_read_text(AT_FDCWD, path, value, sizeof(value));
    }
    if (r < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, -r, "'%s'", path);
    if (strcmp(value, "1") != 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, EPERM, "'%s' stays '%s'", path, value);
    return 0;
}
