/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine owns all volumes and operations in memory and runs their plans: it journals,
 * commands workers, listens to the checker. What the API calls. Core thread only; no call
 * here blocks.
 */
#ifndef MR_STORAGE_ENGINE_H
#define MR_STORAGE_ENGINE_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/base/loop.h"
#include "storage/config.h"
#include "storage/holder_kind.h"
#include "storage/plan.h"
#include "storage/spec.h"

struct mr_engine;
struct mr_volume;
struct mr_operation;
struct mr_watch;

/* Locks the state and runtime directories against a second agent (-EBUSY), opens the
 * journal (a newer schema is refused), starts the journal thread and the recovery, which
 * goes on inside the loop. loop and config are borrowed for the engine's life. */
int mr_engine_new(struct mr_loop *loop, const struct mr_config *config,
                  struct mr_engine **ret, struct mr_err *err);
/* Closes the workers' channels (each finishes its command), writes what is queued for the
 * journal, frees. Running operations are picked up by the next start. */
void mr_engine_free(struct mr_engine *engine);

/* True until every volume of the journal was compared with the kernel and every operation
 * that was cut off goes on. */
bool mr_engine_recovering(const struct mr_engine *engine);

struct mr_recovery {
    size_t total; /* volumes to compare, operations to go on with */
    size_t done;
};
/* How far the start is, for GET /readyz. */
struct mr_recovery mr_engine_recovery(const struct mr_engine *engine);
/* Why the journal cannot be written (JOURNAL_UNAVAILABLE), borrowed until control goes
 * back to the loop; NULL: the last write went well. As long as it cannot, it is tried
 * again now and then. */
const struct mr_err *mr_engine_journal_error(const struct mr_engine *engine);

/* PUT: starts an attach (or a verification, when the same spec is attached), or joins the
 * running one. While a detach of the same spec waits, that is cancelled (its waiters get
 * DETACH_CANCELLED) and the volume comes back. Takes spec in every case. On 0 *ret_op is
 * the operation, borrowed: valid at least until control goes back to the loop; keep it by
 * its id or by a watch. Refusals: RECOVERING, SPEC_CONFLICT, SOURCE_IN_USE,
 * MOUNT_PATH_BUSY, PATH_NOT_ALLOWED, OPERATION_PENDING, WEDGED, JOURNAL_UNAVAILABLE. */
int mr_engine_attach(struct mr_engine *engine, const char *id, struct mr_spec *spec,
                     struct mr_operation **ret_op, struct mr_err *err);

/* DELETE: starts a detach or joins the running one. mount_path NULL or a guard: another
 * path is refused with SPEC_CONFLICT. When the volume is already gone and the journal
 * knows it, 0 with *ret_op NULL and *ret_proof (a new reference) the stored proof of
 * release. Refusals as above, VOLUME_NOT_FOUND, DATA_NOT_WRITTEN. */
int mr_engine_detach(struct mr_engine *engine, const char *id, const char *mount_path,
                     bool accept_data_loss, struct mr_operation **ret_op,
                     struct json_object **ret_proof, struct mr_err *err);

/* NULL when there is none or it is a tombstone (MR_STATE_ABSENT). Borrowed. */
struct mr_volume *mr_engine_find(struct mr_engine *engine, const char *id);
/* The first volume whose id sorts (strcmp) after `after` (NULL: the first of all),
 * tombstones skipped, or NULL. */
struct mr_volume *mr_engine_next(struct mr_engine *engine, const char *after);
struct mr_operation *mr_engine_find_operation(struct mr_engine *engine,
                                              const char *op_id);

const char *mr_volume_id(const struct mr_volume *volume);
/* Changes whenever the document changes; with boot and id a strong ETag. */
uint64_t mr_volume_generation(const struct mr_volume *volume);
/* Documents of design section "decisions": new references, NULL when out of memory. */
struct json_object *mr_volume_document(const struct mr_volume *volume);
struct json_object *mr_operation_document(const struct mr_operation *op);

const char *mr_operation_id(const struct mr_operation *op);
enum mr_goal mr_operation_goal(const struct mr_operation *op);
struct mr_volume *mr_operation_volume(const struct mr_operation *op);
/* 0 while it runs, 1 done, -1 failed. */
int mr_operation_ended(const struct mr_operation *op);
/* Done attach: true if it attached, false if it found everything as asked. */
bool mr_operation_created(const struct mr_operation *op);
/* Done detach: the proof of release, borrowed; NULL else. */
struct json_object *mr_operation_proof(const struct mr_operation *op);
/* Failed: why; else NULL. Borrowed. */
const struct mr_err *mr_operation_error(const struct mr_operation *op);

/* fn is called once, from the loop, when the operation has ended (also when it had ended
 * already) with op borrowed; op NULL means that the agent stops. The watch is freed
 * before the call. */
typedef void (*mr_operation_fn)(void *ctx, struct mr_operation *op);
struct mr_watch *mr_operation_watch(struct mr_operation *op, mr_operation_fn fn,
                                    void *ctx);
/* The same, but fn is called as soon as the operation is in the journal (it survives the
 * agent from then on), or has ended. Until then nobody may be told that it was accepted.
 */
struct mr_watch *mr_operation_watch_accepted(struct mr_operation *op, mr_operation_fn fn,
                                             void *ctx);
bool mr_operation_is_accepted(const struct mr_operation *op);
/* The caller lost interest; fn is not called. */
void mr_watch_cancel(struct mr_watch *watch);

/* --- answers that take a while --- */

/* An answer on its way. fn is called once, from the loop, with the document (borrowed) or
 * NULL and why; NULL and NULL: the agent stops. The pending is freed before the call. */
struct mr_pending;
typedef void (*mr_answer_fn)(void *ctx, struct json_object *document,
                             const struct mr_err *err);
/* The caller lost interest; fn is not called. What was begun (an action, a forget) goes
 * on. NULL is fine. */
void mr_pending_cancel(struct mr_pending *pending);

/* GET /volumes/{id}/holders: a scan that starts after this call; callers that wait at the
 * same time share one. The answer is the Holders document. NULL when out of memory. */
struct mr_pending *mr_engine_holders(struct mr_engine *engine, struct mr_volume *volume,
                                     mr_answer_fn fn, void *ctx);

/* GET /volumes/{id}/history, also of a volume that is gone: {items, next_page_token}.
 * after: sequence number of the last item seen, 0 = from the start; limit 1 to 1000. NULL
 * and err: VOLUME_NOT_FOUND, RECOVERING, INTERNAL. */
struct mr_pending *mr_engine_history(struct mr_engine *engine, const char *id,
                                     int64_t after, unsigned limit, mr_answer_fn fn,
                                     void *ctx, struct mr_err *err);

struct mr_action_request {
    enum mr_action action;
    struct json_object *holders; /* array of row ids; NULL when none were given */
    const char *signal;          /* "TERM" or "KILL"; NULL: TERM */
    bool accept_data_loss;
    struct json_object *caller; /* who asks, for the journal */
};
/* POST /volumes/{id}/holders/actions: journals it with the caller, then acts by a worker
 * of its own, then scans. All of request is borrowed for the call. The answer: {action,
 * volume, operation, started_at, ended_at, results: [{holder, kind, pid, path, done,
 * detail}], remaining: Holders document}. NULL and err: VOLUME_NOT_FOUND, RECOVERING,
 * NOT_DETACHING, OPERATION_PENDING (another action runs), HOLDER_NOT_FOUND,
 * LOSS_NOT_ACCEPTED (detail says what would be lost), ACTION_UNSUPPORTED. The answer may
 * fail with JOURNAL_UNAVAILABLE, WEDGED (the worker hangs) and what the worker says. */
struct mr_pending *mr_engine_act(struct mr_engine *engine, const char *id,
                                 const struct mr_action_request *request, mr_answer_fn fn,
                                 void *ctx, struct mr_err *err);

/* POST /volumes/{id}/forget: ends the wait of a detach (waiters get ORPHAN), leaves all
 * mapped, state `orphan`. reason (may be NULL) and caller go into the journal; both
 * borrowed. The answer, when durable: the volume document. NULL and err:
 * VOLUME_NOT_FOUND, RECOVERING, NOT_DETACHING. */
struct mr_pending *mr_engine_forget(struct mr_engine *engine, const char *id,
                                    const char *reason, struct json_object *caller,
                                    mr_answer_fn fn, void *ctx, struct mr_err *err);

/* POST /reconcile: compares every attached volume that is at rest with the kernel, and
 * searches for orphans. The answer: {started_at, ended_at, looked, as_recorded, differs:
 * [volume ids], not_looked: [ids of those that are not attached and at rest], orphans
 * (number, null when the search was not complete)}. NULL and err: RECOVERING, INTERNAL.
 */
struct mr_pending *mr_engine_reconcile(struct mr_engine *engine, mr_answer_fn fn,
                                       void *ctx, struct mr_err *err);

/* --- orphans --- */

/* GET /orphans. The answer, after a search of the kernel: {items, complete, searched_at};
 * items sorted by id: {id, kind: "forgotten", volume: Volume document, reason,
 * forgotten_at, forgotten_by} for volumes whose detach was given up, {id:
 * "orphan-TOKEN", kind: "unknown", evidence} for what carries the mark of this agent and
 * is in no journal; evidence as the elements of `orphans` in protocol.h. NULL and err:
 * RECOVERING, INTERNAL. */
struct mr_pending *mr_engine_orphans(struct mr_engine *engine, mr_answer_fn fn, void *ctx,
                                     struct mr_err *err);
/* The first step of DELETE /orphans/{id} for an unknown one: searches it again and writes
 * it into the journal as a volume of this id whose detach was given up. The answer, when
 * durable: the volume document; mr_engine_detach_orphan() takes it down then. Answered at
 * once (from the loop) when it is in the journal already. caller is borrowed. NULL and
 * err: RECOVERING, VOLUME_NOT_FOUND (no id of an orphan), INTERNAL. The answer may fail
 * with VOLUME_NOT_FOUND (it is not there any more), JOURNAL_UNAVAILABLE, DEVICE_ERROR
 * (the search was not complete and did not find it). */
struct mr_pending *mr_engine_adopt(struct mr_engine *engine, const char *id,
                                   struct json_object *caller, mr_answer_fn fn, void *ctx,
                                   struct mr_err *err);
/* DELETE /orphans/{id}: goes on with its detach, by the same rules. As
 * mr_engine_detach(); VOLUME_NOT_FOUND when it is no orphan and is not being taken down
 * as one. */
int mr_engine_detach_orphan(struct mr_engine *engine, const char *id,
                            bool accept_data_loss, struct mr_operation **ret_op,
                            struct mr_err *err);

#endif
