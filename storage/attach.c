/* SPDX-License-Identifier: Apache-2.0
 *
 * The steps of an attach. Each is decided from what the worker read back from the kernel.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/json.h"
#include "storage/engine_internal.h"

/* All names of the roots: the file is opened below the one that its path starts with. */
static struct json_object *root_names(const struct mr_roots *roots)
{
    struct json_object *array = json_object_new_array();
    for (size_t i = 0; i < roots->count; i++) {
        (void)json_object_array_add(array, json_object_new_string(roots->path[i]));
        if (roots->given[i])
            (void)json_object_array_add(array, json_object_new_string(roots->given[i]));
    }
    return array;
}

/* What its mooring-lun served is lost, it cannot be mended. True: the attach fails. */
static bool fails_with_server(struct mr_operation *op)
{
    struct mr_err err;

    mr_server_watch(op->volume);
    if (!mr_server_is_dead(op->volume))
        return false;
    mr_server_error(op->volume, &err);
    mr_operation_fail(op, &err);
    return true;
}

/* What is mapped stays mapped: no login does what was asked for. True: the attach fails.
 */
static bool fails_with_preempt(struct mr_operation *op)
{
    struct mr_err err;

    if (mr_preempt_check_mapped(op->volume, op->volume->spec, &err) == 0)
        return false;
    mr_operation_fail(op, &err);
    return true;
}

/* --- inspect: what is there already? --- */

/* Everything is there. A detach that had failed is cancelled by this. */
static void verified(struct mr_operation *op, bool on_top)
{
    struct mr_volume *volume = op->volume;
    bool news = op->prior_state != MR_STATE_ATTACHED || volume->data_not_written ||
                volume->has_error || volume->unmounted_at_ms != 0;

    if (!on_top) {
        mr_operation_fail_with(op, MR_E_MOUNT_PATH_BUSY, "unmount what is on top of it",
                               "'%s' is covered by another mount",
                               volume->spec->mount_path);
        return;
    }
    volume->data_not_written = false;
    volume->unmounted_at_ms = 0;
    volume->unmounted_ns = 0;
    mr_volume_set_error(volume, NULL);
    if (news)
        mr_operation_end(op, 1, MR_STATE_ATTACHED, "verified");
    else
        mr_operation_end_unrecorded(op, 1, MR_STATE_ATTACHED);
}

static void inspected(struct mr_operation *op, struct json_object *message)
{
    struct mr_volume *volume = op->volume;
    struct mr_identity *identity = &volume->identity;
    struct json_object *adopted = mr_json_get(message, "mount");
    const char *mounted = mr_json_get_string(message, "mounted");
    struct mr_identity found;

    mr_identity_from_json(&found, mr_json_get(message, "identity"));
    op->mapped = mr_json_get_bool(message, "found", false);
    op->mounted = mounted && strcmp(mounted, "present") == 0;
    if (op->mapped && identity->diskseq != 0 && found.diskseq != identity->diskseq) {
        mr_operation_fail_with(
            op, MR_E_DEVICE_MISMATCH, "DELETE the volume, then PUT it again",
            "the device with this attachment's token is %s diskseq %llu, recorded was %s "
            "diskseq %llu",
            found.node, (unsigned long long)found.diskseq, identity->node,
            (unsigned long long)identity->diskseq);
        return;
    }
    if (!op->mounted && (!mounted || strcmp(mounted, "absent") != 0)) {
        mr_operation_fail_with(op, MR_E_DEVICE_ERROR, "try again",
                               "cannot tell whether '%s' is still mounted",
                               volume->spec->mount_path);
        return;
    }
    /* A worker may have ended between an act and our record of it. */
    if (op->mapped && identity->diskseq == 0)
        *identity = found;
    if (adopted)
        mr_mount_record_from_json(&volume->mount, adopted);
    if (op->mapped && (fails_with_server(op) || fails_with_preempt(op)))
        return;
    if (op->mounted) {
        verified(op, mr_json_get_bool(message, "on_top", false));
        return;
    }
    if (op->expected.diskseq == 0) /* else an earlier agent has seen it */
        op->expected = *identity;
    volume->mount.mount.id = 0;
    if (!op->mapped)
        mr_volume_clear_identity(volume);
    /* Durable before anything is done: after a crash the old diskseq and mount id would
     * be looked for, and what was made meanwhile not be found. */
    mr_volume_set_state(volume, MR_STATE_ATTACHING);
    mr_operation_record(op, "mend_intent", NULL, mr_operation_advance);
}

/* --- map, identify --- */

struct json_object *mr_attach_settings(const struct mr_config *config)
{
    struct json_object *settings = json_object_new_object();

    mr_json_set(settings, "file_roots", root_names(&config->file_roots));
    mr_json_set_string(settings, "runtime_dir", config->runtime_dir);
    mr_json_set_string(settings, "libexec_dir", config->libexec_dir);
    mr_json_set_string(settings, "initiator_name", config->initiator_name);
    mr_json_set_int(settings, "iscsi_timeout_ms",
                    config->iscsi_timeout_ns / MR_NS_PER_MS);
    return settings;
}

/* What an agent of a newer version has begun: what is unknown here would be left out. */
static bool fails_with_newer_spec(struct mr_operation *op)
{
    struct mr_spec *known = NULL;
    struct mr_err err;

    if (!op->resumed)
        return false;
    int rc = mr_spec_decode_public(op->volume->spec->full, &known, &err);
    mr_spec_free(known);
    if (rc == 0)
        return false;
    (void)mr_err_context(&err, rc, "the spec in the journal is of a newer mooringd");
    (void)mr_err_remedy(&err, rc, "run that one, or DELETE the volume");
    mr_operation_fail(op, &err);
    return true;
}

static void begin_map(struct mr_operation *op)
{
    const struct mr_config *config = op->engine->config;
    struct json_object *command;

    if (fails_with_newer_spec(op))
        return;
    if (op->mapped) { /* a detach may have asked the kernel to unmap it */
        mr_operation_command(op, mr_operation_new_command(op, "keep"), 0);
        return;
    }
    op->map_told = true;
    op->volume->preempt_told = mr_preempt_key(op->volume->spec);
    command = mr_operation_new_command(op, "map");
    mr_json_set(command, "config", mr_attach_settings(config));
    /* The one place where secrets leave the core: to the worker, over its own socket. */
    mr_json_set(command, "spec", json_object_get(op->volume->spec->full));
    mr_operation_command(op, command,
                         config->worker_deadline_ns + config->iscsi_timeout_ns);
}

/* The volume that has this source mapped, other than the one of op; by key or by WWN. */
static struct mr_volume *source_owner(const struct mr_operation *op, const char *key,
                                      const char *wwn)
{
    const struct mr_engine *engine = op->engine;
    for (size_t i = 0; i < engine->volume_count; i++) {
        struct mr_volume *other = engine->volumes[i];
        const struct mr_identity *identity = &other->identity;
        if (other == op->volume || identity->diskseq == 0 ||
            !mr_volume_has_residue(other))
            continue;
        if ((key[0] && strcmp(identity->source_key, key) == 0) ||
            (wwn[0] && strcmp(identity->wwn, wwn) == 0))
            return other;
    }
    return NULL;
}

static void fail_source_in_use(struct mr_operation *op, const struct mr_volume *owner)
{
    struct mr_err err;
    (void)mr_fail(&err, MR_E_SOURCE_IN_USE, 0, "the source is attached as volume '%s'",
                  owner->id);
    (void)mr_err_remedy(&err, 0, "detach volume '%s' first", owner->id);
    (void)snprintf(err.volume, sizeof(err.volume), "%s", owner->id);
    mr_operation_fail(op, &err);
}

static void map_failed(struct mr_operation *op, struct json_object *message,
                       const struct mr_err *err)
{
    const char *key = mr_json_get_string(message, "source_key");
    struct mr_volume *owner = key ? source_owner(op, key, "") : NULL;
    if (err->code == MR_E_SOURCE_IN_USE && owner)
        fail_source_in_use(op, owner);
    else
        mr_operation_fail(op, err);
}

static void mapped(struct mr_operation *op, struct json_object *message)
{
    struct mr_volume *volume = op->volume;
    const char *kept = op->mapped ? mr_json_get_string(message, "result") : NULL;

    if (op->mapped && kept && strcmp(kept, "kept") == 0) {
        if (!fails_with_server(op))
            mr_operation_advance(op);
        return;
    }
    if (op->mapped) { /* its last user was faster */
        op->mapped = false;
        mr_volume_clear_identity(volume);
        /* Again durable before another is made: the next step is `map` once more. */
        op->step = MR_STEP_INSPECT;
        op->next_step--;
        mr_operation_record(op, "mend_intent", NULL, mr_operation_advance);
        return;
    }
    mr_identity_from_json(&volume->identity, mr_json_get(message, "identity"));
    op->mapped = true;
    if (!fails_with_server(op))
        mr_operation_advance(op);
}

/* Mapped again, is it what was attached here before? */
static bool is_expected(struct mr_operation *op)
{
    const struct mr_identity *now = &op->volume->identity;
    const struct mr_identity *before = &op->expected;
    const char *what = before->diskseq == 0                       ? NULL
                       : now->size_bytes < before->size_bytes     ? "size"
                       : strcmp(now->serial, before->serial) != 0 ? "serial number"
                       : strcmp(now->wwn, before->wwn) != 0       ? "WWN"
                                                                  : NULL;
    if (what)
        mr_operation_fail_with(op, MR_E_DEVICE_MISMATCH,
                               "DELETE the volume, look at the source, then PUT it again",
                               "the source has another %s than when it was attached",
                               what);
    return !what;
}

static void identified(struct mr_operation *op, struct json_object *message)
{
    struct mr_volume *volume = op->volume;
    struct mr_identity *identity = &volume->identity;
    struct mr_identity seen;
    struct mr_volume *owner;

    mr_identity_from_json(&seen, mr_json_get(message, "identity"));
    identity->size_bytes = seen.size_bytes;
    identity->block_size = seen.block_size;
    if (!is_expected(op))
        return;
    owner = source_owner(op, identity->source_key, identity->wwn);
    if (owner) {
        fail_source_in_use(op, owner);
        return;
    }
    mr_operation_record(op, "identity", mr_json_get(message, "identity"), NULL);
    mr_operation_advance(op);
}

/* --- mount --- */

static void begin_mount(struct mr_operation *op)
{
    const struct mr_volume *volume = op->volume;
    struct json_object *command = mr_operation_new_command(op, "mount");

    mr_json_set_string(command, "fs_type", volume->spec->fs_type);
    mr_json_set_string(command, "fs_uuid", volume->identity.fs_uuid);
    mr_json_set_string(command, "root", volume->mount.root);
    mr_json_set_string(command, "path", volume->mount.path);
    mr_json_set(command, "options", json_object_get(volume->spec->options));
    mr_json_set_bool(command, "read_only", volume->spec->read_only);
    mr_operation_command(op, command, 0);
}

static void mount_done(struct mr_operation *op, struct json_object *message)
{
    struct mr_volume *volume = op->volume;
    const char *uuid = mr_json_get_string(message, "fs_uuid");

    unsigned made = volume->mount.created; /* by an earlier mount of this attachment */
    mr_mount_record_from_json(&volume->mount, mr_json_get(message, "mount"));
    if (volume->mount.created < made)
        volume->mount.created = made;
    volume->data_not_written = false;
    volume->unmounted_at_ms = 0;
    volume->unmounted_ns = 0;
    if (uuid && uuid[0])
        (void)snprintf(volume->identity.fs_uuid, sizeof(volume->identity.fs_uuid), "%s",
                       uuid);
    if (fails_with_server(op))
        return;
    volume->attached_at_ms = mr_wall_ms();
    mr_volume_set_error(volume, NULL);
    op->created = true;
    mr_operation_end(op, 1, MR_STATE_ATTACHED, "attached");
}

/* --- dispatch --- */

static void begin_identify(struct mr_operation *op)
{
    mr_operation_command(op, mr_operation_new_command(op, "identify"), 0);
}

static const struct mr_step_handler handlers[MR_STEP_COUNT] = {
    [MR_STEP_INSPECT] = {NULL, inspected}, /* begun by the runner */
    [MR_STEP_MAP] = {begin_map, mapped},
    [MR_STEP_IDENTIFY] = {begin_identify, identified},
    [MR_STEP_CHECK] = {mr_content_begin_check, mr_content_checked},
    [MR_STEP_FORMAT] = {mr_content_begin_format, mr_content_formatted},
    [MR_STEP_MOUNT] = {begin_mount, mount_done},
};

void mr_attach_begin(struct mr_operation *op)
{
    handlers[op->step].begin(op);
}

void mr_attach_reply(struct mr_operation *op, bool ok, struct json_object *message,
                     const struct mr_err *err)
{
    if (ok)
        handlers[op->step].reply(op, message);
    else if (op->step == MR_STEP_MAP)
        map_failed(op, message, err);
    else if (!fails_with_server(op))
        mr_operation_fail(op, err);
}
