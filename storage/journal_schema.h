/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal's database file: opening, checking, migrating it, reading it back, and its
 * errors. Private to journal.c. Nothing is written to a file that is damaged, from a
 * newer version, or locked by somebody else.
 *
 * Tables of schema 2:
 * - volume: one row per volume number, tombstones included; doc has the volume's durable
 *   facts
 * - operation: one row per operation; doc is its document
 * - history: appended to, one row per record: what happened when; the oldest go first
 * - number: one row, the highest number of a volume that was dropped
 *
 * The schema's number (PRAGMA user_version) is what keeps an older mooringd away: it does
 * not start with a newer one. It is raised when that would misread the tables or a
 * document, or must not act without what is new in one: of a document it ignores members
 * that it does not know, and drops them when it writes it again. All other additions
 * leave the number alone, so that an upgrade can be taken back; those to a spec survive
 * that (spec_fields.h).
 */
#ifndef MR_STORAGE_JOURNAL_SCHEMA_H
#define MR_STORAGE_JOURNAL_SCHEMA_H

#include <sqlite3.h>
#include <stdbool.h>

#include "storage/base/err.h"
#include "storage/journal.h"

/* Opens or creates DIR/journal.db as mr_journal_open() says; the caller closes it with
 * sqlite3_close(). Blocks. */
int mr_journal_schema_open(const char *dir, sqlite3 **ret, struct mr_err *err);

/* volume.state of a volume whose history is still being removed. Its id begins with '#',
 * which no other id does. */
#define MR_JOURNAL_DROPPED "dropped"
/* SQL: this row of table operation is of one that its volume calls running. */
#define MR_JOURNAL_RUNS                                                                  \
    "EXISTS(SELECT 1 FROM volume WHERE volume.number = operation.volume"                 \
    " AND json_extract(volume.doc, '$.operation') = operation.id)"

/* Writes a page with what it holds already, in the caller's transaction. False: SQLite
 * has the error. */
bool mr_journal_schema_touch(sqlite3 *db);

/* What mr_journal_load() says. A damaged row is -EUCLEAN. */
int mr_journal_schema_load(sqlite3 *db, mr_journal_volume_fn volume_fn,
                           mr_journal_operation_fn operation_fn, unsigned limit,
                           void *ctx, struct mr_err *err);

#endif
