/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/preflight.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/json.h"

static bool joined_by_put(const struct mr_operation *op)
{
    return op->goal == MR_GOAL_ATTACHED && !op->undoing;
}

/* It is of this spec. */
static int decide_again(const struct mr_volume *volume, struct mr_preflight *asked,
                        struct mr_err *err)
{
    const struct mr_operation *op = volume->op;
    bool dead = mr_server_is_dead(volume);

    asked->stands = !op && !dead && volume->state == MR_STATE_ATTACHED;
    asked->afresh = dead && !(op && joined_by_put(op));
    if (op && joined_by_put(op)) {
        int rc = mr_preempt_may_join(volume, asked->spec, err);
        return rc < 0 ? rc : 0;
    }
    if (op) {
        int rc = mr_cancel_may_follow(volume, MR_GOAL_ATTACHED, err);
        return rc < 0 ? rc : mr_preempt_may_follow(volume, asked->spec, err);
    }
    if (dead)
        return volume->data_not_written ? mr_refuse_lost_writes(volume, err) : 0;
    /* Without a server there is nothing that could stay mapped. */
    return volume->server ? mr_preempt_check_mapped(volume, asked->spec, err) : 0;
}

/* As mr_engine_attach() and its join_attach() decide. */
static int decide(struct mr_engine *engine, struct mr_preflight *asked,
                  struct mr_mount_record *ret_place, struct mr_err *err)
{
    const struct mr_volume *volume = mr_engine_lookup(engine, asked->id);
    const struct mr_operation *op = volume ? volume->op : NULL;
    const struct mr_spec *spec = asked->spec;
    bool there = volume && (op || mr_volume_has_residue(volume));

    asked->mapped = there;
    if (mr_engine_recovering(engine))
        return mr_refuse_recovering(err);
    if (volume && volume->forgotten)
        return mr_refuse_orphan(volume, err);
    if (op && volume->wedged)
        return mr_refuse_wedged(volume, err);
    if (op && op->undoing && !op->known_held)
        return mr_refuse_pending(volume, err);
    if (there && !op && volume->forced)
        return mr_refuse_forced(volume, err);
    if (there && !op && mr_act_may_touch(volume))
        return mr_refuse_acting(volume, err);
    if (there)
        return mr_spec_equal(volume->spec, spec) ? decide_again(volume, asked, err)
                                                 : mr_refuse_other_spec(volume, err);
    int rc = mr_request_place(engine->config, spec->mount_path, ret_place, err);
    return rc < 0 ? rc : mr_request_check_unique(engine, volume, spec, ret_place, err);
}

int mr_preflight_would_attach(struct mr_engine *engine, struct mr_preflight *asked,
                              struct mr_mount_record *ret_place)
{
    memset(ret_place, 0, sizeof(*ret_place));
    int rc = decide(engine, asked, ret_place, &asked->why);
    asked->refused = rc < 0;
    return rc;
}

/* The same disk under another name is found only by what it says of itself. */
static int check_owner(const struct mr_engine *engine, const struct mr_preflight *asked,
                       struct json_object *message, struct mr_err *err)
{
    const char *key = mr_json_get_string(message, "source_key");
    const char *wwn = mr_json_get_string(message, "wwn");

    for (size_t i = 0; i < engine->volume_count; i++) {
        const struct mr_volume *other = engine->volumes[i];
        const struct mr_identity *identity = &other->identity;
        if (strcmp(other->id, asked->id) == 0 || identity->diskseq == 0 ||
            !mr_volume_has_residue(other))
            continue;
        if (!(key && key[0] && strcmp(identity->source_key, key) == 0) &&
            !(wwn && wwn[0] && strcmp(identity->wwn, wwn) == 0))
            continue;
        (void)mr_fail(err, MR_E_SOURCE_IN_USE, 0, "the source is attached as volume '%s'",
                      other->id);
        (void)snprintf(err->volume, sizeof(err->volume), "%s", other->id);
        return mr_err_remedy(err, -EBUSY, "detach volume '%s' first", other->id);
    }
    return 0;
}

/* In the order in which an attach would come to it. */
static int judge(struct mr_engine *engine, const struct mr_preflight *asked,
                 struct json_object *message, const struct mr_err *failure,
                 bool *ret_format, struct mr_err *err)
{
    const struct mr_content content = {
        .content = mr_json_get_string(message, "content"),
        .fs_type = mr_json_get_string(message, "fs_type"),
        .fs_uuid = mr_json_get_string(message, "fs_uuid"),
        .detail = mr_json_get_string(message, "detail"),
    };

    *ret_format = false;
    if (asked->refused) {
        *err = asked->why;
        return -EBUSY;
    }
    if (asked->stands && (!failure || failure->code != MR_E_INTERNAL))
        return 0;
    bool may_be_owned = !failure || failure->code == MR_E_SOURCE_IN_USE;
    if (may_be_owned && check_owner(engine, asked, message, err) < 0)
        return -EBUSY;
    if (failure) {
        *err = *failure;
        return -EIO;
    }
    if (asked->mapped && !asked->afresh)
        return 0;
    int r = mr_content_judge(mr_engine_lookup(engine, asked->id), asked->spec, &content,
                             ret_format, err);
    if (r == 0 && mr_json_get(message, "mount_error")) {
        mr_err_from_json(err, mr_json_get(message, "mount_error"));
        r = -EBUSY;
    }
    return r;
}

static void copy(struct json_object *from, struct json_object *to, const char *key)
{
    struct json_object *value = mr_json_get(from, key);

    mr_json_set(to, key, value ? json_object_get(value) : NULL);
}

static void say_found(struct json_object *message, struct json_object *json)
{
    static const char *const members[] = {"fs_type", "fs_uuid", "label", "detail"};
    struct json_object *found = NULL;

    copy(message, json, "content");
    if (mr_json_get(message, "content"))
        found = json_object_new_object();
    for (size_t i = 0; found && i < sizeof(members) / sizeof(members[0]); i++) {
        const char *text = mr_json_get_string(message, members[i]);
        mr_json_set_string(found, members[i], text && text[0] ? text : NULL);
    }
    mr_json_set(json, "found", found);
}

static void say_identity(struct json_object *message, struct json_object *json)
{
    struct json_object *identity = NULL;

    if (mr_json_get(message, "size_bytes")) {
        const char *serial = mr_json_get_string(message, "serial");
        const char *wwn = mr_json_get_string(message, "wwn");
        identity = json_object_new_object();
        mr_json_set_string(identity, "serial", serial ? serial : "");
        mr_json_set_string(identity, "wwn", wwn ? wwn : "");
    }
    mr_json_set(json, "identity", identity);
}

bool mr_preflight_is_about_request(enum mr_code code)
{
    return code == MR_E_PATH_NOT_ALLOWED || code == MR_E_INVALID_SPEC ||
           code == MR_E_UNKNOWN_FIELD || code == MR_E_FILESYSTEM_UNSUPPORTED;
}

struct json_object *mr_preflight_document(struct mr_engine *engine,
                                          const struct mr_preflight *asked,
                                          struct json_object *message,
                                          const struct mr_err *failure,
                                          struct mr_err *err)
{
    static const char *const members[] = {"portals",    "credentials",     "size_bytes",
                                          "block_size", "write_protected", "thin"};
    bool format = false;
    bool refused = judge(engine, asked, message, failure, &format, err) < 0;

    if (refused && err->residue == MR_RESIDUE_UNKNOWN)
        err->residue = MR_RESIDUE_NONE; /* of a look */
    if (refused &&
        (mr_preflight_is_about_request(err->code) || err->code == MR_E_INTERNAL))
        return NULL;
    struct json_object *json = json_object_new_object();
    mr_json_set_string(json, "volume", asked->id);
    mr_json_set_string(json, "would",
                       refused                           ? "refused"
                       : asked->mapped && !asked->afresh ? "verify"
                       : format                          ? "format"
                                                         : "attach");
    mr_json_set(json, "problem", refused ? mr_err_to_json(err) : NULL);
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        copy(message, json, members[i]);
    say_identity(message, json);
    say_found(message, json);
    mr_json_set_string(json, "mount_path", asked->spec->mount_path);
    return json;
}
