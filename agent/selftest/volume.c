/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/selftest/volume.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"

#define MIB (1LL << 20)

static void on_ended(void *ctx, struct mr_operation *op)
{
    struct mr_trial *trial = ctx;

    trial->watch = NULL;
    trial->ended = true;
    trial->ended_ns = mr_now_ns();
    trial->failed = !op || mr_operation_ended(op) < 0;
    if (op && trial->failed)
        trial->error = *mr_operation_error(op);
    else if (trial->failed)
        (void)mr_fail(&trial->error, MR_E_SHUTTING_DOWN, 0, "the engine ends");
}

static bool has_ended(void *ctx)
{
    const struct mr_trial *trial = ctx;
    return trial->ended;
}

static int watch(struct mr_trial *trial, struct mr_operation *op, struct mr_err *err)
{
    mr_trial_done(trial);
    trial->ended = false;
    trial->failed = false;
    trial->watch = mr_operation_watch(op, on_ended, trial);
    return trial->watch ? 0 : mr_fail(err, MR_E_INTERNAL, ENOMEM, "watch an operation");
}

void mr_trial_done(struct mr_trial *trial)
{
    if (trial->watch)
        mr_watch_cancel(trial->watch);
    trial->watch = NULL;
}

int mr_trial_await_end(struct mr_trial *trial, struct mr_err *err)
{
    int rc = mr_rig_wait(trial->rig, has_ended, trial, MR_STEP_LIMIT_MS);
    if (rc < 0)
        return mr_fail(err, MR_E_INTERNAL, 0, "it did not end within %d s",
                       MR_STEP_LIMIT_MS / 1000);
    if (trial->failed)
        *err = trial->error;
    return trial->failed ? -EIO : 0;
}

int mr_trial_init(struct mr_trial *trial, struct mr_rig *rig, const char *fs_type,
                  unsigned number, struct mr_err *err)
{
    /* The least that mkfs.xfs takes is 300 MiB. */
    int64_t bytes = strcmp(fs_type, "xfs") == 0 ? 320 * MIB : 64 * MIB;

    *trial = (struct mr_trial){.rig = rig, .fs_type = fs_type};
    (void)snprintf(trial->id, sizeof(trial->id), "%s-%u", fs_type, number);
    if (mr_format(trial->mount_path, sizeof(trial->mount_path), "%s/%s", rig->mount_root,
                  trial->id) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "name the mount path");
    return mr_rig_new_image(rig, trial->id, bytes, trial->image, err);
}

static struct mr_spec *new_spec(const struct mr_trial *trial, struct mr_err *err)
{
    struct json_object *source = json_object_new_object();
    struct json_object *filesystem = json_object_new_object();
    MR_AUTO_JSON struct json_object *json = json_object_new_object();
    struct mr_spec *spec = NULL;

    mr_json_set_string(source, "driver", "file");
    mr_json_set_string(source, "path", trial->image);
    mr_json_set_string(filesystem, "type", trial->fs_type);
    mr_json_set_string(filesystem, "format", "if-blank");
    mr_json_set(json, "source", source);
    mr_json_set(json, "filesystem", filesystem);
    mr_json_set_string(json, "mount_path", trial->mount_path);
    (void)mr_spec_decode(json, trial->id, NULL, &spec, err);
    return spec;
}

/* The engine's word for it, checked: the device of the document carries our image. */
static int check_attached(struct mr_trial *trial, struct mr_err *err)
{
    struct mr_volume *volume = mr_engine_find(trial->rig->engine, trial->id);
    MR_AUTO_JSON struct json_object *document =
        volume ? mr_volume_document(volume) : NULL;
    const char *node = mr_json_get_string(document, "device");

    if (!node)
        return mr_fail(err, MR_E_INTERNAL, 0, "attached, but without a device");
    if (mr_device_look(node, &trial->device) < 0 ||
        strcmp(trial->device.backing, trial->image) != 0)
        return mr_fail(err, MR_E_INTERNAL, 0, "attached, but '%s' is not on '%s'", node,
                       trial->image);
    if (!mr_device_alive(&trial->device))
        return mr_fail(err, MR_E_INTERNAL, 0, "attached, but '%s' is not mounted", node);
    return 0;
}

int mr_trial_attach(struct mr_trial *trial, struct mr_err *err)
{
    struct mr_operation *op = NULL;

    struct mr_spec *spec = new_spec(trial, err);
    if (!spec)
        return -EINVAL;
    int rc = mr_engine_attach(trial->rig->engine, trial->id, spec, &op, err);
    if (rc == 0)
        rc = watch(trial, op, err);
    if (rc == 0)
        rc = mr_trial_await_end(trial, err);
    return rc < 0 ? rc : check_attached(trial, err);
}

int mr_trial_begin_detach(struct mr_trial *trial, struct mr_err *err)
{
    struct mr_operation *op = NULL;
    MR_AUTO_JSON struct json_object *proof = NULL;

    int rc =
        mr_engine_detach(trial->rig->engine, trial->id, NULL, false, &op, &proof, err);
    if (rc < 0)
        return rc;
    return op ? watch(trial, op, err)
              : mr_fail(err, MR_E_INTERNAL, 0, "the volume is gone already");
}

bool mr_trial_is_gone(struct mr_trial *trial)
{
    return mr_engine_find(trial->rig->engine, trial->id) == NULL;
}

const char *mr_trial_step(struct mr_trial *trial)
{
    static const char *const steps[] = {"unmount", "drain", "claim", "unmap"};
    struct mr_volume *volume = mr_engine_find(trial->rig->engine, trial->id);
    MR_AUTO_JSON struct json_object *document =
        volume ? mr_volume_document(volume) : NULL;
    const char *step = mr_json_get_string(document, "step");

    for (size_t i = 0; step && i < sizeof(steps) / sizeof(steps[0]); i++)
        if (strcmp(steps[i], step) == 0)
            return steps[i];
    return "";
}

/* --- who holds it --- */

struct question {
    struct mr_pending *pending;
    struct json_object *rows;
    bool answered;
    struct mr_err error;
};

static void on_answer(void *ctx, struct json_object *document, const struct mr_err *err)
{
    struct question *question = ctx;

    question->pending = NULL;
    question->answered = true;
    question->rows = json_object_get(mr_json_get(document, "holders"));
    if (!document && err)
        question->error = *err;
}

static bool is_answered(void *ctx)
{
    const struct question *question = ctx;
    return question->answered;
}

int mr_trial_ask(struct mr_trial *trial, struct json_object **ret, struct mr_err *err)
{
    struct mr_volume *volume = mr_engine_find(trial->rig->engine, trial->id);
    struct question question = {.pending = NULL};

    if (volume)
        question.pending =
            mr_engine_holders(trial->rig->engine, volume, on_answer, &question);
    if (!question.pending)
        return mr_fail(err, MR_E_INTERNAL, ENOENT, "ask who holds the volume");
    int rc = mr_rig_wait(trial->rig, is_answered, &question, MR_STEP_LIMIT_MS);
    mr_pending_cancel(question.pending);
    if (rc < 0)
        return mr_fail(err, MR_E_INTERNAL, 0, "no answer to who holds it within %d s",
                       MR_STEP_LIMIT_MS / 1000);
    if (!question.rows) {
        *err = question.error;
        return -EIO;
    }
    *ret = question.rows;
    return 0;
}
