/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/mount_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/base/fd.h"
#include "storage/base/statmount.h"
#include "storage/worker/scan_parse.h"

#define TABLE_BYTES_MAX (64UL * 1024 * 1024)

static size_t count_lines(const char *text)
{
    size_t count = 0;

    for (; *text; text++)
        count += *text == '\n';
    return count;
}

int mr_mount_table_read(int task_dir, struct mr_mount_table *ret)
{
    *ret = (struct mr_mount_table){0};
    ssize_t len = mr_read_file(task_dir, "mountinfo", TABLE_BYTES_MAX, &ret->text);
    if (len < 0)
        return (int)len;
    ret->entries = calloc(count_lines(ret->text) + 1, sizeof(*ret->entries));
    if (!ret->entries)
        return -ENOMEM;
    char *rest = ret->text;
    for (char *line; (line = strsep(&rest, "\n")) && *line;) {
        struct mr_mountinfo info;
        if (mr_parse_mountinfo(line, &info) < 0)
            return -EBADMSG;
        ret->entries[ret->count++] = (struct mr_mount_entry){
            .id = info.id,
            .parent = info.parent,
            .dev = info.dev,
            .point = info.point,
            .fs_type = info.fs_type,
            .options = info.options,
        };
    }
    return 0;
}

void mr_mount_table_clear(struct mr_mount_table *table)
{
    free(table->entries);
    free(table->text);
    *table = (struct mr_mount_table){0};
}

uint64_t mr_mount_table_id(const struct mr_mount_id *mount)
{
    struct mr_statmount facts = {0};
    struct mr_mnt_id_req request = {
        .size = MR_MNT_ID_REQ_SIZE_VER0,
        .mnt_id = mount->id,
        .param = MR_STATMOUNT_MNT_BASIC,
    };

    if (!mount->unique)
        return mount->id;
    return syscall(SYS_statmount, &request, &facts, sizeof(facts), 0U) == 0
               ? facts.mnt_id_old
               : 0;
}

const struct mr_mount_entry *mr_mount_table_find(const struct mr_mount_table *table,
                                                 uint64_t id)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->entries[i].id == id)
            return &table->entries[i];
    return NULL;
}

/* The root of a namespace may be its own parent. */
static const struct mr_mount_entry *parent(const struct mr_mount_table *table,
                                           const struct mr_mount_entry *entry)
{
    return entry->parent == entry->id ? NULL : mr_mount_table_find(table, entry->parent);
}

bool mr_mount_is_inside(const struct mr_mount_table *table,
                        const struct mr_mount_entry *entry, dev_t dev)
{
    size_t depth = 0; /* the text is only as sane as its writer */

    for (entry = parent(table, entry); entry && depth < table->count; depth++) {
        if (entry->dev == dev)
            return true;
        entry = parent(table, entry);
    }
    return false;
}

/* Mounted on `own` or on a mount that leads to it, over what leads on. */
static bool hides(const struct mr_mount_table *table, const struct mr_mount_entry *entry,
                  const struct mr_mount_entry *own)
{
    const struct mr_mount_entry *above = own;
    size_t depth = 0;

    for (const struct mr_mount_entry *at = own; at && depth < table->count; depth++) {
        if (at->id == entry->id)
            return false; /* it leads to ours */
        if (at->id == entry->parent)
            return mr_path_below(above->point, entry->point) && above->id != entry->id;
        above = at;
        at = parent(table, at);
    }
    return false;
}

bool mr_mount_covers(const struct mr_mount_table *table,
                     const struct mr_mount_entry *entry, const struct mr_mount_entry *own)
{
    for (size_t depth = 0; entry && depth < table->count; depth++) {
        const struct mr_mount_entry *below = parent(table, entry);
        if (hides(table, entry, own))
            return true;
        if (!below || strcmp(below->point, entry->point) != 0)
            return false;
        entry = below;
    }
    return false;
}
