/* SPDX-License-Identifier: Apache-2.0
 *
 * What carries our mark and is in no journal: listed with what is seen of it, never
 * touched by itself. To take one down it is first written into the journal, as a volume
 * whose detach was given up: then every rule of a detach holds for it, a crash included.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/engine_internal.h"

#define ID_PREFIX "orphan-"

/* --- GET /orphans --- */

static int by_id(const void *a, const void *b)
{
    struct json_object *const *left = a;
    struct json_object *const *right = b;

    return strcmp(mr_json_get_string(*left, "id"), mr_json_get_string(*right, "id"));
}

static void orphan_id(char dst[MR_VOLUME_ID_MAX + 1], struct json_object *evidence)
{
    (void)snprintf(dst, MR_VOLUME_ID_MAX + 1, ID_PREFIX "%s",
                   mr_json_get_string(evidence, "token"));
}

static struct json_object *unknown_document(struct json_object *evidence)
{
    struct json_object *json = json_object_new_object();
    char id[MR_VOLUME_ID_MAX + 1];

    orphan_id(id, evidence);
    mr_json_set_string(json, "id", id);
    mr_json_set_string(json, "kind", "unknown");
    mr_json_set(json, "evidence", json_object_get(evidence));
    return json;
}

static void on_list(void *ctx, struct json_object *reply, const struct mr_err *err)
{
    struct mr_pending *pending = ctx;
    struct mr_engine *engine = pending->engine;
    struct json_object *items = json_object_new_array();
    MR_AUTO_JSON struct json_object *document = json_object_new_object();
    char text[MR_TIME_TEXT];

    pending->survey = NULL;
    for (struct mr_volume *volume = mr_engine_next_orphan(engine, NULL); volume;
         volume = mr_engine_next_orphan(engine, volume->id))
        (void)json_object_array_add(items, mr_orphan_document(volume));
    for (size_t i = 0; i < mr_json_count(reply, "orphans"); i++)
        (void)json_object_array_add(items,
                                    unknown_document(mr_json_at(reply, "orphans", i)));
    json_object_array_sort(items, by_id);
    mr_json_set(document, "items", items);
    /* What is forgotten is known without any search. */
    mr_json_set_bool(document, "complete",
                     !err && mr_json_get_bool(reply, "complete", false));
    mr_json_set_string(document, "searched_at", mr_time_text(mr_wall_ms(), text));
    mr_pending_answer(pending, document, NULL);
}

static struct mr_pending *search(struct mr_engine *engine, mr_search_fn found,
                                 mr_answer_fn fn, void *ctx, struct mr_err *err)
{
    if (mr_engine_recovering(engine)) {
        (void)mr_refuse_recovering(err);
        return NULL;
    }
    struct mr_pending *pending = mr_pending_new(engine, NULL, fn, ctx);
    if (pending)
        pending->survey = mr_survey_search(engine, found, pending);
    if (!pending || !pending->survey) {
        mr_pending_cancel(pending);
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "search for orphans");
        return NULL;
    }
    return pending;
}

struct mr_pending *mr_engine_orphans(struct mr_engine *engine, mr_answer_fn fn, void *ctx,
                                     struct mr_err *err)
{
    return search(engine, on_list, fn, ctx, err);
}

/* --- DELETE of what the journal does not know --- */

static bool is_mounted_at(struct json_object *orphan, const char *path)
{
    for (size_t i = 0; i < mr_json_count(orphan, "mounts"); i++) {
        const char *its = mr_json_get_string(mr_json_at(orphan, "mounts", i), "path");
        if (its && strcmp(its, path) == 0)
            return true;
    }
    return false;
}

int mr_refuse_unknown_detach(const struct mr_engine *engine, const char *id,
                             const char *mount_path, struct mr_err *err)
{
    struct json_object *seen = mr_surveys_last(engine->surveys);
    const struct mr_roots *roots = &engine->config->mount_roots;
    char place[PATH_MAX] = "";
    int rc;

    if (roots->count > 0)
        (void)mr_format(place, sizeof(place), "%s/%s", roots->path[0], id);
    for (size_t i = 0; i < mr_json_count(seen, "orphans"); i++) {
        struct json_object *orphan = mr_json_at(seen, "orphans", i);
        if (!is_mounted_at(orphan, mount_path ? mount_path : place))
            continue;
        rc = mr_fail(err, MR_E_ORPHAN, 0,
                     "there is no volume '%s' in the journal, but '%s' is mounted by us",
                     id, mount_path ? mount_path : place);
        err->residue = MR_RESIDUE_POSSIBLE;
        return mr_err_remedy(err, rc, "DELETE /orphans/" ID_PREFIX "%s takes it down",
                             mr_json_get_string(orphan, "token"));
    }
    rc = mr_refuse_unknown(id, err);
    /* "Not known" is "gone" for many callers. */
    if (mr_json_count(seen, "orphans") == 0 && mr_json_get_bool(seen, "complete", false))
        return rc;
    err->residue = MR_RESIDUE_UNKNOWN;
    return mr_err_remedy(err, rc,
                         "it may be one of those that no journal knows: GET /orphans");
}

/* --- adopting one --- */

static struct json_object *find(struct json_object *reply, const char *id)
{
    char its_id[MR_VOLUME_ID_MAX + 1];

    for (size_t i = 0; i < mr_json_count(reply, "orphans"); i++) {
        struct json_object *evidence = mr_json_at(reply, "orphans", i);
        orphan_id(its_id, evidence);
        if (strcmp(its_id, id) == 0)
            return evidence;
    }
    return NULL;
}

/* Ids that the kernel never uses again come first, in the order of their making
 * (statmount(2), STATMOUNT_MNT_BASIC); others may be in any order. */
static bool is_older(struct json_object *a, struct json_object *b)
{
    struct mr_mount_record one;
    struct mr_mount_record two;

    mr_mount_record_from_json(&one, mr_json_get(a, "mount"));
    mr_mount_record_from_json(&two, mr_json_get(b, "mount"));
    if (one.mount.unique != two.mount.unique)
        return one.mount.unique;
    return one.mount.id < two.mount.id;
}

/* Its mount below a root of ours: the oldest is the one that we made, the others are
 * copies, and holders. NULL: none. */
static struct json_object *own_mount(struct json_object *evidence)
{
    struct json_object *own = NULL;

    for (size_t i = 0; i < mr_json_count(evidence, "mounts"); i++) {
        struct json_object *mount = mr_json_at(evidence, "mounts", i);
        if (mr_json_get(mount, "mount") && (!own || is_older(mount, own)))
            own = mount;
    }
    return own;
}

/* A spec of nothing that exists: names below .invalid belong to nobody (RFC 2606). */
static struct json_object *unknown_source(const char *driver, const char *nowhere)
{
    struct json_object *source = json_object_new_object();
    struct json_object *portals;

    mr_json_set_string(source, "driver", driver);
    if (strcmp(driver, "iscsi") != 0) {
        mr_json_set_string(source, "path", nowhere);
        return source;
    }
    portals = json_object_new_array();
    (void)json_object_array_add(portals, json_object_new_string("unknown.invalid"));
    mr_json_set(source, "portals", portals);
    mr_json_set_string(source, "target", "iqn.1970-01.invalid.unknown:target");
    mr_json_set_int(source, "lun", 0);
    return source;
}

/* What it was attached by is gone with its record. What was seen of it is filled in; when
 * that makes no valid spec, less of it. Such a spec is good for detaching only. */
static struct mr_spec *make_spec(const char *id, struct json_object *evidence, bool seen,
                                 struct mr_err *err)
{
    const char *driver = mr_json_get_string(evidence, "driver");
    struct json_object *mount = seen ? own_mount(evidence) : NULL;
    const char *fs_type = mr_json_get_string(mount, "fs_type");
    const char *path = mr_json_get_string(mount, "path");
    MR_AUTO_JSON struct json_object *json = json_object_new_object();
    struct json_object *filesystem = json_object_new_object();
    char nowhere[MR_VOLUME_ID_MAX + 16];
    struct mr_spec *spec = NULL;

    (void)snprintf(nowhere, sizeof(nowhere), "/unknown/%s", id);
    struct json_object *source = unknown_source(driver ? driver : "file", nowhere);
    struct json_object *known = seen ? mr_json_get(evidence, "source") : NULL;
    if (json_object_is_type(known, json_type_object)) {
        json_object_object_foreach(known, key, value)
            mr_json_set(source, key, json_object_get(value));
    }
    mr_json_set_string(filesystem, "type", fs_type ? fs_type : "ext4");
    mr_json_set(json, "source", source);
    mr_json_set(json, "filesystem", filesystem);
    mr_json_set_string(json, "mount_path", path ? path : nowhere);
    return mr_spec_decode_public(json, &spec, err) == 0 ? spec : NULL;
}

static struct mr_volume *make_volume(struct mr_engine *engine, const char *id,
                                     struct json_object *evidence, bool complete,
                                     struct json_object *caller, struct mr_err *err)
{
    struct json_object *mount = own_mount(evidence);
    struct mr_volume *volume = mr_engine_lookup(engine, id); /* taken down once before */
    bool is_new = !volume;
    struct mr_spec *spec = make_spec(id, evidence, true, err);

    if (!spec)
        spec = make_spec(id, evidence, false, err);
    if (!spec)
        return NULL;
    if (is_new)
        volume = mr_volume_new(engine, id);
    if (!volume || (is_new && mr_engine_insert(engine, volume, err) < 0)) {
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "adopt '%s'", id);
        mr_volume_free(volume);
        mr_spec_free(spec);
        return NULL;
    }
    if (is_new)
        volume->number = mr_journal_number(engine->journal);
    mr_retention_keep(volume);
    mr_volume_clear_facts(volume);
    mr_spec_free(volume->spec);
    volume->spec = spec;
    mr_json_copy_string(evidence, "token", volume->token, sizeof(volume->token));
    memcpy(volume->boot_id, engine->boot_id, sizeof(volume->boot_id));
    mr_identity_from_json(&volume->identity, mr_json_get(evidence, "identity"));
    if (volume->identity.diskseq == 0) {
        /* A server without a device: its end is awaited. */
        struct json_object *server = mr_json_get(evidence, "server");
        volume->identity.lun_pid = (pid_t)mr_json_get_int(server, "pid", 0);
        volume->identity.lun_start_time =
            (uint64_t)mr_json_get_int(server, "start_time", 0);
    }
    volume->server_lost = complete && volume->identity.diskseq != 0 &&
                          strcmp(spec->driver, "iscsi") == 0 &&
                          !mr_json_get(evidence, "server");
    mr_mount_record_from_json(&volume->mount, mr_json_get(mount, "mount"));
    volume->forgotten = json_object_new_object();
    mr_json_set_string(volume->forgotten, "reason", "found in no journal");
    mr_json_set_int(volume->forgotten, "at_ms", mr_wall_ms());
    mr_json_set(volume->forgotten, "by", json_object_get(caller));
    mr_volume_set_error(volume, NULL);
    mr_volume_set_state(volume, MR_STATE_ORPHAN);
    return volume;
}

/* Nobody was told yet, and nothing was done: it is an unknown orphan again. */
static void not_adopted(struct mr_volume *volume)
{
    mr_volume_clear_facts(volume);
    mr_volume_set_state(volume, MR_STATE_ABSENT);
}

static void on_adopted(void *ctx, int rc, const struct mr_err *err)
{
    struct mr_volume *volume = ctx;
    struct mr_pending *pending = volume->adopting;

    volume->unadopted = false;
    mr_unsaved_result(volume->engine, rc, err);
    if (rc < 0)
        not_adopted(volume);
    MR_AUTO_JSON struct json_object *document = mr_volume_document(volume);
    mr_pending_answer(pending, rc < 0 ? NULL : document, rc < 0 ? err : NULL);
}

/* complete: what evidence does not name is not there. */
static void adopt(struct mr_pending *pending, struct json_object *evidence, bool complete)
{
    struct mr_err err;
    struct mr_volume *volume = make_volume(pending->engine, pending->orphan, evidence,
                                           complete, pending->caller, &err);

    if (!volume) {
        mr_pending_answer(pending, NULL, &err);
        return;
    }
    pending->slot = &volume->adopting;
    volume->adopting = pending;
    volume->unadopted = true;
    mr_volume_record(volume, "adopted", evidence, on_adopted, volume);
    /* It is none of those any more. From here on evidence may be gone. */
    (void)mr_surveys_last(pending->engine->surveys);
}

static void on_found(void *ctx, struct json_object *reply, const struct mr_err *err)
{
    struct mr_pending *pending = ctx;
    struct mr_volume *volume = mr_engine_find(pending->engine, pending->orphan);
    struct json_object *evidence = find(reply, pending->orphan);
    struct mr_err why;

    pending->survey = NULL;
    if (volume && volume->unadopted) {
        (void)mr_fail(&why, MR_E_OPERATION_PENDING, 0, "'%s' is being adopted",
                      pending->orphan);
        (void)mr_err_remedy(&why, 0, "ask again");
        mr_pending_answer(pending, NULL, &why);
    } else if (volume && !volume->forgotten) {
        (void)mr_fail(&why, MR_E_SPEC_CONFLICT, 0, "a volume '%s' was attached by PUT",
                      pending->orphan);
        (void)mr_err_remedy(&why, 0, "DELETE /volumes/%s first", pending->orphan);
        mr_pending_answer(pending, NULL, &why);
    } else if (volume) {
        MR_AUTO_JSON struct json_object *document = mr_volume_document(volume);
        mr_pending_answer(pending, document, NULL);
    } else if (evidence && !mr_json_get(evidence, "identity") &&
               !mr_json_get(evidence, "server")) {
        (void)mr_fail(
            &why, MR_E_DEVICE_HELD, 0,
            "of '%s' there is only a mount of its FUSE file left: no device and "
            "no server that a detach could wait for",
            pending->orphan);
        (void)mr_err_remedy(&why, 0, "umount it");
        mr_pending_answer(pending, NULL, &why);
    } else if (evidence) {
        adopt(pending, evidence, mr_json_get_bool(reply, "complete", false));
    } else if (err || !mr_json_get_bool(reply, "complete", false)) {
        (void)mr_fail(&why, MR_E_DEVICE_ERROR, 0,
                      "'%s' was not found, but not everything could be searched%s%s",
                      pending->orphan, err ? ": " : "", err ? err->message : "");
        mr_pending_answer(pending, NULL, &why);
    } else {
        (void)mr_fail(&why, MR_E_VOLUME_NOT_FOUND, 0, "there is no orphan '%s'",
                      pending->orphan);
        mr_pending_answer(pending, NULL, &why);
    }
}

struct mr_pending *mr_engine_adopt(struct mr_engine *engine, const char *id,
                                   struct json_object *caller, mr_answer_fn fn, void *ctx,
                                   struct mr_err *err)
{
    size_t prefix = strlen(ID_PREFIX);

    if (strncmp(id, ID_PREFIX, prefix) != 0 || strlen(id + prefix) != MR_TOKEN_TEXT - 1) {
        (void)mr_fail(err, MR_E_VOLUME_NOT_FOUND, 0, "there is no orphan '%s'", id);
        return NULL;
    }
    struct mr_pending *pending = search(engine, on_found, fn, ctx, err);
    if (pending) {
        memcpy(pending->orphan, id, strlen(id) + 1);
        pending->caller = json_object_get(caller);
    }
    return pending;
}
