/* SPDX-License-Identifier: Apache-2.0
 *
 * What the journal calls attached, compared with the kernel: looks, and changes nothing
 * but what is said. At the start (recovery.c) and on demand.
 */
#include <errno.h>
#include <string.h>

#include "storage/base/json.h"
#include "storage/engine_internal.h"

/* In words, what is wrong with an attachment that the journal calls attached. */
static enum mr_reconciled compare(const struct mr_volume *volume,
                                  struct json_object *seen, struct mr_err *err)
{
    const struct mr_identity *identity = &volume->identity;
    const char *mounted = mr_json_get_string(seen, "mounted");

    if (!mr_json_get(seen, "found")) {
        (void)mr_fail(err, MR_E_DEVICE_ERROR, 0,
                      "cannot tell whether device %s is still this attachment's",
                      identity->node);
        return MR_RECONCILED_UNKNOWN;
    }
    if (!mr_json_get_bool(seen, "found", false)) {
        (void)mr_fail(err, MR_E_DEVICE_MISMATCH, 0,
                      "device %s with diskseq %llu of this attachment is gone",
                      identity->node, (unsigned long long)identity->diskseq);
        return MR_RECONCILED_DIFFERS;
    }
    if (!mounted || strcmp(mounted, "unknown") == 0) {
        (void)mr_fail(err, MR_E_DEVICE_ERROR, 0,
                      "cannot tell whether '%s' is still mounted",
                      volume->spec->mount_path);
        return MR_RECONCILED_UNKNOWN;
    }
    if (strcmp(mounted, "present") != 0) {
        (void)mr_fail(err, MR_E_DEVICE_ERROR, 0, "'%s' was unmounted by somebody else",
                      volume->spec->mount_path);
        return MR_RECONCILED_DIFFERS;
    }
    return MR_RECONCILED_SAME;
}

void mr_reconcile_not_compared(struct mr_volume *volume, const struct mr_err *why)
{
    struct mr_err err = *why;

    (void)mr_err_context(&err, 0, "not compared with the kernel");
    (void)mr_err_remedy(&err, 0, "PUT the same spec, or POST /reconcile");
    mr_volume_set_error(volume, &err);
    mr_server_watch(volume);
}

enum mr_reconciled mr_reconcile_looked(struct mr_volume *volume, struct json_object *seen)
{
    struct mr_err err;
    enum mr_reconciled result = compare(volume, seen, &err);

    if (result == MR_RECONCILED_UNKNOWN) { /* it is served on, and nothing is claimed */
        mr_reconcile_not_compared(volume, &err);
        return result;
    }
    if (result == MR_RECONCILED_SAME) {
        mr_server_watch(volume); /* says by itself when its server has ended */
        if (volume->state != MR_STATE_ATTACHED)
            return MR_RECONCILED_DIFFERS;
        if (volume->has_error) /* it could not be compared before */
            mr_volume_set_error(volume, NULL);
        return result;
    }
    err.residue = MR_RESIDUE_POSSIBLE;
    (void)mr_err_remedy(&err, 0, "PUT the same spec to attach it again, or DELETE it");
    mr_volume_set_error(volume, &err);
    mr_volume_set_state(volume, MR_STATE_FAILED);
    mr_volume_record(volume, "not_as_recorded", NULL, NULL, NULL);
    mr_server_watch(volume); /* what it says is shown all the same */
    return result;
}

bool mr_reconcile_at_rest(const struct mr_volume *volume)
{
    return volume->state == MR_STATE_ATTACHED && !volume->op;
}

/* --- POST /reconcile --- */

/* The document, as far as it is made, is pending->document. */
static void on_search(void *ctx, struct json_object *reply, const struct mr_err *err)
{
    struct mr_pending *pending = ctx;
    char text[MR_TIME_TEXT];
    bool complete = !err && mr_json_get_bool(reply, "complete", false);
    MR_AUTO_JSON struct json_object *document = mr_take_ptr(pending->document);

    pending->survey = NULL;
    mr_json_set_string(document, "ended_at", mr_time_text(mr_wall_ms(), text));
    if (complete)
        mr_json_set_int(document, "orphans", (int64_t)mr_json_count(reply, "orphans"));
    mr_pending_answer(pending, document, NULL);
}

static void count(struct json_object *document, const char *key)
{
    mr_json_set_int(document, key, mr_json_get_int(document, key, 0) + 1);
}

static void on_look(void *ctx, struct mr_volume *volume, struct json_object *seen,
                    const struct mr_err *err)
{
    struct mr_pending *pending = ctx;
    struct json_object *document = pending->document;

    if (volume && mr_reconcile_at_rest(volume)) {
        static const char *const lists[] = {
            [MR_RECONCILED_UNKNOWN] = "not_looked",
            [MR_RECONCILED_DIFFERS] = "differs",
        };
        enum mr_reconciled result = mr_reconcile_looked(volume, seen);
        if (result != MR_RECONCILED_UNKNOWN)
            count(document, "looked");
        if (result == MR_RECONCILED_SAME)
            count(document, "as_recorded");
        else
            (void)json_object_array_add(mr_json_get(document, lists[result]),
                                        json_object_new_string(volume->id));
    }
    if (volume)
        return;
    pending->survey = err ? NULL : mr_survey_search(pending->engine, on_search, pending);
    if (!pending->survey) {
        struct mr_err none;
        (void)mr_fail(&none, MR_E_INTERNAL, ENOMEM, "search for orphans");
        mr_pending_answer(pending, NULL, err ? err : &none);
    }
}

static struct json_object *new_report(struct mr_engine *engine)
{
    struct json_object *document = json_object_new_object();
    struct json_object *busy = json_object_new_array();
    char text[MR_TIME_TEXT];

    for (size_t i = 0; i < engine->volume_count; i++)
        if (engine->volumes[i]->state != MR_STATE_ABSENT &&
            !mr_reconcile_at_rest(engine->volumes[i]))
            (void)json_object_array_add(busy,
                                        json_object_new_string(engine->volumes[i]->id));
    mr_json_set_string(document, "started_at", mr_time_text(mr_wall_ms(), text));
    mr_json_set(document, "ended_at", NULL);
    mr_json_set_int(document, "looked", 0);
    mr_json_set_int(document, "as_recorded", 0);
    mr_json_set(document, "differs", json_object_new_array());
    mr_json_set(document, "not_looked", busy);
    mr_json_set(document, "orphans", NULL);
    return document;
}

struct mr_pending *mr_engine_reconcile(struct mr_engine *engine, mr_answer_fn fn,
                                       void *ctx, struct mr_err *err)
{
    if (mr_engine_recovering(engine)) {
        (void)mr_refuse_recovering(err);
        return NULL;
    }
    struct mr_pending *pending = mr_pending_new(engine, NULL, fn, ctx);
    if (pending) {
        pending->document = new_report(engine);
        pending->survey = mr_survey_look(engine, on_look, pending);
    }
    if (!pending || !pending->survey) {
        mr_pending_cancel(pending);
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "compare with the kernel");
        return NULL;
    }
    return pending;
}
