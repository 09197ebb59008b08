/* SPDX-License-Identifier: Apache-2.0
 *
 * The mounts of one namespace and what they say about the targets: copies of a volume,
 * what is mounted inside of it, what hides it. Filled by scan_mounts.c, which knows where
 * to read mounts; judged here. One tree at a time.
 */
#ifndef MR_STORAGE_WORKER_SCAN_TREE_H
#define MR_STORAGE_WORKER_SCAN_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "storage/worker/scan_state.h"

struct mr_scan_mount {
    uint64_t id; /* unique, or of mountinfo: the same for all of one tree */
    uint64_t parent;
    uint64_t old_id; /* of mountinfo */
    dev_t dev;
    struct mr_scan_target *on;
    char *point;  /* the tree's own; NULL: not asked for yet */
    char *layers; /* options of an overlay; the tree's own */
    bool resolved;
    struct mr_scan_mount *inside; /* once resolved: the next one above that is `on` */
};

struct mr_scan_tree {
    uint64_t space;
    uint64_t ns_id; /* 0: read from mountinfo, all points are there */
    bool held_copy; /* once judged: has a mount of a held target, not counting our own */
    struct mr_scan_mount *mounts; /* sorted by id, once judged */
    size_t count;
    size_t room;
};

/* Adds a mount; takes its texts. When out of memory the scan becomes incomplete. */
void mr_scan_tree_add(struct mr_scan *scan, struct mr_scan_tree *tree,
                      const struct mr_scan_mount *mount);
/* Adds the rows. */
void mr_scan_tree_judge(struct mr_scan *scan, struct mr_scan_tree *tree);
/* scan_overlay.c: rows of what is an overlay in this tree; after those of the copies. */
void mr_scan_tree_overlays(struct mr_scan *scan, struct mr_scan_tree *tree);
/* Adds the row of a mount, unless this namespace or all foreign ones together have too
 * many already: nobody can push out the others with mounts. */
void mr_scan_tree_add_row(struct mr_scan *scan, struct mr_scan_tree *tree,
                          struct mr_scan_mount *mount, struct mr_scan_target *target,
                          enum mr_holder_kind kind);
/* For the next namespace; keeps the memory. */
void mr_scan_tree_clear(struct mr_scan_tree *tree);

/* scan_mounts.c: where it is mounted, "" when that cannot be told any more. */
const char *mr_scan_mount_point(const struct mr_scan_tree *tree,
                                struct mr_scan_mount *mount);

#endif
