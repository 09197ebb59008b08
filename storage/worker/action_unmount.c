/* SPDX-License-Identifier: Apache-2.0
 *
 * unmount-copies and unmount-overlay: one mount, in the namespace where it is. The names
 * in a foreign namespace may change under us at any time: the mount is found by its id
 * in that namespace's table, and its parent directory is walked without following links,
 * held by fd, and asked for the id on top right before umount2(2), which knows only
 * names.
 */
#include "storage/worker/action.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/worker/holder.h"
#include "storage/worker/mount_ns.h"
#include "storage/worker/mount_table.h"
#include "storage/worker/mounter_path.h"
#include "storage/worker/scan_parse.h"

#define UMOUNT_LIMIT_MS 5000
#define BUSY_TRIES 6
#define BUSY_FIRST_NS (5 * MR_NS_PER_MS)

struct job {
    const struct mr_act *act;
    const struct mr_target_row *row;
    int ns_fd;
    bool own_ns;
    bool foreign;    /* owned by another user namespace */
    uint64_t own_id; /* our own mount, as the table shows it; 0: none */
};

#define AUTO_TABLE __attribute__((cleanup(mr_mount_table_clear)))

/* The reader's root may lie below that of the namespace: then the scan saw the end of the
 * path. Its text was cleaned. */
static bool same_path(const struct mr_mount_entry *entry, const char *path)
{
    MR_AUTO_FREE char *point = mr_holder_text(entry->point);
    size_t have = point ? strlen(point) : 0;
    size_t want = path ? strlen(path) : 0;

    return want == 0 ||
           (path[0] == '/' && have >= want && strcmp(point + have - want, path) == 0);
}

static bool has_layer_below(const struct mr_mount_entry *entry, const char *dir)
{
    MR_AUTO_FREE char *options = strdup(entry->options);
    struct mr_overlay_layers layers = {.options = options};

    for (const char *layer; options && (layer = mr_overlay_next(&layers));)
        if (mr_path_below(layer, dir))
            return true;
    return false;
}

/* The layers are text: only while our mount is there they can be told from others. */
static bool is_overlay(const struct job *job, const struct mr_mount_entry *entry)
{
    const struct mr_mount_record *own = &job->act->mount;
    char dir[2 * PATH_MAX + 2];

    if (strcmp(entry->fs_type, "overlay") != 0)
        return false;
    if (!job->act->has_mount)
        return true;
    (void)snprintf(dir, sizeof(dir), "%s/%s",
                   strcmp(own->root, "/") == 0 ? "" : own->root, own->path);
    return has_layer_below(entry, dir);
}

/* Is it what the row says? */
static bool is_target(const struct job *job, const struct mr_mount_table *table,
                      const struct mr_mount_entry *entry)
{
    const struct mr_identity *identity = &job->act->identity;
    const dev_t dev = makedev(identity->major, identity->minor);
    const struct mr_mount_entry *own =
        job->own_ns ? mr_mount_table_find(table, job->own_id) : NULL;
    bool right = false;

    if (job->row->kind == MR_HOLDER_MOUNT_COPY)
        right = entry->dev == dev;
    else if (job->row->kind == MR_HOLDER_OVERLAY)
        right = is_overlay(job, entry);
    else if (job->row->kind == MR_HOLDER_NESTED_MOUNT)
        right = mr_mount_is_inside(table, entry, dev);
    else if (job->row->kind == MR_HOLDER_COVERING_MOUNT)
        right = own && mr_mount_covers(table, entry, own);
    return right && same_path(entry, job->row->path);
}

/* As the table shows it. 0 or a negative errno. */
static int id_on_top(int dirfd, const char *name, uint64_t *ret)
{
    struct statx sx;

    if (statx(dirfd, name,
              AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC,
              STATX_MNT_ID, &sx) < 0)
        return -errno;
    if (!(sx.stx_mask & STATX_MNT_ID))
        return -EOPNOTSUPP;
    *ret = sx.stx_mnt_id;
    return 0;
}

/* umount("/") would not unmount, it would make the file system read-only (fs/namespace.c
 * do_umount()). */
static bool is_root_of_ns(uint64_t id)
{
    uint64_t root = 0;

    return id_on_top(AT_FDCWD, "/", &root) < 0 || root == id;
}

/* 0, -ESTALE: another mount is on top there, or the errno of umount2(2). EBUSY is often
 * somebody who passes by with a path in hand: tried again. */
static int umount_id(const struct mr_place *place, uint64_t id)
{
    int64_t wait_ns = BUSY_FIRST_NS;

    for (unsigned tries = 1;; tries++) {
        uint64_t top = 0;
        int r = id_on_top(place->parent_fd, place->name, &top);
        if (r == 0 && top != id)
            return -ESTALE;
        if (r == 0)
            r = mr_place_umount(place, 0);
        if (r != -EBUSY || tries == BUSY_TRIES)
            return r;
        mr_sleep_ns(wait_ns);
        wait_ns *= 2;
    }
}

static void explain(const struct job *job, int errnum, struct mr_outcome *ret)
{
    switch (errnum) {
    case EBUSY:
        mr_outcome(ret, false, "busy: something in that namespace uses it");
        break;
    case ESTALE:
        mr_outcome(ret, false, "covered by another mount there");
        break;
    case EINVAL:
        if (job->foreign)
            mr_outcome(ret, false,
                       "locked: a copy in a user namespace cannot be unmounted from "
                       "inside; end its processes (signal) instead");
        else
            mr_outcome(ret, false, "umount2 answered EINVAL: locked, or just moved");
        break;
    default:
        mr_outcome(ret, false, "umount2: %s", strerrorname_np(errnum));
        break;
    }
}

/* The mount behind this entry, now in our own namespace. */
static void umount_entry(const struct job *job, const struct mr_mount_entry *entry,
                         struct mr_outcome *ret)
{
    MR_AUTO_PLACE struct mr_place place = MR_PLACE_NONE;
    struct mr_err err = {0};

    if (is_root_of_ns(entry->id)) {
        mr_outcome(ret, false,
                   "it is the root of that namespace; end its processes (signal) "
                   "instead");
        return;
    }
    if (mr_place_open("/", entry->point + 1, &place, &err) < 0) {
        mr_outcome(ret, false, "%.180s", err.message);
        return;
    }
    int r = umount_id(&place, entry->id);
    if (r == 0)
        mr_outcome(ret, true, "unmounted");
    else
        explain(job, -r, ret);
}

/* In the child. /proc of the agent stays reachable by fd: a container has its own, or
 * none. */
static void act_inside(void *ctx, struct mr_outcome *ret)
{
    const struct job *job = ctx;
    const struct mr_target_row *row = job->row;
    AUTO_TABLE struct mr_mount_table table = {0};
    AUTO_TABLE struct mr_mount_table after = {0};
    MR_AUTO_CLOSE int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

    /* Whatever we may hang on in there, the device is not kept by it. */
    (void)close(job->act->device_fd);
    if (self < 0 || setns(job->ns_fd, CLONE_NEWNS) < 0) {
        mr_outcome(ret, false, "the mount namespace cannot be entered: %s",
                   strerrorname_np(errno));
        return;
    }
    int r = mr_mount_table_read(self, &table);
    if (r < 0) {
        mr_outcome(ret, false, "the mount table there cannot be read: %s",
                   strerrorname_np(-r));
        return;
    }
    const struct mr_mount_entry *entry = mr_mount_table_find(&table, row->mount_id);
    if (!entry) {
        mr_outcome(ret, true, "not there any more");
        return;
    }
    if (job->own_ns && entry->id == job->own_id)
        mr_outcome(ret, false, "refused: it is the volume's own mount");
    else if (!is_target(job, &table, entry))
        mr_outcome(ret, false, "refused: mount %" PRIu64 " there is not what was seen",
                   entry->id);
    else
        umount_entry(job, entry, ret);
    if (ret->done &&
        (mr_mount_table_read(self, &after) < 0 || mr_mount_table_find(&after, entry->id)))
        mr_outcome(ret, false, "another mount came on top of it meanwhile");
}

static bool is_own_ns(uint64_t inode)
{
    struct stat st;

    return stat("/proc/self/ns/mnt", &st) == 0 && st.st_ino == inode;
}

void mr_act_unmount(const struct mr_act *act, const struct mr_target_row *row,
                    struct mr_outcome *ret)
{
    MR_AUTO_CLOSE int ns_fd = -1;
    struct job job = {.act = act, .row = row};

    if (row->mount_ns == 0 || row->mount_id == 0) {
        mr_outcome(ret, false, "the holder names no mount");
        return;
    }
    ns_fd = mr_mount_ns_open(row->mount_ns, row->pid, row->tid);
    if (ns_fd == -ENOENT) {
        mr_outcome(ret, true, "its mount namespace has ended");
        return;
    }
    if (ns_fd < 0) {
        mr_outcome(ret, false,
                   "no process is in its mount namespace, and the kernel does not list "
                   "namespaces here: %s",
                   strerrorname_np(-ns_fd));
        return;
    }
    job.ns_fd = ns_fd;
    job.own_ns = is_own_ns(row->mount_ns);
    job.foreign = mr_mount_ns_foreign(ns_fd);
    job.own_id = act->has_mount ? mr_mount_table_id(&act->mount.mount) : 0;
    (void)mr_act_in_child(act, act_inside, &job, UMOUNT_LIMIT_MS, ret);
}
