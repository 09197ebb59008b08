/* SPDX-License-Identifier: Apache-2.0
 *
 * Overlays keep their layers alive, and tell them by nothing but the path that whoever
 * mounted it wrote. A path means a volume only where that is mounted: in our own
 * namespace, and in one that has a copy of it. In any other one the same text may be any
 * directory; only where the same overlay is ours, too, it was inherited from us.
 */
#include "storage/worker/scan_tree.h"

#include <stdlib.h>
#include <string.h>

#include "storage/worker/scan_parse.h"

#define GUESSES_PER_SPACE 20

static struct mr_scan_target *find_own_path(const struct mr_scan *scan, const char *path)
{
    struct mr_scan_target *best = NULL;

    for (size_t i = 0; i < scan->target_count; i++) {
        struct mr_scan_target *target = &scan->targets[i];
        if (!target->replaced && mr_path_below(path, target->mount_path) &&
            (!best || strlen(target->mount_path) > strlen(best->mount_path)))
            best = target;
    }
    return best;
}

/* Moves the others; NULL when out of memory. */
static struct mr_scan_overlay *note(struct mr_scan *scan, dev_t dev,
                                    struct mr_scan_target *target)
{
    struct mr_scan_overlay *overlays =
        reallocarray(scan->overlays, scan->overlay_count + 1, sizeof(*overlays));

    if (!overlays) {
        scan->complete = false;
        return NULL;
    }
    scan->overlays = overlays;
    overlays[scan->overlay_count] =
        (struct mr_scan_overlay){.dev = dev, .target = target};
    return &overlays[scan->overlay_count++];
}

/* *guesses: how many there are of this namespace. */
static void note_guess(struct mr_scan *scan, struct mr_scan_tree *tree,
                       struct mr_scan_mount *mount, struct mr_scan_target *target,
                       size_t *guesses)
{
    if (*guesses >= GUESSES_PER_SPACE) {
        target->complete = false;
        return;
    }
    struct mr_scan_overlay *guess = note(scan, mount->dev, target);
    if (!guess)
        return;
    (*guesses)++;
    (void)mr_scan_mount_point(tree, mount);
    guess->space = tree->space;
    guess->mount_id = mount->old_id;
    guess->point = mount->point ? strdup(mount->point) : NULL;
}

/* The layers are cut up. */
static void look_at_overlay(struct mr_scan *scan, struct mr_scan_tree *tree,
                            struct mr_scan_mount *mount, size_t *guesses)
{
    struct mr_overlay_layers layers = {.options = mount->layers};
    bool own = tree->space == scan->own_space;

    for (const char *layer; (layer = mr_overlay_next(&layers));) {
        struct mr_scan_target *target = mr_scan_find_path_in(scan, tree->space, layer);
        bool certain = target || own;
        if (!target)
            target = find_own_path(scan, layer);
        if (!target)
            continue;
        if (certain)
            mr_scan_tree_add_row(scan, tree, mount, target, MR_HOLDER_OVERLAY);
        else
            note_guess(scan, tree, mount, target, guesses);
        if (own)
            (void)note(scan, mount->dev, target);
    }
}

void mr_scan_tree_overlays(struct mr_scan *scan, struct mr_scan_tree *tree)
{
    size_t guesses = 0;

    for (size_t i = 0; i < tree->count; i++)
        if (tree->mounts[i].layers && !mr_scan_late(scan))
            look_at_overlay(scan, tree, &tree->mounts[i], &guesses);
}

static bool is_inherited(const struct mr_scan *scan, const struct mr_scan_overlay *guess)
{
    for (size_t i = 0; i < scan->overlay_count; i++)
        if (scan->overlays[i].space == 0 && scan->overlays[i].dev == guess->dev &&
            scan->overlays[i].target == guess->target)
            return true;
    return false;
}

void mr_scan_overlay_guesses(struct mr_scan *scan)
{
    for (size_t i = 0; i < scan->overlay_count && !mr_scan_late(scan); i++) {
        const struct mr_scan_overlay *guess = &scan->overlays[i];
        const struct mr_holder row = {
            .kind = MR_HOLDER_OVERLAY,
            .mount_ns = guess->space,
            .mount_id = guess->mount_id,
            .path = guess->point,
        };
        if (guess->space == 0)
            continue;
        if (is_inherited(scan, guess))
            mr_scan_add(guess->target, &row);
        else
            mr_scan_add_maybe(guess->target, &row);
    }
}
