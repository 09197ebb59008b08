/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine's own structures, and what its files ask of each other: steps.h (how an
 * operation runs), held.h (who is in the way), asked.h (what a request asks for),
 * upkeep.h (what keeps journal, kernel and memory true to each other), and volume.c and
 * engine.c, here. Core thread only.
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

#include "storage/asked.h"
#include "storage/held.h"
#include "storage/steps.h"
#include "storage/upkeep.h"

#endif
