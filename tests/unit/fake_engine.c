/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/clock.h"
#include "storage/base/json.h"

struct mr_watch {
    struct mr_watch *next, **link;
    mr_operation_fn fn;
    void *ctx;
};

bool fake_starts(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

int mr_engine_new(struct mr_loop *loop, const struct mr_config *config,
                  struct mr_engine **ret, struct mr_err *err)
{
    (void)config;
    *ret = calloc(1, sizeof(**ret));
    if (!*ret)
        return mr_fail(err, MR_E_INTERNAL, 12, "fake");
    (*ret)->loop = loop;
    return 0;
}

void mr_engine_free(struct mr_engine *engine)
{
    if (!engine)
        return;
    fake_pending_free(engine);
    for (struct mr_operation *op = engine->ops; op;) {
        struct mr_operation *next = op->next;
        mr_timer_cancel(&op->timer);
        mr_timer_cancel(&op->accept);
        (void)json_object_put(op->proof);
        free(op);
        op = next;
    }
    for (size_t i = 0; i < VOLUMES_MAX; i++) {
        mr_spec_free(engine->volumes[i].spec);
        (void)json_object_put(engine->volumes[i].proof);
    }
    free(engine);
}

void fake_engine_set_recovering(struct mr_engine *engine, bool recovering)
{
    engine->recovering = recovering;
}

bool mr_engine_recovering(const struct mr_engine *engine)
{
    return engine->recovering;
}

struct mr_volume *fake_volume_slot(struct mr_engine *engine, const char *id)
{
    for (size_t i = 0; i < VOLUMES_MAX; i++) {
        struct mr_volume *v = &engine->volumes[i];
        if (!v->id[0] || strcmp(v->id, id) == 0) {
            v->engine = engine;
            (void)snprintf(v->id, sizeof(v->id), "%s", id);
            return v;
        }
    }
    abort();
}

void fake_operation_end(struct mr_operation *op, int ended)
{
    op->ended = ended;
    op->volume->running = NULL;
    op->volume->generation++;
    mr_timer_cancel(&op->timer);
    mr_timer_cancel(&op->accept);
    while (op->watches) {
        struct mr_watch *watch = op->watches;
        struct mr_watch copy = *watch;
        mr_watch_cancel(watch);
        copy.fn(copy.ctx, op);
    }
}

static void accept_late(void *ctx);

static void end(void *ctx)
{
    struct mr_operation *op = ctx;
    int ended = 1;
    struct mr_volume *v = op->volume;

    if (op->goal == MR_GOAL_ABSENT) {
        op->proof = json_object_new_object();
        mr_json_set_string(op->proof, "volume", v->id);
        mr_json_set_string(op->proof, "operation", op->id);
        (void)json_object_put(v->proof);
        v->proof = json_object_get(op->proof);
        v->state = NULL;
        v->forgotten = false;
        mr_spec_free(v->spec);
        v->spec = NULL;
    } else if (fake_starts(v->id, "fail")) {
        ended = -1;
        (void)mr_fail(&op->err, MR_E_DEVICE_ERROR, 5, "read superblock of '/dev/fake0'");
        (void)mr_err_remedy(&op->err, 0, "look at the kernel log");
        (void)snprintf(op->err.step, sizeof(op->err.step), "check");
        op->err.residue = MR_RESIDUE_NONE;
        v->state = "failed";
    } else {
        v->state = "attached";
    }
    fake_operation_end(op, ended);
}

static struct mr_operation *start(struct mr_volume *v, enum mr_goal goal, bool slow)
{
    struct mr_operation *op = calloc(1, sizeof(*op));
    if (!op)
        abort();
    op->volume = v;
    op->goal = goal;
    (void)snprintf(op->id, sizeof(op->id), "op-%u", ++v->engine->operations);
    op->next = v->engine->ops;
    v->engine->ops = op;
    v->running = op;
    v->generation++;
    v->state = goal == MR_GOAL_ABSENT ? "detaching" : "attaching";
    mr_timer_init(&op->timer, v->engine->loop, end, op);
    mr_timer_set(&op->timer, mr_now_ns() + (slow ? 10000 : 20) * MR_NS_PER_MS);
    mr_timer_init(&op->accept, v->engine->loop, accept_late, op);
    op->accepted = !fake_starts(v->id, "slowdisk");
    if (!op->accepted)
        mr_timer_set(&op->accept, mr_now_ns() + 500 * MR_NS_PER_MS);
    return op;
}

static int refused(const struct mr_engine *engine, const char *id, struct mr_err *err)
{
    if (engine->recovering)
        return mr_fail(err, MR_E_RECOVERING, 0, "recovering");
    if (fake_starts(id, "pending"))
        return mr_fail(err, MR_E_OPERATION_PENDING, 0, "another operation is running");
    return 0;
}

int mr_engine_attach(struct mr_engine *engine, const char *id, struct mr_spec *spec,
                     struct mr_operation **ret_op, struct mr_err *err)
{
    int rc = refused(engine, id, err);
    struct mr_volume *v = rc == 0 ? fake_volume_slot(engine, id) : NULL;

    if (rc == 0 && v->spec && !mr_spec_equal(v->spec, spec))
        rc = mr_fail(err, MR_E_SPEC_CONFLICT, 0, "another spec is attached as '%s'", id);
    if (rc < 0) {
        mr_spec_free(spec);
        return rc;
    }
    bool again = v->spec && !v->running;
    mr_spec_free(v->spec);
    v->spec = spec;
    *ret_op =
        v->running ? v->running : start(v, MR_GOAL_ATTACHED, fake_starts(id, "slow"));
    if (again) /* a verification */
        (*ret_op)->err.errnum = -1;
    return 0;
}

int mr_engine_detach(struct mr_engine *engine, const char *id, const char *mount_path,
                     bool accept_data_loss, struct mr_operation **ret_op,
                     struct json_object **ret_proof, struct mr_err *err)
{
    struct mr_volume *v = fake_volume_slot(engine, id);
    int rc = refused(engine, id, err);
    (void)accept_data_loss;

    if (rc < 0)
        return rc;
    if (!v->spec && v->proof) {
        *ret_op = NULL;
        *ret_proof = json_object_get(v->proof);
        return 0;
    }
    if (!v->spec)
        return mr_fail(err, MR_E_VOLUME_NOT_FOUND, 0, "no volume '%s'", id);
    if (v->forgotten)
        return mr_fail(err, MR_E_ORPHAN, 0, "'%s' was given up", id);
    if (mount_path && strcmp(mount_path, v->spec->mount_path) != 0)
        return mr_fail(err, MR_E_SPEC_CONFLICT, 0, "mounted at '%s'",
                       v->spec->mount_path);
    *ret_op = v->running ? v->running
                         : start(v, MR_GOAL_ABSENT,
                                 fake_starts(id, "slow") || fake_starts(id, "held"));
    return 0;
}

int mr_engine_detach_orphan(struct mr_engine *engine, const char *id,
                            bool accept_data_loss, struct mr_operation **ret_op,
                            struct mr_err *err)
{
    struct mr_volume *v = mr_engine_find(engine, id);
    int rc = refused(engine, id, err);

    if (rc < 0)
        return rc;
    if (!v || !v->forgotten)
        return mr_fail(err, MR_E_VOLUME_NOT_FOUND, 0, "'%s' is no orphan", id);
    if (!accept_data_loss &&
        (fake_starts(id, "held-lossy") || fake_starts(id, "orphan-1")))
        return mr_fail(err, MR_E_DATA_NOT_WRITTEN, 5, "data of '%s'", id);
    *ret_op =
        v->running ? v->running : start(v, MR_GOAL_ABSENT, fake_starts(id, "orphan-0"));
    return 0;
}

struct mr_volume *mr_engine_find(struct mr_engine *engine, const char *id)
{
    for (size_t i = 0; i < VOLUMES_MAX; i++)
        if (engine->volumes[i].state && strcmp(engine->volumes[i].id, id) == 0)
            return &engine->volumes[i];
    return NULL;
}

struct mr_volume *mr_engine_next(struct mr_engine *engine, const char *after)
{
    struct mr_volume *best = NULL;
    for (size_t i = 0; i < VOLUMES_MAX; i++) {
        struct mr_volume *v = &engine->volumes[i];
        if (v->state && (!after || strcmp(v->id, after) > 0) &&
            (!best || strcmp(v->id, best->id) < 0))
            best = v;
    }
    return best;
}

struct mr_operation *mr_engine_find_operation(struct mr_engine *engine, const char *op_id)
{
    struct mr_operation *op = engine->ops;
    while (op && strcmp(op->id, op_id) != 0)
        op = op->next;
    return op;
}

const char *mr_volume_id(const struct mr_volume *volume)
{
    return volume->id;
}

uint64_t mr_volume_generation(const struct mr_volume *volume)
{
    return volume->generation;
}

struct json_object *mr_volume_document(const struct mr_volume *volume)
{
    struct json_object *document = json_object_new_object();
    struct json_object *holders = json_object_new_array();
    struct json_object *holder = json_object_new_object();

    mr_json_set_int(holder, "pid", 42);
    (void)json_object_array_add(holders, holder);
    mr_json_set_string(document, "id", volume->id);
    mr_json_set_string(document, "state", volume->state);
    mr_json_set(document, "spec", volume->spec ? mr_spec_public(volume->spec) : NULL);
    mr_json_set_string(document, "operation",
                       volume->running ? volume->running->id : NULL);
    mr_json_set(document, "holders", holders);
    mr_json_set_int(document, "actions_done", volume->actions_done);
    return document;
}

struct json_object *mr_operation_document(const struct mr_operation *op)
{
    static const char *const states[] = {"failed", "running", "done"};
    struct json_object *document = json_object_new_object();
    mr_json_set_string(document, "id", op->id);
    mr_json_set_string(document, "state", states[op->ended + 1]);
    return document;
}

const char *mr_operation_id(const struct mr_operation *op)
{
    return op->id;
}

enum mr_goal mr_operation_goal(const struct mr_operation *op)
{
    return op->goal;
}

struct mr_volume *mr_operation_volume(const struct mr_operation *op)
{
    return op->volume;
}

int mr_operation_ended(const struct mr_operation *op)
{
    return op->ended;
}

bool mr_operation_created(const struct mr_operation *op)
{
    return op->err.errnum != -1;
}

struct json_object *mr_operation_proof(const struct mr_operation *op)
{
    return op->proof;
}

const struct mr_err *mr_operation_error(const struct mr_operation *op)
{
    return op->ended < 0 ? &op->err : NULL;
}

struct mr_watch *mr_operation_watch(struct mr_operation *op, mr_operation_fn fn,
                                    void *ctx)
{
    struct mr_watch *watch = calloc(1, sizeof(*watch));
    if (!watch)
        return NULL;
    watch->fn = fn;
    watch->ctx = ctx;
    watch->link = &op->watches;
    watch->next = op->watches;
    if (watch->next)
        watch->next->link = &watch->next;
    op->watches = watch;
    return watch;
}

bool mr_operation_is_accepted(const struct mr_operation *op)
{
    return op->accepted || op->ended;
}

struct mr_watch *mr_operation_watch_accepted(struct mr_operation *op, mr_operation_fn fn,
                                             void *ctx)
{
    return mr_operation_watch(op, fn, ctx);
}

/* Nobody waits for the end of such an operation as long as it is not accepted. */
static void accept_late(void *ctx)
{
    struct mr_operation *op = ctx;
    op->accepted = true;
    while (op->watches) {
        struct mr_watch copy = *op->watches;
        mr_watch_cancel(op->watches);
        copy.fn(copy.ctx, op);
    }
}

void mr_watch_cancel(struct mr_watch *watch)
{
    if (!watch)
        return;
    *watch->link = watch->next;
    if (watch->next)
        watch->next->link = watch->link;
    free(watch);
}
