/* SPDX-License-Identifier: Apache-2.0
 *
 * The core's side of `mooring-worker survey`: one process that looks at all attached
 * volumes in batches, or searches for what carries our mark and is in no journal.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/engine_internal.h"

#define BATCH_BYTES (MR_MSG_MAX / 2)
#define BATCH_VOLUMES 256
#define LOOK_DEADLINE_NS (10 * MR_NS_PER_S) /* of one batch, which takes milliseconds */
#define SEARCH_DEADLINE_MS 5000LL
#define SEARCH_ABANDON_NS (8 * MR_NS_PER_S)

struct mr_survey {
    struct mr_surveys *surveys;
    struct mr_survey *next;
    bool running;                     /* the process at work is for it */
    char after[MR_VOLUME_ID_MAX + 1]; /* the last volume that was asked for */
    bool asked_all;
    mr_look_fn look_fn;
    mr_search_fn search_fn; /* one of the two */
    void *ctx;
};

/* One process at a time. A look has it for itself; searches that were asked for before it
 * started share it. */
struct mr_surveys {
    struct mr_engine *engine;
    struct mr_survey *queue; /* oldest first */
    struct mr_worker *worker;
    struct json_object *last; /* the last search's reply; NULL: there was none */
    bool overdue;             /* it hangs: nobody waits for it, and there is no other */
    struct mr_timer start;
};

static void go_on(struct mr_surveys *surveys)
{
    if (surveys->queue && (!surveys->worker || surveys->overdue))
        mr_timer_set(&surveys->start, 0);
}

void mr_survey_cancel(struct mr_survey *survey)
{
    if (!survey)
        return;
    for (struct mr_survey **at = &survey->surveys->queue; *at; at = &(*at)->next) {
        if (*at == survey) {
            *at = survey->next;
            break;
        }
    }
    free(survey);
}

static struct mr_survey *running(const struct mr_surveys *surveys)
{
    struct mr_survey *survey = surveys->queue;
    while (survey && !survey->running)
        survey = survey->next;
    return survey;
}

/* The end of those that run, each with the one call that says so. */
static void finish(struct mr_surveys *surveys, struct json_object *reply,
                   const struct mr_err *err)
{
    struct mr_survey *survey;

    if (!surveys->overdue) {
        mr_worker_end(surveys->worker);
        surveys->worker = NULL;
    }
    while ((survey = running(surveys))) {
        struct mr_survey was = *survey;
        mr_survey_cancel(survey);
        if (was.look_fn)
            was.look_fn(was.ctx, NULL, NULL, err);
        else
            was.search_fn(was.ctx, reply, err);
    }
    go_on(surveys);
}

/* --- look --- */

static struct json_object *target_of(const struct mr_volume *volume)
{
    struct json_object *target = json_object_new_object();

    mr_json_set_string(target, "volume", volume->id);
    mr_json_set(target, "identity", mr_identity_to_json(&volume->identity));
    mr_json_set(target, "mount", mr_mount_record_to_json(&volume->mount));
    return target;
}

/* The next volumes, as many as fit into a message. */
static struct json_object *next_targets(struct mr_survey *survey)
{
    struct json_object *targets = json_object_new_array();
    struct mr_volume *volume =
        mr_engine_next(survey->surveys->engine, survey->after[0] ? survey->after : NULL);
    size_t bytes = 0;

    for (; volume; volume = mr_engine_next(survey->surveys->engine, volume->id)) {
        if (volume->state != MR_STATE_ATTACHED || volume->op)
            continue;
        MR_AUTO_JSON struct json_object *target = target_of(volume);
        bytes += strlen(json_object_to_json_string_ext(target, JSON_C_TO_STRING_PLAIN));
        size_t count = json_object_array_length(targets);
        if (count > 0 && (bytes > BATCH_BYTES || count == BATCH_VOLUMES))
            return targets;
        (void)json_object_array_add(targets, mr_take_ptr(target));
        volume->asked = true;
        memcpy(survey->after, volume->id, sizeof(survey->after));
    }
    survey->asked_all = true;
    return targets;
}

static void send_look(struct mr_survey *survey)
{
    MR_AUTO_JSON struct json_object *targets = next_targets(survey);

    if (json_object_array_length(targets) == 0) {
        finish(survey->surveys, NULL, NULL);
        return;
    }
    struct json_object *command = json_object_new_object();
    mr_json_set_string(command, "cmd", "look");
    mr_json_set(command, "targets", mr_take_ptr(targets));
    mr_worker_command(survey->surveys->worker, command, mr_now_ns() + LOOK_DEADLINE_NS);
}

static void on_looked(struct mr_surveys *surveys, struct json_object *message)
{
    struct mr_survey *survey;

    for (size_t i = 0; i < mr_json_count(message, "volumes"); i++) {
        struct json_object *seen = mr_json_at(message, "volumes", i);
        const char *id = mr_json_get_string(seen, "volume");
        struct mr_volume *volume = id ? mr_engine_find(surveys->engine, id) : NULL;
        survey = running(surveys); /* may have been called off */
        if (volume && volume->asked && survey)
            survey->look_fn(survey->ctx, volume, seen, NULL);
    }
    survey = running(surveys);
    if (!survey || survey->asked_all)
        finish(surveys, NULL, NULL);
    else
        send_look(survey);
}

/* --- search --- */

static struct json_object *root_paths(const struct mr_roots *roots)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < roots->count; i++)
        (void)json_object_array_add(array, json_object_new_string(roots->path[i]));
    return array;
}

static void send_search(struct mr_surveys *surveys)
{
    const struct mr_engine *engine = surveys->engine;
    struct json_object *command = json_object_new_object();
    struct json_object *tokens = json_object_new_array();
    struct json_object *diskseqs = json_object_new_array();
    /* 42 bytes each; without the others the answer is filtered here. */
    size_t room = (MR_MSG_MAX - 32 * 1024) / 48;

    for (size_t i = 0; i < engine->volume_count && room > 0; i++) {
        const struct mr_volume *volume = engine->volumes[i];
        if (!mr_volume_has_residue(volume))
            continue;
        (void)json_object_array_add(tokens, json_object_new_string(volume->token));
        if (volume->identity.diskseq != 0)
            (void)json_object_array_add(
                diskseqs, json_object_new_int64((int64_t)volume->identity.diskseq));
        room--;
    }
    mr_json_set_string(command, "cmd", "search");
    mr_json_set_string(command, "runtime_dir", engine->config->runtime_dir);
    mr_json_set(command, "roots", root_paths(&engine->config->mount_roots));
    mr_json_set(command, "tokens", tokens);
    mr_json_set(command, "diskseqs", diskseqs);
    mr_json_set_int(command, "deadline_ms", SEARCH_DEADLINE_MS);
    mr_worker_command(surveys->worker, command, mr_now_ns() + SEARCH_ABANDON_NS);
}

static bool is_known(const struct mr_engine *engine, struct json_object *orphan)
{
    const char *token = mr_json_get_string(orphan, "token");
    int64_t diskseq = mr_json_get_int(mr_json_get(orphan, "identity"), "diskseq", 0);

    for (size_t i = 0; i < engine->volume_count; i++) {
        const struct mr_volume *volume = engine->volumes[i];
        if (mr_volume_has_residue(volume) &&
            ((token && strcmp(volume->token, token) == 0) ||
             (diskseq != 0 && volume->identity.diskseq == (uint64_t)diskseq)))
            return true;
    }
    return false;
}

/* A worker's word: a token becomes part of an id. */
static bool is_orphan(struct json_object *orphan)
{
    const char *token = mr_json_get_string(orphan, "token");
    return token && strlen(token) == MR_TOKEN_TEXT - 1 &&
           strspn(token, "0123456789abcdef") == MR_TOKEN_TEXT - 1;
}

static void on_searched(struct mr_surveys *surveys, struct json_object *message)
{
    struct json_object *orphans = json_object_new_array();

    for (size_t i = 0; i < mr_json_count(message, "orphans"); i++) {
        struct json_object *orphan = mr_json_at(message, "orphans", i);
        if (is_orphan(orphan) && !is_known(surveys->engine, orphan))
            (void)json_object_array_add(orphans, json_object_get(orphan));
    }
    mr_json_set(message, "orphans", orphans);
    (void)json_object_put(surveys->last);
    surveys->last = json_object_get(message);
    finish(surveys, message, NULL);
}

/* --- the worker --- */

static void on_reply(void *ctx, bool ok, struct json_object *message,
                     const struct mr_err *err)
{
    struct mr_surveys *surveys = ctx;
    const char *what = mr_json_get_string(message, "reply");

    surveys->overdue = false; /* after all; nobody waits for this answer any more */
    if (!ok)
        finish(surveys, NULL, err);
    else if (what && strcmp(what, "look") == 0)
        on_looked(surveys, message);
    else
        on_searched(surveys, message);
}

static void on_overdue(void *ctx)
{
    struct mr_surveys *surveys = ctx;
    struct mr_err err;
    char stack[256];

    surveys->overdue = true;
    (void)mr_fail(&err, MR_E_INTERNAL, ETIMEDOUT, "the survey does not answer: %s",
                  mr_worker_stack(surveys->worker, stack));
    finish(surveys, NULL, &err);
}

static void on_died(void *ctx, const struct mr_err *err)
{
    struct mr_surveys *surveys = ctx;

    surveys->worker = NULL; /* freed by its table */
    surveys->overdue = false;
    finish(surveys, NULL, err);
}

static const struct mr_worker_events events = {
    .reply = on_reply,
    .overdue = on_overdue,
    .died = on_died,
};

/* A look for itself, or all searches. */
static void choose(struct mr_surveys *surveys)
{
    struct mr_survey *first = surveys->queue;

    first->running = true;
    for (struct mr_survey *s = first->next; s && first->search_fn; s = s->next)
        s->running = s->search_fn != NULL;
}

static void on_start(void *ctx)
{
    struct mr_surveys *surveys = ctx;
    struct mr_err err;

    if (!surveys->queue || (surveys->worker && !surveys->overdue))
        return;
    choose(surveys);
    if (surveys->overdue) {
        (void)mr_fail(&err, MR_E_INTERNAL, EBUSY, "an earlier survey still hangs");
        finish(surveys, NULL, &err);
        return;
    }
    int rc = mr_worker_start(surveys->engine->workers, "survey", NULL,
                             mr_now_ns() + LOOK_DEADLINE_NS, &events, surveys,
                             &surveys->worker, &err);
    if (rc < 0) {
        surveys->worker = NULL;
        finish(surveys, NULL, &err);
    } else if (surveys->queue->look_fn) {
        send_look(surveys->queue);
    } else {
        send_search(surveys);
    }
}

/* --- asking --- */

struct mr_surveys *mr_surveys_new(struct mr_engine *engine)
{
    struct mr_surveys *surveys = calloc(1, sizeof(*surveys));

    if (!surveys)
        return NULL;
    surveys->engine = engine;
    mr_timer_init(&surveys->start, engine->loop, on_start, surveys);
    return surveys;
}

void mr_surveys_free(struct mr_surveys *surveys)
{
    if (!surveys)
        return;
    mr_timer_cancel(&surveys->start);
    mr_worker_end(surveys->worker);
    while (surveys->queue)
        mr_survey_cancel(surveys->queue);
    (void)json_object_put(surveys->last);
    free(surveys);
}

struct json_object *mr_surveys_last(const struct mr_surveys *surveys)
{
    struct json_object *last = surveys->last;

    /* What was adopted or is gone since needs no other search to be left out. */
    for (size_t i = mr_json_count(last, "orphans"); i > 0; i--)
        if (is_known(surveys->engine, mr_json_at(last, "orphans", i - 1)))
            (void)json_object_array_del_idx(mr_json_get(last, "orphans"), i - 1, 1);
    return last;
}

static struct mr_survey *survey_new(struct mr_engine *engine, void *ctx)
{
    struct mr_survey *survey = calloc(1, sizeof(*survey));
    struct mr_survey **at = &engine->surveys->queue;

    if (!survey)
        return NULL;
    survey->surveys = engine->surveys;
    survey->ctx = ctx;
    while (*at)
        at = &(*at)->next;
    *at = survey;
    go_on(engine->surveys);
    return survey;
}

struct mr_survey *mr_survey_look(struct mr_engine *engine, mr_look_fn fn, void *ctx)
{
    struct mr_survey *survey = survey_new(engine, ctx);

    if (survey)
        survey->look_fn = fn;
    return survey;
}

struct mr_survey *mr_survey_search(struct mr_engine *engine, mr_search_fn fn, void *ctx)
{
    struct mr_survey *survey = survey_new(engine, ctx);

    if (survey)
        survey->search_fn = fn;
    return survey;
}
