/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <unistd.h>

#include "tests/unit/power_record.h"

#define SECTOR 512

uint64_t power_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

/* --- the disk --- */

struct list {
    size_t *at; /* places in the record */
    size_t length;
    size_t room;
};

struct power_disk {
    const struct power_record *record;
    size_t position;
    struct bytes durable[FILES_MAX];
    struct list pending[FILES_MAX];
    bool linked[FILES_MAX]; /* durably: the name leads to the file */
    struct list names;      /* pending CREATE and REMOVE */
};

static void push(struct list *list, size_t at)
{
    if (list->length == list->room) {
        list->room = list->room ? 2 * list->room : 64;
        list->at = realloc(list->at, list->room * sizeof(*list->at));
        MUST(list->at);
    }
    list->at[list->length++] = at;
}

struct power_disk *power_disk_new(const struct power_record *r)
{
    struct power_disk *disk = calloc(1, sizeof(*disk));
    MUST(disk);
    disk->record = r;
    for (size_t i = 0; i < r->files; i++) {
        disk->linked[i] = r->there_before[i];
        if (r->before[i].size > 0)
            put(&disk->durable[i], 0, r->before[i].data, r->before[i].size);
    }
    return disk;
}

void power_disk_free(struct power_disk *disk)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        free(disk->durable[i].data);
        free(disk->pending[i].at);
    }
    free(disk->names.at);
    free(disk);
}

static void apply(struct bytes *b, const struct entry *e)
{
    if (e->kind == TRUNCATE)
        resize(b, e->offset);
    else
        put(b, e->offset, e->data, e->size);
}

static void sync_file(struct power_disk *disk, size_t file)
{
    struct list *pending = &disk->pending[file];
    for (size_t i = 0; i < pending->length; i++)
        apply(&disk->durable[file], &disk->record->entries[pending->at[i]]);
    pending->length = 0;
}

static void sync_dir(struct power_disk *disk)
{
    for (size_t i = 0; i < disk->names.length; i++) {
        const struct entry *e = &disk->record->entries[disk->names.at[i]];
        disk->linked[e->file] = e->kind == CREATE;
    }
    disk->names.length = 0;
}

void power_disk_advance(struct power_disk *disk, size_t at)
{
    for (; disk->position < at; disk->position++) {
        const struct entry *e = &disk->record->entries[disk->position];
        switch (e->kind) {
        case CREATE:
        case REMOVE:
            push(&disk->names, disk->position);
            break;
        case WRITE:
        case TRUNCATE:
            push(&disk->pending[e->file], disk->position);
            break;
        case SYNC:
            sync_file(disk, e->file);
            break;
        case SYNC_DIR:
            sync_dir(disk);
            break;
        case NOTE:
            break;
        }
    }
}

/* How much of what was not synced is there: from nothing to all. */
struct luck {
    uint64_t state;
    unsigned percent;
};

static bool lucky(struct luck *luck)
{
    return power_random(&luck->state) % 100 < luck->percent;
}

static void write_some_sectors(struct bytes *b, const struct entry *e, struct luck *luck)
{
    if (lucky(luck) && e->offset + e->size > b->size)
        resize(b, e->offset + e->size); /* the size came before the data */
    for (size_t from = e->offset, end = e->offset + e->size; from < end;) {
        size_t next = (from / SECTOR + 1) * SECTOR;
        if (next > end)
            next = end;
        if (lucky(luck))
            put(b, from, e->data + (from - e->offset), next - from);
        from = next;
    }
}

static void write_file(const struct power_disk *disk, size_t file, struct luck *luck,
                       const char *dir)
{
    const struct list *pending = &disk->pending[file];
    struct bytes b = {0};
    char path[512];

    if (disk->durable[file].size > 0)
        put(&b, 0, disk->durable[file].data, disk->durable[file].size);
    for (size_t i = 0; i < pending->length; i++) {
        const struct entry *e = &disk->record->entries[pending->at[i]];
        if (e->kind == WRITE)
            write_some_sectors(&b, e, luck);
        else if (lucky(luck))
            apply(&b, e);
    }
    (void)snprintf(path, sizeof(path), "%s/%s", dir, disk->record->names[file]);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    MUST(fd >= 0);
    MUST(b.size == 0 || write(fd, b.data, b.size) == (ssize_t)b.size);
    (void)close(fd);
    free(b.data);
}

void power_disk_image(const struct power_disk *disk, uint64_t seed, const char *dir)
{
    static const unsigned percents[] = {0, 5, 50, 95, 100};
    struct luck luck = {.state = seed | 1}; /* never 0 */
    bool linked[FILES_MAX];

    luck.percent = percents[power_random(&luck.state) % 5];
    memcpy(linked, disk->linked, sizeof(linked));
    for (size_t i = 0; i < disk->names.length; i++) {
        const struct entry *e = &disk->record->entries[disk->names.at[i]];
        if (lucky(&luck))
            linked[e->file] = e->kind == CREATE;
    }
    /* Of two that have one name the later is found. */
    for (size_t i = 0; i < disk->record->files; i++)
        if (linked[i])
            write_file(disk, i, &luck, dir);
}
