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

/* True until every volume of the journal was compared with the kernel. */
bool mr_engine_recovering(const struct mr_engine *engine);

/* PUT: starts an attach (or a verification, when the same spec is attached), or joins the
 * running one. Takes spec in every case. On 0 *ret_op is the operation, borrowed: valid
 * at least until control goes back to the loop; keep it by its id or by a watch.
 * Refusals: RECOVERING, SPEC_CONFLICT, SOURCE_IN_USE, MOUNT_PATH_BUSY, PATH_NOT_ALLOWED,
 * OPERATION_PENDING, WEDGED, JOURNAL_UNAVAILABLE. */
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
/* The caller lost interest; fn is not called. */
void mr_watch_cancel(struct mr_watch *watch);

/* GET /volumes/{id}/holders: a scan that starts after this call; callers that wait at the
 * same time share one. fn gets the Holders document (borrowed) or NULL and why (the scan
 * died; NULL and NULL: the agent stops). Returns NULL when out of memory. */
typedef void (*mr_holders_fn)(void *ctx, struct json_object *document,
                              const struct mr_err *err);
struct mr_scan_wait *mr_engine_holders(struct mr_engine *engine, struct mr_volume *volume,
                                       mr_holders_fn fn, void *ctx);
void mr_scan_wait_cancel(struct mr_scan_wait *wait);

#endif
