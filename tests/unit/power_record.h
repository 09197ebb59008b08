/* SPDX-License-Identifier: Apache-2.0
 *
 * The record itself: power_vfs.c writes it, power_disk.c replays it. Private to them.
 */
#ifndef MR_TESTS_UNIT_POWER_RECORD_H
#define MR_TESTS_UNIT_POWER_RECORD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/power_vfs.h"

#define FILES_MAX 64 /* one for each life of a name */

/* A broken test bench is no result. */
#define MUST(condition)                                                                  \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);        \
            abort();                                                                     \
        }                                                                                \
    } while (0)

enum kind {
    CREATE,
    REMOVE,
    WRITE,
    TRUNCATE,
    SYNC,
    SYNC_DIR,
    NOTE
};

struct entry {
    enum kind kind;
    size_t file;
    size_t offset; /* TRUNCATE: the size */
    size_t size;
    uint8_t *data;
    int note;
};

struct bytes {
    uint8_t *data;
    size_t size;
    size_t room;
};

struct power_record {
    char dir[256];
    enum power_lie lie;
    struct entry *entries;
    size_t length;
    size_t room;
    char names[FILES_MAX][64];
    struct bytes before[FILES_MAX]; /* what was in it when the record began */
    bool there_before[FILES_MAX];
    bool removed[FILES_MAX];
    size_t files;
};

static inline void reserve(struct bytes *b, size_t size)
{
    if (size <= b->room)
        return;
    b->room = size + size / 2;
    b->data = realloc(b->data, b->room);
    MUST(b->data);
}

static inline void resize(struct bytes *b, size_t size)
{
    reserve(b, size);
    if (size > b->size)
        memset(b->data + b->size, 0, size - b->size);
    b->size = size;
}

static inline void put(struct bytes *b, size_t offset, const uint8_t *data, size_t size)
{
    if (offset > b->size)
        resize(b, offset);
    if (offset + size > b->size) {
        reserve(b, offset + size);
        b->size = offset + size;
    }
    memcpy(b->data + offset, data, size);
}

#endif
