/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine's own structures, shared by its files: requests.c (PUT and DELETE), runner.c
 * (runs a plan) with record.c (writes it down), attach.c, content.c and detach.c (its
 * steps), holders.c and its helpers examine.c and exits.c (who is in the way), actions.c,
 * cancel.c, orphans.c, adopt.c (what a caller can do about it), recovery.c (the start),
 * reconcile.c, servers.c, server_link.c (what kernel and mooring-lun say), unsaved.c,
 * retention.c (what the journal does). Core thread only.
 */
#ifndef MR_STORAGE_ENGINE_INTERNAL_H
#define MR_STORAGE_ENGINE_INTERNAL_H

#include "storage/base/clock.h"
#include "storage/checker.h"
#include "storage/engine.h"
#include "storage/identity.h"
#include "storage/journal.h"
#include "storage/preempt.h"
#include "storage/scanner.h"
#include "storage/server_link.h"
#include "storage/transport.h"
#include "storage/workers.h"

#define MR_OPERATION_ID_TEXT 20 /* "op-" and 16 hex digits */
#define MR_OPERATIONS_KEPT 1000 /* ended ones that GET /operations/{op} still finds */

struct mr_engine {
    struct mr_loop *loop;
    const struct mr_config *config;
    struct mr_journal *journal;
    struct mr_checker *checker;
    struct mr_workers *workers;
    struct mr_scanner *scanner;
    char boot_id[37];
    int state_lock;
    int runtime_lock;
    struct mr_volume **volumes; /* sorted by id, tombstones included */
    size_t volume_count;
    size_t volume_size;
    struct mr_operation *operations; /* newest first */
    size_t ended_count;
    struct mr_pending *pendings;
    struct mr_discovery *discoveries;
    unsigned held; /* detaches that wait for holders now */
    struct mr_timer trim;
    struct mr_recovery recovery; /* of the start: total */
    bool looking;                /* at what is attached */
    size_t looked;
    unsigned look_tries;
    struct mr_timer look_again;
    struct mr_timer ask;  /* the mooring-luns: the look ends with their answers, */
    int64_t ask_until_ns; /* or with this time; 0: not there yet */
    struct mr_surveys *surveys;
    struct mr_survey *start_survey; /* look, then search */
    size_t resume_next; /* index into volumes of the next one that may go on */
    size_t resume_end;
    unsigned resuming; /* cut-off operations whose worker is not ready yet */
    size_t resumed;
    struct mr_timer resume;
    struct mr_timer unsaved; /* tries the journal again */
    int64_t unsaved_after_ns;
    bool probing;      /* a try that has nothing to write is under way */
    bool journal_told; /* the log says that it cannot be written */
    bool journal_bad;  /* the last write failed, journal_why says how */
    struct mr_err journal_why;
    struct mr_timer retention;   /* drops tombstones now and then */
    size_t dropping;             /* how many the journal drops now, and */
    bool drop_more;              /* whether there are more */
    int64_t retention_start_ns;  /* when the agent started, and */
    int64_t retention_newest_ms; /* the newest time that it loaded then */
};

/* An mkfs that may have been cut off (design: killed mkfs). */
struct mr_format_record {
    char fs_uuid[40]; /* "": none */
    char boot_id[37];
    uint64_t diskseq;
    bool done;
};

struct mr_volume {
    struct mr_engine *engine;
    int64_t number; /* names the lock file */
    char id[MR_VOLUME_ID_MAX + 1];
    enum mr_state state;
    bool wedged; /* shown instead of state: the worker is past its deadline */
    uint64_t generation;
    struct mr_spec *spec;
    char token[MR_TOKEN_TEXT];
    char boot_id[37]; /* of the attach */
    struct mr_identity identity;
    struct mr_mount_record mount;
    struct mr_format_record format;
    bool data_not_written;
    bool forced; /* an action made the file system or the device fail: detach it only */
    bool server_lost;                /* the same, because its mooring-lun has ended */
    enum mr_transport transport_end; /* the same, because that is final; or UNKNOWN */
    struct mr_server_watch *server;  /* on its mooring-lun; NULL: none */
    struct mr_server_link *link;     /* to its mooring-lun; NULL: none */
    struct json_object *transport;   /* what that says; NULL: nothing */
    struct json_object *fencing;     /* the same */
    uint64_t preempt_told;           /* the key that its `map` was to preempt, or 0 */
    bool asked;       /* a survey looks at it, and no operation began since */
    bool unadopted;   /* its first record is on its way */
    bool unsaved;     /* the journal has an older row: written again when that works */
    int64_t dropping; /* a tombstone of this number is on its way out of the journal */
    int64_t gone_ns;  /* when it became a tombstone, 0: before this agent started */
    struct json_object *acting; /* the action at work, for a start after a crash */
    bool has_error;
    struct mr_err error;
    struct mr_operation *op;   /* the running one, or NULL */
    struct json_object *proof; /* last proof of release */
    struct json_object
        *holders; /* rows of the last scan, with first_seen and last_seen */
    int64_t holders_at_ms;
    int64_t attached_at_ms;
    int64_t updated_at_ms;
    int64_t unmounted_at_ms;       /* in the running detach; 0 = not yet */
    int64_t unmounted_ns;          /* the same, 0 = not seen by this agent */
    int64_t holders_ns;            /* as holders_at_ms */
    struct mr_err wedged_why;      /* with wedged */
    struct json_object *forgotten; /* an orphan: {reason, at_ms, by}; else NULL */
    struct mr_pending *adopting;   /* waits for the record that makes it a volume */
    struct mr_act *act;            /* the action that runs on its holders, or NULL */
    struct mr_act *left_behind;    /* actions whose workers hang: they may still act */
    struct json_object
        *unfinished; /* the row as loaded, until the start has dealt with it */
};

struct mr_pending {
    struct mr_engine *engine;
    struct mr_pending *next;
    struct mr_volume *volume;
    mr_answer_fn fn;
    void *ctx;
    struct mr_scan_request *scan;      /* ends with it */
    struct mr_watch *watch;            /* ends with it */
    struct mr_survey *survey;          /* ends with it */
    struct mr_discovery *discovery;    /* ends with it */
    struct json_object *document;      /* the answer, as far as it is made */
    char orphan[MR_VOLUME_ID_MAX + 1]; /* the id that is searched */
    struct json_object *caller;
    struct mr_pending **slot; /* who will answer keeps it there; NULL: nobody */
};

/* A process that is seen to hold: its end is a reason to look again at once. */
struct mr_exit {
    struct mr_exit *next;
    struct mr_operation *op;
    struct mr_io *io;
    int pidfd;
    pid_t pid;
    int64_t start_time;
};

struct mr_watch {
    struct mr_operation *op;
    struct mr_watch *next;
    bool accepted; /* called as soon as the operation is in the journal */
    mr_operation_fn fn;
    void *ctx;
};

struct mr_operation {
    struct mr_operation *next;
    struct mr_engine *engine;
    struct mr_volume *volume;
    char id[MR_OPERATION_ID_TEXT];
    char volume_id[MR_VOLUME_ID_MAX + 1];
    enum mr_goal goal;
    int ended; /* 0, 1, -1 as mr_operation_ended() */
    bool created;
    int64_t started_at_ms;
    int64_t ended_at_ms;
    int64_t ended_ns;    /* 0: before this agent started */
    struct mr_err error; /* why it failed, or why it is being undone */
    struct json_object *proof;
    struct mr_watch *watches;
    struct mr_timer notify; /* tells watches that came after the end */

    /* --- while it runs --- */
    const enum mr_step *plan;
    const enum mr_step *next_step;
    enum mr_step step;
    enum mr_state
        prior_state; /* of the volume, for an intent that could not be written */
    enum mr_state
        end_state; /* with ending: what the volume becomes when the end is durable */
    int ending;    /* as `ended`, while the end is on its way to the disk */
    const char *end_event;
    bool called_off; /* with ending: on request, not by itself */
    bool unwritten;  /* a record could not be written: what is next waits for it */
    struct json_object *before; /* the volume's row before the intent, until that is
                                   durable */
    bool fresh; /* this attach began with nothing: when it fails everything is undone */
    bool map_told; /* `map` went to a worker */
    bool needs_format;
    struct mr_identity
        expected;    /* with !fresh: what was attached here before, diskseq 0 = nothing */
    bool undoing;    /* a failed or half-done attach on its way back; ends in `failed` */
    bool resumed;    /* was running when the agent ended */
    bool counted;    /* with resumed: in mr_engine.resuming */
    bool ready;      /* the worker has the lock */
    bool durable;    /* the intent is in the journal */
    bool journalled; /* anything of it is: it survives the agent */
    bool busy;       /* a command is at the worker */
    struct mr_worker *worker;
    int64_t restart_ns; /* back-off of new workers after one died */
    void (*on_durable)(struct mr_operation *op);
    struct mr_timer retry; /* the next try of the step at hand */
    struct mr_timer scan_timer;
    struct mr_scan_request *scan;
    int64_t backoff_ns;
    int64_t scan_after_ns;
    int wd; /* IN_UNMOUNT watch, -1 = none */
    bool accept_data_loss;
    bool accept_asked; /* the same, as the worker was told */
    bool known_held;   /* the last look at the device or mount said busy */
    bool mapped;       /* facts read back from the kernel by inspect */
    bool mounted;
    bool gated;                 /* the last complete look found nobody */
    bool unmapping;             /* an unmap went to a worker: its server may end */
    bool unmap_asked;           /* the device is on its way out: wait for it to be gone */
    bool dying;                 /* IN_UNMOUNT was seen: the file system goes for good */
    bool settle;                /* the same: the next claim may wait */
    bool settle_asked;          /* the claim at the worker does */
    int64_t released_at_ms;     /* when the claim was granted */
    int64_t released_ns;        /* the same */
    struct mr_operation *then;  /* what starts when this one has ended */
    struct mr_spec *then_spec;  /* when that is an attach */
    struct json_object *forget; /* what the volume's `forgotten` becomes with the end */
    struct mr_pending *forgetting; /* who asked for that */
    bool watching;                 /* counted in mr_engine.held */
    struct mr_scan_request *gate;  /* may an immediate unmap go ahead? */
    struct mr_worker *examiner;
    int64_t examine_at_ns; /* not before; 0: never examined */
    int64_t examine_after_ns;
    bool frozen; /* the file system, when it was examined last */
    struct mr_exit *exits;
    struct json_object *waited_for; /* all holders seen by this operation */
    struct json_object *evidence;
};

/* --- volume.c --- */
/* RFC 3339 text, or null for 0. */
void mr_document_set_time(struct json_object *json, const char *key, int64_t wall_ms);
struct mr_volume *mr_volume_new(struct mr_engine *engine, const char *id);
void mr_volume_free(struct mr_volume *volume);
/* The document changed. */
void mr_volume_touch(struct mr_volume *volume);
void mr_volume_set_state(struct mr_volume *volume, enum mr_state state);
void mr_volume_set_error(struct mr_volume *volume,
                         const struct mr_err *err); /* NULL clears */
/* Forgets everything about kernel objects: nothing of it exists any more. */
void mr_volume_clear_facts(struct mr_volume *volume);
/* Forgets the device: it is proven not to exist any more. */
void mr_volume_clear_identity(struct mr_volume *volume);
/* Is something of it mapped or mounted, as far as we know? */
bool mr_volume_has_residue(const struct mr_volume *volume);
/* Writes the row and a line of history (detail may be NULL, borrowed) without an
 * operation row; fn (may be NULL) gets the result, and passes it on to
 * mr_unsaved_result(). */
void mr_volume_record(struct mr_volume *volume, const char *event,
                      struct json_object *detail, mr_journal_fn fn, void *ctx);
/* The durable row and back. from_row returns 0 or a negative errno with err. */
struct json_object *mr_volume_to_row(const struct mr_volume *volume);
int mr_volume_from_row(struct mr_volume *volume, struct json_object *row,
                       struct mr_err *err);
/* Back to what it was when it had this row, but for the state and the secrets. */
void mr_volume_restore(struct mr_volume *volume, struct json_object *row);
/* The state of a row that is written now: behind the record of an end that is on its way
 * it must not undo that. */
enum mr_state mr_volume_row_state(const struct mr_volume *volume);

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

/* --- holders.c --- */
/* Keeps first_seen of rows known before, notes who came and, if the look was complete,
 * who left; makes `unowned` when held and nobody was found. */
void mr_holders_update(struct mr_volume *volume, struct json_object *rows, bool complete,
                       bool known_held);
/* This process has ended: what it held itself, it holds no more. */
void mr_holders_exited(struct mr_operation *op, pid_t pid, int64_t start_time);
/* As far as we know, is our own mount there? */
bool mr_holders_own_mount(const struct mr_volume *volume);
/* The rows of the last update that a scan found. New reference. */
struct json_object *mr_holders_scanned(const struct mr_volume *volume);
/* What a scan is to look for: one of `targets` in protocol.h. */
struct json_object *mr_holders_target(const struct mr_volume *volume);
/* The Holders document. */
struct json_object *mr_holders_document(const struct mr_volume *volume, bool complete,
                                        bool known_held);
/* The row with this id, borrowed, or NULL. */
struct json_object *mr_holders_find(struct json_object *rows, const char *id);
/* All that this detach has waited for has let go now. */
void mr_holders_released(struct mr_operation *op);
/* Starts the periodic scans of a held detach; stops them. */
void mr_holders_watch(struct mr_operation *op);
void mr_holders_unwatch(struct mr_operation *op);

/* --- examine.c --- */
/* When nobody can be named, or no watch is armed: asks a worker whether the file system
 * is frozen, and arms a watch. At most once in a (growing) while. */
void mr_examine(struct mr_operation *op);
void mr_examine_end(struct mr_operation *op);

/* --- exits.c --- */
/* Watches the processes of these rows. */
void mr_exits_watch(struct mr_operation *op, struct json_object *rows);
void mr_exits_forget(struct mr_operation *op);

/* --- pending.c --- */
/* volume may be NULL. NULL when out of memory. */
struct mr_pending *mr_pending_new(struct mr_engine *engine, struct mr_volume *volume,
                                  mr_answer_fn fn, void *ctx);
/* Frees it, then calls. NULL is fine: nobody waits any more. */
void mr_pending_answer(struct mr_pending *pending, struct json_object *document,
                       const struct mr_err *err);
/* The agent stops: tells everybody. */
void mr_pending_stop(struct mr_engine *engine);

/* --- actions.c --- */
/* After a start: says in the history that the end of an action is not known. */
void mr_act_note_lost(struct mr_volume *volume);
/* Is an action at work on this attachment, or one left behind that may come back? */
bool mr_act_may_touch(const struct mr_volume *volume);
/* The agent stops: all of the volume's. */
void mr_act_stop(struct mr_volume *volume);

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

/* --- engine.c --- */
/* Makes an attached volume without an operation `failed` when its mount is gone. */
void mr_engine_check_mount(struct mr_volume *volume);
struct mr_volume *mr_engine_lookup(struct mr_engine *engine,
                                   const char *id); /* tombstones too */
int mr_engine_insert(struct mr_engine *engine, struct mr_volume *volume,
                     struct mr_err *err);
/* Takes it out of the table and frees it; nothing may point to it any more. */
void mr_engine_remove(struct mr_engine *engine, struct mr_volume *volume);
void mr_engine_keep_operation(struct mr_engine *engine, struct mr_operation *op);
/* From the loop, forgets those that ended first beyond MR_OPERATIONS_KEPT. */
void mr_engine_trim_operations(struct mr_engine *engine);

#include "storage/upkeep.h"

#endif
