/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/listing.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EDGE_BYTES (2ull << 20)       /* as the worker's test for "blank" */
#define BEHIND_BYTES (64ull << 10)    /* what may begin just behind the head */
#define LUKS2_LAST_BYTES (4ull << 20) /* LUKS2 on-disk format, section 2.1 */

/* --- SendTargets --- */

static bool name_valid(const char *name)
{
    size_t len = strlen(name);

    if (len < 5 || len >= MR_ISCSI_NAME)
        return false;
    if (strncmp(name, "iqn.", 4) != 0 && strncmp(name, "eui.", 4) != 0 &&
        strncmp(name, "naa.", 4) != 0)
        return false;
    for (; *name; name++)
        if (!isascii(*name) || (!isalnum((unsigned char)*name) && !strchr("-.:", *name)))
            return false;
    return true;
}

struct mr_listed_target *mr_listed_add(struct mr_listed_targets *list, const char *name)
{
    struct mr_listed_target *target;

    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->targets[i].name, name) == 0)
            return &list->targets[i];
    if (list->count == MR_LISTED_TARGETS_MAX || !name_valid(name)) {
        list->cut = true;
        return NULL;
    }
    target = &list->targets[list->count++];
    *target = (struct mr_listed_target){.portal_count = 0};
    strcpy(target->name, name);
    return target;
}

void mr_listed_add_portal(struct mr_listed_targets *list, struct mr_listed_target *target,
                          const char *address)
{
    struct mr_portal portal;
    char text[MR_PORTAL_HOST];
    size_t len = strcspn(address, ",");

    if (target->portal_count == MR_LISTED_PORTALS_MAX || len >= sizeof(text)) {
        list->cut = true;
        return;
    }
    memcpy(text, address, len);
    text[len] = '\0';
    for (const char *c = text; *c; c++)
        if (!isascii(*c) || !isgraph((unsigned char)*c) || strchr("\"\\", *c)) {
            list->cut = true;
            return;
        }
    if (mr_portal_parse(text, &portal) < 0) {
        list->cut = true;
        return;
    }
    strcpy(target->portals[target->portal_count++], text);
}

static int compare(const void *a, const void *b)
{
    const struct mr_listed_target *x = a;
    const struct mr_listed_target *y = b;

    return strcmp(x->name, y->name);
}

void mr_listed_sort(struct mr_listed_targets *list)
{
    qsort(list->targets, list->count, sizeof(list->targets[0]), compare);
}

/* --- REPORT LUNS, INQUIRY --- */

int mr_parse_report_luns(const uint8_t *data, size_t len, uint16_t *luns, size_t max,
                         bool *ret_cut)
{
    static const uint8_t none[6];
    size_t count = 0;
    size_t said;

    *ret_cut = false;
    if (len < 8)
        return -EBADMSG;
    said = (size_t)data[0] << 24 | (size_t)data[1] << 16 | (size_t)data[2] << 8 | data[3];
    if (said % 8 != 0)
        return -EBADMSG;
    *ret_cut = said > len - 8;
    if (*ret_cut)
        said = len - 8;
    for (const uint8_t *p = data + 8; said >= 8; p += 8, said -= 8) {
        if (count == max || memcmp(p + 2, none, sizeof(none)) != 0) {
            *ret_cut = true;
            continue;
        }
        luns[count++] = (uint16_t)(p[0] << 8 | p[1]);
    }
    return (int)count;
}

static void copy_name(const uint8_t *from, size_t len, char *dst)
{
    while (len > 0 && (from[len - 1] == ' ' || from[len - 1] == '\0'))
        len--;
    for (size_t i = 0; i < len; i++)
        dst[i] = from[i] >= ' ' && from[i] < 0x7f ? (char)from[i] : '_';
    dst[len] = '\0';
}

void mr_parse_inquiry_names(const uint8_t *data, size_t len,
                            char vendor[MR_INQUIRY_VENDOR],
                            char product[MR_INQUIRY_PRODUCT])
{
    vendor[0] = '\0';
    product[0] = '\0';
    if (len < 32)
        return;
    copy_name(data + 8, MR_INQUIRY_VENDOR - 1, vendor);
    copy_name(data + 16, MR_INQUIRY_PRODUCT - 1, product);
}

/* --- what a prober looks at --- */

/* Adds what of [from, to) is not covered and lies on the LUN. */
static void add_range(struct mr_range *ranges, size_t *count, uint64_t from, uint64_t to,
                      uint64_t size)
{
    uint64_t after = *count ? ranges[*count - 1].offset + ranges[*count - 1].length : 0;

    if (from < after)
        from = after;
    if (to > size)
        to = size;
    if (from < to)
        ranges[(*count)++] = (struct mr_range){.offset = from, .length = to - from};
}

size_t mr_probe_ranges(uint64_t size_bytes, uint32_t block_size,
                       struct mr_range ret[MR_PROBE_RANGES])
{
    uint64_t tail = size_bytes > EDGE_BYTES ? size_bytes - EDGE_BYTES : 0;
    size_t count = 0;

    tail -= tail % block_size;
    add_range(ret, &count, 0, EDGE_BYTES + BEHIND_BYTES, size_bytes);
    if (tail > LUKS2_LAST_BYTES)
        add_range(ret, &count, LUKS2_LAST_BYTES, LUKS2_LAST_BYTES + BEHIND_BYTES, tail);
    add_range(ret, &count, tail, size_bytes, size_bytes);
    return count;
}

static uint64_t le64(const uint8_t *p)
{
    uint64_t value = 0;

    for (int i = 7; i >= 0; i--)
        value = value << 8 | p[i];
    return value;
}

/* util-linux libblkid/src/superblocks/ntfs.c: record 3 of the table holds the label, each
 * record has at least 1 KiB and at most 4 KiB. */
bool mr_ntfs_table(const uint8_t *head, size_t len, uint64_t size_bytes,
                   uint32_t block_size, struct mr_range *ret)
{
    const uint64_t length = 16384;
    uint64_t sector;
    uint64_t cluster;
    uint64_t at;

    if (len < 512 || memcmp(head + 3, "NTFS    ", 8) != 0)
        return false;
    sector = (uint64_t)(head[11] | head[12] << 8);
    /* From 240 on it is the negated exponent of two. */
    cluster = sector * (head[13] < 240 ? head[13] : 1ull << (256 - head[13]));
    if (sector < 256 || sector > 4096 || cluster == 0 ||
        le64(head + 48) >= size_bytes / cluster)
        return false;
    at = le64(head + 48) * cluster;
    at -= at % block_size;
    *ret = (struct mr_range){
        .offset = at,
        .length = size_bytes - at < length ? size_bytes - at : length,
    };
    return true;
}
