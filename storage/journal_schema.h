/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal's database file: opening, checking, migrating it, reading it back, and its
 * errors. Private to journal.c. Nothing is written to a file that is damaged, from a
 * newer version, or locked by somebody else.
 *
 * Tables of schema 1:
 * - volume: one row per volume number, tombstones included, never deleted; doc has the
 *   volume's durable facts
 * - operation: one row per operation; doc is its document
 * - history: append only, one row per record: what happened when
 */
#ifndef MR_STORAGE_JOURNAL_SCHEMA_H
#define MR_STORAGE_JOURNAL_SCHEMA_H

#include <sqlite3.h>

#include "storage/base/err.h"
#include "storage/journal.h"

/* Opens or creates DIR/journal.db as mr_journal_open() says; the caller closes it with
 * sqlite3_close(). Blocks. */
int mr_journal_schema_open(const char *dir, sqlite3 **ret, struct mr_err *err);

/* Fills err with MR_E_JOURNAL_UNAVAILABLE, `what` and what SQLite says about its last
 * call on db. Returns a negative errno: -ENOSPC, -EUCLEAN (damaged), -EBUSY (locked),
 * -EIO and so on. */
int mr_journal_schema_fail(sqlite3 *db, struct mr_err *err, const char *what);

/* What mr_journal_load() says. A damaged row is -EUCLEAN. */
int mr_journal_schema_load(sqlite3 *db, mr_journal_volume_fn volume_fn,
                           mr_journal_operation_fn operation_fn, unsigned limit,
                           void *ctx, struct mr_err *err);

#endif
