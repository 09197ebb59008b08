/* SPDX-License-Identifier: Apache-2.0
 *
 * The persistent journal: SQLite (WAL, synchronous FULL) on a thread of its own, with
 * group commit: all records queued while one commit runs go into the next. What the API
 * said happened is in here first. Called from the core thread only; the only lock the
 * core takes is the queue's, held for a pointer swap.
 */
#ifndef MR_STORAGE_JOURNAL_H
#define MR_STORAGE_JOURNAL_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/base/loop.h"

struct mr_journal;

/* One durable step: the volume's row as it is from now on, optionally its operation's
 * row, and one line of history. All pointers are borrowed for the call (deep-copied or
 * serialised before it returns). */
struct mr_record {
    int64_t volume_number; /* from mr_journal_number() */
    const char *volume_id;
    const char *state;          /* mr_state_name(); "absent" for a tombstone */
    struct json_object *volume; /* the rest of the volume's durable facts, no secrets */
    const char *operation_id;   /* of the line of history; NULL: none */
    struct json_object *operation; /* document of the operation row; NULL: no such row */
    const char *event;             /* history: "attach_intent", "unmapping", ... */
    struct json_object *detail;    /* history detail, may be NULL */
};

/* rc 0: durable. Else a negative errno, err says why; nothing of the record was written.
 */
typedef void (*mr_journal_fn)(void *ctx, int rc, const struct mr_err *err);
/* For loading: one volume row. json is borrowed. Return non-zero to stop with that. */
typedef int (*mr_journal_volume_fn)(void *ctx, int64_t number, const char *id,
                                    const char *state, struct json_object *volume);
typedef int (*mr_journal_operation_fn)(void *ctx, const char *id,
                                       struct json_object *operation);

/* Opens or creates DIR/journal.db (0600), checks PRAGMA user_version (a newer one:
 * -EPROTO and a remedy; older ones are migrated in one transaction, after a failure the
 * file has what it had), runs quick_check, and starts the thread. -EBUSY: err names the
 * process that has it open. Blocks: before the loop runs. MR_E_JOURNAL_UNAVAILABLE. */
int mr_journal_open(struct mr_loop *loop, const char *dir, struct mr_journal **ret,
                    struct mr_err *err);
/* Writes what is queued (no callbacks any more), joins the thread, checkpoints, closes.
 */
void mr_journal_close(struct mr_journal *journal);

/* Reads all volume rows (tombstones included), oldest first, then the rows of operations
 * that run (their volume's document has the id as `operation`) and of the newest `limit`
 * others, oldest first. Blocks: before the loop runs. */
int mr_journal_load(struct mr_journal *journal, mr_journal_volume_fn volume_fn,
                    mr_journal_operation_fn operation_fn, unsigned limit, void *ctx,
                    struct mr_err *err);

/* What is kept: history no older than max_age_ms, measured against the newest line (or
 * against the time since the start, if the clock was set forward), and no more than there
 * is room for when what is in use of the file stays below max_bytes; but the newest 1,000
 * lines in any case. A line goes only after all that were written before it, whatever the
 * clock said then. Also kept: the newest 1,000 operations that have ended, and those that
 * run. All the rest goes, after a start and again after every 500 records, in short
 * transactions on the journal's thread between two batches: a record waits for no more
 * than one. Free pages above 1 MiB are given back. Volume rows stay: mr_journal_drop().
 * Not before mr_journal_load(). Never blocks. */
struct mr_journal_retention {
    int64_t max_age_ms;
    int64_t max_bytes;
};
void mr_journal_retain(struct mr_journal *journal,
                       const struct mr_journal_retention *retention);

/* Queues the removal of a tombstone: the volume's row, its history and operations. No
 * record of that number may follow; its id is free for another one. What is queued behind
 * it waits (about 0.1 ms for each drop): queue few at once. fn (may be NULL) as in
 * mr_journal_append(). Never blocks. */
void mr_journal_drop(struct mr_journal *journal, int64_t volume_number, mr_journal_fn fn,
                     void *ctx);

/* Queues a write that changes nothing: can the journal be written? Fails (as every write,
 * with -ESTALE) also when the file is no longer the one at its path: what went into it
 * would be lost with the next start. Writes work again as soon as their cause is gone. */
void mr_journal_probe(struct mr_journal *journal, mr_journal_fn fn, void *ctx);

/* A new volume number, never used before in this journal, not even by a volume that was
 * dropped. Numbers name lock files. Core thread, no I/O. */
int64_t mr_journal_number(struct mr_journal *journal);

/* Queues the record; fn (may be NULL) is called from the loop, in the order of the calls.
 * Out of memory: fn gets -ENOMEM from the loop. Never blocks. */
void mr_journal_append(struct mr_journal *journal, const struct mr_record *record,
                       mr_journal_fn fn, void *ctx);
/* One page of a volume's history, oldest first: JSON array of {seq, at (RFC 3339), event,
 * operation (or null), detail (or null)} with seq > after, at most limit and about 1 MiB;
 * more: there are others behind. It sees all records queued before it. rows is borrowed;
 * NULL with err when it failed. fn is called from the loop unless mr_journal_forget(ctx)
 * comes first. Never blocks. */
typedef void (*mr_journal_rows_fn)(void *ctx, struct json_object *rows, bool more,
                                   const struct mr_err *err);
void mr_journal_history(struct mr_journal *journal, int64_t volume_number, int64_t after,
                        unsigned limit, mr_journal_rows_fn fn, void *ctx);

/* Forgets callbacks with this ctx (its owner goes away); the records are still written.
 */
void mr_journal_forget(struct mr_journal *journal, const void *ctx);

#endif
