/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/action_mount.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "storage/base/cleanup.h"
#include "storage/worker/holder.h"

#define MASTERS_MAX 32 /* length of a chain of peer groups */

bool mr_mount_find_ours(struct mr_mount_case *look, struct mr_outcome *ret)
{
    const struct mr_act *act = look->act;

    look->ours = calloc(act->spare_count + 1, sizeof(*look->ours));
    if (!look->ours) {
        mr_outcome(ret, false, "not tried: out of memory");
        return false;
    }
    look->ours_count = act->spare_count + 1;
    for (size_t i = act->has_mount ? 0 : 1; i < look->ours_count; i++) {
        int r = mr_mount_old_id(i == 0 ? &act->mount.mount : &act->spares[i - 1],
                                &look->ours[i]);
        if (r < 0 && r != -ENOENT)
            look->unknown = -r;
    }
    return true;
}

/* The reader's root may lie below that of the namespace: then the scan saw the end of the
 * path. Its text was cleaned. */
static bool same_path(const struct mr_mountinfo *entry, const char *path)
{
    MR_AUTO_FREE char *point = mr_holder_text(entry->point);
    size_t have = point ? strlen(point) : 0;
    size_t want = path ? strlen(path) : 0;

    return want == 0 ||
           (path[0] == '/' && have >= want && strcmp(point + have - want, path) == 0);
}

static dev_t device_of(const struct mr_act *act)
{
    return makedev(act->identity.major, act->identity.minor);
}

static bool is_below_copy(const struct mr_mount_table *table, dev_t dev, const char *path)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->entries[i].dev == dev && mr_path_below(path, table->entries[i].point))
            return true;
    return false;
}

static bool is_below_own(const struct mr_act *act, const char *path)
{
    char place[2 * PATH_MAX + 2];

    if (act->mount_path && mr_path_below(path, act->mount_path))
        return true;
    (void)snprintf(place, sizeof(place), "%s/%s",
                   strcmp(act->mount.root, "/") == 0 ? "" : act->mount.root,
                   act->mount.path);
    return act->has_mount && mr_path_below(path, place);
}

/* Has the overlay a layer that lies on the volume, as paths are in that table? The text
 * alone says it only in our own namespace (own), see scan_overlay.c. */
static bool has_layer(const struct mr_act *act, const struct mr_mount_table *table,
                      bool own, const struct mr_mountinfo *entry)
{
    MR_AUTO_FREE char *options = strdup(entry->options);
    struct mr_overlay_layers layers = {.options = options};

    for (const char *layer; options && (layer = mr_overlay_next(&layers));)
        if ((own && is_below_own(act, layer)) ||
            is_below_copy(table, device_of(act), layer))
            return true;
    return false;
}

static bool is_overlay(const struct mr_mount_case *look, const struct mr_mountinfo *entry)
{
    const struct mr_mount_table *here = &look->here;

    if (strcmp(entry->fs_type, "overlay") != 0)
        return false;
    if (has_layer(look->act, &look->there, look->own_ns, entry))
        return true;
    for (size_t i = 0; i < here->count; i++)
        if (here->entries[i].dev == entry->dev &&
            has_layer(look->act, here, true, &here->entries[i]))
            return true;
    return false;
}

/* Is it what the row says? */
static bool is_target(const struct mr_mount_case *look, const struct mr_mountinfo *entry)
{
    const dev_t dev = device_of(look->act);
    const struct mr_mountinfo *own =
        look->own_ns ? mr_mount_table_find(&look->there, look->ours[0]) : NULL;
    bool right = false;

    if (look->row->kind == MR_HOLDER_MOUNT_COPY)
        right = entry->dev == dev;
    else if (look->row->kind == MR_HOLDER_OVERLAY)
        right = is_overlay(look, entry);
    else if (look->row->kind == MR_HOLDER_NESTED_MOUNT)
        right = mr_mount_is_inside(&look->there, entry, dev);
    else if (look->row->kind == MR_HOLDER_COVERING_MOUNT)
        right = own && mr_mount_covers(&look->there, entry, own);
    return right && same_path(entry, look->row->path);
}

/* --- shared propagation: mount_namespaces(7), fs/pnode.c propagate_umount() --- */

/* Where in the file system of its parent it is mounted. False when it does not fit. */
static bool place_of(const struct mr_mountinfo *parent, const struct mr_mountinfo *entry,
                     char **ret)
{
    const char *root = strcmp(parent->root, "/") == 0 ? "" : parent->root;
    const char *rest = entry->point;

    *ret = NULL;
    if (!mr_path_below(entry->point, parent->point))
        return false;
    if (strcmp(parent->point, "/") != 0)
        rest += strlen(parent->point);
    return asprintf(ret, "%s%s", root, rest) >= 0;
}

static const struct mr_mountinfo *find_group(const struct mr_mount_table *table,
                                             uint64_t group)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->entries[i].shared == group)
            return &table->entries[i];
    return NULL;
}

/* Does the mount get what happens in that peer group? A group that nobody of is in sight
 * may get it, too. */
static bool receives(const struct mr_mount_case *look, const struct mr_mountinfo *mount,
                     uint64_t group)
{
    uint64_t master = mount->master;

    if (mount->shared == group)
        return true;
    for (int i = 0; master != 0 && i < MASTERS_MAX; i++) {
        if (master == group)
            return true;
        const struct mr_mountinfo *member = find_group(&look->here, master);
        if (!member)
            member = find_group(&look->there, master);
        if (!member)
            return true;
        master = member->master;
    }
    return master != 0;
}

/* Would the unmount of entry reach our mount `own`? It does where both are at the same
 * place of parents that tell each other. */
static bool reaches(const struct mr_mount_case *look, const struct mr_mountinfo *entry,
                    const struct mr_mountinfo *own)
{
    const struct mr_mountinfo *parent = mr_mount_table_find(&look->there, entry->parent);
    const struct mr_mountinfo *ours = mr_mount_table_find(&look->here, own->parent);
    MR_AUTO_FREE char *place = NULL;
    MR_AUTO_FREE char *our_place = NULL;

    if (!parent || parent->shared == 0)
        return false;
    if (!ours)
        return true; /* cannot be told */
    if (parent->dev != ours->dev ||
        (place_of(parent, entry, &place) && place_of(ours, own, &our_place) &&
         strcmp(place, our_place) != 0))
        return false;
    return receives(look, ours, parent->shared);
}

static bool is_shared(const struct mr_mount_case *look, const struct mr_mountinfo *entry)
{
    const struct mr_mountinfo *parent = mr_mount_table_find(&look->there, entry->parent);

    return parent && parent->shared != 0;
}

/* False: *ret says which of ours it is, or would take with it. */
static bool spares_ours(const struct mr_mount_case *look,
                        const struct mr_mountinfo *entry, struct mr_outcome *ret)
{
    for (size_t i = 0; i < look->ours_count; i++) {
        const struct mr_mountinfo *own =
            look->ours[i] ? mr_mount_table_find(&look->here, look->ours[i]) : NULL;
        if (!own)
            continue;
        if (look->own_ns && entry->id == own->id) {
            mr_outcome(ret, false, "refused: %s",
                       i == 0
                           ? "it is the volume's own mount"
                           : "this is the mount of another volume; DELETE that volume");
            return false;
        }
        if (reaches(look, entry, own)) {
            mr_outcome(
                ret, false,
                i == 0 ? "refused: it would unmount the volume's own mount too (shared "
                         "propagation); the detach itself unmounts it when it is no "
                         "longer busy"
                       : "refused: it would unmount another volume too (shared "
                         "propagation)");
            return false;
        }
    }
    return true;
}

bool mr_mount_may_go(const struct mr_mount_case *look, const struct mr_mountinfo *entry,
                     struct mr_outcome *ret)
{
    if (look->unknown != 0 && (look->own_ns || is_shared(look, entry))) {
        mr_outcome(ret, false, "refused: our own mounts cannot be told from others: %s",
                   strerrorname_np(look->unknown));
        return false;
    }
    if (!spares_ours(look, entry, ret))
        return false;
    if (is_target(look, entry))
        return true;
    mr_outcome(ret, false, "refused: mount %" PRIu64 " there is not what was seen%s",
               entry->id,
               look->row->kind == MR_HOLDER_OVERLAY
                   ? ", or no layer of it can be tied to the volume"
                   : "");
    return false;
}
