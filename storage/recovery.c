/* SPDX-License-Identifier: Apache-2.0
 *
 * The start: what the journal says is checked against the kernel before it is acted on.
 * Another boot: nothing is attached. An attached volume is looked at and left alone; a
 * half-done attach is undone, unless it was to bring back what had been attached; a
 * detach goes on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/json.h"
#include "storage/base/log.h"
#include "storage/engine_internal.h"

/* Workers that start at once: each costs a fork, and all wait for their locks. */
#define MR_RESUME_AT_ONCE 8
#define MR_LOOK_TRIES 3
#define MR_LOOK_AGAIN_NS MR_NS_PER_S
#define MR_ASK_NS MR_NS_PER_S /* a mooring-lun that lives answers at once */

/* What the row says of the operation that was running. */
struct unfinished {
    char operation[MR_OPERATION_ID_TEXT];
    struct json_object *waited_for;
    bool accept_data_loss;
    bool mending;
    struct json_object *expected; /* what was attached before the mend, or NULL */
};

static struct mr_operation *revive(struct mr_volume *volume, enum mr_goal goal,
                                   const struct unfinished *last)
{
    struct mr_engine *engine = volume->engine;
    struct mr_operation *op =
        last->operation[0] ? mr_engine_find_operation(engine, last->operation) : NULL;

    if (op && op->ended == 0 && op->goal == goal) {
        op->journalled = true;
        return op;
    }
    op = mr_operation_new(engine, volume, goal, NULL);
    if (op)
        mr_engine_keep_operation(engine, op);
    return op;
}

static int resume(struct mr_volume *volume, const struct unfinished *last,
                  struct mr_err *err)
{
    bool attaching = volume->state == MR_STATE_ATTACHING;
    enum mr_goal goal = MR_GOAL_ABSENT;
    enum mr_state from = volume->state;
    struct mr_operation *op =
        revive(volume, attaching ? MR_GOAL_ATTACHED : MR_GOAL_ABSENT, last);

    if (!op)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "resume the operation of '%s'",
                       volume->id);
    op->resumed = true;
    op->accept_data_loss = last->accept_data_loss;
    op->waited_for = json_object_get(last->waited_for);
    op->prior_state = volume->state;
    if (attaching && last->mending) {
        if (last->expected)
            mr_identity_from_json(&op->expected, last->expected);
        goal = MR_GOAL_ATTACHED;
        from = MR_STATE_FAILED; /* what the mend looks at is whatever is left */
    } else if (attaching) {
        op->undoing = true;
        (void)mr_fail(&op->error, MR_E_INTERNAL, 0,
                      "the agent ended during this attach; what it had done was undone");
        (void)mr_err_remedy(&op->error, 0, "PUT the volume again");
    }
    op->plan = mr_plan(from, goal);
    volume->op = op;     /* starts when it is its turn */
    if (!op->journalled) /* the row tells what it is: not before that is known */
        mr_operation_announce(op);
    volume->engine->recovery.total++;
    return 0;
}

static void lose(struct mr_volume *volume)
{
    mr_volume_clear_facts(volume);
    mr_volume_set_error(volume, NULL);
    mr_volume_set_state(volume, MR_STATE_LOST_BY_REBOOT);
    mr_volume_record(volume, "lost_by_reboot", NULL, NULL, NULL);
}

/* --- loading --- */

struct loading {
    struct mr_engine *engine;
    struct mr_err *err;
};

/* Nothing is guessed, and no other volume's row is written before this one is clear. */
static int refuse_row(const char *id, int rc, struct mr_err *err)
{
    if (rc != -ENOMEM)
        err->code = MR_E_JOURNAL_UNAVAILABLE;
    (void)mr_err_context(err, rc, "journal row of volume '%s'", id);
    return mr_err_remedy(err, rc,
                         "run the mooringd that wrote it, or a newer one: what is mapped "
                         "is served meanwhile");
}

static int read_row(struct mr_volume *volume, const char *state, struct json_object *row,
                    struct mr_err *err)
{
    volume->state = mr_state_from_name(state);
    if (volume->state == MR_STATE_COUNT)
        return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, EBADMSG, "unknown state '%s'",
                       state);
    int rc = mr_volume_from_row(volume, row, err);
    /* A row that asks for action needs its spec. */
    if (rc == 0 && !volume->spec && volume->state != MR_STATE_ABSENT)
        rc = mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, EBADMSG, "no spec");
    return rc;
}

static int load_volume(void *ctx, int64_t number, const char *id, const char *state,
                       struct json_object *row)
{
    const struct loading *loading = ctx;
    struct mr_volume *volume = mr_volume_new(loading->engine, id);

    if (!volume)
        return mr_fail(loading->err, MR_E_INTERNAL, ENOMEM, "load volume '%s'", id);
    volume->number = number;
    int rc = read_row(volume, state, row, loading->err);
    if (rc < 0)
        rc = refuse_row(id, rc, loading->err);
    else
        rc = mr_engine_insert(loading->engine, volume, loading->err);
    if (rc < 0) {
        mr_volume_free(volume);
        return rc;
    }
    /* Kept until resume(): the operations are loaded after the volumes. */
    if (volume->state == MR_STATE_ATTACHING || volume->state == MR_STATE_DETACHING)
        volume->unfinished = json_object_get(row);
    return 0;
}

static int load_operation(void *ctx, const char *id, struct json_object *row)
{
    const struct loading *loading = ctx;
    struct mr_engine *engine = loading->engine;
    struct mr_operation *op = mr_operation_from_row(engine, id, row);
    if (op)
        mr_engine_keep_operation(engine, op);
    return 0;
}

static int start_volume(struct mr_volume *volume, struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *row = mr_take_ptr(volume->unfinished);
    bool other_boot = strcmp(volume->boot_id, volume->engine->boot_id) != 0;

    if (mr_volume_has_residue(volume) && other_boot) {
        lose(volume);
        return 0;
    }
    (void)mr_server_check(volume); /* an earlier agent may have seen its end */
    if (volume->state == MR_STATE_ATTACHED)
        volume->engine->recovery.total++;
    if (volume->state != MR_STATE_ATTACHING && volume->state != MR_STATE_DETACHING) {
        if (volume->state != MR_STATE_ATTACHED && mr_volume_has_residue(volume))
            mr_server_watch(volume); /* what it says is shown all the same */
        return 0;
    }
    struct unfinished last = {
        .waited_for = mr_json_get(row, "waited_for"),
        .accept_data_loss = mr_json_get_bool(row, "accept_data_loss", false),
        .mending = mr_json_get_bool(row, "mending", false),
        .expected = mr_json_get(row, "expected"),
    };
    mr_json_copy_string(row, "operation", last.operation, sizeof(last.operation));
    return resume(volume, &last, err);
}

/* An operation that no volume goes on with (its volume was lost, say) does not run. */
static void close_stale_operations(struct mr_engine *engine)
{
    for (struct mr_operation *op = engine->operations; op; op = op->next) {
        if (op->ended != 0 || op->volume->op == op)
            continue;
        op->ended = -1;
        op->ended_at_ms = mr_wall_ms();
        engine->ended_count++;
        (void)mr_fail(&op->error, MR_E_INTERNAL, 0,
                      "the agent or the machine ended during it");
        (void)mr_err_remedy(&op->error, 0, "%s the volume again",
                            op->goal == MR_GOAL_ATTACHED ? "PUT" : "DELETE");
        op->error.residue =
            mr_volume_has_residue(op->volume) ? MR_RESIDUE_POSSIBLE : MR_RESIDUE_NONE;
    }
}

/* --- the start --- */

static void check_over(struct mr_engine *engine)
{
    if (!mr_engine_recovering(engine))
        mr_retention_look(engine);
}

/* Nobody could look. They are served on; that they are as recorded is not said. */
static void not_looked_at(struct mr_engine *engine, const struct mr_err *why)
{
    for (size_t i = 0; i < engine->volume_count; i++) {
        struct mr_volume *volume = engine->volumes[i];
        if (mr_reconcile_at_rest(volume) && !volume->server)
            mr_reconcile_not_compared(volume, why);
    }
}

static void on_start_search(void *ctx, struct json_object *reply,
                            const struct mr_err *err)
{
    struct mr_engine *engine = ctx;
    size_t count = mr_json_count(reply, "orphans");

    engine->start_survey = NULL;
    if (err)
        mr_log(MR_LOG_WARNING, "the search for orphans failed: %s", err->message);
    if (count > 0)
        mr_log(MR_LOG_WARNING,
               "%zu attachments of ours are in no journal; GET /orphans names them",
               count);
}

static void search_at_start(struct mr_engine *engine)
{
    engine->start_survey = mr_survey_search(engine, on_start_search, engine);
}

/* What was fenced while no agent ran looks well to the kernel. Who does not answer keeps
 * the start waiting for a moment only: nothing is said of it then. */
static void on_asked(void *ctx)
{
    struct mr_engine *engine = ctx;
    bool asking = false;

    for (size_t i = 0; i < engine->volume_count && !asking; i++)
        asking = mr_server_link_is_asking(engine->volumes[i]);
    if (asking && mr_now_ns() < engine->ask_until_ns) {
        mr_timer_set(&engine->ask, engine->ask_until_ns);
        return;
    }
    engine->ask_until_ns = 0;
    engine->looking = false;
    check_over(engine);
    search_at_start(engine);
}

void mr_recovery_told(struct mr_engine *engine)
{
    if (engine->ask_until_ns != 0)
        mr_timer_set(&engine->ask, 0);
}

static void look_at_start(void *ctx);

static void on_start_look(void *ctx, struct mr_volume *volume, struct json_object *seen,
                          const struct mr_err *err)
{
    struct mr_engine *engine = ctx;

    if (volume) {
        engine->looked++;
        if (mr_reconcile_at_rest(volume))
            (void)mr_reconcile_looked(volume, seen);
        return;
    }
    engine->start_survey = NULL;
    if (err && ++engine->look_tries < MR_LOOK_TRIES) {
        mr_log(MR_LOG_WARNING, "the look at what is attached is repeated: %s",
               err->message);
        engine->looked = 0;
        mr_timer_set(&engine->look_again, mr_now_ns() + MR_LOOK_AGAIN_NS);
        return;
    }
    if (err)
        not_looked_at(engine, err);
    engine->ask_until_ns = mr_now_ns() + MR_ASK_NS;
    mr_timer_set(&engine->ask, 0);
}

static void look_at_start(void *ctx)
{
    struct mr_engine *engine = ctx;

    engine->start_survey = mr_survey_look(engine, on_start_look, engine);
    if (!engine->start_survey)
        abort(); /* 1 KiB at start; going on would report what was not looked at */
}

/* Some at a time: who has to wait for a lock keeps the others waiting no longer than its
 * worker's deadline. */
static void resume_next(struct mr_engine *engine)
{
    bool more = engine->resume_next < engine->resume_end;

    while (engine->resuming < MR_RESUME_AT_ONCE &&
           engine->resume_next < engine->volume_count) {
        struct mr_operation *op = engine->volumes[engine->resume_next++]->op;
        if (!op || !op->resumed || op->counted || op->worker)
            continue;
        op->counted = true;
        engine->resuming++;
        mr_operation_start(op, op->plan, NULL);
    }
    if (more)
        check_over(engine);
}

static void on_resume(void *ctx)
{
    resume_next(ctx);
}

void mr_recovery_resumed(struct mr_operation *op)
{
    struct mr_engine *engine = op->engine;

    if (!op->counted)
        return;
    op->counted = false;
    engine->resuming--;
    engine->resumed++;
    mr_timer_set(&engine->resume, 0); /* from the loop: op is still in use */
}

struct mr_recovery mr_engine_recovery(const struct mr_engine *engine)
{
    struct mr_recovery recovery = engine->recovery;

    recovery.done = engine->looked + engine->resumed;
    if (!mr_engine_recovering(engine) || recovery.done > recovery.total)
        recovery.done = recovery.total;
    return recovery;
}

bool mr_engine_recovering(const struct mr_engine *engine)
{
    return engine->looking || engine->resume_next < engine->resume_end;
}

void mr_recovery_init(struct mr_engine *engine)
{
    mr_timer_init(&engine->resume, engine->loop, on_resume, engine);
    mr_timer_init(&engine->look_again, engine->loop, look_at_start, engine);
    mr_timer_init(&engine->ask, engine->loop, on_asked, engine);
}

int mr_recovery_load(struct mr_engine *engine, struct mr_err *err)
{
    struct mr_err unused;
    struct loading loading = {engine, err ? err : &unused};
    int rc = mr_journal_load(engine->journal, load_volume, load_operation,
                             MR_OPERATIONS_KEPT, &loading, loading.err);
    if (rc < 0)
        return rc;
    for (struct mr_operation *op = engine->operations; op; op = op->next)
        engine->ended_count += op->ended != 0;
    for (size_t i = 0; i < engine->volume_count; i++) {
        rc = start_volume(engine->volumes[i], err);
        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < engine->volume_count; i++)
        mr_act_note_lost(engine->volumes[i]);
    close_stale_operations(engine);
    mr_lock_files_sweep(engine);
    mr_retention_start(engine);
    mr_unsaved_start(engine);
    engine->resume_end = engine->volume_count;
    resume_next(engine);
    for (size_t i = 0; i < engine->volume_count; i++)
        engine->looking = engine->looking || mr_reconcile_at_rest(engine->volumes[i]);
    if (engine->looking)
        look_at_start(engine);
    else
        search_at_start(engine);
    return 0;
}

void mr_recovery_stop(struct mr_engine *engine)
{
    mr_timer_cancel(&engine->resume);
    mr_timer_cancel(&engine->look_again);
    mr_timer_cancel(&engine->ask);
    engine->ask_until_ns = 0;
    mr_survey_cancel(engine->start_survey);
}
