/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/holder.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/json.h"
#include "storage/protocol.h"

#define MR_FNV_BASIS 14695981039346656037ULL
#define MR_FNV_PRIME 1099511628211ULL

static void hash_bytes(uint64_t *hash, const void *data, size_t len)
{
    const unsigned char *bytes = data;

    for (size_t i = 0; i < len; i++)
        *hash = (*hash ^ bytes[i]) * MR_FNV_PRIME;
}

static void hash_number(uint64_t *hash, uint64_t number)
{
    hash_bytes(hash, &number, sizeof(number));
}

/* With its NUL, so that "a" + "bc" is not "ab" + "c". */
static void hash_text(uint64_t *hash, const char *text)
{
    hash_bytes(hash, text ? text : "", (text ? strlen(text) : 0) + 1);
}

bool mr_holder_is_mount(enum mr_holder_kind kind)
{
    return kind == MR_HOLDER_MOUNT_COPY || kind == MR_HOLDER_NESTED_MOUNT ||
           kind == MR_HOLDER_COVERING_MOUNT || kind == MR_HOLDER_OVERLAY;
}

uint64_t mr_holder_id(const struct mr_holder *row)
{
    uint64_t hash = MR_FNV_BASIS;

    hash_text(&hash, mr_holder_kind_name(row->kind));
    if (mr_holder_is_mount(row->kind)) {
        hash_number(&hash, row->mount_ns);
        hash_number(&hash, row->mount_id);
    } else {
        hash_number(&hash, (uint64_t)row->pid);
        hash_number(&hash, (uint64_t)row->tid);
        hash_number(&hash, row->start_time);
        hash_text(&hash, row->path);
        hash_text(&hash, row->device);
    }
    return hash ? hash : 1;
}

/* Length of the printable UTF-8 sequence at s, 0 when there is none (RFC 3629; C0, C1 and
 * DEL are not printable). */
static size_t utf8_length(const unsigned char *s)
{
    if (s[0] >= 0x20 && s[0] < 0x7f)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    size_t len = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80) /* also stops at the NUL */
            return 0;
    bool c1 = s[0] == 0xc2 && s[1] < 0xa0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool beyond = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
    return c1 || overlong || beyond ? 0 : len;
}

char *mr_holder_text(const char *text)
{
    char *copy = text ? strdup(text) : NULL;

    for (char *p = copy; p && *p;) {
        size_t len = utf8_length((const unsigned char *)p);
        if (len == 0)
            *p = '?';
        p += len ? len : 1;
    }
    return copy;
}

/* The texts of a row. */
static const size_t texts[] = {
    offsetof(struct mr_holder, comm),    offsetof(struct mr_holder, user),
    offsetof(struct mr_holder, cgroup),  offsetof(struct mr_holder, container),
    offsetof(struct mr_holder, runtime), offsetof(struct mr_holder, unit),
    offsetof(struct mr_holder, path),    offsetof(struct mr_holder, device),
};
#define MR_TEXTS (sizeof(texts) / sizeof(texts[0]))

static char **text_at(struct mr_holder *row, size_t i)
{
    return (char **)(void *)((char *)row + texts[i]);
}

static void row_clear(struct mr_holder *row)
{
    for (size_t i = 0; i < MR_TEXTS; i++)
        free(*text_at(row, i));
}

/* False when out of memory; *dst is to be cleared either way. */
static bool row_copy(struct mr_holder *dst, const struct mr_holder *src)
{
    bool ok = true;

    *dst = *src;
    for (size_t i = 0; i < MR_TEXTS; i++) {
        char **text = text_at(dst, i);
        const char *foreign = *text;
        *text = mr_holder_text(foreign);
        ok &= !*text == !foreign;
    }
    return ok;
}

static bool has_id(const struct mr_holders *list, uint64_t id)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->rows[i].id == id)
            return true;
    return false;
}

int mr_holders_add(struct mr_holders *list, const struct mr_holder *row)
{
    uint64_t id = row->id ? row->id : mr_holder_id(row);

    if (has_id(list, id))
        return 0;
    if (list->count >= MR_SCAN_HOLDERS_MAX)
        return -ENOSPC;
    struct mr_holder *rows = reallocarray(list->rows, list->count + 1, sizeof(*rows));
    if (!rows)
        return -ENOMEM;
    list->rows = rows;
    if (!row_copy(&rows[list->count], row)) {
        row_clear(&rows[list->count]);
        return -ENOMEM;
    }
    rows[list->count++].id = id;
    return 0;
}

void mr_holders_clear(struct mr_holders *list)
{
    for (size_t i = 0; i < list->count; i++)
        row_clear(&list->rows[i]);
    free(list->rows);
    *list = (struct mr_holders){0};
}

static void set_number(struct json_object *json, const char *key, uint64_t number)
{
    if (number == 0 || number > INT64_MAX)
        mr_json_set(json, key, NULL);
    else
        mr_json_set_int(json, key, (int64_t)number);
}

static struct json_object *row_to_json(const struct mr_holder *row)
{
    struct json_object *json = json_object_new_object();
    char id[17];

    if (!json)
        return NULL;
    (void)snprintf(id, sizeof(id), "%016" PRIx64, row->id);
    mr_json_set_string(json, "id", id);
    mr_json_set_string(json, "kind", mr_holder_kind_name(row->kind));
    mr_json_set_bool(json, "certain", !row->candidate);
    set_number(json, "pid", (uint64_t)row->pid);
    set_number(json, "start_time", row->start_time);
    set_number(json, "tid", (uint64_t)row->tid);
    mr_json_set_string(json, "comm", row->comm);
    mr_json_set(json, "uid", row->has_uid ? json_object_new_int64(row->uid) : NULL);
    mr_json_set_string(json, "user", row->user);
    mr_json_set_string(json, "cgroup", row->cgroup);
    mr_json_set_string(json, "container", row->container);
    mr_json_set_string(json, "runtime", row->runtime);
    mr_json_set_string(json, "unit", row->unit);
    set_number(json, "mount_ns", row->mount_ns);
    set_number(json, "mount_id", row->mount_id);
    mr_json_set_string(json, "path", row->path);
    mr_json_set_string(json, "device", row->device);
    if (mr_holder_is_mount(row->kind))
        mr_json_set_int(json, "processes", (int64_t)row->processes);
    mr_json_set(json, "actions",
                mr_holder_actions(row->kind, row->pid != 0 && !row->only_pins));
    mr_json_set_string(json, "remedy", mr_holder_remedy(row->kind));
    return json;
}

struct json_object *mr_holders_to_json(const struct mr_holders *list, size_t max_bytes,
                                       bool *ret_complete)
{
    struct json_object *array = json_object_new_array();
    size_t bytes = 2;

    for (size_t i = 0; array && i < list->count; i++) {
        MR_AUTO_JSON struct json_object *row = row_to_json(&list->rows[i]);
        size_t len = 0;
        if (row)
            (void)json_object_to_json_string_length(row, JSON_C_TO_STRING_PLAIN, &len);
        bool fits = len > 0 && bytes + len + 1 <= max_bytes;
        if (fits && json_object_array_add(array, row) == 0) {
            (void)mr_take_ptr(row);
            bytes += len + 1;
        } else {
            *ret_complete = false;
        }
    }
    return array;
}
