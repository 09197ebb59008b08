/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/selftest/round.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/selftest/child.h"
#include "storage/base/clock.h"
#include "storage/base/json.h"

#define ASK_LIMIT_NS (3 * MR_NS_PER_S)
#define ASK_AGAIN_MS 100

/* What one round has to do with. */
struct scene {
    struct mr_round *round;
    struct mr_child child;
    int64_t until_ns;
    const char *early; /* what happened that must not happen while it is held */
};

static void conclude(struct mr_round *round, enum mr_verdict verdict, const char *why)
{
    round->verdict = verdict;
    (void)snprintf(round->why, sizeof(round->why), "%.*s", (int)sizeof(round->why) - 1,
                   why);
}

/* rc of something that must work: -EINTR is no verdict. */
static void give_up(struct mr_round *round, const struct mr_err *err)
{
    if (round->trial->rig->signal)
        return;
    conclude(round, MR_VERDICT_FAILED, err->message);
}

/* --- the holder --- */

/* Returns false when the round is over. */
static bool build_holder(struct scene *scene)
{
    struct mr_round *round = scene->round;
    struct mr_rig *rig = round->trial->rig;
    struct mr_err err;
    char dir[PATH_MAX];

    if (mr_hold_make_dir(rig->dir, round->kind->name, dir, &err) < 0) {
        give_up(round, &err);
        return false;
    }
    const struct mr_hold_site site = {.mount_path = round->trial->mount_path,
                                      .node = round->trial->device.node,
                                      .dir = dir};
    if (mr_child_start(&scene->child, rig->program, round->kind, &site, &err) < 0) {
        give_up(round, &err);
        return false;
    }
    int rc = mr_rig_wait(rig, mr_child_has_spoken, &scene->child, MR_STEP_LIMIT_MS);
    if (rc == 0 && mr_child_holds(&scene->child))
        return true;
    if (rc == 0 && mr_child_cannot(&scene->child))
        conclude(round, MR_VERDICT_SKIPPED, mr_child_cannot(&scene->child));
    else if (rc == 0)
        conclude(round, MR_VERDICT_FAILED, "the holder ended before it held");
    else if (rc != -EINTR)
        conclude(round, MR_VERDICT_FAILED, "the holder is not ready after 10 s");
    return false;
}

/* --- while it is held --- */

/* The kernel has ended it. The name may be that of somebody else's device by now. */
static bool has_passed(const struct mr_device *device)
{
    struct mr_device now;

    if (mr_device_look(device->node, &now) == 0 &&
        strcmp(now.backing, device->backing) != 0)
        return true;
    return !mr_device_alive(device);
}

/* Looks at the kernel, then at the engine: neither may have let go. */
static bool hold_is_over(void *ctx)
{
    struct scene *scene = ctx;
    struct mr_round *round = scene->round;
    const struct mr_trial *trial = round->trial;
    bool passing = round->kind->effect == MR_HOLD_PASSING;
    /* In this order: it may pass in between. */
    bool mapped = mr_device_mapped(&trial->device);

    if (passing && has_passed(&trial->device))
        return true;
    if (mr_child_has_ended(&scene->child)) {
        scene->early = "the holder ended by itself";
    } else if (!mapped) {
        scene->early = "the device was unmapped while it was held";
        round->broken = true;
    } else if (trial->ended && trial->failed) {
        scene->early = trial->error.message;
    } else if (trial->ended && !passing) {
        scene->early = "it was said to be released while it was held";
        round->broken = true;
    }
    return scene->early || mr_now_ns() >= scene->until_ns;
}

/* Is it of a kind that names this holder? */
static bool is_kind_of(const struct mr_hold_kind *kind, const char *name)
{
    for (size_t i = 0; i < sizeof(kind->names) / sizeof(kind->names[0]); i++)
        if (name && kind->names[i] && strcmp(kind->names[i], name) == 0)
            return true;
    return false;
}

/* By a row that is certain, or shows our own process: one that says of a stranger that
 * it might be him names nobody. */
static void name_by(struct mr_round *round, struct json_object *row, pid_t holder)
{
    const char *kind = mr_json_get_string(row, "kind");
    int64_t pid = mr_json_get_int(row, "pid", 0);
    bool certain = mr_json_get_bool(row, "certain", false);
    bool ours = pid == holder;

    if (!is_kind_of(round->kind, kind) || (!ours && (!certain || round->named[0])))
        return;
    if (pid > 0)
        (void)snprintf(round->named, sizeof(round->named), "%.32s, pid %d%s", kind,
                       (int)pid, certain ? "" : "?");
    else
        (void)snprintf(round->named, sizeof(round->named), "%.32s", kind);
}

static void name_holder(struct mr_round *round, struct json_object *rows, pid_t holder)
{
    size_t count =
        json_object_is_type(rows, json_type_array) ? json_object_array_length(rows) : 0;

    for (size_t i = 0; i < count; i++)
        name_by(round, json_object_array_get_idx(rows, i), holder);
}

/* Holds, and looks, for a while. Returns 0, or a negative errno when the round is over.
 */
static int keep_holding(struct scene *scene, int64_t ms)
{
    struct mr_round *round = scene->round;

    scene->until_ns = mr_now_ns() + ms * MR_NS_PER_MS;
    int rc = mr_rig_wait(round->trial->rig, hold_is_over, scene, MR_STEP_LIMIT_MS);
    if (!scene->early)
        return rc;
    conclude(round, MR_VERDICT_FAILED, scene->early);
    return -EBUSY;
}

/* Asks who holds it until that is known. Some take the engine a second look. */
static int ask_for_name(struct scene *scene)
{
    struct mr_round *round = scene->round;
    struct mr_trial *trial = round->trial;
    int64_t enough_ns = mr_now_ns() + ASK_LIMIT_NS;
    int rc = 0;

    while (rc == 0 && !round->named[0] && !trial->ended && mr_now_ns() < enough_ns) {
        MR_AUTO_JSON struct json_object *rows = NULL;
        struct mr_err err;
        rc = mr_trial_ask(trial, &rows, &err);
        if (rc < 0 && !trial->ended) {
            give_up(round, &err);
            return rc;
        }
        name_holder(round, rows, scene->child.pid);
        rc = keep_holding(scene, round->named[0] ? 0 : ASK_AGAIN_MS);
    }
    return rc;
}

static int watch_hold(struct scene *scene)
{
    struct mr_round *round = scene->round;

    int rc = keep_holding(scene, round->hold_ms);
    if (rc < 0 || round->trial->ended)
        return rc;
    round->step = mr_trial_step(round->trial);
    return ask_for_name(scene);
}

/* --- the round --- */

static void detach_held(struct scene *scene)
{
    struct mr_round *round = scene->round;
    struct mr_trial *trial = round->trial;
    bool holds = round->kind && round->kind->effect != MR_HOLD_NOTHING;
    struct mr_err err;

    int64_t from_ns = mr_now_ns();
    if (mr_trial_begin_detach(trial, &err) < 0) {
        give_up(round, &err);
        return;
    }
    if (holds) {
        if (watch_hold(scene) < 0)
            return;
        from_ns = mr_now_ns();
        mr_child_let_go(&scene->child);
    }
    if (mr_trial_await_end(trial, &err) < 0) {
        give_up(round, &err);
        return;
    }
    round->noticed_ms = (trial->ended_ns - from_ns) / MR_NS_PER_MS;
    if (round->noticed_ms < 0)
        round->noticed_ms = 0; /* it passed before we let go */
    if (mr_device_mapped(&trial->device))
        conclude(round, MR_VERDICT_FAILED, "said to be released, but still mapped");
    else
        conclude(round, MR_VERDICT_PASSED, "");
}

/* Whatever happened: the holder ends, and the volume is detached. */
static void tidy(struct scene *scene)
{
    struct mr_round *round = scene->round;
    struct mr_trial *trial = round->trial;
    struct mr_err err;

    trial->rig->patient = true;
    if (round->kind) {
        mr_child_let_go(&scene->child);
        (void)mr_rig_wait(trial->rig, mr_child_has_ended, &scene->child,
                          MR_STEP_LIMIT_MS);
        mr_child_done(&scene->child);
    }
    if (!mr_trial_is_gone(trial) && mr_trial_begin_detach(trial, &err) == 0)
        (void)mr_trial_await_end(trial, &err);
    mr_trial_done(trial);
    trial->rig->patient = false;
}

void mr_round_run(struct mr_round *round)
{
    struct scene scene = {.round = round, .child = {.stdin_fd = -1, .stdout_fd = -1}};
    struct mr_err err;

    round->step = "";
    if (mr_trial_attach(round->trial, &err) < 0)
        give_up(round, &err);
    else if (!round->kind || build_holder(&scene))
        detach_held(&scene);
    tidy(&scene);
}
