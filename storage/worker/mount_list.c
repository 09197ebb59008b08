/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/mount_list.h"

#include <errno.h>
#include <unistd.h>

/* The kernel climbs from each mount to the root: mounts stacked on each other make every
 * step slow. */
#define LIST_BATCH 128
#define CLIMB_MAX 1000
#define BASICS (MR_STATMOUNT_SB_BASIC | MR_STATMOUNT_MNT_BASIC)

int mr_mount_ask(uint64_t ns_id, uint64_t mount, uint64_t mask, size_t size,
                 struct mr_statmount *ret)
{
    const struct mr_mnt_id_req request = {
        .size = sizeof(request), .mnt_id = mount, .param = mask, .mnt_ns_id = ns_id};

    ret->mask = 0;
    if (syscall(SYS_statmount, &request, ret, size, 0U) < 0)
        return -errno;
    mask &= BASICS;
    return (ret->mask & mask) == mask ? 0 : -EOPNOTSUPP;
}

/* The next ids below `base`. How many, or a negative errno. */
static long list(uint64_t ns_id, uint64_t base, uint64_t after, uint64_t *ids, size_t max)
{
    const struct mr_mnt_id_req request = {
        .size = sizeof(request), .mnt_id = base, .param = after, .mnt_ns_id = ns_id};
    long count = syscall(SYS_listmount, &request, ids, max, 0U);

    return count < 0 ? -errno : count;
}

/* LSMT_ROOT begins at the first mount on the namespace's root (fs/namespace.c
 * grab_requested_root()), or in our own namespace at our root directory: what is mounted
 * beside of that is not below it. 0 or a negative errno. */
static int find_top(uint64_t ns_id, uint64_t *ret)
{
    uint64_t at = 0;

    long count = list(ns_id, MR_LSMT_ROOT, 0, &at, 1);
    if (count <= 0)
        return count < 0 ? (int)count : -ENOENT;
    for (int i = 0; i < CLIMB_MAX; i++) {
        struct mr_statmount mount;
        int r = mr_mount_ask(ns_id, at, BASICS, sizeof(mount), &mount);
        if (r < 0)
            return r == -ENOENT ? -ESTALE : r; /* unmounted under our feet */
        if (mount.mnt_parent_id == at) {
            *ret = at;
            return 0;
        }
        at = mount.mnt_parent_id;
    }
    return -ELOOP;
}

int mr_mount_list(uint64_t ns_id, mr_mount_fn fn, void *ctx)
{
    static uint64_t ids[LIST_BATCH];
    uint64_t top = MR_LSMT_ROOT;
    uint64_t last = 0;
    long count = 1;

    int rc = find_top(ns_id, &top);
    ids[0] = top; /* is not below itself */
    if (rc < 0)
        count = 0; /* what LSMT_ROOT shows is better than nothing */
    do {
        for (long i = 0; i < count; i++) {
            struct mr_statmount mount;
            int r = mr_mount_ask(ns_id, ids[i], BASICS, sizeof(mount), &mount);
            if (r == 0 && !fn(ctx, &mount))
                return rc;
            if (r < 0 && r != -ENOENT) /* that one was unmounted meanwhile */
                rc = r;
            if (ids[i] != top)
                last = ids[i];
        }
        count = list(ns_id, top, last, ids, LIST_BATCH);
    } while (count > 0);
    return count < 0 && count != -ENOENT ? (int)count : rc;
}

struct wanted {
    uint64_t old_id;
    bool found;
};

static bool look_for(void *ctx, const struct mr_statmount *mount)
{
    struct wanted *wanted = ctx;

    wanted->found = mount->mnt_id_old == wanted->old_id;
    return !wanted->found;
}

int mr_mount_is_listed(uint64_t ns_id, uint64_t old_id)
{
    struct wanted wanted = {.old_id = old_id};

    int rc = mr_mount_list(ns_id, look_for, &wanted);
    if (wanted.found)
        return 1;
    return rc == -ENOENT ? 0 : rc;
}
