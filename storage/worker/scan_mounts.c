/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_state.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/statmount.h"
#include "storage/worker/mount_ns.h"
#include "storage/worker/scan_parse.h"
#include "storage/worker/scan_tree.h"

#define MR_MOUNTINFO_MAX (64UL * 1024 * 1024)
#define MR_LIST_BATCH 1024
#define MR_STATMOUNT_TEXT (64 * 1024)

struct mount_facts {
    struct mr_statmount head;
    char text[MR_STATMOUNT_TEXT];
};

/* Newer than the headers of Debian 12: include/uapi/linux/fanotify.h of Linux 6.15. */
#define MR_FAN_MARK_MNTNS 0x00000110U
#define MR_FAN_MNT_DETACH 0x02000000ULL

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

/* The mark pins nothing, and fires when a mount goes away in there or all of it ends. It
 * only wakes the core earlier than its timer would. */
static void mark_space(const struct mr_scan *scan, int ns_fd)
{
    if (scan->fanotify_fd >= 0 && ns_fd >= 0)
        (void)fanotify_mark(scan->fanotify_fd, FAN_MARK_ADD | MR_FAN_MARK_MNTNS,
                            MR_FAN_MNT_DETACH, ns_fd, NULL);
}

/* options are cut up. */
static void look_at_overlay(const struct mr_scan *scan, const struct mr_scan_mount *mount,
                            uint64_t space, char *options)
{
    struct mr_overlay_layers layers = {.options = options};
    const struct mr_holder row = {
        .kind = MR_HOLDER_OVERLAY,
        .mount_ns = space,
        .mount_id = mount->old_id,
        .path = mount->point,
    };

    for (const char *layer; (layer = mr_overlay_next(&layers));) {
        for (size_t i = 0; i < scan->target_count; i++) {
            struct mr_scan_target *target = &scan->targets[i];
            if (!target->replaced && mr_path_below(layer, target->mount_path))
                mr_scan_add(target, &row);
        }
    }
}

static void read_line(struct mr_scan *scan, struct mr_scan_tree *tree, char *line)
{
    struct mr_mountinfo info;

    if (mr_parse_mountinfo(line, &info) < 0) {
        scan->complete = false;
        return;
    }
    if (strcmp(info.fs_type, "tmpfs") == 0 || strcmp(info.fs_type, "devtmpfs") == 0)
        note_node_fs(scan, info.dev);
    const struct mr_scan_mount mount = {
        .id = info.id,
        .parent = info.parent,
        .old_id = info.id,
        .on = mr_scan_find_dev(scan, info.dev),
        .point = strdup(info.point),
    };
    if (strcmp(info.fs_type, "overlay") == 0)
        look_at_overlay(scan, &mount, tree->space, info.options);
    mr_scan_tree_add(scan, tree, &mount);
}

int mr_scan_read_mountinfo(struct mr_scan *scan, int task_dir, uint64_t space)
{
    static struct mr_scan_tree tree;
    MR_AUTO_FREE char *text = NULL;

    ssize_t len = mr_read_file(task_dir, "mountinfo", MR_MOUNTINFO_MAX, &text);
    if (len < 0)
        return (int)len;
    tree.space = space;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));)
        if (*line)
            read_line(scan, &tree, line);
    mr_scan_tree_judge(scan, &tree);
    if (tree.held_copy && space != scan->own_space) {
        MR_AUTO_CLOSE int ns = openat(task_dir, "ns/mnt", O_RDONLY | O_CLOEXEC);
        mark_space(scan, ns);
    }
    mr_scan_tree_clear(&tree);
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

const char *mr_scan_mount_point(const struct mr_scan_tree *tree,
                                struct mr_scan_mount *mount)
{
    static struct mount_facts facts; /* too large for the stack */

    if (!mount->point && tree->ns_id != 0 &&
        ask_mount(tree->ns_id, mount->id, MR_STATMOUNT_MNT_POINT, sizeof(facts),
                  &facts) == 0 &&
        facts.head.mask & MR_STATMOUNT_MNT_POINT)
        mount->point = strdup(facts.text + facts.head.mnt_point % MR_STATMOUNT_TEXT);
    return mount->point ? mount->point : "";
}

static int ask_overlay(const struct mr_scan *scan, const struct mr_scan_tree *tree,
                       struct mr_scan_mount *mount)
{
    static struct mount_facts facts;

    (void)mr_scan_mount_point(tree, mount);
    int rc =
        ask_mount(tree->ns_id, mount->id, MR_STATMOUNT_MNT_OPTS, sizeof(facts), &facts);
    if (rc == 0 && facts.head.mask & MR_STATMOUNT_MNT_OPTS)
        look_at_overlay(scan, mount, tree->space,
                        facts.text + facts.head.mnt_opts % MR_STATMOUNT_TEXT);
    return rc;
}

/* The basics, without text: that is cheap. */
static int read_mount(struct mr_scan *scan, struct mr_scan_tree *tree, uint64_t id)
{
    static struct mount_facts facts;
    const struct mr_statmount *head = &facts.head;

    int rc = ask_mount(tree->ns_id, id, MR_STATMOUNT_SB_BASIC | MR_STATMOUNT_MNT_BASIC,
                       offsetof(struct mount_facts, text), &facts);
    if (rc < 0)
        return rc;
    dev_t dev = makedev(head->sb_dev_major, head->sb_dev_minor);
    struct mr_scan_mount mount = {
        .id = id,
        .parent = head->mnt_parent_id,
        .old_id = head->mnt_id_old,
        .on = mr_scan_find_dev(scan, dev),
    };
    if (head->sb_magic == TMPFS_MAGIC) /* devtmpfs has it too */
        note_node_fs(scan, dev);
    if (head->sb_magic == OVERLAYFS_SUPER_MAGIC)
        rc = ask_overlay(scan, tree, &mount);
    mr_scan_tree_add(scan, tree, &mount);
    return rc;
}

/* A mount or a namespace that ended in the meantime (ENOENT) is normal. */
static void read_space(struct mr_scan *scan, struct mr_scan_tree *tree)
{
    static uint64_t ids[MR_LIST_BATCH];
    struct mr_mnt_id_req request = {
        .size = sizeof(request),
        .mnt_id = MR_LSMT_ROOT,
        .mnt_ns_id = tree->ns_id,
    };
    long count;

    do {
        count = syscall(SYS_listmount, &request, ids, MR_LIST_BATCH, 0U);
        if (count < 0)
            mr_scan_missed(scan, errno);
        for (long i = 0; i < count; i++) {
            int rc = read_mount(scan, tree, ids[i]);
            if (rc < 0)
                mr_scan_missed(scan, -rc);
            request.param = ids[i];
        }
    } while (count == MR_LIST_BATCH && !mr_scan_late(scan));
}

/* ns_fd is -1 for our own namespace, which the core watches by itself. */
static void list_space(struct mr_scan *scan, uint64_t space, uint64_t ns_id, int ns_fd)
{
    static struct mr_scan_tree tree;

    tree.space = space;
    tree.ns_id = ns_id;
    read_space(scan, &tree);
    mr_scan_tree_judge(scan, &tree);
    if (tree.held_copy && ns_fd >= 0)
        mark_space(scan, ns_fd);
    mr_scan_tree_clear(&tree);
}

/* All namespaces on one side of ours. 0 or a negative errno. At most two fds are open,
 * and only here: each pins its namespace. */
static int walk_direction(struct mr_scan *scan, int start, bool backwards)
{
    MR_AUTO_CLOSE int at = -1;

    while (!mr_scan_late(scan)) {
        struct stat st;
        uint64_t id = 0;
        MR_AUTO_CLOSE int next = mr_mount_ns_next(at < 0 ? start : at, backwards, &id);
        if (next < 0)
            return next == -ENOENT ? 0 : next;
        mr_close(&at);
        if (fstat(next, &st) < 0)
            return -errno;
        /* The entry also says that an fd on this namespace is worth a look. */
        if (!mr_scan_space(scan, st.st_ino))
            return -ENOMEM;
        list_space(scan, st.st_ino, id, next);
        at = mr_take_fd(&next);
    }
    return 0;
}

/* 0, -ENOTTY before Linux 6.12, or another negative errno. */
static int walk_spaces(struct mr_scan *scan)
{
    MR_AUTO_CLOSE int own = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    uint64_t id = 0;

    int rc = own < 0 ? -errno : mr_mount_ns_id(own, &id);
    if (rc == 0)
        rc = walk_direction(scan, own, false);
    if (rc == 0)
        rc = walk_direction(scan, own, true);
    if (rc == 0)
        list_space(scan, scan->own_space, id, -1);
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
