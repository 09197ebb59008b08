/* SPDX-License-Identifier: Apache-2.0
 *
 * The rows of the journal: writing and dropping them, reading a volume's history back.
 * Private to journal.c; on the journal's thread but for init and done.
 */
#ifndef MR_STORAGE_JOURNAL_ROWS_H
#define MR_STORAGE_JOURNAL_ROWS_H

#include <json-c/json.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/journal.h"

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

enum mr_journal_kind {
    MR_JOURNAL_RECORD, /* struct mr_record */
    MR_JOURNAL_DROP,   /* mr_journal_drop(): number */
    MR_JOURNAL_PROBE,  /* mr_journal_probe() */
};

/* One thing to write. */
struct mr_journal_row {
    enum mr_journal_kind kind;
    int64_t number;
    int64_t at_ms;
    char *text[MR_JOURNAL_TEXTS]; /* NULL: SQL NULL */
};

/* Copies the record's texts. False when out of memory; it wants mr_journal_row_done() in
 * both cases. */
bool mr_journal_row_fill(struct mr_journal_row *row, const struct mr_record *record);
void mr_journal_row_done(struct mr_journal_row *row);

/* The most rows that one transaction removes: it is what a record may have to wait for.
 */
#define MR_JOURNAL_CHUNK 500

enum mr_journal_statement {
    MR_JOURNAL_PUT_VOLUME,
    MR_JOURNAL_PUT_OPERATION,
    MR_JOURNAL_ADD_HISTORY,
    MR_JOURNAL_DROP_OPERATIONS,
    MR_JOURNAL_DROP_HISTORY,
    MR_JOURNAL_DROP_VOLUME,
    MR_JOURNAL_DROP_LATER,
    MR_JOURNAL_STATEMENTS,
};

struct mr_journal_writer {
    sqlite3 *db;
    sqlite3_stmt *stmt[MR_JOURNAL_STATEMENTS];
};

/* db is borrowed for the writer's life. Also finds the highest volume number ever used.
 * On failure the writer still wants mr_journal_writer_done(). Blocks.
 * MR_E_JOURNAL_UNAVAILABLE. */
int mr_journal_writer_init(struct mr_journal_writer *w, sqlite3 *db,
                           int64_t *ret_last_number, struct mr_err *err);
/* Fine on a zeroed or half-made one. */
void mr_journal_writer_done(struct mr_journal_writer *w);
/* Inside of the caller's transaction. False: SQLite has the error. A volume that is
 * dropped is gone for mr_journal_load() at once; the history that it has left above one
 * chunk is for journal_prune.h to remove. Blocks. */
bool mr_journal_writer_put(const struct mr_journal_writer *w,
                           const struct mr_journal_row *row);

/* What mr_journal_history() says; *ret is a new reference. Blocks. */
int mr_journal_read_history(sqlite3 *db, int64_t volume_number, int64_t after,
                            unsigned limit, struct json_object **ret, bool *ret_more,
                            struct mr_err *err);

#endif
