/* SPDX-License-Identifier: Apache-2.0
 *
 * Holders that are files of the volume in tables of the kernel, where no open fd shows
 * them.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mount.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/selftest/hold.h"
#include "storage/base/cleanup.h"
#include "storage/base/fd.h"

#define SWAP_PAGES 256
#define TRACEFS_DIR "/sys/kernel/tracing"

/* The file is in the fixed table of a ring only. */
static int ring(const struct mr_hold_site *site, struct mr_err *err)
{
    struct io_uring_params params = {.flags = 0};
    MR_AUTO_CLOSE int fd = -1;

    int rc = mr_hold_new_file(site, "ring-file", &fd, err);
    if (rc < 0)
        return rc;
    /* Its fds are close-on-exec. */
    MR_AUTO_CLOSE int ring_fd = (int)syscall(SYS_io_uring_setup, 1, &params);
    if (ring_fd < 0 ||
        syscall(SYS_io_uring_register, ring_fd, IORING_REGISTER_FILES, &fd, 1) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "register a file with io_uring");
    mr_close(&fd);
    mr_hold_wait("");
    return 0;
}

/* An event that nobody reads refers to the file by its path. */
static int events(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    MR_AUTO_CLOSE int group =
        fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC, O_RDONLY | O_CLOEXEC);
    if (group < 0 || fanotify_mark(group, FAN_MARK_ADD, FAN_OPEN | FAN_EVENT_ON_CHILD,
                                   AT_FDCWD, site->mount_path) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "watch '%s'", site->mount_path);
    int rc = mr_hold_new_file(site, "watched-file", &fd, err);
    if (rc < 0)
        return rc;
    mr_close(&fd);
    mr_hold_wait("");
    return 0;
}

/* --- swap --- */

/* What mkswap(8) writes: union swap_header of include/linux/swap.h, version 1. */
static int write_swap_header(int fd, struct mr_err *err)
{
    static char page[65536];
    const uint32_t info[2] = {1, SWAP_PAGES - 1}; /* version, last page */
    size_t size = (size_t)sysconf(_SC_PAGESIZE);

    if (size > sizeof(page))
        return mr_fail(err, MR_E_INTERNAL, EINVAL, "pages of %zu bytes", size);
    memcpy(page + 1024, info, sizeof(info));
    memcpy(page + size - 10, "SWAPSPACE2", 10);
    int rc = posix_fallocate(fd, 0, (off_t)size * SWAP_PAGES);
    if (rc != 0)
        return mr_fail(err, MR_E_INTERNAL, rc, "allocate a swap file");
    if (pwrite(fd, page, size, 0) != (ssize_t)size || fsync(fd) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "write a swap file");
    return 0;
}

static int swap_file(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    char path[PATH_MAX];

    int rc = mr_format(path, sizeof(path), "%s/swap-file", site->mount_path);
    if (rc < 0)
        return mr_fail(err, MR_E_INTERNAL, -rc, "'%s'", site->mount_path);
    rc = mr_hold_new_file(site, "swap-file", &fd, err);
    if (rc == 0)
        rc = write_swap_header(fd, err);
    if (rc < 0)
        return rc;
    mr_close(&fd);
    if (swapon(path, 0) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "swapon '%s'", path);
    mr_hold_wait("");
    if (swapoff(path) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "swapoff '%s'", path);
    return 0;
}

static int loop_on_file(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    MR_AUTO_CLOSE int loop = -1;
    char node[32];
    char facts[64];

    int rc = mr_hold_new_file(site, "loop-file", &fd, err);
    if (rc == 0)
        rc = mr_hold_bind_loop(&fd, false, node, &loop, err);
    if (rc < 0)
        return rc;
    (void)snprintf(facts, sizeof(facts), "device=%s", node);
    mr_hold_wait(facts);
    return 0;
}

/* --- a probe on a program of the volume --- */

/* Where users of tracefs look for it. *ret_mounted: we had to mount it. */
static int open_probes(int *ret_fd, bool *ret_mounted, struct mr_err *err)
{
    static const char probes[] = TRACEFS_DIR "/uprobe_events";
    /* Never O_TRUNC: that removes the probes of others. */
    const int flags = O_WRONLY | O_APPEND | O_CLOEXEC;

    *ret_mounted = false;
    *ret_fd = open(probes, flags);
    if (*ret_fd < 0 && errno == ENOENT) {
        *ret_mounted = mount("tracefs", TRACEFS_DIR, "tracefs", 0, NULL) == 0;
        if (*ret_mounted)
            *ret_fd = open(probes, flags);
    }
    return *ret_fd < 0 ? mr_fail(err, MR_E_INTERNAL, errno, "open '%s'", probes) : 0;
}

static int hold_uprobe(const struct mr_hold_site *site, int probes, struct mr_err *err)
{
    MR_AUTO_CLOSE int file = -1;
    char line[PATH_MAX + 64];

    int rc = mr_hold_new_file(site, "probed-file", &file, err);
    if (rc < 0)
        return rc;
    mr_close(&file);
    (void)snprintf(line, sizeof(line), "p:mooring/hold%d %s/probed-file:0x40\n",
                   (int)getpid(), site->mount_path);
    rc = mr_write_all(probes, line, strlen(line));
    if (rc < 0)
        return mr_fail(err, MR_E_INTERNAL, -rc, "set a uprobe");
    mr_hold_wait("");
    (void)snprintf(line, sizeof(line), "-:mooring/hold%d\n", (int)getpid());
    rc = mr_write_all(probes, line, strlen(line));
    /* ENOENT: somebody removed it before us. */
    return rc == 0 || rc == -ENOENT
               ? 0
               : mr_fail(err, MR_E_INTERNAL, -rc, "remove the uprobe");
}

static int uprobe(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int probes = -1;
    bool mounted;

    int rc = open_probes(&probes, &mounted, err);
    if (rc == 0)
        rc = hold_uprobe(site, probes, err);
    mr_close(&probes);
    if (mounted)
        (void)mr_hold_unmount(TRACEFS_DIR, NULL);
    return rc;
}

static const struct mr_hold_kind kinds[] = {
    {"io-uring",
     "a file registered with io_uring, its fd closed",
     MR_HOLD_UNMOUNT,
     {"io-uring"},
     ring},
    {"fanotify",
     "a fanotify group with unread events",
     MR_HOLD_UNMOUNT,
     {"fanotify"},
     events},
    {"swap-file", "a swap file", MR_HOLD_UNMOUNT, {"swap"}, swap_file},
    {"loop-file", "a loop device on a file", MR_HOLD_UNMOUNT, {"loop"}, loop_on_file},
    {"uprobe", "a uprobe on a file", MR_HOLD_UNMOUNT, {"uprobe"}, uprobe},
};

const struct mr_hold_family mr_hold_kernel = {"files in tables of the kernel", kinds,
                                              sizeof(kinds) / sizeof(kinds[0])};
