/* SPDX-License-Identifier: Apache-2.0
 *
 * The rows of the journal: writing those of one record, reading a volume's history back.
 * Private to journal.c; on the journal's thread but for init and done.
 */
#ifndef MR_STORAGE_JOURNAL_ROWS_H
#define MR_STORAGE_JOURNAL_ROWS_H

#include <json-c/json.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"

enum mr_journal_text {
    MR_JOURNAL_ID,
    MR_JOURNAL_STATE,
    MR_JOURNAL_VOLUME,
    MR_JOURNAL_OPERATION_ID,
    MR_JOURNAL_OPERATION,
    MR_JOURNAL_EVENT,
    MR_JOURNAL_DETAIL,
    MR_JOURNAL_TEXTS,
};

/* What one struct mr_record becomes. */
struct mr_journal_row {
    int64_t number;
    int64_t at_ms;
    char *text[MR_JOURNAL_TEXTS]; /* NULL: SQL NULL */
};

struct mr_journal_writer {
    sqlite3_stmt *put_volume;
    sqlite3_stmt *put_operation;
    sqlite3_stmt *add_history;
};

/* db is borrowed for the writer's life. Also finds the highest volume number. On failure
 * the writer still wants mr_journal_writer_done(). Blocks. MR_E_JOURNAL_UNAVAILABLE. */
int mr_journal_writer_init(struct mr_journal_writer *w, sqlite3 *db,
                           int64_t *ret_last_number, struct mr_err *err);
/* Fine on a zeroed or half-made one. */
void mr_journal_writer_done(struct mr_journal_writer *w);
/* Inside of the caller's transaction. False: SQLite has the error. Blocks. */
bool mr_journal_writer_put(const struct mr_journal_writer *w,
                           const struct mr_journal_row *row);

/* What mr_journal_history() says; *ret is a new reference. Blocks. */
int mr_journal_read_history(sqlite3 *db, int64_t volume_number, int64_t after,
                            unsigned limit, struct json_object **ret, bool *ret_more,
                            struct mr_err *err);

#endif
