/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/mount_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/fd.h"

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
        if (mr_parse_mountinfo(line, &ret->entries[ret->count]) < 0)
            return -EBADMSG;
        ret->count++;
    }
    return 0;
}

void mr_mount_table_clear(struct mr_mount_table *table)
{
    free(table->entries);
    free(table->text);
    *table = (struct mr_mount_table){0};
}

const struct mr_mountinfo *mr_mount_table_find(const struct mr_mount_table *table,
                                               uint64_t id)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->entries[i].id == id)
            return &table->entries[i];
    return NULL;
}

/* The root of a namespace may be its own parent. */
static const struct mr_mountinfo *parent(const struct mr_mount_table *table,
                                         const struct mr_mountinfo *entry)
{
    return entry->parent == entry->id ? NULL : mr_mount_table_find(table, entry->parent);
}

bool mr_mount_is_inside(const struct mr_mount_table *table,
                        const struct mr_mountinfo *entry, dev_t dev)
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
static bool hides(const struct mr_mount_table *table, const struct mr_mountinfo *entry,
                  const struct mr_mountinfo *own)
{
    const struct mr_mountinfo *above = own;
    size_t depth = 0;

    for (const struct mr_mountinfo *at = own; at && depth < table->count; depth++) {
        if (at->id == entry->id)
            return false; /* it leads to ours */
        if (at->id == entry->parent)
            return mr_path_below(above->point, entry->point) && above->id != entry->id;
        above = at;
        at = parent(table, at);
    }
    return false;
}

bool mr_mount_covers(const struct mr_mount_table *table, const struct mr_mountinfo *entry,
                     const struct mr_mountinfo *own)
{
    for (size_t depth = 0; entry && depth < table->count; depth++) {
        const struct mr_mountinfo *below = parent(table, entry);
        if (hides(table, entry, own))
            return true;
        if (!below || strcmp(below->point, entry->point) != 0)
            return false;
        entry = below;
    }
    return false;
}
