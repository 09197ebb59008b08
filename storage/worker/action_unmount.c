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
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/worker/action_mount.h"
#include "storage/worker/mount_list.h"
#include "storage/worker/mount_ns.h"
#include "storage/worker/mount_table.h"
#include "storage/worker/mounter_path.h"

#define UMOUNT_LIMIT_MS 5000
#define BUSY_TRIES 6
#define BUSY_FIRST_NS (5 * MR_NS_PER_MS)

struct job {
    struct mr_mount_case look;
    int ns_fd;
    bool foreign; /* owned by another user namespace */
};

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
static void umount_entry(const struct job *job, const struct mr_mountinfo *entry,
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

/* What mountinfo leaves out need not be gone: it shows only what can be reached from the
 * reader's root directory. */
static void explain_missing(const struct job *job, struct mr_outcome *ret)
{
    uint64_t ns_id = 0;

    int r = mr_mount_ns_id(job->ns_fd, &ns_id);
    if (r == 0)
        r = mr_mount_is_listed(ns_id, job->look.row->mount_id);
    if (r == 0)
        mr_outcome(ret, true, "not there any more");
    else if (r > 0)
        mr_outcome(ret, false,
                   "out of reach in that namespace: no path leads to it; end its "
                   "processes (signal) instead");
    else
        mr_outcome(ret, false,
                   "not in sight there, and whether it is gone cannot be told: %s",
                   strerrorname_np(-r));
}

static bool is_still_there(int self, uint64_t id)
{
    MR_AUTO_TABLE struct mr_mount_table table = {0};

    return mr_mount_table_read(self, &table) < 0 || mr_mount_table_find(&table, id);
}

/* In the child. /proc of the agent stays reachable by fd: a container has its own, or
 * none. */
static void act_inside(void *ctx, struct mr_outcome *ret)
{
    struct job *job = ctx;
    struct mr_mount_case *look = &job->look;
    MR_AUTO_CLOSE int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

    /* Whatever we may hang on in there, the device is not kept by it. */
    (void)close(look->act->device_fd);
    int r = self < 0 ? -errno : mr_mount_table_read(self, &look->here);
    if (r == 0 && setns(job->ns_fd, CLONE_NEWNS) < 0) {
        mr_outcome(ret, false, "the mount namespace cannot be entered: %s",
                   strerrorname_np(errno));
        return;
    }
    if (r == 0)
        r = mr_mount_table_read(self, &look->there);
    if (r < 0) {
        mr_outcome(ret, false, "the mount table cannot be read: %s", strerrorname_np(-r));
        return;
    }
    const struct mr_mountinfo *entry =
        mr_mount_table_find(&look->there, look->row->mount_id);
    if (!entry) {
        explain_missing(job, ret);
        return;
    }
    if (mr_mount_may_go(look, entry, ret))
        umount_entry(job, entry, ret);
    if (ret->done && is_still_there(self, entry->id))
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
    struct job job = {.look = {.act = act, .row = row}};

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
    job.foreign = mr_mount_ns_foreign(ns_fd);
    job.look.own_ns = is_own_ns(row->mount_ns);
    if (mr_mount_find_ours(&job.look, ret))
        (void)mr_act_in_child(act, act_inside, &job, UMOUNT_LIMIT_MS, ret);
    free(job.look.ours);
}
