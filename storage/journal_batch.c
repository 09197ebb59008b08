/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/journal_batch.h"

#include <errno.h>

#include "storage/base/fault.h"
#include "storage/journal_schema.h"

static const char *event_of(const struct mr_journal_entry *e)
{
    static const char *const events[] = {
        [MR_JOURNAL_DROP] = "drop", [MR_JOURNAL_PROBE] = "probe"};
    return e->row.kind == MR_JOURNAL_RECORD ? e->row.text[MR_JOURNAL_EVENT]
                                            : events[e->row.kind];
}

/* A fault that a test planned for this one: it fails as if the disk had. */
static void meet_fault(struct mr_journal_entry *e)
{
    int r = e->rc < 0 ? 0 : mr_fault("journal", event_of(e), "before");
    if (r < 0)
        e->rc = mr_journal_file_remedy(
            &e->err, mr_fail(&e->err, MR_E_JOURNAL_UNAVAILABLE, -r, "write journal"));
}

/* A commit whose fsync failed has left its frames in the log, whole and valid: after a
 * crash of the agent alone they would be replayed, and what was refused would be done.
 * Another, empty commit takes their place, whether it can be synced or not. */
static void overwrite_refused(struct mr_journal_sink *sink)
{
    (void)sqlite3_exec(sink->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    (void)mr_journal_schema_touch(sink->db);
    (void)sqlite3_exec(sink->db, "COMMIT", NULL, NULL, NULL);
    if (!sqlite3_get_autocommit(sink->db))
        (void)sqlite3_exec(sink->db, "ROLLBACK", NULL, NULL, NULL);
}

/* Writes the entries from first up to (not including) end in one transaction: all or
 * none. */
static int write_range(struct mr_journal_sink *sink, const struct mr_journal_entry *first,
                       const struct mr_journal_entry *end, struct mr_err *err)
{
    bool ok = sqlite3_exec(sink->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK;
    for (const struct mr_journal_entry *e = first; ok && e != end; e = e->next_queued)
        ok = e->rc < 0 || mr_journal_writer_put(&sink->writer, &e->row);
    int r = ok ? mr_journal_file_check(&sink->file, sink->db, err) : 0;
    bool at_commit = ok && r == 0;
    if (at_commit)
        ok = sqlite3_exec(sink->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK;
    if (!ok)
        r = mr_journal_file_fail(sink->db, err, "write journal");
    for (const struct mr_journal_entry *e = first; r == 0 && e != end; e = e->next_queued)
        if (e->rc == 0)
            (void)mr_fault("journal", event_of(e), "after");
    if (r < 0 && !sqlite3_get_autocommit(sink->db))
        (void)sqlite3_exec(sink->db, "ROLLBACK", NULL, NULL, NULL);
    if (r < 0 && at_commit)
        overwrite_refused(sink);
    /* What was said to be durable goes into one file at least, wherever that is now. */
    if (r == -ESTALE)
        (void)sqlite3_wal_checkpoint_v2(sink->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL,
                                        NULL);
    return r;
}

void mr_journal_write_batch(struct mr_journal_sink *sink, struct mr_journal_entry *first,
                            struct mr_journal_entry *end)
{
    struct mr_err err;

    for (struct mr_journal_entry *e = first; e != end; e = e->next_queued)
        meet_fault(e);
    int r = write_range(sink, first, end, &err);
    for (struct mr_journal_entry *e = first; e != end; e = e->next_queued) {
        if (r == 0 || e->rc < 0)
            continue;
        e->rc = r;
        e->err = err;
        if (first->next_queued != end) {
            e->rc = 0;
            e->rc = write_range(sink, e, e->next_queued, &e->err);
        }
    }
}
