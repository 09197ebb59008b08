/* SPDX-License-Identifier: Apache-2.0
 *
 * The way down: unmount, claim, keep, unmap, gone. A device is unmapped only with the
 * claim in hand.
 */
#include "storage/worker/commands.h"

#include <errno.h>
#include <string.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fault.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/worker/claim.h"
#include "storage/worker/device.h"
#include "storage/worker/flush.h"
#include "storage/worker/mounter.h"

#define CLAIM_BUDGET_MAX_MS (60 * 1000)
#define GONE_FIRST_NS (MR_NS_PER_MS / 10)
#define GONE_LIMIT_NS (200 * MR_NS_PER_MS)
#define FINISH_LIMIT_MS 5000

/* The event must be out before umount2: the core may see IN_UNMOUNT at once. A failed
 * watch is no reason to stop: the core polls too. */
static int arm(struct mr_worker *worker, const struct mr_mount_record *record,
               struct json_object *reply, struct mr_err *err)
{
    int wd = mr_mounter_arm(record, worker->inotify_fd, err);

    mr_json_set_bool(reply, "armed", wd >= 0);
    if (wd < 0)
        return 0;
    MR_AUTO_JSON struct json_object *event = json_object_new_object();
    mr_json_set_string(event, "event", "armed");
    mr_json_set_int(event, "wd", wd);
    return mr_msg_send(worker->channel_fd, event, -1, 0, err);
}

static int reply_unmounted(enum mr_unmount_result result, const char *detail,
                           struct json_object *reply)
{
    static const char *const names[] = {
        [MR_UNMOUNT_BUSY] = "busy",
        [MR_UNMOUNT_ABSENT] = "absent",
        [MR_UNMOUNT_DONE] = "unmounted",
    };

    if (result == MR_UNMOUNT_FAILED)
        return -EIO;
    mr_json_set_string(reply, "result", names[result]);
    mr_json_set_string(reply, "detail", detail);
    return 0;
}

int mr_command_unmount(struct mr_worker *worker, struct json_object *cmd,
                       struct json_object *reply, struct mr_err *err)
{
    struct mr_mount_record record;
    struct mr_identity identity;
    char detail[200];

    int r = mr_arg_identity(cmd, &identity, err);
    if (r == 0)
        r = mr_arg_mount(cmd, &record, err);
    if (r == 0 && record.mount.id == 0)
        r = mr_fail(err, MR_E_INTERNAL, EINVAL, "worker command: no mount id");
    if (r == 0 &&
        (record.mount.major != identity.major || record.mount.minor != identity.minor))
        r = mr_fail(err, MR_E_DEVICE_MISMATCH, EINVAL,
                    "the recorded mount is not of the recorded device");
    if (r == 0 && mr_mounter_busy(&record)) {
        /* No flush for every look at a volume that somebody works with. */
        return reply_unmounted(MR_UNMOUNT_BUSY, "umount answered EBUSY", reply);
    }
    if (r == 0 && mr_json_get_bool(cmd, "sync", false)) {
        r = mr_flush(worker->lock_fd, mr_json_get_string(cmd, "operation"), &record, err);
        if (r < 0 && err->code == MR_E_DATA_NOT_WRITTEN &&
            mr_json_get_bool(cmd, "accept_data_loss", false))
            r = 0;
    }
    if (r == 0 && mr_json_get_bool(cmd, "arm", false))
        r = arm(worker, &record, reply, err);
    if (r == 0)
        r = mr_fault_fail("worker", "unmount", "inside", err);
    if (r < 0)
        return r;
    return reply_unmounted(mr_mounter_unmount(&record, detail, err), detail, reply);
}

static bool same_device(const struct mr_identity *a, const struct mr_identity *b)
{
    return a->major == b->major && a->minor == b->minor && a->diskseq == b->diskseq;
}

static bool holds_claim(const struct mr_worker *worker,
                        const struct mr_identity *identity)
{
    return worker->claim_fd >= 0 && same_device(&worker->claimed, identity);
}

int mr_command_claim(struct mr_worker *worker, struct json_object *cmd,
                     struct json_object *reply, struct mr_err *err)
{
    int64_t budget_ms = mr_json_get_int(cmd, "budget_ms", 0);
    enum mr_claim_result result = MR_CLAIM_OK;
    const struct mr_driver *driver = NULL;
    struct mr_identity identity;
    unsigned tries = 0;

    int r = mr_arg_identity(cmd, &identity, err);
    if (r == 0)
        r = mr_arg_driver(cmd, &driver, err);
    if (r == 0 && (budget_ms < 0 || budget_ms > CLAIM_BUDGET_MAX_MS))
        r = mr_fail(err, MR_E_INTERNAL, ERANGE, "worker command: member 'budget_ms'");
    if (r < 0)
        return r;
    if (!holds_claim(worker, &identity)) {
        mr_close(&worker->claim_fd);
        result = mr_claim(&identity, budget_ms, &worker->claim_fd, &tries, err);
    }
    if (result == MR_CLAIM_OK && mr_fault_fail("worker", "claim", "inside", err) < 0)
        return -EIO;
    switch (result) {
    case MR_CLAIM_OK:
        worker->claimed = identity;
        mr_json_set_string(reply, "result", "claimed");
        break;
    case MR_CLAIM_BUSY:
        mr_json_set_string(reply, "result", "busy");
        break;
    case MR_CLAIM_GONE:
        mr_json_set_string(reply, "result", "gone");
        break;
    case MR_CLAIM_UNKNOWN:
        return -EIO;
    }
    mr_json_set_int(reply, "tries", tries);
    mr_json_set_string(reply, "unmap",
                       driver->unmap_kind == MR_UNMAP_DEFERRED ? "deferred"
                                                               : "immediate");
    return 0;
}

int mr_command_keep(struct mr_worker *worker, struct json_object *cmd,
                    struct json_object *reply, struct mr_err *err)
{
    const struct mr_driver *driver = NULL;
    struct mr_identity identity;

    (void)worker;
    int r = mr_arg_driver(cmd, &driver, err);
    if (r == 0)
        r = mr_arg_identity(cmd, &identity, err);
    if (r == 0)
        r = driver->keep(&identity, err);
    if (r < 0)
        return r;
    mr_json_set_string(reply, "result", r > 0 ? "kept" : "gone");
    return 0;
}

struct unmap_args {
    const struct mr_driver *driver;
    const char *token;
    const char *runtime_dir;
    struct mr_identity identity;
    bool has_device; /* else only what the driver keeps beside it can be left */
    bool has_mount;
    struct mr_mount_record mount; /* whose directories go with the device */
};

static int unmap_args(struct json_object *cmd, struct unmap_args *args,
                      struct mr_err *err)
{
    int r = mr_arg_driver(cmd, &args->driver, err);

    if (r == 0)
        r = mr_arg_token(cmd, &args->token, err);
    if (r == 0)
        r = mr_arg_text(cmd, "runtime_dir", &args->runtime_dir, err);
    mr_identity_from_json(&args->identity, mr_json_get(cmd, "identity"));
    args->has_device = args->identity.diskseq != 0;
    if (r == 0 && args->has_device)
        r = mr_arg_identity(cmd, &args->identity, err);
    args->has_mount = mr_json_get(cmd, "mount") != NULL;
    if (r == 0 && args->has_mount)
        r = mr_arg_mount(cmd, &args->mount, err);
    return r;
}

/* What the kernel shows now, and what is left of the driver's helpers. */
static int reply_gone(const struct mr_worker *worker, const struct unmap_args *args,
                      enum mr_presence state, const char *why, int64_t finish_ms,
                      struct json_object *reply, struct mr_err *err)
{
    struct json_object *evidence = json_object_new_object();
    bool gone = state == MR_ABSENT_NOW;

    if (state == MR_PRESENCE_UNKNOWN) {
        (void)json_object_put(evidence);
        return mr_fail(err, MR_E_DEVICE_ERROR, 0, "cannot tell whether '%s' is gone: %s",
                       args->identity.node, why);
    }
    mr_json_set_bool(evidence, "exclusive_open",
                     args->has_device &&
                         worker->unmapped_diskseq == args->identity.diskseq);
    if (args->has_device)
        mr_json_set_int(evidence, "diskseq", (int64_t)args->identity.diskseq);
    else
        mr_json_set(evidence, "diskseq", NULL);
    mr_json_set(evidence, "openers", NULL);
    mr_json_set(evidence, "stacked_loops", NULL);
    mr_json_set_string(evidence, "gone", gone ? why : NULL);
    if (gone && args->driver->finished)
        gone = args->driver->finished(args->token, args->runtime_dir, &args->identity,
                                      finish_ms, evidence) == 1;
    /* Only who has seen the whole end can vouch for it: after a crash the traces are
     * gone. */
    if ((!args->has_device || worker->unmapped_diskseq != args->identity.diskseq) &&
        mr_json_get(evidence, "session"))
        mr_json_set_string(evidence, "session", "unknown");
    mr_json_set(reply, "evidence", evidence);
    mr_json_set_string(reply, "result", gone ? "gone" : "bound");
    if (gone && args->has_mount)
        mr_mounter_tidy(&args->mount);
    return 0;
}

/* The clear of a loop device happens at its last close, a moment after the call. */
static enum mr_presence wait_gone(const struct mr_identity *identity,
                                  const char **ret_why)
{
    int64_t deadline_ns = mr_now_ns() + GONE_LIMIT_NS;
    int64_t wait_ns = GONE_FIRST_NS;
    enum mr_presence state = mr_device_state(identity, ret_why);

    while (state != MR_ABSENT_NOW && mr_now_ns() + wait_ns < deadline_ns) {
        mr_sleep_ns(wait_ns);
        wait_ns = wait_ns * 3 / 2;
        state = mr_device_state(identity, ret_why);
    }
    return state;
}

/* Calls the driver with the claim, which is closed in every case afterwards. */
static int unmap_claimed(struct mr_worker *worker, const struct unmap_args *args,
                         struct mr_err *err)
{
    MR_AUTO_CLOSE int claim_fd = mr_take_fd(&worker->claim_fd);
    bool deferred = args->driver->unmap_kind == MR_UNMAP_DEFERRED;

    worker->unmapped_diskseq = args->identity.diskseq;
    int r = args->driver->unmap(args->token, args->runtime_dir, &args->identity, claim_fd,
                                err);
    if (deferred)
        (void)mr_take_fd(&claim_fd); /* the driver closed it */
    return r;
}

int mr_command_unmap(struct mr_worker *worker, struct json_object *cmd,
                     struct json_object *reply, struct mr_err *err)
{
    struct unmap_args args = {0};
    const char *why = NULL;

    int r = unmap_args(cmd, &args, err);
    if (r == 0 && !args.has_device)
        r = mr_arg_identity(cmd, &args.identity, err);
    if (r < 0)
        return r;
    if (holds_claim(worker, &args.identity)) {
        r = unmap_claimed(worker, &args, err);
        if (r < 0)
            return r;
    } else if (mr_device_state(&args.identity, &why) == MR_PRESENT) {
        return mr_fail(err, MR_E_DEVICE_HELD, EBUSY,
                       "'%s' is not unmapped without a claim on it", args.identity.node);
    }
    enum mr_presence state = wait_gone(&args.identity, &why);
    return reply_gone(worker, &args, state, why, FINISH_LIMIT_MS, reply, err);
}

int mr_command_gone(struct mr_worker *worker, struct json_object *cmd,
                    struct json_object *reply, struct mr_err *err)
{
    struct unmap_args args = {0};
    const char *why = NULL;

    int r = unmap_args(cmd, &args, err);
    if (r < 0)
        return r;
    enum mr_presence state =
        args.has_device ? mr_device_state(&args.identity, &why) : MR_ABSENT_NOW;
    if (!args.has_device)
        why = "nothing was mapped";
    r = mr_fault_fail("worker", "gone", "inside", err);
    if (r < 0)
        return r;
    return reply_gone(worker, &args, state, why, 0, reply, err);
}
