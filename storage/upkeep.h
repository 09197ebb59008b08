/* SPDX-License-Identifier: Apache-2.0
 *
 * What keeps journal, kernel and memory true to each other: comparing them at the start
 * and on demand, noticing what dies, writing what could not be written, and forgetting
 * what is old. Part of engine_internal.h, which includes it. Core thread only.
 */
#ifndef MR_STORAGE_UPKEEP_H
#define MR_STORAGE_UPKEEP_H

#include "storage/engine.h"
#include "storage/transport.h"

struct mr_survey;
struct mr_surveys;

/* --- survey.c: one pass over the kernel, without any volume's lock --- */
/* NULL when out of memory. */
struct mr_surveys *mr_surveys_new(struct mr_engine *engine);
/* Before the workers; asks that are open are dropped without a call. */
void mr_surveys_free(struct mr_surveys *surveys);
/* The reply of the last search, borrowed, without what the journal knows by now; NULL:
 * there was none. */
struct json_object *mr_surveys_last(const struct mr_surveys *surveys);
/* Looks at every volume that is attached and has no operation. Calls for each with its
 * element of `volumes` (protocol.h), borrowed; it may have come to have an operation
 * meanwhile. At the end once with volume NULL, and err when not all were looked at.
 * NULL when out of memory; never calls back before it returns. */
typedef void (*mr_look_fn)(void *ctx, struct mr_volume *volume, struct json_object *seen,
                           const struct mr_err *err);
struct mr_survey *mr_survey_look(struct mr_engine *engine, mr_look_fn fn, void *ctx);
/* Searches for what is in no journal. reply: that of `search` (protocol.h), borrowed,
 * without what has come into the journal meanwhile; NULL with err. */
typedef void (*mr_search_fn)(void *ctx, struct json_object *reply,
                             const struct mr_err *err);
struct mr_survey *mr_survey_search(struct mr_engine *engine, mr_search_fn fn, void *ctx);
/* fn is not called any more. NULL is fine. */
void mr_survey_cancel(struct mr_survey *survey);

/* --- recovery.c --- */
/* Before anything can fail. */
void mr_recovery_init(struct mr_engine *engine);
/* Loads the journal; the rest goes on inside the loop. */
int mr_recovery_load(struct mr_engine *engine, struct mr_err *err);
/* The worker of a resumed operation is ready, or there is none: the next one may start.
 */
void mr_recovery_resumed(struct mr_operation *op);
/* A mooring-lun has answered for the first time, or will not: see server_link.h. */
void mr_recovery_told(struct mr_engine *engine);
/* The agent stops. */
void mr_recovery_stop(struct mr_engine *engine);

/* --- reconcile.c --- */
/* Attached, and nothing is under way. */
bool mr_reconcile_at_rest(const struct mr_volume *volume);
enum mr_reconciled {
    MR_RECONCILED_UNKNOWN = 0,
    MR_RECONCILED_SAME,
    MR_RECONCILED_DIFFERS,
};
/* Compares it with what a survey has seen; what differs makes it `failed`. */
enum mr_reconciled mr_reconcile_looked(struct mr_volume *volume,
                                       struct json_object *seen);
/* Nobody could look, or tell. It is served on; that it is as recorded is not said. */
void mr_reconcile_not_compared(struct mr_volume *volume, const struct mr_err *why);

/* --- orphans.c: forgotten volumes --- */
/* The first one whose id sorts after `after` (NULL: the first of all), or NULL. */
struct mr_volume *mr_engine_next_orphan(struct mr_engine *engine, const char *after);
/* Its element in the list of orphans. New reference. */
struct json_object *mr_orphan_document(const struct mr_volume *volume);

/* --- servers.c: the mooring-lun processes of attached volumes --- */
/* Watches the process that the identity names (pidfd and start time) and what it says
 * (server_link.h), until mr_server_forget(). Harmless when it is watched already or there
 * is none. If it has ended: server_lost is set, and an attached volume without an
 * operation becomes `failed` and says what that means for the file system. */
void mr_server_watch(struct mr_volume *volume);
/* The device is gone, or the volume is. */
void mr_server_forget(struct mr_volume *volume);
/* It says that its transport is in this state. A final one is treated like its end, but
 * that a volume which was fenced becomes `fenced`. */
void mr_server_said(struct mr_volume *volume, enum mr_transport state);
/* It has ended, or serves errors for ever: only a detach is left. */
bool mr_server_is_dead(const struct mr_volume *volume);
/* What that means. */
void mr_server_error(const struct mr_volume *volume, struct mr_err *err);
/* An attached volume without an operation whose server is dead becomes `failed` or
 * `fenced`: true then. */
bool mr_server_check(struct mr_volume *volume);
/* What a volume is when an operation on it has failed and something of it is left. */
enum mr_state mr_server_failed_state(const struct mr_volume *volume);

/* --- unsaved.c: what to do when the journal cannot be written --- */
/* Before anything can fail. */
void mr_unsaved_init(struct mr_engine *engine);
/* The journal is loaded: can it be written, too? */
void mr_unsaved_start(struct mr_engine *engine);
/* Every result of a write comes by here. */
void mr_unsaved_result(struct mr_engine *engine, int rc, const struct mr_err *err);
/* The volume's row in the journal is older than the volume: it is written again as soon
 * as that works. */
void mr_unsaved_note(struct mr_volume *volume);
/* The result of a record that nobody waits for; ctx: the volume. */
void mr_unsaved_on_record(void *ctx, int rc, const struct mr_err *err);
/* The agent stops: a last try of all that is not in the journal. */
void mr_unsaved_stop(struct mr_engine *engine);

/* --- retention.c --- */
/* Tells the journal what to keep. Nothing is dropped as long as the engine recovers. */
void mr_retention_start(struct mr_engine *engine);
/* Soon drops the tombstones that are not to be kept. At the end of the recovery. */
void mr_retention_look(struct mr_engine *engine);
/* It has become a tombstone. */
void mr_retention_gone(struct mr_volume *volume);
/* It is to be more than a tombstone again: what is recorded of it now must not be dropped
 * with that. */
void mr_retention_keep(struct mr_volume *volume);

/* --- lock_files.c --- */
/* Where its workers take their lock. 0, or a negative errno when it does not fit. */
int mr_lock_file_path(const struct mr_volume *volume, char *dst, size_t size);
/* Removes those that belong to no volume any more. Blocks: before the loop runs. */
void mr_lock_files_sweep(const struct mr_engine *engine);

#endif
