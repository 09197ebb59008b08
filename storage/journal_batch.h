/* SPDX-License-Identifier: Apache-2.0
 *
 * How records are written: those that were queued while one commit ran go into the next
 * one, and what was refused is never found again. Private to journal.c; its thread.
 */
#ifndef MR_STORAGE_JOURNAL_BATCH_H
#define MR_STORAGE_JOURNAL_BATCH_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/journal.h"
#include "storage/journal_file.h"
#include "storage/journal_rows.h"

/* One record on its way, or one read (limit > 0) among them. The thread owns it from the
 * queue until it counts it as completed. */
struct mr_journal_entry {
    struct mr_journal_entry *next_queued;  /* journal.lock; then the thread's */
    struct mr_journal_entry *next_pending; /* core */
    mr_journal_fn fn;                      /* core */
    mr_journal_rows_fn rows_fn;            /* core */
    void *ctx;                             /* core */
    struct mr_journal_row row;
    int64_t after;
    unsigned limit;
    struct json_object *rows; /* what was read */
    bool more;                /* there is more of it */
    int rc;
    struct mr_err err;
};

struct mr_journal_sink {
    sqlite3 *db;
    struct mr_journal_file file;
    struct mr_journal_writer writer;
};

/* Group commit of the entries from first up to (not including) end: fills in rc and err
 * of each. If it fails every record is tried once more alone, so that a bad one fails
 * only itself. One that has failed already (rc) is left out. Blocks. */
void mr_journal_write_batch(struct mr_journal_sink *sink, struct mr_journal_entry *first,
                            struct mr_journal_entry *end);

#endif
