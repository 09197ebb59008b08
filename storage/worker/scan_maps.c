/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/worker/scan_parse.h"

#define MR_MAPS_CHUNK (64 * 1024) /* holds the longest line many times */

/* Newer than the headers of Debian 12: include/uapi/linux/fs.h of Linux 6.11. Without
 * names it costs a fraction of the text, most of which is made of paths. */
struct map_query { /* struct procmap_query */
    uint64_t size;
    uint64_t query_flags;
    uint64_t query_addr;
    uint64_t vma_start;
    uint64_t vma_end;
    uint64_t vma_flags;
    uint64_t vma_page_size;
    uint64_t vma_offset;
    uint64_t inode;
    uint32_t dev_major;
    uint32_t dev_minor;
    uint32_t vma_name_size;
    uint32_t build_id_size;
    uint64_t vma_name_addr;
    uint64_t build_id_addr;
};
#define MR_PROCMAP_QUERY _IOWR('f', 17, struct map_query)
#define MR_MAP_THIS_OR_NEXT 0x10U
#define MR_MAP_FILE_BACKED 0x20U

/* What is mapped of a block device lies, by its device number, on the file system of the
 * node; only the mapped file itself tells which device it is. */
static struct mr_scan_target *mapped_device(const struct mr_scan_process *process,
                                            const struct mr_maps_line *map)
{
    char path[64];
    struct statx sx;

    if (!mr_scan_may_have_nodes(process->scan, map->dev))
        return NULL;
    (void)snprintf(path, sizeof(path), "map_files/%" PRIx64 "-%" PRIx64, map->start,
                   map->end);
    int rc = mr_scan_statx(process->dir, path, &sx);
    if (rc < 0)
        mr_scan_missed(process->scan, -rc);
    if (rc < 0 || !S_ISBLK(sx.stx_mode))
        return NULL;
    return mr_scan_find_dev(process->scan, makedev(sx.stx_rdev_major, sx.stx_rdev_minor));
}

static struct mr_scan_target *mapped_target(const struct mr_scan_process *process,
                                            const struct mr_maps_line *map)
{
    struct mr_scan_target *target = mr_scan_find_dev(process->scan, map->dev);

    return target ? target : mapped_device(process, map);
}

/* The path of one mapping, "" when it is gone. */
static const char *query_name(int fd, uint64_t start, char dst[PATH_MAX])
{
    struct map_query query = {
        .size = sizeof(query),
        .query_addr = start,
        .vma_name_size = PATH_MAX,
        .vma_name_addr = (uintptr_t)dst,
    };

    dst[0] = '\0';
    (void)ioctl(fd, MR_PROCMAP_QUERY, &query);
    return dst;
}

/* 0, -ENOTTY when the kernel cannot be asked this way, or another negative errno. */
static int query_maps(struct mr_scan_process *process, int fd)
{
    char path[PATH_MAX];
    struct map_query query = {.vma_end = 0};

    do {
        query = (struct map_query){
            .size = sizeof(query),
            .query_flags = MR_MAP_THIS_OR_NEXT | MR_MAP_FILE_BACKED,
            .query_addr = query.vma_end,
        };
        if (ioctl(fd, MR_PROCMAP_QUERY, &query) < 0)
            return errno == ENOENT ? 0 : -errno;
        const struct mr_maps_line map = {
            .start = query.vma_start,
            .end = query.vma_end,
            .inode = query.inode,
            .dev = makedev(query.dev_major, query.dev_minor),
        };
        struct mr_scan_target *target = mapped_target(process, &map);
        if (target)
            mr_scan_add_process(process, target, MR_HOLDER_MMAP,
                                query_name(fd, map.start, path));
    } while (!mr_scan_late(process->scan));
    return 0;
}

static void look_at_line(struct mr_scan_process *process, const char *text)
{
    struct mr_maps_line map;

    if (mr_parse_maps(text, &map) < 0) {
        process->scan->complete = false;
        return;
    }
    struct mr_scan_target *target = map.inode ? mapped_target(process, &map) : NULL;
    if (target)
        mr_scan_add_process(process, target, MR_HOLDER_MMAP, map.path);
}

static int read_maps(struct mr_scan_process *process, int fd)
{
    static char text[MR_MAPS_CHUNK + 1];
    size_t used = 0;
    ssize_t got;

    while ((got = read(fd, text + used, MR_MAPS_CHUNK - used)) > 0) {
        used += (size_t)got;
        text[used] = '\0';
        char *line = text;
        for (char *end; (end = strchr(line, '\n')); line = end + 1) {
            *end = '\0';
            look_at_line(process, line);
        }
        used -= (size_t)(line - text);
        memmove(text, line, used);
        if (mr_scan_late(process->scan))
            return 0;
    }
    return got < 0 ? -errno : 0;
}

void mr_scan_task_maps(struct mr_scan_process *process, int task_dir)
{
    MR_AUTO_CLOSE int fd = openat(task_dir, "maps", O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        mr_scan_missed(process->scan, errno);
        return;
    }
    int rc = query_maps(process, fd);
    if (rc == -ENOTTY)
        rc = read_maps(process, fd);
    if (rc < 0)
        mr_scan_missed(process->scan, -rc);
}
