/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/survey_mounts.h"

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
#include "storage/worker/mounter_path.h"
#include "storage/worker/survey.h"

#define ORPHAN_MOUNTS_MAX 20

/* --- where a path leads --- */

static int compare_place(const struct mr_mountinfo *a, const struct mr_mountinfo *b)
{
    if (a->parent != b->parent)
        return a->parent < b->parent ? -1 : 1;
    return strcmp(a->point, b->point);
}

static int compare_entries(const void *a, const void *b)
{
    return compare_place(*(const struct mr_mountinfo *const *)a,
                         *(const struct mr_mountinfo *const *)b);
}

int mr_mount_view_read(struct mr_mount_view *ret, struct mr_err *err)
{
    MR_AUTO_CLOSE int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct statx root = {0};

    *ret = (struct mr_mount_view){0};
    if (self < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "open '/proc/self'");
    int r = mr_mount_table_read(self, &ret->table);
    if (r < 0)
        return mr_fail(err, MR_E_INTERNAL, -r, "our mount table");
    if (statx(AT_FDCWD, "/", AT_STATX_DONT_SYNC, STATX_MNT_ID, &root) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "mount id of '/'");
    ret->root_id = root.stx_mnt_id;
    ret->by_place = calloc(ret->table.count + 1, sizeof(struct mr_mountinfo *));
    if (!ret->by_place)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "our mount table");
    for (size_t i = 0; i < ret->table.count; i++)
        ret->by_place[i] = &ret->table.entries[i];
    qsort(ret->by_place, ret->table.count, sizeof(struct mr_mountinfo *),
          compare_entries);
    return 0;
}

void mr_mount_view_clear(struct mr_mount_view *view)
{
    free(view->by_place);
    mr_mount_table_clear(&view->table);
    *view = (struct mr_mount_view){0};
}

/* What is mounted there on the mount `at`, and on top of that. */
static uint64_t climb(const struct mr_mount_view *view, uint64_t at, char *point)
{
    for (size_t depth = 0; depth < view->table.count; depth++) {
        const struct mr_mountinfo wanted = {.parent = at, .point = point};
        const struct mr_mountinfo *key = &wanted;
        const struct mr_mountinfo *const *found =
            bsearch(&key, view->by_place, view->table.count,
                    sizeof(struct mr_mountinfo *), compare_entries);
        if (!found || (*found)->id == at)
            break;
        at = (*found)->id;
    }
    return at;
}

/* As path_resolution(7) does it for a path without links, mount by mount. */
static bool leads_to(const struct mr_mount_view *view, const char *root,
                     const char *below, uint64_t id)
{
    char path[2 * PATH_MAX + 1];
    uint64_t at = view->root_id;

    if (mr_format(path, sizeof(path), "%s/%s", strcmp(root, "/") == 0 ? "" : root,
                  below) < 0)
        return false;
    for (char *slash = path; slash;) {
        slash = strchr(slash + 1, '/');
        if (slash)
            *slash = '\0';
        at = climb(view, at, path);
        if (slash)
            *slash = '/';
    }
    return at == id;
}

enum mr_presence mr_mount_view_present(const struct mr_mount_view *view,
                                       const struct mr_mount_record *record,
                                       bool *ret_on_top)
{
    const struct mr_mount_id *mount = &record->mount;
    uint64_t id = mount->id;

    *ret_on_top = false;
    if (id == 0)
        return MR_ABSENT_NOW;
    if (mount->unique) {
        int r = mr_mount_old_id(mount, &id);
        if (r < 0)
            return r == -ENOENT ? MR_ABSENT_NOW : MR_PRESENCE_UNKNOWN;
    } else {
        const struct mr_mountinfo *entry = mr_mount_table_find(&view->table, id);
        if (!entry || entry->dev != makedev(mount->major, mount->minor))
            return MR_ABSENT_NOW;
    }
    *ret_on_top = leads_to(view, record->root, record->path, id);
    return MR_PRESENT;
}

/* --- mounts of orphans --- */

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
    MR_AUTO_VIEW struct mr_mount_view view = {0};
    struct looking looking = {.search = search};

    if (mr_mount_view_read(&view, NULL) < 0)
        search->complete = false;
    for (size_t i = 0; i < view.table.count; i++)
        look_at(&looking, &view.table.entries[i]);
    free(looking.uniques);
}
