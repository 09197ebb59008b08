/* SPDX-License-Identifier: Apache-2.0
 *
 * Holders of the block device itself, beside the file system: umount(2) returns 0, and an
 * exclusive open is granted in spite of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "agent/selftest/hold.h"
#include "storage/base/cleanup.h"

#define MAP_BYTES 4096

static int open_node(const struct mr_hold_site *site, int *ret_fd, struct mr_err *err)
{
    *ret_fd = open(site->node, O_RDONLY | O_CLOEXEC);
    return *ret_fd < 0 ? mr_fail(err, MR_E_INTERNAL, errno, "open '%s'", site->node) : 0;
}

static int raw_fd(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    int rc = open_node(site, &fd, err);
    if (rc == 0)
        mr_hold_wait("");
    return rc;
}

static int raw_mapping(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    int rc = open_node(site, &fd, err);
    if (rc < 0)
        return rc;
    void *map = mmap(NULL, MAP_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return mr_fail(err, MR_E_INTERNAL, errno, "mmap '%s'", site->node);
    mr_close(&fd);
    mr_hold_wait("");
    (void)munmap(map, MAP_BYTES);
    return 0;
}

static int raw_in_flight(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    int rc = open_node(site, &fd, err);
    return rc < 0 ? rc : mr_hold_in_flight(&fd, err);
}

static int stacked_loop(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    MR_AUTO_CLOSE int loop = -1;
    char node[32];
    char facts[64];

    int rc = open_node(site, &fd, err);
    if (rc == 0)
        rc = mr_hold_bind_loop(&fd, true, node, &loop, err);
    if (rc < 0)
        return rc;
    (void)snprintf(facts, sizeof(facts), "device=%s", node);
    mr_hold_wait(facts);
    return 0;
}

/* The same file system once more, through the upper device, which cannot write. */
static int mount_upper(const struct mr_hold_site *site, const char *node, const char *dir,
                       struct mr_err *err)
{
    const char *type = mr_hold_fs_type(site->mount_path);
    const char *options =
        type && strcmp(type, "xfs") == 0 ? "norecovery,nouuid" : "noload";

    MR_AUTO_CLOSE int volume = open(site->mount_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!type || volume < 0 || syncfs(volume) < 0 ||
        mount(node, dir, type, MS_RDONLY, options) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "mount '%s'", node);
    return 0;
}

static int stacked_mount(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    MR_AUTO_CLOSE int loop = -1;
    char node[32];
    char dir[PATH_MAX];
    char facts[64];

    int rc = mr_hold_make_dir(site->dir, "stacked", dir, err);
    if (rc == 0)
        rc = open_node(site, &fd, err);
    if (rc == 0)
        rc = mr_hold_bind_loop(&fd, true, node, &loop, err);
    if (rc == 0)
        rc = mount_upper(site, node, dir, err);
    if (rc < 0)
        return rc;
    mr_close(&loop); /* the mount has it */
    (void)snprintf(facts, sizeof(facts), "device=%s", node);
    mr_hold_wait(facts);
    return mr_hold_unmount(dir, err);
}

static const struct mr_hold_kind kinds[] = {
    {"raw-fd", "an open fd of the block device", MR_HOLD_DRAIN, {"raw-device"}, raw_fd},
    {"raw-mmap",
     "a mapping of it, its fd closed",
     MR_HOLD_DRAIN,
     {"raw-device", "mmap"},
     raw_mapping},
    {"raw-in-flight",
     "such an fd under way in a socket",
     MR_HOLD_DRAIN,
     {"in-flight-fd"},
     raw_in_flight},
    {"stacked-loop", "a loop device on it", MR_HOLD_DRAIN, {"loop"}, stacked_loop},
    {"stacked-mount",
     "a loop device on it, mounted",
     MR_HOLD_DRAIN,
     {"loop"},
     stacked_mount},
};

const struct mr_hold_family mr_hold_raw = {"the block device itself", kinds,
                                           sizeof(kinds) / sizeof(kinds[0])};
