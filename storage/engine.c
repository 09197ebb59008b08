/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine's front: start and stop, the tables of volumes and operations, and the calls
 * of the API. Whether a request may start is decided here, before anything is touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/lock_owner.h"
#include "storage/discovery.h"
#include "storage/engine_internal.h"

/* --- tables --- */

#define LOCK_TRIES 50 /* of the directories, at the start */
#define LOCK_RETRY_NS (20 * MR_NS_PER_MS)

static size_t lower_bound(const struct mr_engine *engine, const char *id)
{
    size_t low = 0;
    size_t high = engine->volume_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(engine->volumes[middle]->id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct mr_volume *mr_engine_lookup(struct mr_engine *engine, const char *id)
{
    size_t at = lower_bound(engine, id);
    bool found = at < engine->volume_count && strcmp(engine->volumes[at]->id, id) == 0;
    return found ? engine->volumes[at] : NULL;
}

int mr_engine_insert(struct mr_engine *engine, struct mr_volume *volume,
                     struct mr_err *err)
{
    if (engine->volume_count == engine->volume_size) {
        size_t size = engine->volume_size ? 2 * engine->volume_size : 64;
        struct mr_volume **bigger = realloc(engine->volumes, size * sizeof(*bigger));
        if (!bigger)
            return mr_fail(err, MR_E_INTERNAL, ENOMEM, "keep volume '%s'", volume->id);
        engine->volumes = bigger;
        engine->volume_size = size;
    }
    size_t at = lower_bound(engine, volume->id);
    memmove(engine->volumes + at + 1, engine->volumes + at,
            (engine->volume_count - at) * sizeof(struct mr_volume *));
    engine->volumes[at] = volume;
    engine->volume_count++;
    return 0;
}

struct mr_volume *mr_engine_find(struct mr_engine *engine, const char *id)
{
    struct mr_volume *volume = mr_engine_lookup(engine, id);
    return volume && volume->state != MR_STATE_ABSENT ? volume : NULL;
}

struct mr_volume *mr_engine_next(struct mr_engine *engine, const char *after)
{
    size_t at = after ? lower_bound(engine, after) : 0;
    for (; at < engine->volume_count; at++) {
        struct mr_volume *volume = engine->volumes[at];
        bool later = !after || strcmp(volume->id, after) > 0;
        if (later && volume->state != MR_STATE_ABSENT)
            return volume;
    }
    return NULL;
}

void mr_engine_remove(struct mr_engine *engine, struct mr_volume *volume)
{
    size_t at = lower_bound(engine, volume->id);

    engine->volume_count--;
    memmove(engine->volumes + at, engine->volumes + at + 1,
            (engine->volume_count - at) * sizeof(struct mr_volume *));
    mr_volume_free(volume);
}

void mr_engine_keep_operation(struct mr_engine *engine, struct mr_operation *op)
{
    op->next = engine->operations;
    engine->operations = op;
}

static struct mr_operation **first_ended(struct mr_engine *engine)
{
    struct mr_operation **first = NULL;
    for (struct mr_operation **at = &engine->operations; *at; at = &(*at)->next)
        if ((*at)->ended && !(*at)->watches &&
            (!first || (*at)->ended_ns <= (*first)->ended_ns))
            first = at;
    return first;
}

static void trim(void *ctx)
{
    struct mr_engine *engine = ctx;
    while (engine->ended_count > MR_OPERATIONS_KEPT) {
        struct mr_operation **first = first_ended(engine);
        if (!first)
            return;
        struct mr_operation *op = *first;
        *first = op->next;
        engine->ended_count--;
        mr_operation_free(op);
    }
}

/* From the loop: the one that ends now is still in use by who ended it. */
void mr_engine_trim_operations(struct mr_engine *engine)
{
    if (engine->ended_count > MR_OPERATIONS_KEPT)
        mr_timer_set(&engine->trim, 0);
}

struct mr_operation *mr_engine_find_operation(struct mr_engine *engine, const char *op_id)
{
    for (struct mr_operation *op = engine->operations; op; op = op->next)
        if (strcmp(op->id, op_id) == 0)
            return op;
    return NULL;
}

/* --- what the kernel tells by itself --- */

static void on_unmounted(void *ctx, int wd)
{
    struct mr_engine *engine = ctx;
    for (size_t i = 0; i < engine->volume_count; i++) {
        struct mr_operation *op = engine->volumes[i]->op;
        if (op && op->wd == wd && mr_checker_fired_early(engine->checker, wd))
            mr_detach_unmounted(op);
    }
}

static void on_overflow(void *ctx)
{
    struct mr_engine *engine = ctx;
    for (size_t i = 0; i < engine->volume_count; i++)
        if (engine->volumes[i]->op)
            mr_detach_look_again(engine->volumes[i]->op);
}

void mr_engine_check_mount(struct mr_volume *volume)
{
    struct mr_err err;

    if (mr_server_check(volume) || volume->op || volume->state != MR_STATE_ATTACHED ||
        mr_mount_present(&volume->mount.mount) != MR_ABSENT_NOW)
        return;
    (void)mr_fail(&err, MR_E_DEVICE_ERROR, 0, "'%s' was unmounted by somebody else",
                  volume->spec->mount_path);
    (void)mr_err_remedy(&err, 0, "PUT the same spec to mount it again, or DELETE it");
    err.residue = MR_RESIDUE_POSSIBLE;
    mr_volume_set_error(volume, &err);
    mr_volume_set_state(volume, MR_STATE_FAILED);
    mr_volume_record(volume, "unmounted_by_others", NULL, NULL, NULL);
}

static void on_mounts_changed(void *ctx)
{
    struct mr_engine *engine = ctx;
    for (size_t i = 0; i < engine->volume_count; i++) {
        struct mr_volume *volume = engine->volumes[i];
        if (!volume->op)
            mr_engine_check_mount(volume);
        else if (volume->op->step == MR_STEP_UNMOUNT)
            mr_detach_look_again(volume->op);
    }
}

/* A copy in some other namespace is gone: which, the claim will tell. */
static void on_copies_changed(void *ctx)
{
    struct mr_engine *engine = ctx;
    for (size_t i = 0; i < engine->volume_count; i++)
        if (engine->volumes[i]->op && engine->volumes[i]->op->known_held)
            mr_detach_look_again(engine->volumes[i]->op);
}

static void on_device_changed(void *ctx, uint32_t major, uint32_t minor)
{
    struct mr_engine *engine = ctx;
    for (size_t i = 0; i < engine->volume_count; i++) {
        struct mr_volume *volume = engine->volumes[i];
        if (volume->op && volume->op->unmap_asked && volume->identity.major == major &&
            volume->identity.minor == minor)
            mr_detach_look_again(volume->op);
    }
}

static const struct mr_checker_events checker_events = {
    .unmounted = on_unmounted,
    .overflow = on_overflow,
    .mounts_changed = on_mounts_changed,
    .copies_changed = on_copies_changed,
    .device_changed = on_device_changed,
};

/* --- start and stop --- */

static int refuse_locked(int fd, const char *path, struct mr_err *err)
{
    char comm[MR_COMM_TEXT];
    pid_t pid = 0;

    int rc =
        mr_lock_owner(fd, &pid, comm) == 0
            ? mr_fail(err, MR_E_INTERNAL, EBUSY,
                      "another agent uses '%s': process %d (%s)", path, (int)pid, comm)
            : mr_fail(err, MR_E_INTERNAL, EBUSY,
                      "another agent uses '%s': a process that cannot be seen from "
                      "here",
                      path);
    return mr_err_remedy(err, rc, "stop it, or use another directory");
}

/* Two agents on one directory would undo each other's work. */
static int lock_dir(const char *path, int *ret_fd, struct mr_err *err)
{
    int rc = mr_mkdir_p(path, 0700);
    if (rc < 0)
        return mr_fail(err, MR_E_INTERNAL, -rc, "create directory '%s'", path);
    MR_AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "open directory '%s'", path);
    /* Of an agent that was killed a child on its way to exec(2) may have it for a moment.
     */
    for (int left = LOCK_TRIES; flock(fd, LOCK_EX | LOCK_NB) != 0; left--) {
        if (errno != EWOULDBLOCK)
            return mr_fail(err, MR_E_INTERNAL, errno, "lock directory '%s'", path);
        if (left > 0) {
            mr_sleep_ns(LOCK_RETRY_NS);
            continue;
        }
        return refuse_locked(fd, path, err);
    }
    *ret_fd = mr_take_fd(&fd);
    return 0;
}

static int open_parts(struct mr_engine *engine, struct mr_err *err)
{
    const struct mr_config *config = engine->config;
    char locks[PATH_MAX];

    int rc = mr_boot_id(engine->boot_id);
    if (rc < 0)
        return mr_fail(err, MR_E_INTERNAL, -rc, "read the boot id");
    rc = lock_dir(config->state_dir, &engine->state_lock, err);
    if (rc == 0)
        rc = lock_dir(config->runtime_dir, &engine->runtime_lock, err);
    if (rc < 0)
        return rc;
    rc = mr_format(locks, sizeof(locks), "%s/locks", config->state_dir);
    if (rc == 0)
        rc = mr_mkdir_p(locks, 0700);
    if (rc < 0)
        return mr_fail(err, MR_E_INTERNAL, -rc, "create '%s/locks'", config->state_dir);
    rc = mr_checker_new(engine->loop, &checker_events, engine, &engine->checker, err);
    if (rc == 0)
        rc =
            mr_workers_new(engine->loop, config->libexec_dir,
                           mr_checker_inotify_fd(engine->checker), &engine->workers, err);
    if (rc == 0)
        rc = mr_scanner_new(engine->loop, config->libexec_dir,
                            mr_checker_fanotify_fd(engine->checker), &engine->scanner,
                            err);
    if (rc == 0)
        rc = mr_journal_open(engine->loop, config->state_dir, &engine->journal, err);
    if (rc == 0) {
        engine->surveys = mr_surveys_new(engine);
        if (!engine->surveys)
            rc = mr_fail(err, MR_E_INTERNAL, ENOMEM, "create the engine");
    }
    return rc;
}

int mr_engine_new(struct mr_loop *loop, const struct mr_config *config,
                  struct mr_engine **ret, struct mr_err *err)
{
    struct mr_engine *engine = calloc(1, sizeof(*engine));
    if (!engine)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "create the engine");
    engine->loop = loop;
    engine->config = config;
    mr_timer_init(&engine->trim, loop, trim, engine);
    mr_recovery_init(engine);
    mr_unsaved_init(engine);
    engine->state_lock = -1;
    engine->runtime_lock = -1;
    int rc = open_parts(engine, err);
    if (rc == 0)
        rc = mr_recovery_load(engine, err);
    if (rc < 0) {
        mr_engine_free(engine);
        return rc;
    }
    *ret = engine;
    return 0;
}

void mr_engine_free(struct mr_engine *engine)
{
    if (!engine)
        return;
    mr_timer_cancel(&engine->trim);
    mr_pending_stop(engine);
    mr_discovery_stop(engine);
    mr_recovery_stop(engine);
    mr_surveys_free(engine->surveys);
    for (size_t i = 0; i < engine->volume_count; i++)
        mr_act_stop(engine->volumes[i]);
    mr_timer_cancel(&engine->retention);
    mr_unsaved_stop(engine);
    for (size_t i = 0; i < engine->volume_count; i++)
        engine->volumes[i]->op = NULL;
    while (engine->operations) {
        struct mr_operation *op = engine->operations;
        engine->operations = op->next;
        mr_operation_free(op);
    }
    mr_scanner_free(engine->scanner);
    mr_workers_free(engine->workers);
    mr_journal_close(engine->journal);
    mr_checker_free(engine->checker);
    for (size_t i = 0; i < engine->volume_count; i++)
        mr_volume_free(engine->volumes[i]);
    free(engine->volumes);
    mr_close(&engine->state_lock);
    mr_close(&engine->runtime_lock);
    free(engine);
}
