/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounts of what was found so far, in our own mount table, and FUSE mounts with our mark.
 */
#include "storage/worker/survey.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/worker/mount_list.h"
#include "storage/worker/mount_table.h"
#include "storage/worker/mounter_path.h"

#define ORPHAN_MOUNTS_MAX 20

/* The unique id of a mount that the table shows by its reusable one. */
struct unique {
    uint64_t old_id;
    dev_t dev;
    uint64_t id;
};

/* The state of this part of the search. */
struct looking {
    struct mr_search *search;
    struct unique *uniques; /* all of our namespace, once they are needed */
    size_t unique_count;
    bool uniques_known;
};

static bool add_unique(void *ctx, const struct mr_statmount *mount)
{
    struct looking *looking = ctx;
    struct unique *bigger =
        realloc(looking->uniques, (looking->unique_count + 1) * sizeof(*bigger));

    if (!bigger)
        return false;
    looking->uniques = bigger;
    looking->uniques[looking->unique_count++] = (struct unique){
        .old_id = mount->mnt_id_old,
        .dev = makedev(mount->sb_dev_major, mount->sb_dev_minor),
        .id = mount->mnt_id,
    };
    return true;
}

/* Without unique ids (before Linux 6.8), or when it is gone already, by the other one. */
static struct mr_mount_id name_mount(struct looking *looking,
                                     const struct mr_mountinfo *entry)
{
    struct mr_mount_id mount = {
        .id = entry->id,
        .major = major(entry->dev),
        .minor = minor(entry->dev),
    };

    if (!looking->uniques_known)
        (void)mr_mount_list(0, add_unique, looking); /* 0: our own namespace */
    looking->uniques_known = true;
    for (size_t i = 0; i < looking->unique_count && !mount.unique; i++) {
        const struct unique *unique = &looking->uniques[i];
        if (unique->old_id != entry->id || unique->dev != entry->dev)
            continue;
        mount.id = unique->id;
        mount.unique = true;
    }
    return mount;
}

/* What comes after the root in a path below it, NULL when it is not below. */
static const char *below_root(const char *path, const char *root)
{
    size_t len = strcmp(root, "/") == 0 ? 0 : strlen(root);

    return strncmp(path, root, len) == 0 && path[len] == '/' ? path + len + 1 : NULL;
}

/* Its record, as an attach would have written it; NULL when it is below no root, or its
 * path is no text. */
static struct json_object *new_record(struct looking *looking,
                                      const struct mr_mountinfo *entry, const char *text)
{
    const struct mr_search *search = looking->search;
    struct mr_mount_record record = {.created = 0};
    const char *rest = NULL;
    size_t longest = 0;

    if (strcmp(entry->root, "/") != 0) /* a bind of a directory: never made by us */
        return NULL;
    for (size_t i = 0; i < json_object_array_length(search->roots); i++) {
        const char *root =
            json_object_get_string(json_object_array_get_idx(search->roots, i));
        const char *below = root ? below_root(entry->point, root) : NULL;
        if (below && strlen(root) > longest &&
            mr_format(record.root, sizeof(record.root), "%s", root) == 0) {
            longest = strlen(root);
            rest = below;
        }
    }
    if (!rest || !mr_relative_path_valid(rest) || strcmp(text, entry->point) != 0 ||
        mr_format(record.path, sizeof(record.path), "%s", rest) < 0)
        return NULL;
    record.mount = name_mount(looking, entry);
    return mr_mount_record_to_json(&record);
}

/* The new element, or NULL when there are enough. */
static struct json_object *new_mount(struct mr_search *search, struct json_object **array,
                                     const struct mr_mountinfo *entry)
{
    if (!*array)
        *array = json_object_new_array();
    if (json_object_array_length(*array) >= ORPHAN_MOUNTS_MAX) {
        search->complete = false;
        return NULL;
    }
    struct json_object *json = json_object_new_object();
    mr_json_set_int(json, "mount_id", (int64_t)entry->id);
    mr_json_set_text(json, "path", entry->point);
    if (json_object_array_add(*array, json) < 0)
        (void)json_object_put(json);
    return json;
}

static void note_mount(struct looking *looking, struct mr_orphan *orphan,
                       const struct mr_mountinfo *entry)
{
    struct json_object *json = new_mount(looking->search, &orphan->mounts, entry);

    if (!json)
        return;
    mr_json_set_text(json, "fs_type", entry->fs_type);
    mr_json_set(json, "mount",
                new_record(looking, entry, mr_json_get_string(json, "path")));
}

/* Anybody may mount FUSE with a source of his choice, but not as root (fusermount3(1),
 * fs/fuse/inode.c fuse_show_options()). */
static bool is_root_fuse(const struct mr_mountinfo *entry)
{
    return strcmp(entry->fs_type, "fuse") == 0 && strstr(entry->options, "user_id=0");
}

static void look_at(struct looking *looking, const struct mr_mountinfo *entry)
{
    struct mr_search *search = looking->search;
    char token[MR_TOKEN_TEXT];

    for (size_t i = 0; i < search->orphan_count; i++) {
        const struct mr_identity *identity = &search->orphans[i].identity;
        if (identity->diskseq != 0 &&
            entry->dev == makedev(identity->major, identity->minor))
            note_mount(looking, &search->orphans[i], entry);
    }
    if (!is_root_fuse(entry) || !mr_mark_read(entry->source, search->runtime_dir, token))
        return;
    struct mr_orphan *orphan = mr_search_orphan(search, token);
    if (!orphan)
        return;
    orphan->on_lun = true;
    (void)new_mount(search, &orphan->fuse_mounts, entry);
}

void mr_search_mounts(struct mr_search *search)
{
    MR_AUTO_CLOSE int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    MR_AUTO_TABLE struct mr_mount_table table = {.count = 0};
    struct looking looking = {.search = search};

    if (self < 0 || mr_mount_table_read(self, &table) < 0)
        search->complete = false;
    for (size_t i = 0; i < table.count; i++)
        look_at(&looking, &table.entries[i]);
    free(looking.uniques);
}
