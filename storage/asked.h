/* SPDX-License-Identifier: Apache-2.0
 *
 * What a request asks for: whether it may start, follow or join what runs, or why not,
 * and the answers that are on their way. Part of engine_internal.h, which includes it.
 * Core thread only.
 */
#ifndef MR_STORAGE_ASKED_H
#define MR_STORAGE_ASKED_H

#include "storage/engine.h"
#include "storage/plan.h"
#include "storage/spec.h"

struct mr_config;
struct mr_mount_record;
struct mr_operation;
struct mr_pending;
struct mr_volume;

/* --- cancel.c --- */
/* May a PUT or DELETE be taken behind the detach or undo that runs? 0, or why not. */
int mr_cancel_may_follow(const struct mr_volume *volume, enum mr_goal goal,
                         struct mr_err *err);
/* A PUT while a detach of the same spec waits. Takes spec when it returns 0. */
int mr_cancel_for_attach(struct mr_volume *volume, struct mr_spec *spec,
                         struct mr_operation **ret_op, struct mr_err *err);
/* A DELETE while the undo of an attach waits. */
int mr_cancel_for_detach(struct mr_volume *volume, bool accept_data_loss,
                         struct mr_operation **ret_op, struct mr_err *err);
/* op has ended: starts what was to come then. */
void mr_cancel_go_on(struct mr_operation *op);
/* What was to come then is refused, if there is any. */
void mr_cancel_refuse(struct mr_operation *op, const struct mr_err *err);
/* False when op is not one that waits for another. */
bool mr_cancel_announce_failed(struct mr_operation *op, const struct mr_err *err);
/* op is ended by another request (op->then is set): at once, or as soon as the answer of
 * what is under way tells what became of mount and device. */
void mr_cancel_operation(struct mr_operation *op);
/* Is a PUT behind it that begins only with its end, because what is left gives errors
 * only? That may be long: other requests are not kept waiting. */
bool mr_cancel_waits_for_end(const struct mr_operation *op);
/* A PUT of what is left of an attachment and gives errors only: it is detached by the
 * rules of every detach, and attached afresh then. Takes spec in every case. */
int mr_cancel_detach_first(struct mr_volume *volume, struct mr_spec *spec,
                           struct mr_operation **ret_op, struct mr_err *err);
/* A DELETE: the last word counts, such a PUT is refused. */
void mr_cancel_for_delete(struct mr_operation *op);

/* --- refuse.c: each returns a negative errno --- */
int mr_refuse_recovering(struct mr_err *err);
int mr_refuse_unknown(const char *id, struct mr_err *err);
/* 0 when there is such a volume, and everything is known about it. */
int mr_refuse_absent(const struct mr_engine *engine, const struct mr_volume *volume,
                     const char *id, struct mr_err *err);
/* adopt.c: DELETE of an id that the journal does not know: it may be an orphan. */
int mr_refuse_unknown_detach(const struct mr_engine *engine, const char *id,
                             const char *mount_path, struct mr_err *err);
int mr_refuse_wedged(const struct mr_volume *volume, struct mr_err *err);
int mr_refuse_pending(const struct mr_volume *volume, struct mr_err *err);
int mr_refuse_lost_writes(const struct mr_volume *volume, struct mr_err *err);
int mr_refuse_orphan(const struct mr_volume *volume, struct mr_err *err);
int mr_refuse_other_spec(const struct mr_volume *volume, struct mr_err *err);
/* 0 unless an action may still do something to the attachment. */
int mr_refuse_acting(const struct mr_volume *volume, struct mr_err *err);
/* 0 unless an action has made the file system or the device fail. */
int mr_refuse_forced(const struct mr_volume *volume, struct mr_err *err);

/* --- requests.c --- */
/* Splits mount_path into a configured root and the rest. PATH_NOT_ALLOWED. */
int mr_request_place(const struct mr_config *config, const char *mount_path,
                     struct mr_mount_record *ret, struct mr_err *err);
/* One source, one mount path, one volume: is another than self (may be NULL) in the way?
 * SOURCE_IN_USE, MOUNT_PATH_BUSY. */
int mr_request_check_unique(const struct mr_engine *engine, const struct mr_volume *self,
                            const struct mr_spec *spec,
                            const struct mr_mount_record *place, struct mr_err *err);
/* Do both name the same source? a may be NULL. */
bool mr_request_same_source(const struct mr_spec *a, const struct mr_spec *b);
/* A new operation in the engine's list, or NULL and err. */
struct mr_operation *mr_request_operation(struct mr_volume *volume, enum mr_goal goal,
                                          struct mr_err *err);
/* Starts op as an attach of a volume with nothing left of it: with a token of its own at
 * the place of spec's mount path. Takes spec in every case. */
int mr_request_attach_fresh(struct mr_volume *volume, struct mr_operation *op,
                            struct mr_spec *spec, struct mr_err *err);
/* op could not even start: ends it, the volume stays what it is. */
void mr_request_failed(struct mr_volume *volume, struct mr_operation *op,
                       const struct mr_err *err);
/* op, a detach, is at its end: nothing of the volume exists. */
void mr_request_end_at_once(struct mr_volume *volume, struct mr_operation *op);
/* The rest of mr_engine_detach() once it is clear that this volume is to go. */
int mr_request_detach(struct mr_volume *volume, bool accept_data_loss,
                      struct mr_operation **ret_op, struct mr_err *err);

/* --- pending.c --- */
/* volume may be NULL. NULL when out of memory. */
struct mr_pending *mr_pending_new(struct mr_engine *engine, struct mr_volume *volume,
                                  mr_answer_fn fn, void *ctx);
/* Frees it, then calls. NULL is fine: nobody waits any more. */
void mr_pending_answer(struct mr_pending *pending, struct json_object *document,
                       const struct mr_err *err);
/* The agent stops: tells everybody. */
void mr_pending_stop(struct mr_engine *engine);

#endif
