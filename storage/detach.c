/* SPDX-License-Identifier: Apache-2.0
 *
 * The steps of a detach, and of the undo of an attach: umount, wait until the device is
 * provably unheld, claim, unmap. No timer here turns "held" into success; timers only
 * look again.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/json.h"
#include "storage/engine_internal.h"

#define MR_BUSY_MIN_NS                                                                   \
    (5 * MR_NS_PER_MS) /* umount said EBUSY: no event tells its end                      \
                        */
#define MR_BUSY_MAX_NS (250 * MR_NS_PER_MS)
#define MR_DRAIN_MIN_NS                                                                  \
    (250 * MR_NS_PER_MS) /* behind IN_UNMOUNT, should the event be lost */
#define MR_DRAIN_MAX_NS (5 * MR_NS_PER_S)
#define MR_UNARMED_MAX_NS (1 * MR_NS_PER_S) /* after a restart there is no watch */
#define MR_GATE_MIN_NS (50 * MR_NS_PER_MS)  /* no event tells of a close() */
#define MR_GATE_MAX_NS (1 * MR_NS_PER_S)
#define MR_GONE_MIN_NS (50 * MR_NS_PER_MS) /* behind the uevent */
#define MR_SETTLE_MS 2000 /* IN_UNMOUNT seen: the super block goes in milliseconds */

static int64_t next_backoff(struct mr_operation *op, int64_t min_ns, int64_t max_ns)
{
    op->backoff_ns = op->backoff_ns ? 2 * op->backoff_ns : min_ns;
    if (op->backoff_ns > max_ns)
        op->backoff_ns = max_ns;
    return op->backoff_ns;
}

/* It is held: say so, look for who it is, and look again later. */
static void wait_held(struct mr_operation *op, int64_t min_ns, int64_t max_ns)
{
    if (!op->known_held) {
        op->known_held = true;
        mr_volume_touch(op->volume);
        mr_holders_watch(op);
    }
    mr_operation_retry_in(op, next_backoff(op, min_ns, max_ns));
}

static void not_held(struct mr_operation *op)
{
    op->known_held = false;
    mr_holders_unwatch(op);
    mr_volume_touch(op->volume);
}

static void note_release(struct mr_operation *op)
{
    op->released_at_ms = mr_wall_ms();
    op->released_ns = mr_now_ns();
}

/* Nobody has it any more. */
static void released(struct mr_operation *op)
{
    mr_holders_released(op);
    not_held(op);
}

/* --- inspect --- */

static void inspected(struct mr_operation *op, struct json_object *message)
{
    struct mr_volume *volume = op->volume;
    struct mr_identity found;
    struct json_object *adopted = mr_json_get(message, "mount");
    const char *mounted = mr_json_get_string(message, "mounted");
    struct mr_err err;

    mr_identity_from_json(&found, mr_json_get(message, "identity"));
    op->mapped = mr_json_get_bool(message, "found", false);
    op->mounted = !mounted || strcmp(mounted, "absent") != 0;
    if (adopted)
        mr_mount_record_from_json(&volume->mount, adopted);
    if (volume->mount.mount.id == 0)
        op->mounted = false;
    if (op->mapped && volume->identity.diskseq == 0) {
        volume->identity = found; /* the attach was cut off before it could record it */
    } else if (op->mapped && volume->identity.diskseq != found.diskseq) {
        (void)mr_fail(
            &err, MR_E_DEVICE_MISMATCH, 0,
            "the device with this attachment's token is %s diskseq %llu, recorded was %s "
            "diskseq %llu",
            found.node, (unsigned long long)found.diskseq, volume->identity.node,
            (unsigned long long)volume->identity.diskseq);
        (void)mr_err_remedy(&err, 0, "nothing was touched; find out who mapped it again");
        mr_operation_fail(op, &err);
        return;
    }
    if (op->mapped)
        mr_server_watch(volume);
    mr_operation_advance(op);
}

/* --- unmount --- */

static void begin_unmount(struct mr_operation *op)
{
    struct mr_volume *volume = op->volume;

    if (!op->mounted) {
        mr_operation_advance(op);
        return;
    }
    struct json_object *command = mr_operation_new_command(op, "unmount");
    mr_json_set(command, "mount", mr_mount_record_to_json(&volume->mount));
    op->accept_asked = op->accept_data_loss;
    mr_json_set_bool(command, "accept_data_loss", op->accept_data_loss || op->undoing);
    mr_json_set_bool(command, "sync", !op->undoing);
    mr_json_set_string(command, "operation", op->id);
    mr_json_set_bool(command, "arm", op->wd < 0);
    mr_operation_command(op, command, 0);
}

static void unmounted(struct mr_operation *op, struct json_object *message)
{
    struct mr_volume *volume = op->volume;
    const char *result = mr_json_get_string(message, "result");

    if (!result || strcmp(result, "busy") == 0) {
        wait_held(op, MR_BUSY_MIN_NS, MR_BUSY_MAX_NS);
        return;
    }
    op->mounted = false;
    if (strcmp(result, "unmounted") == 0) {
        volume->unmounted_at_ms = mr_wall_ms();
        volume->unmounted_ns = mr_now_ns();
    }
    not_held(op);
    mr_operation_record(op, "unmounted", NULL, NULL);
    mr_operation_advance(op);
}

static void unmount_failed(struct mr_operation *op, const struct mr_err *cause)
{
    struct mr_err copy = *cause;
    const struct mr_err *err = &copy;

    /* The kernel tells a lost write once: from here on only the journal knows. */
    if (err->code == MR_E_DATA_NOT_WRITTEN)
        op->volume->data_not_written = true;
    if (err->code == MR_E_DATA_NOT_WRITTEN && mr_server_is_dead(op->volume) &&
        !op->volume->forgotten)
        (void)mr_err_remedy(&copy, 0,
                            "its device gives errors only: DELETE it with "
                            "accept_data_loss=true, then PUT it again");
    if (err->code == MR_E_DATA_NOT_WRITTEN && op->accept_data_loss && !op->accept_asked)
        mr_operation_retry_in(op, 0); /* accepted while the worker was at it */
    else
        mr_operation_fail(op, err);
}

void mr_detach_armed(struct mr_operation *op, int wd)
{
    op->wd = wd;
    if (wd >= 0 && mr_checker_fired_early(op->engine->checker, wd))
        mr_detach_unmounted(op);
}

/* --- drain, claim --- */

static void begin_drain(struct mr_operation *op)
{
    if (op->gate)
        return; /* claimed already */
    if (!op->mapped) {
        mr_operation_advance(op);
        return;
    }
    struct json_object *command = mr_operation_new_command(op, "claim");
    mr_json_set_int(command, "budget_ms", op->settle ? MR_SETTLE_MS : 0);
    op->settle_asked = op->settle;
    op->settle = false;
    mr_operation_command(op, command, 0);
}

/* With the claim in hand nobody new can mount it; but who has it open, or a loop device
 * on it, is not in the way of the claim and would lose it. Only a complete look that
 * finds nobody lets an unmap that asks nobody go ahead. */
static void on_gate(void *ctx, struct json_object *rows, bool complete,
                    const struct mr_err *err)
{
    struct mr_operation *op = ctx;

    (void)err; /* no rows: not known to be free */
    op->gate = NULL;
    if (rows && complete && json_object_array_length(rows) == 0) {
        (void)json_object_put(op->evidence);
        op->evidence = json_object_new_object();
        mr_json_set_int(op->evidence, "openers", 0);
        mr_json_set_int(op->evidence, "stacked_loops", 0);
        op->gated = true;
        note_release(op);
        released(op);
        mr_operation_advance(op);
        return;
    }
    wait_held(op, MR_GATE_MIN_NS, MR_GATE_MAX_NS);
    if (rows)
        mr_holders_update(op->volume, rows, complete, true);
}

static void begin_gate(struct mr_operation *op)
{
    struct json_object *target = mr_holders_target(op->volume);

    mr_json_set_bool(target, "held", false); /* candidates hold nothing for sure */
    op->gate = mr_scanner_request(op->engine->scanner, target, on_gate, op);
    if (!op->gate)
        wait_held(op, MR_GATE_MIN_NS, MR_GATE_MAX_NS);
}

static void claim_answered(struct mr_operation *op, struct json_object *message)
{
    const char *result = mr_json_get_string(message, "result");
    const char *unmap = mr_json_get_string(message, "unmap");
    bool gone = result && strcmp(result, "gone") == 0;
    bool claimed = result && strcmp(result, "claimed") == 0;

    if (claimed && (!unmap || strcmp(unmap, "deferred") != 0)) {
        begin_gate(op);
        return;
    }
    if (claimed || gone) {
        op->released_at_ms = 0;
        if (claimed)
            note_release(op);
        released(op);
        mr_operation_advance(op);
        return;
    }
    if (op->settle) { /* IN_UNMOUNT came while the claim was tried */
        begin_drain(op);
        return;
    }
    if (op->settle_asked)
        op->backoff_ns = 0; /* the file system is gone, another claimer is there */
    wait_held(op, MR_DRAIN_MIN_NS, op->wd >= 0 ? MR_DRAIN_MAX_NS : MR_UNARMED_MAX_NS);
}

void mr_detach_unmounted(struct mr_operation *op)
{
    op->wd = -1; /* the kernel removed it */
    op->dying = true;
    op->settle = true;
    if (op->step == MR_STEP_DRAIN && op->worker && op->ready && !op->busy && !op->gate &&
        !op->unmap_asked) {
        mr_operation_retry_in(op, 0);
    }
}

/* --- unmap --- */

/* The border of no return. */
static void begin_claim(struct mr_operation *op)
{
    if (op->mapped)
        mr_operation_record(op, "unmapping", NULL, mr_operation_advance);
    else
        mr_operation_advance(op);
}

void mr_detach_write_again(struct mr_operation *op)
{
    if (!op->gated) {
        begin_claim(op);
        return;
    }
    /* Who has come meanwhile is not in the way of the claim: back to the look. */
    op->gated = false;
    op->step = MR_STEP_DRAIN;
    op->next_step--;
    begin_gate(op);
}

static void begin_unmap(struct mr_operation *op)
{
    /* The device is gone, or never was, but its helper may be on its way out still. */
    if (!op->mapped)
        op->unmap_asked = true;
    op->unmapping = true;
    struct json_object *command =
        mr_operation_new_command(op, op->unmap_asked ? "gone" : "unmap");
    if (op->volume->mount.created > 0)
        mr_json_set(command, "mount", mr_mount_record_to_json(&op->volume->mount));
    mr_operation_command(op, command, 0);
}

static void unmap_answered(struct mr_operation *op, struct json_object *message)
{
    const char *result = mr_json_get_string(message, "result");

    mr_proof_add_evidence(op, mr_json_get(message, "evidence"));
    if (result && strcmp(result, "gone") == 0) {
        if (op->unmap_asked && op->released_at_ms)
            note_release(op);
        released(op);
        mr_operation_advance(op);
        return;
    }
    /* Asked, but the kernel keeps it for a user that the exclusive open cannot see. */
    if (!op->unmap_asked)
        op->backoff_ns = 0;
    op->unmap_asked = true;
    op->step = MR_STEP_DRAIN;
    wait_held(op, MR_GONE_MIN_NS, MR_DRAIN_MAX_NS);
}

bool mr_detach_must_answer(const struct mr_operation *op)
{
    return !op->ready || !op->durable || (op->step == MR_STEP_CLAIM && !op->unwritten) ||
           op->step == MR_STEP_UNMAP || (op->step == MR_STEP_UNMOUNT && op->busy);
}

void mr_detach_look_again(struct mr_operation *op)
{
    bool waiting = op->worker && op->ready && !op->busy && op->retry.heap_index != 0;
    if (waiting && (op->step == MR_STEP_UNMOUNT || op->step == MR_STEP_DRAIN))
        mr_operation_retry_in(op, 0);
}

/* --- the end --- */

void mr_detach_finish(struct mr_operation *op)
{
    struct mr_volume *volume = op->volume;

    if (op->undoing) {
        op->error.residue = MR_RESIDUE_NONE;
        mr_volume_clear_facts(volume);
        mr_volume_set_error(volume, &op->error);
        mr_operation_end(op, -1, MR_STATE_FAILED, "undone");
        return;
    }
    op->proof = mr_proof_make(op);
    (void)json_object_put(volume->proof);
    volume->proof = json_object_get(op->proof);
    mr_volume_clear_facts(volume);
    mr_volume_set_error(volume, NULL);
    mr_operation_end(op, 1, MR_STATE_ABSENT, "released");
}

/* --- dispatch --- */

static void begin_wait(struct mr_operation *op)
{
    if (op->unmap_asked)
        begin_unmap(op);
    else
        begin_drain(op);
}

static void wait_answered(struct mr_operation *op, struct json_object *message)
{
    if (op->unmap_asked)
        unmap_answered(op, message);
    else
        claim_answered(op, message);
}

static const struct mr_step_handler handlers[MR_STEP_COUNT] = {
    [MR_STEP_INSPECT] = {NULL, inspected}, /* begun by the runner */
    [MR_STEP_UNMOUNT] = {begin_unmount, unmounted},
    [MR_STEP_DRAIN] = {begin_wait, wait_answered},
    [MR_STEP_CLAIM] = {begin_claim, NULL}, /* a record, no command */
    [MR_STEP_UNMAP] = {begin_unmap, unmap_answered},
};

void mr_detach_begin(struct mr_operation *op)
{
    handlers[op->step].begin(op);
}

void mr_detach_reply(struct mr_operation *op, bool ok, struct json_object *message,
                     const struct mr_err *err)
{
    if (ok)
        handlers[op->step].reply(op, message);
    else if (op->step == MR_STEP_UNMOUNT)
        unmount_failed(op, err);
    else
        mr_operation_fail(op, err);
    if (op->then)
        mr_cancel_operation(op);
}
