/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/json.h"
#include "storage/engine_internal.h"

struct mr_volume *mr_volume_new(struct mr_engine *engine, const char *id)
{
    struct mr_volume *volume = calloc(1, sizeof(*volume));
    if (!volume)
        return NULL;
    volume->engine = engine;
    (void)snprintf(volume->id, sizeof(volume->id), "%s", id);
    volume->updated_at_ms = mr_wall_ms();
    return volume;
}

void mr_volume_free(struct mr_volume *volume)
{
    if (!volume)
        return;
    mr_server_forget(volume);
    mr_spec_free(volume->spec);
    (void)json_object_put(volume->proof);
    (void)json_object_put(volume->holders);
    (void)json_object_put(volume->unfinished);
    (void)json_object_put(volume->forgotten);
    (void)json_object_put(volume->acting);
    free(volume);
}

void mr_volume_touch(struct mr_volume *volume)
{
    volume->generation++;
    volume->updated_at_ms = mr_wall_ms();
}

void mr_volume_set_state(struct mr_volume *volume, enum mr_state state)
{
    volume->state = state;
    mr_volume_touch(volume);
}

void mr_volume_set_error(struct mr_volume *volume, const struct mr_err *err)
{
    volume->has_error = err != NULL;
    if (err)
        volume->error = *err;
    mr_volume_touch(volume);
}

void mr_volume_clear_identity(struct mr_volume *volume)
{
    mr_server_forget(volume);
    volume->server_lost = false;
    volume->transport_end = MR_TRANSPORT_UNKNOWN;
    volume->preempt_told = 0;
    memset(&volume->identity, 0, sizeof(volume->identity));
    mr_volume_touch(volume);
}

void mr_volume_clear_facts(struct mr_volume *volume)
{
    mr_volume_clear_identity(volume);
    memset(&volume->mount, 0, sizeof(volume->mount));
    volume->data_not_written = false;
    volume->forced = false;
    (void)json_object_put(volume->holders);
    volume->holders = NULL;
    volume->holders_at_ms = 0;
    volume->unmounted_at_ms = 0;
    volume->unmounted_ns = 0;
    volume->attached_at_ms = 0;
    (void)json_object_put(volume->forgotten);
    volume->forgotten = NULL;
    mr_volume_touch(volume);
}

bool mr_volume_has_residue(const struct mr_volume *volume)
{
    switch (volume->state) {
    case MR_STATE_ATTACHING:
    case MR_STATE_ATTACHED:
    case MR_STATE_DETACHING:
    case MR_STATE_WEDGED:
    case MR_STATE_FENCED:
    case MR_STATE_ORPHAN:
        return true;
    case MR_STATE_FAILED:
        return volume->identity.diskseq != 0 || volume->mount.mount.id != 0 ||
               (volume->has_error && volume->error.residue != MR_RESIDUE_NONE);
    case MR_STATE_ABSENT:
    case MR_STATE_LOST_BY_REBOOT:
    case MR_STATE_COUNT:
        break;
    }
    return false;
}

const char *mr_volume_id(const struct mr_volume *volume)
{
    return volume->id;
}

uint64_t mr_volume_generation(const struct mr_volume *volume)
{
    return volume->generation;
}

void mr_document_set_time(struct json_object *json, const char *key, int64_t wall_ms)
{
    char text[MR_TIME_TEXT];
    mr_json_set_string(json, key, wall_ms > 0 ? mr_time_text(wall_ms, text) : NULL);
}

static void set_text(struct json_object *json, const char *key, const char *text)
{
    mr_json_set_string(json, key, text[0] ? text : NULL);
}

static struct json_object *identity_document(const struct mr_identity *identity)
{
    if (identity->diskseq == 0)
        return NULL;
    struct json_object *json = json_object_new_object();
    mr_json_set_int(json, "major", identity->major);
    mr_json_set_int(json, "minor", identity->minor);
    mr_json_set_int(json, "diskseq", (int64_t)identity->diskseq);
    set_text(json, "serial", identity->serial);
    set_text(json, "wwn", identity->wwn);
    set_text(json, "fs_uuid", identity->fs_uuid);
    return json;
}

static struct json_object *waits_for_journal(const struct mr_volume *volume)
{
    struct mr_err err = volume->engine->journal_why;

    (void)mr_err_context(&err, 0, "%s waits for its record", volume->op->id);
    if (!err.remedy[0])
        (void)mr_err_remedy(&err, 0, "it goes on by itself when that works again");
    return mr_err_to_json(&err);
}

/* What is wrong with it, or NULL. */
static struct json_object *error_document(const struct mr_volume *volume)
{
    if (volume->wedged && volume->wedged_why.message[0])
        return mr_err_to_json(&volume->wedged_why);
    if (volume->op && volume->op->unwritten)
        return waits_for_journal(volume);
    return volume->has_error ? mr_err_to_json(&volume->error) : NULL;
}

struct json_object *mr_volume_document(const struct mr_volume *volume)
{
    struct json_object *json = json_object_new_object();
    const struct mr_operation *op = volume->op;
    bool mapped = volume->identity.diskseq != 0;
    /* Holders belong to a wait: those of the past would be read as those of now. */
    bool holders = volume->holders && op && op->known_held;

    if (!json)
        return NULL;
    mr_json_set_string(json, "id", volume->id);
    mr_json_set_string(json, "state",
                       mr_state_name(volume->wedged ? MR_STATE_WEDGED : volume->state));
    mr_json_set_string(json, "step", op ? mr_step_name(op->step) : NULL);
    mr_json_set(json, "spec", volume->spec ? mr_spec_public(volume->spec) : NULL);
    mr_json_set_string(json, "device", mapped ? volume->identity.node : NULL);
    mr_json_set(json, "identity", identity_document(&volume->identity));
    if (mapped)
        mr_json_set_int(json, "size_bytes", (int64_t)volume->identity.size_bytes);
    else
        mr_json_set(json, "size_bytes", NULL);
    mr_json_set_string(json, "mount_path",
                       volume->spec ? volume->spec->mount_path : NULL);
    mr_json_set_string(json, "operation", op ? op->id : NULL);
    mr_json_set(json, "holders",
                holders ? json_object_get(volume->holders) : json_object_new_array());
    mr_document_set_time(json, "holders_at", holders ? volume->holders_at_ms : 0);
    mr_json_set(json, "transport", mr_server_link_transport(volume));
    mr_json_set(json, "fencing", json_object_get(volume->fencing));
    mr_json_set(json, "error", error_document(volume));
    mr_document_set_time(json, "attached_at", volume->attached_at_ms);
    mr_document_set_time(json, "updated_at", volume->updated_at_ms);
    return json;
}

/* --- the durable row --- */

static struct json_object *format_to_row(const struct mr_format_record *format)
{
    if (!format->fs_uuid[0])
        return NULL;
    struct json_object *json = json_object_new_object();
    mr_json_set_string(json, "fs_uuid", format->fs_uuid);
    mr_json_set_string(json, "boot_id", format->boot_id);
    mr_json_set_int(json, "diskseq", (int64_t)format->diskseq);
    mr_json_set_bool(json, "done", format->done);
    return json;
}

static void format_from_row(struct mr_format_record *format, struct json_object *json)
{
    memset(format, 0, sizeof(*format));
    mr_json_copy_string(json, "fs_uuid", format->fs_uuid, sizeof(format->fs_uuid));
    mr_json_copy_string(json, "boot_id", format->boot_id, sizeof(format->boot_id));
    format->diskseq = (uint64_t)mr_json_get_int(json, "diskseq", 0);
    format->done = mr_json_get_bool(json, "done", false);
}

/* An attach of what was attached before: after a crash it goes on instead of being
 * undone. */
static bool is_mending(const struct mr_operation *op)
{
    if (!op || op->ended)
        return false;
    return op->ending ? op->end_state == MR_STATE_ATTACHING
                      : op->goal == MR_GOAL_ATTACHED && !op->fresh && !op->undoing;
}

struct json_object *mr_volume_to_row(const struct mr_volume *volume)
{
    const struct mr_operation *op = volume->op;
    bool running = op && op->ended == 0 && !op->ending;
    struct json_object *forgotten = op && op->forget ? op->forget : volume->forgotten;
    struct json_object *row = json_object_new_object();

    mr_json_set(row, "spec", volume->spec ? mr_spec_public(volume->spec) : NULL);
    mr_json_set_string(row, "token", volume->token);
    mr_json_set_string(row, "boot_id", volume->boot_id);
    mr_json_set(row, "identity", mr_identity_to_json(&volume->identity));
    mr_json_set(row, "mount", mr_mount_record_to_json(&volume->mount));
    mr_json_set(row, "format", format_to_row(&volume->format));
    mr_json_set_bool(row, "data_not_written", volume->data_not_written);
    mr_json_set_bool(row, "forced", volume->forced);
    mr_json_set_bool(row, "server_lost", volume->server_lost);
    if (volume->transport_end != MR_TRANSPORT_UNKNOWN)
        mr_json_set_string(row, "transport_end",
                           mr_transport_name(volume->transport_end));
    mr_json_set(row, "acting", json_object_get(volume->acting));
    mr_json_set(row, "error", volume->has_error ? mr_err_to_json(&volume->error) : NULL);
    mr_json_set(row, "proof", json_object_get(volume->proof));
    mr_json_set_int(row, "attached_at_ms", volume->attached_at_ms);
    mr_json_set_int(row, "updated_at_ms", volume->updated_at_ms);
    mr_json_set_int(row, "unmounted_at_ms", volume->unmounted_at_ms);
    const struct mr_operation *next = running ? op : is_mending(op) ? op->then : NULL;
    mr_json_set_string(row, "operation", next ? next->id : NULL);
    mr_json_set(row, "waited_for", op ? json_object_get(op->waited_for) : NULL);
    mr_json_set_bool(row, "accept_data_loss", op && op->accept_data_loss);
    mr_json_set(row, "forgotten", json_object_get(forgotten));
    mr_json_set_bool(row, "mending", is_mending(op));
    mr_json_set(row, "expected",
                is_mending(op) && op->expected.diskseq != 0
                    ? mr_identity_to_json(&op->expected)
                    : NULL);
    return row;
}

int mr_volume_from_row(struct mr_volume *volume, struct json_object *row,
                       struct mr_err *err)
{
    struct json_object *spec = mr_json_get(row, "spec");
    struct json_object *error = mr_json_get(row, "error");
    struct json_object *proof = mr_json_get(row, "proof");

    if (spec) {
        int rc = mr_spec_decode_row(spec, &volume->spec, err);
        if (rc < 0)
            return rc;
    }
    mr_json_copy_string(row, "token", volume->token, sizeof(volume->token));
    mr_json_copy_string(row, "boot_id", volume->boot_id, sizeof(volume->boot_id));
    mr_identity_from_json(&volume->identity, mr_json_get(row, "identity"));
    mr_mount_record_from_json(&volume->mount, mr_json_get(row, "mount"));
    format_from_row(&volume->format, mr_json_get(row, "format"));
    volume->data_not_written = mr_json_get_bool(row, "data_not_written", false);
    volume->forced = mr_json_get_bool(row, "forced", false);
    volume->server_lost = mr_json_get_bool(row, "server_lost", false);
    volume->transport_end =
        mr_transport_from_name(mr_json_get_string(row, "transport_end"));
    volume->acting = json_object_get(mr_json_get(row, "acting"));
    volume->has_error = error != NULL;
    if (error)
        mr_err_from_json(&volume->error, error);
    volume->proof = json_object_get(proof);
    volume->forgotten = json_object_get(mr_json_get(row, "forgotten"));
    volume->attached_at_ms = mr_json_get_int(row, "attached_at_ms", 0);
    volume->updated_at_ms = mr_json_get_int(row, "updated_at_ms", 0);
    volume->unmounted_at_ms = mr_json_get_int(row, "unmounted_at_ms", 0);
    return 0;
}

void mr_volume_restore(struct mr_volume *volume, struct json_object *row)
{
    struct mr_spec *spec = mr_take_ptr(volume->spec);

    (void)json_object_put(mr_take_ptr(volume->acting));
    (void)json_object_put(mr_take_ptr(volume->proof));
    (void)json_object_put(mr_take_ptr(volume->forgotten));
    if (mr_volume_from_row(volume, row, NULL) < 0)
        volume->spec = mr_take_ptr(spec); /* not of a row that we made */
    mr_spec_free(spec);
    mr_volume_touch(volume);
}

enum mr_state mr_volume_row_state(const struct mr_volume *volume)
{
    const struct mr_operation *op = volume->op;
    return op && op->ending ? op->end_state : volume->state;
}

void mr_volume_record(struct mr_volume *volume, const char *event,
                      struct json_object *detail, mr_journal_fn fn, void *ctx)
{
    const struct mr_operation *op = volume->op;
    MR_AUTO_JSON struct json_object *row = mr_volume_to_row(volume);
    struct mr_record record = {
        .volume_number = volume->number,
        .volume_id = volume->id,
        .state = mr_state_name(mr_volume_row_state(volume)),
        .volume = row,
        .operation_id = op ? op->id : NULL,
        .event = event,
        .detail = detail,
    };
    mr_journal_append(volume->engine->journal, &record, fn ? fn : mr_unsaved_on_record,
                      fn ? ctx : volume);
}
