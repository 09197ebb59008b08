/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/worker/mount_table.h"
#include "storage/worker/scan_parse.h"

#define MR_TABLE_MAX (64UL * 1024 * 1024)

MR_DEFINE_CLEANUP(dir, DIR *, (void)closedir);

/* A bound loop device. The type of the file system that its backing path lies on decides
 * whether it can be asked: LOOP_GET_STATUS64 asks the backing file for its attributes
 * with a plain getattr (drivers/block/loop.c loop_get_status()), which a mute FUSE or NFS
 * server never answers. */
struct loop {
    char name[NAME_MAX + 1];
    char *backing;
    size_t matched; /* bytes of the longest mount point that the path lies below */
    bool may_block;
};

struct loops {
    struct loop *items;
    size_t count;
};

static void loops_free(struct loops *loops)
{
    for (size_t i = 0; i < loops->count; i++)
        free(loops->items[i].backing);
    free(loops->items);
}

/* "MAJOR:MINOR" of a block device's sysfs directory, 0 when there is none. */
static dev_t read_dev(const char *sysfs_dir)
{
    char path[PATH_MAX];
    char text[32];
    unsigned dev_major;
    unsigned dev_minor;

    if (mr_format(path, sizeof(path), "%s/dev", sysfs_dir) < 0 ||
        mr_read_text(AT_FDCWD, path, text, sizeof(text)) < 0 ||
        sscanf(text, "%u:%u", &dev_major, &dev_minor) != 2)
        return 0;
    return makedev(dev_major, dev_minor);
}

void mr_scan_partitions(dev_t disk, void (*fn)(void *ctx, dev_t dev), void *ctx)
{
    char base[64];
    char path[PATH_MAX];

    (void)snprintf(base, sizeof(base), "/sys/dev/block/%u:%u", major(disk), minor(disk));
    MR_CLEANUP(dir) DIR *dir = opendir(base);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        if (mr_format(path, sizeof(path), "%s/%s/partition", base, entry->d_name) < 0 ||
            access(path, F_OK) < 0)
            continue;
        *strrchr(path, '/') = '\0';
        dev_t dev = read_dev(path);
        if (dev != 0)
            fn(ctx, dev);
    }
}

/* dm and md tables, and whatever else registers as a holder in sysfs (bcache). */
static void scan_holders(const struct mr_scan_dev *dev)
{
    char path[PATH_MAX];
    char device[300];
    char name[256];

    (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders", major(dev->dev),
                   minor(dev->dev));
    MR_CLEANUP(dir) DIR *dir = opendir(path);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        bool md = strncmp(entry->d_name, "md", 2) == 0;
        (void)snprintf(device, sizeof(device), "/dev/%s", entry->d_name);
        struct mr_holder row = {
            .kind = md ? MR_HOLDER_MD : MR_HOLDER_DM,
            .device = device,
        };
        char mapped[sizeof(name) + 16];
        if (mr_format(path, sizeof(path), "/sys/block/%s/dm/name", entry->d_name) == 0 &&
            mr_read_text(AT_FDCWD, path, name, sizeof(name)) > 0) {
            (void)snprintf(mapped, sizeof(mapped), "/dev/mapper/%s", name);
            row.path = mapped;
        }
        mr_scan_add(dev->target, &row);
    }
}

/* Device nodes are looked up on devtmpfs; any other path is compared as text only,
 * because walking it may wait for a server. */
static struct mr_scan_target *swap_target(const struct mr_scan *scan, const char *path,
                                          bool partition)
{
    struct statx sx;

    if (!partition)
        return mr_scan_find_path(scan, path);
    if (!mr_path_below(path, "/dev") || mr_scan_statx(AT_FDCWD, path, &sx) < 0)
        return NULL;
    return mr_scan_find_dev(scan, makedev(sx.stx_rdev_major, sx.stx_rdev_minor));
}

static void scan_swaps(struct mr_scan *scan)
{
    MR_AUTO_FREE char *text = NULL;

    ssize_t len = mr_read_file(AT_FDCWD, "/proc/swaps", MR_TABLE_MAX, &text);
    if (len < 0) {
        mr_scan_missed(scan, (int)-len); /* ENOENT: a kernel without swap */
        return;
    }
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        bool partition = false;
        char *path = mr_parse_swap(line, &partition);
        struct mr_scan_target *target = path ? swap_target(scan, path, partition) : NULL;
        if (!target)
            continue;
        struct mr_holder row = {.kind = MR_HOLDER_SWAP, .path = path};
        if (partition)
            row.device = path;
        mr_scan_add(target, &row);
    }
}

static void list_loops(struct mr_scan *scan, struct loops *loops)
{
    char path[PATH_MAX];
    char backing[PATH_MAX];

    MR_CLEANUP(dir) DIR *dir = opendir("/sys/block");
    if (!dir)
        mr_scan_missed(scan, errno);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strncmp(entry->d_name, "loop", 4) != 0 ||
            mr_format(path, sizeof(path), "/sys/block/%s/loop/backing_file",
                      entry->d_name) < 0 ||
            mr_read_text(AT_FDCWD, path, backing, sizeof(backing)) <= 0)
            continue; /* not bound */
        struct loop *items =
            reallocarray(loops->items, loops->count + 1, sizeof(*loops->items));
        char *copy = strdup(backing);
        if (items)
            loops->items = items;
        if (!items || !copy) {
            free(copy);
            scan->complete = false;
            return;
        }
        items[loops->count] = (struct loop){.backing = copy};
        (void)snprintf(items[loops->count].name, sizeof(items->name), "%s",
                       entry->d_name);
        loops->count++;
    }
}

/* Puts the file-system type of our own mount table to each backing path. */
static int classify_loops(const struct loops *loops)
{
    MR_AUTO_TABLE struct mr_mount_table table = {0};
    MR_AUTO_CLOSE int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

    int rc = self < 0 ? -errno : mr_mount_table_read(self, &table);
    for (size_t m = 0; rc == 0 && m < table.count; m++) {
        const struct mr_mountinfo *mount = &table.entries[m];
        size_t point_len = strlen(mount->point);
        for (size_t i = 0; i < loops->count; i++) {
            struct loop *loop = &loops->items[i];
            if (point_len < loop->matched || !mr_path_below(loop->backing, mount->point))
                continue;
            loop->matched = point_len; /* of several on one path the last one is on top */
            loop->may_block = mr_fs_may_block(mount->fs_type);
        }
    }
    return rc;
}

static void ask_loop(struct mr_scan *scan, const struct loop *loop)
{
    char node[NAME_MAX + 16];
    struct loop_info64 info = {0};
    struct statx sx;

    (void)snprintf(node, sizeof(node), "/dev/%s", loop->name);
    MR_AUTO_CLOSE int fd = open(node, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, LOOP_GET_STATUS64, &info) < 0) {
        if (errno != ENXIO) /* cleared in the meantime */
            scan->complete = false;
        return;
    }
    struct mr_scan_target *target =
        mr_scan_find_dev(scan, mr_decode_dev(info.lo_rdevice));
    if (!target)
        target = mr_scan_find_dev(scan, mr_decode_dev(info.lo_device));
    if (!target || mr_scan_statx(fd, "", &sx) < 0 ||
        makedev(sx.stx_rdev_major, sx.stx_rdev_minor) == target->disk)
        return;
    struct mr_holder row = {
        .kind = MR_HOLDER_LOOP,
        .device = node,
        .path = loop->backing,
    };
    mr_scan_add(target, &row);
}

/* A detached mount whose root is the file itself shows "/": that is how user-space
 * volumes keep their FUSE file out of sight. */
static bool is_hidden_file(const struct loop *loop)
{
    return strcmp(loop->backing, "/") == 0;
}

static void scan_loops(struct mr_scan *scan)
{
    struct loops loops = {0};

    list_loops(scan, &loops);
    int rc = loops.count > 0 ? classify_loops(&loops) : 0;
    if (rc < 0)
        scan->complete = false;
    for (size_t i = 0; rc == 0 && i < loops.count && !mr_scan_late(scan); i++)
        if (!loops.items[i].may_block && !is_hidden_file(&loops.items[i]))
            ask_loop(scan, &loops.items[i]);
    loops_free(&loops);
}

void mr_scan_block(struct mr_scan *scan)
{
    for (size_t i = 0; i < scan->dev_count; i++)
        scan_holders(&scan->devs[i]);
    scan_swaps(scan);
    scan_loops(scan);
}
