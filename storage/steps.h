/* SPDX-License-Identifier: Apache-2.0
 *
 * How an operation runs: its life, its plan, what it writes down, and what the steps of
 * an attach and a detach mean. Part of engine_internal.h, which includes it. Core thread
 * only.
 */
#ifndef MR_STORAGE_STEPS_H
#define MR_STORAGE_STEPS_H

#include "storage/engine.h"
#include "storage/plan.h"

struct mr_config;
struct mr_operation;
struct mr_volume;

/* --- operation.c --- */
struct mr_operation *mr_operation_new(struct mr_engine *engine, struct mr_volume *volume,
                                      enum mr_goal goal, const char *id);
void mr_operation_free(struct mr_operation *op);
/* Tells all watches of the end (or, when it has not ended, that the agent stops). */
void mr_operation_tell(struct mr_operation *op);
/* A record of it is durable: tells those who wait for that. */
void mr_operation_accepted(struct mr_operation *op);
struct json_object *mr_operation_to_row(const struct mr_operation *op);
struct mr_operation *mr_operation_from_row(struct mr_engine *engine, const char *id,
                                           struct json_object *row);

/* --- runner.c --- */
/* Timer callback: a new worker, or the step at hand once more. */
void mr_operation_on_retry(void *ctx);
/* Lets go of everything that only a running operation needs: worker, claim, watch,
 * timers. */
void mr_operation_release(struct mr_operation *op);
/* Starts plan (not NULL) on its volume: worker and intent record go ahead together. event
 * NULL: nothing to record first. */
void mr_operation_start(struct mr_operation *op, const enum mr_step *plan,
                        const char *event);
/* Goes to the next step of the plan. */
void mr_operation_advance(struct mr_operation *op);
/* Sends a command (takes the reference) with the usual deadline, or deadline_ns from now
 * if not 0. */
void mr_operation_command(struct mr_operation *op, struct json_object *command,
                          int64_t deadline_ns);
/* Command object {"cmd": name, "identity": ...}. */
struct json_object *mr_operation_new_command(const struct mr_operation *op,
                                             const char *name);
/* Sets the timer of the step at hand. */
void mr_operation_retry_in(struct mr_operation *op, int64_t ns);
/* It failed: an attach is undone first, a detach stops where it is. */
void mr_operation_fail(struct mr_operation *op, const struct mr_err *err);
/* The same with an error made here. */
void mr_operation_fail_with(struct mr_operation *op, enum mr_code code,
                            const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Begins when the worker has the lock and the intent is durable. */
void mr_operation_go_when_ready(struct mr_operation *op);

/* --- record.c --- */
/* Writes down that it will be, before it starts: then it may be called accepted. If that
 * cannot be written, one that waits for another is refused. */
void mr_operation_announce(struct mr_operation *op);
/* Writes down that it starts. If that cannot be written it is refused: the volume becomes
 * again what it was. */
void mr_operation_intend(struct mr_operation *op, const char *event);
/* Writes a record; fn runs when it is durable. When it cannot be written a fresh attach
 * fails, everything else waits: the step is begun again when it can. fn NULL: do not
 * wait. */
typedef void (*mr_durable_fn)(struct mr_operation *op);
void mr_operation_record(struct mr_operation *op, const char *event,
                         struct json_object *detail, mr_durable_fn fn);
/* The end: state, record, then the watchers. A success that cannot be written is not said
 * until it can; a failure is said at once. event: a literal. */
void mr_operation_end(struct mr_operation *op, int ended, enum mr_state state,
                      const char *event);
/* The end of an operation that is called off, with op->error. If that cannot be written,
 * it goes on, and who asked (op->then, op->forgetting) is refused. */
void mr_operation_call_off(struct mr_operation *op, enum mr_state state,
                           const char *event);
/* The same for an end that changes nothing that is in the journal. */
void mr_operation_end_unrecorded(struct mr_operation *op, int ended, enum mr_state state);
/* The end of one that waited for another and never began: the volume is not touched. */
void mr_operation_refuse(struct mr_operation *op, const struct mr_err *err);
/* What mr_operation_end() does when its record is durable: takes over `ending` and
 * `end_state`. */
void mr_operation_finish(struct mr_operation *op);
/* It is `unwritten`, and the journal may work again. */
void mr_operation_write_again(struct mr_operation *op);

/* What a step means: begin sends a command, records or advances; reply takes the answer.
 */
struct mr_step_handler {
    void (*begin)(struct mr_operation *op);
    void (*reply)(struct mr_operation *op, struct json_object *message);
};

/* --- attach.c: begin sends a command or advances; reply takes the answer --- */
void mr_attach_begin(struct mr_operation *op);
void mr_attach_reply(struct mr_operation *op, bool ok, struct json_object *message,
                     const struct mr_err *err);
/* The member `config` of `map` (protocol.h). New reference. */
struct json_object *mr_attach_settings(const struct mr_config *config);

/* --- content.c: step handlers --- */
void mr_content_begin_check(struct mr_operation *op);
void mr_content_checked(struct mr_operation *op, struct json_object *message);
void mr_content_begin_format(struct mr_operation *op);
void mr_content_formatted(struct mr_operation *op, struct json_object *message);

/* What was found on a device; borrowed texts, NULL where nothing is known. */
struct mr_content {
    const char *content; /* "blank", "formatted", "unknown" */
    const char *fs_type;
    const char *fs_uuid;
    const char *detail;
};
/* May an attach of a device on which nothing was attached or formatted before go on with
 * it, and is it to be formatted? Also refuses the trace of an mkfs of this volume (may be
 * NULL) that was cut off on the same source. 0, or a negative errno with err. */
int mr_content_judge(const struct mr_volume *volume, const struct mr_spec *spec,
                     const struct mr_content *content, bool *ret_format,
                     struct mr_err *err);

/* --- detach.c --- */
void mr_detach_begin(struct mr_operation *op);
void mr_detach_reply(struct mr_operation *op, bool ok, struct json_object *message,
                     const struct mr_err *err);
void mr_detach_armed(struct mr_operation *op, int wd);
/* The plan came to its end: proof, tombstone (or `failed` after an undo). */
void mr_detach_finish(struct mr_operation *op);
/* --- proof.c --- */
/* What a worker has seen (borrowed; no object: nothing) adds to the evidence of this
 * detach. That of `unmap` says whether the claim was in hand; `gone` says how it ended.
 */
void mr_proof_add_evidence(struct mr_operation *op, struct json_object *evidence);
/* The proof of release of a detach whose plan came to its end. New reference. */
struct json_object *mr_proof_make(struct mr_operation *op);
/* --- detach.c --- */
/* Wake-ups of the checker. */
void mr_detach_unmounted(struct mr_operation *op);
void mr_detach_look_again(struct mr_operation *op);

/* The record of its step could not be written, and may be by now. */
void mr_detach_write_again(struct mr_operation *op);
/* Is something under way whose answer must not be lost: an umount (the kernel tells a
 * lost write once) or an unmap? Also before the worker has the lock. */
bool mr_detach_must_answer(const struct mr_operation *op);

#endif
