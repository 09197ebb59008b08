/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_tree.h"

#include <stdlib.h>
#include <string.h>

#include "storage/worker/scan_parse.h"

#define MR_TREE_ROOM 64
#define MR_TREE_DEPTH 64 /* ancestors of our own mount that are looked at */
#define MR_NEST_DEPTH 64 /* mounts of volumes inside of each other, likewise */
/* Rows of mounts per target: the rest of MR_SCAN_HOLDERS_MAX is for processes. */
#define MR_ROWS_PER_SPACE 20
#define MR_ROWS_FOREIGN 75
#define MR_ROWS_OWN 75

void mr_scan_tree_add(struct mr_scan *scan, struct mr_scan_tree *tree,
                      const struct mr_scan_mount *mount)
{
    if (tree->count == tree->room) {
        size_t room = tree->room ? 2 * tree->room : MR_TREE_ROOM;
        struct mr_scan_mount *mounts =
            reallocarray(tree->mounts, room, sizeof(*tree->mounts));
        if (!mounts) {
            scan->complete = false;
            free(mount->point);
            free(mount->layers);
            return;
        }
        tree->mounts = mounts;
        tree->room = room;
    }
    tree->mounts[tree->count++] = *mount;
}

void mr_scan_tree_clear(struct mr_scan_tree *tree)
{
    for (size_t i = 0; i < tree->count; i++) {
        free(tree->mounts[i].point);
        free(tree->mounts[i].layers);
    }
    tree->count = 0;
    tree->held_copy = false;
}

static int compare_ids(const void *a, const void *b)
{
    const struct mr_scan_mount *left = a;
    const struct mr_scan_mount *right = b;

    return left->id < right->id ? -1 : left->id > right->id;
}

static struct mr_scan_mount *find_mount(const struct mr_scan_tree *tree, uint64_t id)
{
    const struct mr_scan_mount key = {.id = id};

    return bsearch(&key, tree->mounts, tree->count, sizeof(key), compare_ids);
}

/* The parent, NULL for the root of the namespace. */
static struct mr_scan_mount *parent_of(const struct mr_scan_tree *tree,
                                       const struct mr_scan_mount *mount)
{
    return mount->parent == mount->id ? NULL : find_mount(tree, mount->parent);
}

/* When its id could not be learned, what is mounted at its place may be it. */
static bool may_be_own(const struct mr_scan *scan, const struct mr_scan_tree *tree,
                       struct mr_scan_mount *mount)
{
    const struct mr_scan_target *target = mount->on;

    return tree->space == scan->own_space && target->own_place &&
           strcmp(mr_scan_mount_point(tree, mount), target->own_place) == 0;
}

static bool is_own(const struct mr_scan_mount *mount)
{
    return mount->on && mount->on->own_mount == mount->old_id;
}

/* Also false for one that is listed already. */
static bool has_room(const struct mr_scan *scan, struct mr_scan_target *target,
                     const struct mr_holder *row)
{
    bool own = row->mount_ns == scan->own_space;
    size_t here = 0;
    size_t foreign = 0;

    for (size_t i = 0; i < target->holders.count; i++) {
        const struct mr_holder *other = &target->holders.rows[i];
        if (other->id == row->id)
            return false;
        if (!mr_holder_is_mount(other->kind))
            continue;
        here += other->mount_ns == row->mount_ns;
        foreign += other->mount_ns != scan->own_space;
    }
    if (own ? here < MR_ROWS_OWN : here < MR_ROWS_PER_SPACE && foreign < MR_ROWS_FOREIGN)
        return true;
    target->complete = false;
    return false;
}

void mr_scan_tree_add_row(struct mr_scan *scan, struct mr_scan_tree *tree,
                          struct mr_scan_mount *mount, struct mr_scan_target *target,
                          enum mr_holder_kind kind)
{
    struct mr_holder row = {
        .kind = kind,
        .mount_ns = tree->space,
        .mount_id = mount->old_id,
    };

    row.id = mr_holder_id(&row); /* without its path, which is dear */
    if (!has_room(scan, target, &row))
        return;
    (void)mr_scan_mount_point(tree, mount);
    row.path = mount->point;
    mr_scan_add(target, &row);
}

/* Finds mount->inside, and that of all mounts on the way. */
static void resolve(struct mr_scan_tree *tree, struct mr_scan_mount *mount)
{
    struct mr_scan_mount *answer = NULL;
    struct mr_scan_mount *at = mount;

    for (size_t i = 0; at && i <= tree->count; i++) {
        if (at->resolved) {
            answer = at->inside;
            break;
        }
        at = parent_of(tree, at);
        if (at && at->on) {
            answer = at;
            break;
        }
    }
    for (at = mount; at && !at->resolved && (at == mount || !at->on);
         at = parent_of(tree, at)) {
        at->resolved = true;
        at->inside = answer;
    }
}

static void find_nested(struct mr_scan *scan, struct mr_scan_tree *tree,
                        struct mr_scan_mount *mount)
{
    int depth = 0;

    resolve(tree, mount);
    for (struct mr_scan_mount *above = mount->inside; above; above = above->inside) {
        if (depth++ == MR_NEST_DEPTH) {
            scan->complete = false;
            return;
        }
        if (above->on != mount->on) {
            bool covers = is_own(above) && strcmp(mr_scan_mount_point(tree, mount),
                                                  mr_scan_mount_point(tree, above)) == 0;
            mr_scan_tree_add_row(scan, tree, mount, above->on,
                                 covers ? MR_HOLDER_COVERING_MOUNT
                                        : MR_HOLDER_NESTED_MOUNT);
        }
        resolve(tree, above);
    }
}

static bool is_late(struct mr_scan *scan, size_t i)
{
    return i % MR_MOUNTS_PER_CLOCK == 0 && mr_scan_late(scan);
}

/* Something mounted later on a directory above hides what was mounted below of it. Each
 * neighbour must be asked where it is: only for a volume that does not come off. */
static void find_covers(struct mr_scan *scan, struct mr_scan_tree *tree,
                        struct mr_scan_mount *own)
{
    struct mr_scan_mount *hidden = own;

    for (int depth = 0; hidden && depth < MR_TREE_DEPTH; depth++) {
        const char *point = mr_scan_mount_point(tree, hidden);
        for (size_t i = 0; i < tree->count && !is_late(scan, i); i++) {
            struct mr_scan_mount *other = &tree->mounts[i];
            if (other->parent != hidden->parent || other == hidden)
                continue;
            const char *cover = mr_scan_mount_point(tree, other);
            if (strcmp(cover, point) != 0 && mr_path_below(point, cover) &&
                other->id != other->parent)
                mr_scan_tree_add_row(scan, tree, other, own->on,
                                     MR_HOLDER_COVERING_MOUNT);
        }
        hidden = parent_of(tree, hidden);
    }
}

static void note_id(struct mr_scan *scan, uint64_t old_id)
{
    if (scan->mount_id_count == scan->mount_id_room) {
        size_t room = scan->mount_id_room ? 2 * scan->mount_id_room : MR_TREE_ROOM;
        uint64_t *ids = reallocarray(scan->mount_ids, room, sizeof(*ids));
        if (!ids) {
            scan->complete = false;
            return;
        }
        scan->mount_ids = ids;
        scan->mount_id_room = room;
    }
    scan->mount_ids[scan->mount_id_count++] = old_id;
    scan->mount_ids_sorted = false;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;

    return left < right ? -1 : left > right;
}

bool mr_scan_has_mount(struct mr_scan *scan, uint64_t old_id)
{
    if (scan->mount_id_count == 0)
        return false;
    if (!scan->mount_ids_sorted)
        qsort(scan->mount_ids, scan->mount_id_count, sizeof(old_id), compare_numbers);
    scan->mount_ids_sorted = true;
    return bsearch(&old_id, scan->mount_ids, scan->mount_id_count, sizeof(old_id),
                   compare_numbers) != NULL;
}

/* False when there is none. */
static bool find_copies(struct mr_scan *scan, struct mr_scan_tree *tree)
{
    bool any = false;

    for (size_t i = 0; i < tree->count && !is_late(scan, i); i++) {
        struct mr_scan_mount *mount = &tree->mounts[i];
        note_id(scan, mount->old_id);
        if (!mount->on)
            continue;
        any = true;
        if (is_own(mount) || may_be_own(scan, tree, mount))
            continue;
        tree->held_copy |= mount->on->held;
        mr_scan_tree_add_row(scan, tree, mount, mount->on, MR_HOLDER_MOUNT_COPY);
    }
    return any;
}

void mr_scan_tree_judge(struct mr_scan *scan, struct mr_scan_tree *tree)
{
    bool any = find_copies(scan, tree);

    mr_scan_tree_overlays(scan, tree);
    if (!any)
        return;
    qsort(tree->mounts, tree->count, sizeof(*tree->mounts), compare_ids);
    for (size_t i = 0; i < tree->count && !is_late(scan, i); i++)
        find_nested(scan, tree, &tree->mounts[i]);
    for (size_t i = 0; tree->space == scan->own_space && i < tree->count; i++)
        if (is_own(&tree->mounts[i]) && tree->mounts[i].on->held)
            find_covers(scan, tree, &tree->mounts[i]);
}
