/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_state.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/statmount.h"
#include "storage/worker/mount_list.h"
#include "storage/worker/mount_ns.h"
#include "storage/worker/mount_table.h"
#include "storage/worker/scan_tree.h"

#define MR_STATMOUNT_TEXT (64 * 1024)
#define SHARE 8 /* part of the time that is left, for one foreign namespace */

struct mount_facts {
    struct mr_statmount head;
    char text[MR_STATMOUNT_TEXT];
};

struct reader {
    struct mr_scan *scan;
    struct mr_scan_tree *tree;
    int64_t until_ns; /* then the next namespace has its turn */
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

static void read_entry(struct mr_scan *scan, struct mr_scan_tree *tree,
                       const struct mr_mountinfo *entry)
{
    bool overlay = strcmp(entry->fs_type, "overlay") == 0;

    if (strcmp(entry->fs_type, "tmpfs") == 0 || strcmp(entry->fs_type, "devtmpfs") == 0)
        note_node_fs(scan, entry->dev);
    const struct mr_scan_mount mount = {
        .id = entry->id,
        .parent = entry->parent,
        .old_id = entry->id,
        .dev = entry->dev,
        .on = mr_scan_find_dev(scan, entry->dev),
        .point = strdup(entry->point),
        .layers = overlay ? strdup(entry->options) : NULL,
    };
    mr_scan_tree_add(scan, tree, &mount);
}

int mr_scan_read_mountinfo(struct mr_scan *scan, int task_dir, uint64_t space)
{
    static struct mr_scan_tree tree;
    MR_AUTO_TABLE struct mr_mount_table table = {0};

    int rc = mr_mount_table_read(task_dir, &table);
    if (rc < 0)
        return rc;
    tree.space = space;
    for (size_t i = 0; i < table.count; i++)
        read_entry(scan, &tree, &table.entries[i]);
    mr_scan_tree_judge(scan, &tree);
    if (tree.held_copy && space != scan->own_space) {
        MR_AUTO_CLOSE int ns = openat(task_dir, "ns/mnt", O_RDONLY | O_CLOEXEC);
        mark_space(scan, ns);
    }
    mr_scan_tree_clear(&tree);
    return 0;
}

const char *mr_scan_mount_point(const struct mr_scan_tree *tree,
                                struct mr_scan_mount *mount)
{
    static struct mount_facts facts; /* too large for the stack */

    if (!mount->point && tree->ns_id != 0 &&
        mr_mount_ask(tree->ns_id, mount->id, MR_STATMOUNT_MNT_POINT, sizeof(facts),
                     &facts.head) == 0 &&
        facts.head.mask & MR_STATMOUNT_MNT_POINT)
        mount->point = strdup(facts.text + facts.head.mnt_point % MR_STATMOUNT_TEXT);
    return mount->point ? mount->point : "";
}

static char *read_layers(struct mr_scan *scan, uint64_t ns_id, uint64_t id)
{
    static struct mount_facts facts;

    int rc = mr_mount_ask(ns_id, id, MR_STATMOUNT_MNT_OPTS, sizeof(facts), &facts.head);
    if (rc == 0 && facts.head.mask & MR_STATMOUNT_MNT_OPTS)
        return strdup(facts.text + facts.head.mnt_opts % MR_STATMOUNT_TEXT);
    if (rc < 0)
        mr_scan_missed(scan, -rc);
    return NULL;
}

/* The basics, without text: that is cheap. */
static bool read_mount(void *ctx, const struct mr_statmount *head)
{
    const struct reader *reader = ctx;
    struct mr_scan *scan = reader->scan;
    struct mr_scan_tree *tree = reader->tree;
    dev_t dev = makedev(head->sb_dev_major, head->sb_dev_minor);
    struct mr_scan_mount mount = {
        .id = head->mnt_id,
        .parent = head->mnt_parent_id,
        .old_id = head->mnt_id_old,
        .dev = dev,
        .on = mr_scan_find_dev(scan, dev),
    };

    if (head->sb_magic == TMPFS_MAGIC) /* devtmpfs has it too */
        note_node_fs(scan, dev);
    if (head->sb_magic == OVERLAYFS_SUPER_MAGIC)
        mount.layers = read_layers(scan, tree->ns_id, mount.id);
    mr_scan_tree_add(scan, tree, &mount);
    if (tree->count % MR_MOUNTS_PER_CLOCK != 0 || mr_now_ns() < reader->until_ns)
        return true;
    scan->complete = false;
    return false;
}

/* ns_fd is -1 for our own namespace, which the core watches by itself. 0, or a negative
 * errno when nothing could be seen; a namespace that ended meanwhile is normal. */
static int list_space(struct mr_scan *scan, uint64_t space, uint64_t ns_id, int ns_fd)
{
    static struct mr_scan_tree tree;
    struct reader reader = {.scan = scan, .tree = &tree, .until_ns = scan->deadline_ns};

    if (space != scan->own_space)
        reader.until_ns = mr_now_ns() + (scan->deadline_ns - mr_now_ns()) / SHARE;

    tree.space = space;
    tree.ns_id = ns_id;
    int rc = mr_mount_list(ns_id, read_mount, &reader);
    if (rc < 0)
        mr_scan_missed(scan, -rc);
    rc = tree.count > 0 ? 0 : rc;
    mr_scan_tree_judge(scan, &tree);
    if (tree.held_copy && ns_fd >= 0)
        mark_space(scan, ns_fd);
    mr_scan_tree_clear(&tree);
    return rc;
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
        (void)list_space(scan, st.st_ino, id, next);
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
    if (rc == 0) /* first: no other one is to take its place in the list */
        rc = list_space(scan, scan->own_space, id, -1);
    if (rc == 0)
        rc = walk_direction(scan, own, false);
    if (rc == 0)
        rc = walk_direction(scan, own, true);
    return rc;
}

void mr_scan_mounts(struct mr_scan *scan)
{
    int rc = walk_spaces(scan);

    scan->walked = rc == 0;
    if (scan->walked)
        return;
    if (rc != -ENOTTY) /* EPERM: not in the first pid namespace, or forbidden */
        scan->complete = false;
    MR_AUTO_CLOSE int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (self < 0 || mr_scan_read_mountinfo(scan, self, scan->own_space) < 0)
        scan->complete = false;
}
