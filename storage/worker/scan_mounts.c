/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_state.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/statmount.h"
#include "storage/worker/scan_parse.h"

#define MR_MOUNTINFO_MAX (64UL * 1024 * 1024)
#define MR_LIST_BATCH 1024
#define MR_STATMOUNT_TEXT (64 * 1024)

struct mount_facts {
    struct mr_statmount head;
    char text[MR_STATMOUNT_TEXT];
};

/* Newer than the headers of Debian 12: include/uapi/linux/nsfs.h of Linux 6.12. */
struct space_info { /* struct mnt_ns_info */
    uint32_t size;
    uint32_t nr_mounts;
    uint64_t mnt_ns_id;
};
#define MR_NS_MNT_GET_INFO _IOR(0xb7, 10, struct space_info)
#define MR_NS_MNT_GET_NEXT _IOR(0xb7, 11, struct space_info)
#define MR_NS_MNT_GET_PREV _IOR(0xb7, 12, struct space_info)

/* One mount of any namespace, however it was found. */
struct seen_mount {
    uint64_t space;
    uint64_t id; /* as in mountinfo */
    dev_t dev;
    bool overlay;
    char *point;
    char *options; /* cut up */
};

/* The first place whose device is not below dev. */
static size_t node_fs_place(const struct mr_scan *scan, dev_t dev)
{
    size_t low = 0;
    size_t high = scan->node_fs_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (scan->node_fs[middle] < dev)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool mr_scan_may_have_nodes(const struct mr_scan *scan, dev_t dev)
{
    size_t place = node_fs_place(scan, dev);

    return place < scan->node_fs_count && scan->node_fs[place] == dev;
}

static void note_node_fs(struct mr_scan *scan, dev_t dev)
{
    size_t place = node_fs_place(scan, dev);

    if (mr_scan_may_have_nodes(scan, dev))
        return;
    dev_t *devs = reallocarray(scan->node_fs, scan->node_fs_count + 1, sizeof(*devs));
    if (!devs) {
        scan->complete = false;
        return;
    }
    memmove(devs + place + 1, devs + place,
            (scan->node_fs_count - place) * sizeof(*devs));
    devs[place] = dev;
    scan->node_fs = devs;
    scan->node_fs_count++;
}

static void add_overlay(const struct mr_scan *scan, const struct seen_mount *mount,
                        const struct mr_holder *row)
{
    struct mr_overlay_layers layers = {.options = mount->options};

    for (const char *layer; (layer = mr_overlay_next(&layers));) {
        for (size_t i = 0; i < scan->target_count; i++) {
            struct mr_scan_target *target = &scan->targets[i];
            if (!target->replaced && mr_path_below(layer, target->mount_path))
                mr_scan_add(target, row);
        }
    }
}

static void look_at_mount(const struct mr_scan *scan, const struct seen_mount *mount)
{
    struct mr_holder row = {
        .kind = mount->overlay ? MR_HOLDER_OVERLAY : MR_HOLDER_MOUNT_COPY,
        .mount_ns = mount->space,
        .mount_id = mount->id,
        .path = mount->point,
    };

    if (mount->overlay) {
        add_overlay(scan, mount, &row);
        return;
    }
    struct mr_scan_target *target = mr_scan_find_dev(scan, mount->dev);
    if (target && target->own_mount != mount->id)
        mr_scan_add(target, &row);
}

int mr_scan_read_mountinfo(struct mr_scan *scan, int task_dir, uint64_t space)
{
    MR_AUTO_FREE char *text = NULL;

    ssize_t len = mr_read_file(task_dir, "mountinfo", MR_MOUNTINFO_MAX, &text);
    if (len < 0)
        return (int)len;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        struct mr_mountinfo info;
        if (!*line)
            continue;
        if (mr_parse_mountinfo(line, &info) < 0) {
            scan->complete = false;
            continue;
        }
        struct seen_mount mount = {
            .space = space,
            .id = info.id,
            .dev = info.dev,
            .overlay = strcmp(info.fs_type, "overlay") == 0,
            .point = info.point,
            .options = info.options,
        };
        if (strcmp(info.fs_type, "tmpfs") == 0 || strcmp(info.fs_type, "devtmpfs") == 0)
            note_node_fs(scan, info.dev);
        look_at_mount(scan, &mount);
    }
    return 0;
}

/* size is how much of *ret the kernel may fill. Text may stay away (a mount point out of
 * reach), the basics may not. */
static int ask_mount(uint64_t ns_id, uint64_t mount, uint64_t mask, size_t size,
                     struct mount_facts *ret)
{
    struct mr_mnt_id_req request = {
        .size = sizeof(request),
        .mnt_id = mount,
        .param = mask,
        .mnt_ns_id = ns_id,
    };
    if (ns_id == 0)
        request.size = MR_MNT_ID_REQ_SIZE_VER0;
    ret->head.mask = 0;
    if (syscall(SYS_statmount, &request, ret, size, 0U) < 0)
        return -errno;
    mask &= MR_STATMOUNT_SB_BASIC | MR_STATMOUNT_MNT_BASIC;
    return (ret->head.mask & mask) == mask ? 0 : -EOPNOTSUPP;
}

uint64_t mr_scan_old_mount_id(uint64_t unique)
{
    static struct mount_facts facts;

    int rc = ask_mount(0, unique, MR_STATMOUNT_MNT_BASIC,
                       offsetof(struct mount_facts, text), &facts);
    return rc < 0 ? 0 : facts.head.mnt_id_old;
}

/* Everything about a mount that may matter; most are dismissed after the first, cheap
 * question. */
static int look_at_mount_id(struct mr_scan *scan, uint64_t space, uint64_t ns_id,
                            uint64_t id)
{
    static struct mount_facts facts; /* too large for the stack */

    int rc = ask_mount(ns_id, id, MR_STATMOUNT_SB_BASIC,
                       offsetof(struct mount_facts, text), &facts);
    if (rc < 0)
        return rc;
    struct seen_mount mount = {
        .space = space,
        .dev = makedev(facts.head.sb_dev_major, facts.head.sb_dev_minor),
        .overlay = facts.head.sb_magic == OVERLAYFS_SUPER_MAGIC,
    };
    if (facts.head.sb_magic == TMPFS_MAGIC) /* devtmpfs has it too */
        note_node_fs(scan, mount.dev);
    if (!mount.overlay && !mr_scan_find_dev(scan, mount.dev))
        return 0;
    uint64_t mask = MR_STATMOUNT_MNT_BASIC | MR_STATMOUNT_MNT_POINT;
    if (mount.overlay)
        mask |= MR_STATMOUNT_MNT_OPTS;
    rc = ask_mount(ns_id, id, mask, sizeof(facts), &facts);
    if (rc < 0)
        return rc;
    mount.id = facts.head.mnt_id_old;
    if (facts.head.mask & MR_STATMOUNT_MNT_POINT)
        mount.point = facts.text + facts.head.mnt_point % MR_STATMOUNT_TEXT;
    if (facts.head.mask & MR_STATMOUNT_MNT_OPTS)
        mount.options = facts.text + facts.head.mnt_opts % MR_STATMOUNT_TEXT;
    look_at_mount(scan, &mount);
    return 0;
}

/* A mount or a namespace that ended in the meantime (ENOENT) is normal. */
static void list_space(struct mr_scan *scan, uint64_t space, uint64_t ns_id)
{
    static uint64_t ids[MR_LIST_BATCH];
    struct mr_mnt_id_req request = {
        .size = sizeof(request),
        .mnt_id = MR_LSMT_ROOT,
        .mnt_ns_id = ns_id,
    };
    long count;

    do {
        count = syscall(SYS_listmount, &request, ids, MR_LIST_BATCH, 0U);
        if (count < 0)
            mr_scan_missed(scan, errno);
        for (long i = 0; i < count; i++) {
            int rc = look_at_mount_id(scan, space, ns_id, ids[i]);
            if (rc < 0)
                mr_scan_missed(scan, -rc);
            request.param = ids[i];
        }
    } while (count == MR_LIST_BATCH && !mr_scan_late(scan));
}

/* All namespaces on one side of ours. 0 or a negative errno. At most two fds are open,
 * and only here: each pins its namespace. */
static int walk_direction(struct mr_scan *scan, int start, unsigned long direction)
{
    MR_AUTO_CLOSE int at = -1;

    while (!mr_scan_late(scan)) {
        struct space_info info = {.size = sizeof(info)};
        struct stat st;
        MR_AUTO_CLOSE int next = ioctl(at < 0 ? start : at, direction, &info);
        if (next < 0)
            return errno == ENOENT ? 0 : -errno;
        mr_close(&at);
        if (fstat(next, &st) < 0)
            return -errno;
        /* The entry also says that an fd on this namespace is worth a look. */
        if (!mr_scan_space(scan, st.st_ino))
            return -ENOMEM;
        list_space(scan, st.st_ino, info.mnt_ns_id);
        at = mr_take_fd(&next);
    }
    return 0;
}

/* 0, -ENOTTY before Linux 6.12, or another negative errno. */
static int walk_spaces(struct mr_scan *scan)
{
    MR_AUTO_CLOSE int own = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    struct space_info info = {.size = sizeof(info)};

    if (own < 0 || ioctl(own, MR_NS_MNT_GET_INFO, &info) < 0)
        return -errno;
    int rc = walk_direction(scan, own, MR_NS_MNT_GET_NEXT);
    if (rc == 0)
        rc = walk_direction(scan, own, MR_NS_MNT_GET_PREV);
    if (rc == 0)
        list_space(scan, scan->own_space, info.mnt_ns_id);
    return rc;
}

void mr_scan_mounts(struct mr_scan *scan)
{
    int rc = walk_spaces(scan);

    scan->walked = rc == 0;
    if (scan->walked)
        return;
    if (rc != -ENOTTY) /* EPERM: not in the first pid namespace */
        scan->complete = false;
    MR_AUTO_CLOSE int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (self < 0 || mr_scan_read_mountinfo(scan, self, scan->own_space) < 0)
        scan->complete = false;
}
