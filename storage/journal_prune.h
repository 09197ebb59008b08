/* SPDX-License-Identifier: Apache-2.0
 *
 * Which rows of the journal are removed, and when: history that is too old or too much,
 * ended operations that nobody asks for any more, what is left of dropped volumes, and
 * then free pages of the file. A pass is a row of short transactions, so that records get
 * in between. It begins after a start and after every 500 records: an idle journal does
 * nothing. Private to journal.c; on the journal's thread.
 */
#ifndef MR_STORAGE_JOURNAL_PRUNE_H
#define MR_STORAGE_JOURNAL_PRUNE_H

#include <stdbool.h>
#include <stddef.h>

#include "storage/journal.h"
#include "storage/journal_rows.h"

struct mr_journal_pruner {
    const struct mr_journal_writer *writer;
    bool limited; /* else everything is kept */
    struct mr_journal_retention keep;
    int64_t clock_ms;  /* wall clock minus time since boot, at the start */
    size_t written;    /* records since the last pass began */
    size_t phase;      /* of this pass */
    int64_t floor;     /* of this pass: seq of the oldest line that is kept in any case */
    int64_t cutoff_ms; /* of this pass: older lines are not, else */
};

/* writer is borrowed for the pruner's life. Blocks. */
void mr_journal_pruner_init(struct mr_journal_pruner *p,
                            const struct mr_journal_writer *writer);
/* Begins a pass that keeps this from now on. */
void mr_journal_pruner_retain(struct mr_journal_pruner *p,
                              const struct mr_journal_retention *keep);
/* So many records were written. */
void mr_journal_pruner_count(struct mr_journal_pruner *p, size_t records);
/* A pass is on. */
bool mr_journal_pruner_busy(const struct mr_journal_pruner *p);
/* At most one short transaction of it. A failure ends the pass: what is not removed now
 * is removed by the next one. Blocks. */
void mr_journal_pruner_step(struct mr_journal_pruner *p);

#endif
