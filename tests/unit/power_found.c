/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/power_found.h"

#include <stdio.h>

#include "storage/base/json.h"

static int wrong(struct image *image, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static int wrong(struct image *image, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(image->why, WHY_TEXT, fmt, ap);
    va_end(ap);
    return -1;
}

/* The last record of this volume up to a value, or the first from one on: 0: none. */
static int last_of(const struct run *run, int number, int value)
{
    while (value > 0 && run->volume_of[value] != number)
        value--;
    return value;
}

static int first_of(const struct run *run, int number)
{
    int value = 1;
    while (value <= run->last && run->volume_of[value] != number)
        value++;
    return value <= run->last ? value : 0;
}

static int on_volume(void *ctx, int64_t number, const char *id, const char *state,
                     struct json_object *volume)
{
    struct image *image = ctx;
    char expected[16];
    int value = (int)mr_json_get_int(volume, "value", 0);

    if (number < 1 || number > VOLUMES)
        return wrong(image, "volume %lld", (long long)number);
    (void)snprintf(expected, sizeof(expected), "vol%d", (int)number);
    if (strcmp(id, expected) != 0 || strcmp(state, "attaching") != 0)
        return wrong(image, "volume %lld is '%s', %s", (long long)number, id, state);
    image->row[number] = value;
    if (value > image->newest)
        image->newest = value;
    return 0;
}

static int on_operation(void *ctx, const char *id, struct json_object *operation)
{
    struct image *image = ctx;
    int value = (int)mr_json_get_int(operation, "value", 0);
    if (atoi(id + 2) != value)
        return wrong(image, "operation %s says %d", id, value);
    if (value > image->newest)
        image->newest = value;
    return 0;
}

/* The real code opens it, has it checked, and loads it; closing makes a checkpoint. */
static int open_and_load(struct image *image)
{
    struct mr_journal *journal = NULL;
    struct mr_err err;
    int rc = mr_journal_open(image->run->loop, image->run->image, &journal, &err);
    if (rc < 0)
        return wrong(image, "does not open: %.200s", err.message);
    rc = mr_journal_load(journal, on_volume, on_operation, RECORDS, image, &err);
    if (rc < 0 && !image->why[0])
        (void)wrong(image, "does not load: %.200s", err.message);
    mr_journal_close(journal);
    return rc;
}

static int take_line(struct image *image, int number, int value)
{
    const struct run *run = image->run;
    if (number < 1 || number > VOLUMES || value < 1 || value > run->last ||
        run->volume_of[value] != number)
        return wrong(image, "line %d of volume %d", value, number);
    if (image->line[number] != last_of(run, number, value - 1) &&
        image->line[number] != 0)
        return wrong(image, "volume %d: line %d behind %d", number, value,
                     image->line[number]);
    if (image->first[number] == 0)
        image->first[number] = value;
    image->line[number] = value;
    if (value > image->newest)
        image->newest = value;
    return 0;
}

/* Exclusively: else SQLite wants shared memory for the log. */
sqlite3 *power_found_open(const char *dir)
{
    sqlite3 *db = NULL;
    char path[100];

    (void)snprintf(path, sizeof(path), "%s/journal.db", dir);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK &&
        sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, NULL) ==
            SQLITE_OK)
        return db;
    (void)sqlite3_close(db);
    return NULL;
}

static int read_history(struct image *image)
{
    static const char all[] = "SELECT volume, json_extract(detail, '$.value')"
                              " FROM history ORDER BY seq";
    sqlite3 *db = power_found_open(image->run->image);
    sqlite3_stmt *stmt = NULL;
    int row = SQLITE_ERROR;
    int rc = 0;

    if (db && sqlite3_prepare_v2(db, all, -1, &stmt, NULL) == SQLITE_OK)
        row = sqlite3_step(stmt);
    for (; rc == 0 && row == SQLITE_ROW; row = sqlite3_step(stmt))
        rc = take_line(image, sqlite3_column_int(stmt, 0), sqlite3_column_int(stmt, 1));
    if (rc == 0 && row != SQLITE_DONE)
        rc = wrong(image, "history: %s", db ? sqlite3_errmsg(db) : "does not open");
    (void)sqlite3_finalize(stmt);
    (void)sqlite3_close(db);
    return rc;
}

static int check_volume(struct image *image, int number)
{
    int last = last_of(image->run, number, image->newest);
    bool may_be_dropped = number <= DROPPED && image->pruning;

    if (may_be_dropped && image->row[number] == 0)
        return 0; /* its lines may go later */
    if (image->dropped[number])
        return wrong(image, "volume %d was dropped and is there", number);
    if (image->row[number] != last)
        return wrong(image, "volume %d is as in record %d instead of %d", number,
                     image->row[number], last);
    if (image->line[number] != last && !(image->pruning && image->line[number] == 0))
        return wrong(image, "volume %d: last line %d instead of %d", number,
                     image->line[number], last);
    if (last != 0 && !image->pruning &&
        image->first[number] != first_of(image->run, number))
        return wrong(image, "volume %d: first line %d", number, image->first[number]);
    return 0;
}

/* All volumes agree on one record that was the last to come to the disk. */
int power_found_check(struct image *image)
{
    if (open_and_load(image) != 0 || read_history(image) != 0)
        return -1;
    if (image->newest < image->acked)
        return wrong(image, "record %d was acknowledged, %d is the last", image->acked,
                     image->newest);
    for (int number = 1; number <= VOLUMES; number++)
        if (check_volume(image, number) != 0)
            return -1;
    return 0;
}
