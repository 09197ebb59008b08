/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/journal_prune.h"

#include <time.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/journal_schema.h"

MR_DEFINE_CLEANUP(stmt, sqlite3_stmt *, (void)sqlite3_finalize);

#define PASS_RECORDS MR_JOURNAL_CHUNK
#define LINES_KEPT 1000      /* of history, whatever their age */
#define OPERATIONS_KEPT 1000 /* ended ones; GET /operations/{op} finds no more */
#define SLACK_PAGES 256      /* free ones that stay for the next records */
#define GIVE_BACK_PAGES                                                                  \
    "64" /* in one transaction: others are moved to where they were                      \
          */

enum outcome {
    FAILED = -1,
    NOTHING, /* left to do */
    DID,
};

static int64_t boot_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * 1000 + now.tv_nsec / MR_NS_PER_MS;
}

/* Runs a statement with these numbers for ?1, ?2 and so on. *ret is the first value of
 * the first row, or stays as it is. */
static bool run(const struct mr_journal_pruner *p, const char *sql,
                const int64_t *numbers, int64_t *ret)
{
    MR_CLEANUP(stmt) sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(p->writer->db, sql, -1, &stmt, NULL);
    int count = rc == SQLITE_OK ? sqlite3_bind_parameter_count(stmt) : 0;

    for (int i = 0; rc == SQLITE_OK && i < count; i++)
        rc = sqlite3_bind_int64(stmt, i + 1, numbers[i]);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW && ret)
        *ret = sqlite3_column_int64(stmt, 0);
    return rc == SQLITE_ROW || rc == SQLITE_DONE;
}

static enum outcome remove_rows(const struct mr_journal_pruner *p, const char *sql,
                                const int64_t *numbers)
{
    if (!run(p, sql, numbers, NULL))
        return FAILED;
    return sqlite3_changes64(p->writer->db) > 0 ? DID : NOTHING;
}

static int64_t newest_ms(const struct mr_journal_pruner *p)
{
    int64_t at_ms = 0;
    (void)run(p, "SELECT at FROM history ORDER BY seq DESC LIMIT 1", NULL, &at_ms);
    return at_ms;
}

/* --- the phases of a pass --- */

/* The newest line says how late it is; but if the clock was set forward since the start,
 * what has passed since then does. */
static enum outcome look(struct mr_journal_pruner *p)
{
    int64_t now_ms = newest_ms(p);
    int64_t most_ms = p->clock_ms + boot_ms();

    p->cutoff_ms = (now_ms < most_ms ? now_ms : most_ms) - p->keep.max_age_ms;
    p->floor = 0; /* if there are no more lines than are kept anyway */
    return run(p, "SELECT seq FROM history ORDER BY seq DESC LIMIT 1 OFFSET ?1",
               (int64_t[]){LINES_KEPT - 1}, &p->floor)
               ? NOTHING
               : FAILED;
}

static enum outcome finish_drops(struct mr_journal_pruner *p)
{
    sqlite3 *db = p->writer->db;
    struct mr_journal_row row = {.kind = MR_JOURNAL_DROP};

    if (!run(p, "SELECT number FROM volume WHERE id >= '#' AND id < '$' LIMIT 1", NULL,
             &row.number))
        return FAILED;
    if (row.number == 0)
        return NOTHING;
    if (sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK &&
        mr_journal_writer_put(p->writer, &row) &&
        sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK)
        return DID;
    (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return FAILED;
}

static enum outcome remove_operations(struct mr_journal_pruner *p)
{
    if (!p->limited)
        return NOTHING;
    return remove_rows(p,
                       "DELETE FROM operation WHERE rowid IN"
                       " (SELECT rowid FROM operation WHERE NOT " MR_JOURNAL_RUNS
                       " ORDER BY rowid DESC LIMIT ?1 OFFSET ?2)",
                       (int64_t[]){MR_JOURNAL_CHUNK, OPERATIONS_KEPT});
}

/* From the oldest one on, up to the first that is not older than cutoff_ms: a line with a
 * wrong time is not removed before those that were written before it. */
static enum outcome remove_history(struct mr_journal_pruner *p, int64_t cutoff_ms)
{
    return remove_rows(p,
                       "WITH oldest AS (SELECT seq, at FROM history WHERE seq < ?1 ORDER "
                       "BY seq LIMIT ?2)"
                       " DELETE FROM history WHERE seq IN (SELECT seq FROM oldest) AND"
                       " seq < ifnull((SELECT min(seq) FROM oldest WHERE at >= ?3), ?1)",
                       (int64_t[]){p->floor, MR_JOURNAL_CHUNK, cutoff_ms});
}

static enum outcome remove_old(struct mr_journal_pruner *p)
{
    return p->limited ? remove_history(p, p->cutoff_ms) : NOTHING;
}

static enum outcome remove_too_much(struct mr_journal_pruner *p)
{
    static const char in_use[] =
        "SELECT (page_count - freelist_count) * page_size"
        " FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    int64_t bytes = 0;

    if (!run(p, in_use, NULL, &bytes))
        return FAILED;
    return p->limited && bytes > p->keep.max_bytes ? remove_history(p, INT64_MAX)
                                                   : NOTHING;
}

static enum outcome give_back_pages(struct mr_journal_pruner *p)
{
    int64_t before = 0;
    int64_t after = 0;

    if (!run(p, "PRAGMA freelist_count", NULL, &before))
        return FAILED;
    if (before <= SLACK_PAGES)
        return NOTHING;
    if (sqlite3_exec(p->writer->db, "PRAGMA incremental_vacuum(" GIVE_BACK_PAGES ")",
                     NULL, NULL, NULL) != SQLITE_OK ||
        !run(p, "PRAGMA freelist_count", NULL, &after))
        return FAILED;
    return after < before ? DID : NOTHING;
}

static enum outcome (*const phases[])(struct mr_journal_pruner *p) = {
    look, finish_drops, remove_operations, remove_old, remove_too_much, give_back_pages,
};
#define PHASES (sizeof(phases) / sizeof(phases[0]))

/* --- passes --- */

void mr_journal_pruner_init(struct mr_journal_pruner *p,
                            const struct mr_journal_writer *writer)
{
    p->writer = writer;
    p->phase = PHASES;
    int64_t wall_ms = mr_wall_ms();
    int64_t last_ms = newest_ms(p); /* later than now: that is wrong, or was */
    p->clock_ms = (wall_ms > last_ms ? wall_ms : last_ms) - boot_ms();
}

void mr_journal_pruner_retain(struct mr_journal_pruner *p,
                              const struct mr_journal_retention *keep)
{
    p->keep = *keep;
    p->limited = true;
    p->phase = 0;
}

void mr_journal_pruner_count(struct mr_journal_pruner *p, size_t records)
{
    p->written += records;
    if (p->written < PASS_RECORDS || mr_journal_pruner_busy(p))
        return;
    p->written = 0;
    p->phase = 0;
}

bool mr_journal_pruner_busy(const struct mr_journal_pruner *p)
{
    return p->phase < PHASES;
}

void mr_journal_pruner_step(struct mr_journal_pruner *p)
{
    enum outcome outcome = NOTHING;

    for (; outcome == NOTHING && mr_journal_pruner_busy(p);
         p->phase += outcome == NOTHING)
        outcome = phases[p->phase](p);
    if (outcome == FAILED)
        p->phase = PHASES;
}
