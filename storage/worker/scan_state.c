/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/clock.h"

#define MR_CANDIDATES_MAX 20 /* per target */

int mr_scan_compare_devs(const void *a, const void *b)
{
    const struct mr_scan_dev *left = a;
    const struct mr_scan_dev *right = b;

    return left->dev < right->dev ? -1 : left->dev > right->dev;
}

struct mr_scan_target *mr_scan_find_dev(const struct mr_scan *scan, dev_t dev)
{
    const struct mr_scan_dev key = {.dev = dev};

    if (scan->dev_count == 0)
        return NULL;
    const struct mr_scan_dev *found =
        bsearch(&key, scan->devs, scan->dev_count, sizeof(key), mr_scan_compare_devs);
    return found ? found->target : NULL;
}

static bool lies_on(const struct mr_scan_target *target, const char *path)
{
    if (mr_path_below(path, target->mount_path))
        return true;
    for (size_t i = 0; i < target->holders.count; i++) {
        const struct mr_holder *row = &target->holders.rows[i];
        if (row->kind == MR_HOLDER_MOUNT_COPY && row->path &&
            mr_path_below(path, row->path))
            return true;
    }
    return false;
}

struct mr_scan_target *mr_scan_find_path(const struct mr_scan *scan, const char *path)
{
    for (size_t i = 0; i < scan->target_count; i++)
        if (!scan->targets[i].replaced && lies_on(&scan->targets[i], path))
            return &scan->targets[i];
    return NULL;
}

/* Bytes of the longest mount point in that namespace which the path lies below. */
static size_t depth_in(const struct mr_scan *scan, const struct mr_scan_target *target,
                       uint64_t space, const char *path)
{
    size_t depth = 0;

    if (space == scan->own_space && target->own_mount != 0 &&
        mr_path_below(path, target->mount_path))
        depth = strlen(target->mount_path);
    for (size_t i = 0; i < target->holders.count; i++) {
        const struct mr_holder *row = &target->holders.rows[i];
        if (row->kind == MR_HOLDER_MOUNT_COPY && row->mount_ns == space && row->path &&
            mr_path_below(path, row->path) && strlen(row->path) > depth)
            depth = strlen(row->path);
    }
    return depth;
}

struct mr_scan_target *mr_scan_find_path_in(const struct mr_scan *scan, uint64_t space,
                                            const char *path)
{
    struct mr_scan_target *best = NULL;
    size_t best_depth = 0;

    for (size_t i = 0; i < scan->target_count; i++) {
        struct mr_scan_target *target = &scan->targets[i];
        size_t depth = target->replaced ? 0 : depth_in(scan, target, space, path);
        if (depth > best_depth) {
            best = target;
            best_depth = depth;
        }
    }
    return best;
}

void mr_scan_add(struct mr_scan_target *target, const struct mr_holder *row)
{
    if (mr_holders_add(&target->holders, row) < 0)
        target->complete = false;
}

bool mr_scan_wants_candidates(const struct mr_scan_target *target)
{
    return target->held && !target->replaced && target->holders.count == 0;
}

void mr_scan_add_maybe(struct mr_scan_target *target, const struct mr_holder *row)
{
    struct mr_holder candidate = *row;

    candidate.candidate = true;
    if (!mr_scan_wants_candidates(target))
        return;
    if (target->candidates.count >= MR_CANDIDATES_MAX ||
        mr_holders_add(&target->candidates, &candidate) < 0)
        target->complete = false;
}

bool mr_scan_late(struct mr_scan *scan)
{
    bool late = mr_now_ns() >= scan->deadline_ns;

    if (late)
        scan->complete = false;
    return late;
}

void mr_scan_missed(struct mr_scan *scan, int errnum)
{
    if (errnum != ENOENT && errnum != ESRCH)
        scan->complete = false;
}

struct mr_scan_space *mr_scan_space(struct mr_scan *scan, uint64_t inode)
{
    for (size_t i = 0; i < scan->space_count; i++)
        if (scan->spaces[i].inode == inode)
            return &scan->spaces[i];
    struct mr_scan_space *spaces =
        reallocarray(scan->spaces, scan->space_count + 1, sizeof(*spaces));
    if (!spaces) {
        scan->complete = false;
        return NULL;
    }
    scan->spaces = spaces;
    spaces[scan->space_count] = (struct mr_scan_space){.inode = inode};
    return &spaces[scan->space_count++];
}

int mr_scan_statx(int dirfd, const char *path, struct statx *ret)
{
    const int flags =
        AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | (*path == '\0' ? AT_EMPTY_PATH : 0);

    return statx(dirfd, path, flags, 0, ret) < 0 ? -errno : 0;
}
