/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/journal_rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/json.h"
#include "storage/journal_file.h"
#include "storage/journal_schema.h"

MR_DEFINE_CLEANUP(stmt, sqlite3_stmt *, (void)sqlite3_finalize);
MR_DEFINE_CLEANUP(tokener, struct json_tokener *, json_tokener_free);

/* --- one row --- */

static bool copy_text(char **dst, const char *src)
{
    *dst = src ? strdup(src) : NULL;
    return *dst || !src;
}

static bool copy_json(char **dst, struct json_object *json)
{
    const char *text =
        json ? json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN) : "{}";
    return text && copy_text(dst, text);
}

bool mr_journal_row_fill(struct mr_journal_row *row, const struct mr_record *record)
{
    char **text = row->text;
    return copy_text(&text[MR_JOURNAL_ID], record->volume_id) &&
           copy_text(&text[MR_JOURNAL_STATE], record->state) &&
           copy_json(&text[MR_JOURNAL_VOLUME], record->volume) &&
           copy_text(&text[MR_JOURNAL_OPERATION_ID], record->operation_id) &&
           (!record->operation ||
            copy_json(&text[MR_JOURNAL_OPERATION], record->operation)) &&
           copy_text(&text[MR_JOURNAL_EVENT], record->event) &&
           (!record->detail || copy_json(&text[MR_JOURNAL_DETAIL], record->detail));
}

void mr_journal_row_done(struct mr_journal_row *row)
{
    for (size_t i = 0; i < MR_JOURNAL_TEXTS; i++)
        free(row->text[i]);
}

/* --- writing --- */

static const char *const statements[MR_JOURNAL_STATEMENTS] = {
    [MR_JOURNAL_PUT_VOLUME] = "INSERT INTO volume(number, id, state, doc, updated_at)"
                              " VALUES(?1, ?2, ?3, ?4, ?5)"
                              " ON CONFLICT(number) DO UPDATE SET id = ?2, state = ?3, "
                              "doc = ?4, updated_at = ?5",
    [MR_JOURNAL_PUT_OPERATION] =
        "INSERT INTO operation(id, volume, doc, updated_at) VALUES(?1, ?2, ?3, ?4)"
        " ON CONFLICT(id) DO UPDATE SET doc = ?3, updated_at = ?4",
    [MR_JOURNAL_ADD_HISTORY] = "INSERT INTO history(volume, operation, at, event, detail)"
                               " VALUES(?1, ?2, ?3, ?4, ?5)",
    [MR_JOURNAL_DROP_OPERATIONS] = "DELETE FROM operation WHERE volume = ?1",
    [MR_JOURNAL_DROP_HISTORY] =
        "DELETE FROM history WHERE seq IN"
        " (SELECT seq FROM history WHERE volume = ?1 ORDER BY seq LIMIT ?2)",
    [MR_JOURNAL_DROP_VOLUME] = "DELETE FROM volume WHERE number = ?1 AND NOT EXISTS"
                               " (SELECT 1 FROM history WHERE volume = ?1)",
    /* What is left; its id is free for another volume. */
    [MR_JOURNAL_DROP_LATER] = "UPDATE volume SET id = '#' || number, doc = '{}',"
                              " state = '" MR_JOURNAL_DROPPED "' WHERE number = ?1",
};

int mr_journal_writer_init(struct mr_journal_writer *w, sqlite3 *db,
                           int64_t *ret_last_number, struct mr_err *err)
{
    static const char last[] = "SELECT max(ifnull((SELECT max(number) FROM volume), 0),"
                               " ifnull((SELECT last FROM number), 0))";
    MR_CLEANUP(stmt) sqlite3_stmt *max = NULL;
    bool ok = sqlite3_prepare_v2(db, last, -1, &max, NULL) == SQLITE_OK &&
              sqlite3_step(max) == SQLITE_ROW;

    w->db = db;
    for (size_t i = 0; ok && i < MR_JOURNAL_STATEMENTS; i++)
        ok = sqlite3_prepare_v2(db, statements[i], -1, &w->stmt[i], NULL) == SQLITE_OK;
    if (!ok)
        return mr_journal_file_fail(db, err, "read journal");
    *ret_last_number = sqlite3_column_int64(max, 0);
    return 0;
}

void mr_journal_writer_done(struct mr_journal_writer *w)
{
    for (size_t i = 0; i < MR_JOURNAL_STATEMENTS; i++)
        (void)sqlite3_finalize(w->stmt[i]);
    *w = (struct mr_journal_writer){0};
}

static bool bind_text(sqlite3_stmt *stmt, int at, const char *text)
{
    return sqlite3_bind_text(stmt, at, text, -1, SQLITE_STATIC) == SQLITE_OK;
}

static bool bind_int(sqlite3_stmt *stmt, int at, int64_t value)
{
    return sqlite3_bind_int64(stmt, at, value) == SQLITE_OK;
}

static bool finish(sqlite3_stmt *stmt)
{
    bool done = sqlite3_step(stmt) == SQLITE_DONE;
    (void)sqlite3_reset(stmt); /* repeats the error of step */
    return done;
}

static bool put_record(const struct mr_journal_writer *w,
                       const struct mr_journal_row *row)
{
    sqlite3_stmt *v = w->stmt[MR_JOURNAL_PUT_VOLUME];
    sqlite3_stmt *o = w->stmt[MR_JOURNAL_PUT_OPERATION];
    sqlite3_stmt *h = w->stmt[MR_JOURNAL_ADD_HISTORY];
    char *const *text = row->text;

    if (!bind_int(v, 1, row->number) || !bind_text(v, 2, text[MR_JOURNAL_ID]) ||
        !bind_text(v, 3, text[MR_JOURNAL_STATE]) ||
        !bind_text(v, 4, text[MR_JOURNAL_VOLUME]) || !bind_int(v, 5, row->at_ms) ||
        !finish(v))
        return false;
    if (text[MR_JOURNAL_OPERATION_ID] && text[MR_JOURNAL_OPERATION] &&
        (!bind_text(o, 1, text[MR_JOURNAL_OPERATION_ID]) ||
         !bind_int(o, 2, row->number) || !bind_text(o, 3, text[MR_JOURNAL_OPERATION]) ||
         !bind_int(o, 4, row->at_ms) || !finish(o)))
        return false;
    return bind_int(h, 1, row->number) &&
           bind_text(h, 2, text[MR_JOURNAL_OPERATION_ID]) && bind_int(h, 3, row->at_ms) &&
           bind_text(h, 4, text[MR_JOURNAL_EVENT]) &&
           bind_text(h, 5, text[MR_JOURNAL_DETAIL]) && finish(h);
}

static bool drop(const struct mr_journal_writer *w, int64_t number)
{
    if (!bind_int(w->stmt[MR_JOURNAL_DROP_HISTORY], 2, MR_JOURNAL_CHUNK))
        return false;
    for (size_t i = MR_JOURNAL_DROP_OPERATIONS; i <= MR_JOURNAL_DROP_LATER; i++)
        if (!bind_int(w->stmt[i], 1, number) || !finish(w->stmt[i]))
            return false;
    return true;
}

bool mr_journal_writer_put(const struct mr_journal_writer *w,
                           const struct mr_journal_row *row)
{
    switch (row->kind) {
    case MR_JOURNAL_RECORD:
        return put_record(w, row);
    case MR_JOURNAL_DROP:
        return drop(w, row->number);
    case MR_JOURNAL_PROBE:
        return mr_journal_schema_touch(w->db);
    }
    return false;
}

/* --- reading --- */

#define PAGE_BYTES ((size_t)1024 * 1024) /* of details: the core serialises a page */

enum column {
    COLUMN_SEQ,
    COLUMN_AT,
    COLUMN_EVENT,
    COLUMN_OPERATION,
    COLUMN_DETAIL,
};

/* A detail that is damaged is left out, its event is not: the rest of the history is
 * still worth reading. New reference, or NULL. */
static struct json_object *detail_of(sqlite3_stmt *row, struct json_tokener *tokener)
{
    const unsigned char *text = sqlite3_column_text(row, COLUMN_DETAIL);
    int bytes = sqlite3_column_bytes(row, COLUMN_DETAIL);
    if (!text)
        return NULL;
    json_tokener_reset(tokener);
    struct json_object *detail =
        json_tokener_parse_ex(tokener, (const char *)text, bytes + 1); /* with its NUL */
    if (json_tokener_get_error(tokener) == json_tokener_success &&
        json_object_is_type(detail, json_type_object))
        return detail;
    (void)json_object_put(detail);
    return NULL;
}

static void set_column(struct json_object *item, const char *key, sqlite3_stmt *row,
                       int column)
{
    const unsigned char *text = sqlite3_column_text(row, column);
    if (text)
        mr_json_set_text(item, key, (const char *)text);
    else
        mr_json_set(item, key, NULL);
}

static struct json_object *item_of(sqlite3_stmt *row, struct json_tokener *tokener)
{
    char at[MR_TIME_TEXT];
    struct json_object *item = json_object_new_object();

    if (!item)
        return NULL;
    mr_json_set_int(item, "seq", sqlite3_column_int64(row, COLUMN_SEQ));
    mr_json_set_string(item, "at",
                       mr_time_text(sqlite3_column_int64(row, COLUMN_AT), at));
    set_column(item, "event", row, COLUMN_EVENT);
    set_column(item, "operation", row, COLUMN_OPERATION);
    mr_json_set(item, "detail", detail_of(row, tokener));
    return item;
}

int mr_journal_read_history(sqlite3 *db, int64_t volume_number, int64_t after,
                            unsigned limit, struct json_object **ret, bool *ret_more,
                            struct mr_err *err)
{
    static const char page[] = "SELECT seq, at, event, operation, detail FROM history"
                               " WHERE volume = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
    MR_CLEANUP(stmt) sqlite3_stmt *stmt = NULL;
    MR_CLEANUP(tokener) struct json_tokener *tokener = json_tokener_new();
    MR_AUTO_JSON struct json_object *rows = json_object_new_array();

    if (!tokener || !rows)
        return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, ENOMEM, "read the history");
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    int row = sqlite3_prepare_v2(db, page, -1, &stmt, NULL);
    if (row == SQLITE_OK)
        row = sqlite3_bind_int64(stmt, 1, volume_number);
    if (row == SQLITE_OK)
        row = sqlite3_bind_int64(stmt, 2, after);
    if (row == SQLITE_OK)
        row = sqlite3_bind_int64(stmt, 3, (int64_t)limit + 1);
    if (row == SQLITE_OK)
        row = sqlite3_step(stmt);
    *ret_more = false;
    for (size_t bytes = 0; row == SQLITE_ROW; row = sqlite3_step(stmt)) {
        *ret_more = bytes > PAGE_BYTES || json_object_array_length(rows) == limit;
        if (*ret_more)
            break;
        bytes += (size_t)sqlite3_column_bytes(stmt, COLUMN_DETAIL);
        struct json_object *item = item_of(stmt, tokener);
        if (!item || json_object_array_add(rows, item) != 0) {
            (void)json_object_put(item);
            return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, ENOMEM, "read the history");
        }
    }
    if (row != SQLITE_DONE && !*ret_more)
        return mr_journal_file_fail(db, err, "read the history in");
    *ret = mr_take_ptr(rows);
    return 0;
}
