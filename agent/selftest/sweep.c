/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/selftest/sweep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/selftest/hold.h"
#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"

#define MOUNTINFO_BYTES (16U << 20)
#define SWEEP_TRIES 40 /* the last user of a loop device ends it */
#define SWEEP_AGAIN_NS (50 * MR_NS_PER_MS)

MR_DEFINE_CLEANUP(dir, DIR *, (void)closedir);

/* --- looking --- */

int mr_device_look(const char *node, struct mr_device *ret)
{
    const char *name = strrchr(node, '/');
    char path[PATH_MAX];
    char number[32];

    memset(ret, 0, sizeof(*ret));
    if (!name || mr_format(ret->node, sizeof(ret->node), "%s", node) < 0 ||
        mr_format(path, sizeof(path), "/sys/block%s/diskseq", name) < 0)
        return -EINVAL;
    ssize_t got = mr_read_text(AT_FDCWD, path, number, sizeof(number));
    if (got < 0)
        return (int)got;
    ret->diskseq = strtoull(number, NULL, 10);
    (void)snprintf(path, sizeof(path), "/sys/block%.30s/loop/backing_file", name);
    got = mr_read_text(AT_FDCWD, path, ret->backing, sizeof(ret->backing));
    return got < 0 ? (int)got : 0;
}

bool mr_device_mapped(const struct mr_device *device)
{
    struct mr_device now;

    return mr_device_look(device->node, &now) == 0 && now.diskseq == device->diskseq &&
           strcmp(now.backing, device->backing) == 0;
}

bool mr_device_alive(const struct mr_device *device)
{
    static const char *const types[] = {"ext4", "xfs"};
    char path[128];

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        (void)snprintf(path, sizeof(path), "/sys/fs/%s/%s", types[i], device->node + 5);
        if (access(path, F_OK) == 0)
            return true;
    }
    return false;
}

/* --- taking away --- */

static bool is_below(const char *path, const char *dir)
{
    size_t len = strlen(dir);
    return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* Unmounts all that is mounted below dir, the last one first. */
static void unmount_below(const char *dir)
{
    MR_AUTO_FREE char *table = NULL;
    char *line = NULL;

    if (mr_read_file(AT_FDCWD, "/proc/self/mountinfo", MOUNTINFO_BYTES, &table) < 0)
        return;
    while ((line = strrchr(table, '\n')) || (line = table[0] ? table : NULL)) {
        char point[PATH_MAX];
        /* proc_pid_mountinfo(5): the fifth field. Our paths need no escapes. */
        if (sscanf(line, "%*d %*d %*s %*s %4095s", point) == 1 && is_below(point, dir))
            (void)umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW);
        *line = '\0';
    }
}

/* The next loop device in the list whose file is below dir. */
static bool next_loop_below(DIR *block, const char *dir, struct mr_device *ret)
{
    const struct dirent *entry;
    char node[32];

    while (block && (entry = readdir(block)))
        if (strncmp(entry->d_name, "loop", 4) == 0 &&
            mr_format(node, sizeof(node), "/dev/%s", entry->d_name) == 0 &&
            mr_device_look(node, ret) == 0 && is_below(ret->backing, dir))
            return true;
    return false;
}

static void unbind_below(const char *dir)
{
    MR_CLEANUP(dir) DIR *block = opendir("/sys/block");
    struct mr_device device;

    while (next_loop_below(block, dir, &device)) {
        (void)mr_hold_thaw(device.node, NULL);
        MR_AUTO_CLOSE int fd = open(device.node, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && mr_device_mapped(&device))
            (void)ioctl(fd, LOOP_CLR_FD, 0);
    }
}

static int remove_entry(const char *path, const struct stat *st, int type,
                        struct FTW *place)
{
    (void)st;
    (void)type;
    (void)place;
    (void)remove(path);
    return 0;
}

/* A mount that stays keeps the directory. */
static void list_left(const char *dir, char *left, size_t size)
{
    MR_CLEANUP(dir) DIR *block = opendir("/sys/block");
    struct mr_device device;
    struct stat st;

    (void)snprintf(left, size, "%s", lstat(dir, &st) == 0 ? dir : "");
    while (next_loop_below(block, dir, &device)) {
        size_t used = strlen(left);
        (void)snprintf(left + used, size - used, "%s%s, bound to %s",
                       used > 0 ? "; " : "", device.node, device.backing);
    }
}

void mr_sweep(const char *dir, char *left, size_t size)
{
    for (int i = 0; i < SWEEP_TRIES; i++) {
        if (i > 0)
            mr_sleep_ns(SWEEP_AGAIN_NS);
        unmount_below(dir);
        unbind_below(dir);
        (void)nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
        list_left(dir, left, size);
        if (!left[0])
            return;
    }
}
