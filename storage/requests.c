/* SPDX-License-Identifier: Apache-2.0
 *
 * PUT and DELETE: whether a request may start, join or must be refused is decided here,
 * before anything is touched.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/engine_internal.h"

/* --- PUT --- */

/* What is below root, or NULL. */
static const char *below(const char *root, const char *path)
{
    size_t len = root ? strlen(root) : 0;
    return root && strncmp(path, root, len) == 0 && path[len] == '/' ? path + len + 1
                                                                     : NULL;
}

int mr_request_place(const struct mr_config *config, const char *mount_path,
                     struct mr_mount_record *ret, struct mr_err *err)
{
    const struct mr_roots *roots = &config->mount_roots;

    memset(ret, 0, sizeof(*ret));
    if (strlen(mount_path) >= MR_MOUNT_TEXT) {
        (void)mr_fail_at(err, MR_E_PATH_NOT_ALLOWED, "/mount_path",
                         "the mount path has more than %d bytes", MR_MOUNT_TEXT - 1);
        return mr_err_remedy(err, -EINVAL, "choose a shorter one");
    }
    for (size_t i = 0; i < roots->count; i++) {
        const char *rest = below(roots->path[i], mount_path);
        if (!rest)
            rest = below(roots->given[i], mount_path);
        if (rest && mr_format(ret->root, sizeof(ret->root), "%s", roots->path[i]) == 0 &&
            mr_format(ret->path, sizeof(ret->path), "%s", rest) == 0)
            return 0;
    }
    (void)mr_fail_at(err, MR_E_PATH_NOT_ALLOWED, "/mount_path",
                     "'%s' is below none of the configured mount roots", mount_path);
    return mr_err_remedy(err, -EINVAL, "choose a path below one of [mount] roots");
}

/* Equal, or one inside the other: a mount made inside a volume would hold it. */
static bool places_overlap(const struct mr_mount_record *one,
                           const struct mr_mount_record *two)
{
    char a[PATH_MAX];
    char b[PATH_MAX];

    if (mr_format(a, sizeof(a), "%s/%s", one->root, one->path) < 0 ||
        mr_format(b, sizeof(b), "%s/%s", two->root, two->path) < 0)
        return true; /* cannot tell; no such path can be mounted on either */
    size_t len_a = strlen(a);
    size_t len_b = strlen(b);
    size_t len = len_a < len_b ? len_a : len_b;

    if (strncmp(a, b, len) != 0)
        return false;
    return len_a == len_b || (len_a < len_b ? b[len] : a[len]) == '/';
}

static int refuse_owned(enum mr_code code, const char *pointer,
                        const struct mr_volume *owner, const char *what,
                        struct mr_err *err)
{
    (void)mr_fail_at(err, code, pointer, "%s is used by volume '%s'", what, owner->id);
    (void)mr_err_remedy(err, 0, "detach volume '%s' first", owner->id);
    (void)snprintf(err->volume, sizeof(err->volume), "%s", owner->id);
    return -EBUSY;
}

int mr_request_check_unique(const struct mr_engine *engine, const struct mr_volume *self,
                            const struct mr_spec *spec,
                            const struct mr_mount_record *place, struct mr_err *err)
{
    char key[MR_KEY_TEXT];
    char other_key[MR_KEY_TEXT];

    int rc = mr_spec_source_key(spec, key, sizeof(key));
    if (rc < 0)
        return mr_fail_at(err, MR_E_INVALID_SPEC, "/source",
                          "the source's name is too long");
    for (size_t i = 0; i < engine->volume_count; i++) {
        const struct mr_volume *other = engine->volumes[i];
        if (other == self || !mr_volume_has_residue(other))
            continue;
        if (mr_spec_source_key(other->spec, other_key, sizeof(other_key)) == 0 &&
            strcmp(key, other_key) == 0)
            return refuse_owned(MR_E_SOURCE_IN_USE, "/source", other, "the source", err);
        if (places_overlap(place, &other->mount))
            return refuse_owned(MR_E_MOUNT_PATH_BUSY, "/mount_path", other,
                                "the mount path", err);
    }
    return 0;
}

static struct mr_volume *get_or_new(struct mr_engine *engine, struct mr_volume *volume,
                                    const char *id, struct mr_err *err)
{
    if (volume) {
        mr_retention_keep(volume);
        return volume;
    }
    volume = mr_volume_new(engine, id);
    if (!volume || mr_engine_insert(engine, volume, err) < 0) {
        mr_volume_free(volume);
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "keep volume '%s'", id);
        return NULL;
    }
    volume->number = mr_journal_number(engine->journal);
    return volume;
}

struct mr_operation *mr_request_operation(struct mr_volume *volume, enum mr_goal goal,
                                          struct mr_err *err)
{
    struct mr_operation *op = mr_operation_new(volume->engine, volume, goal, NULL);
    if (!op) {
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "start an operation on '%s'",
                      volume->id);
        return NULL;
    }
    op->prior_state = volume->state;
    mr_engine_keep_operation(volume->engine, op);
    return op;
}

/* What is known of an mkfs belongs to the source on which it was begun. */
bool mr_request_same_source(const struct mr_spec *a, const struct mr_spec *b)
{
    char key_a[MR_KEY_TEXT];
    char key_b[MR_KEY_TEXT];

    return a && mr_spec_source_key(a, key_a, sizeof(key_a)) == 0 &&
           mr_spec_source_key(b, key_b, sizeof(key_b)) == 0 && strcmp(key_a, key_b) == 0;
}

/* Everything was checked: the volume becomes this spec's, with a token of its own. Takes
 * spec in every case. */
static int begin_fresh(struct mr_volume *volume, struct mr_operation *op,
                       struct mr_spec *spec, const struct mr_mount_record *place,
                       struct mr_err *err)
{
    char token[MR_TOKEN_TEXT];

    if (mr_random_hex(16, token) < 0) {
        mr_spec_free(spec);
        return mr_fail(err, MR_E_INTERNAL, EIO, "choose an attach token");
    }
    op->before = mr_volume_to_row(volume);
    if (!mr_request_same_source(volume->spec, spec))
        memset(&volume->format, 0, sizeof(volume->format));
    mr_spec_free(volume->spec);
    volume->spec = spec;
    mr_volume_clear_facts(volume);
    volume->mount = *place;
    memcpy(volume->token, token, sizeof(token));
    memcpy(volume->boot_id, volume->engine->boot_id, sizeof(volume->boot_id));
    mr_volume_set_error(volume, NULL);
    mr_volume_set_state(volume, MR_STATE_ATTACHING);
    op->fresh = true;
    mr_operation_start(op, mr_plan(MR_STATE_ABSENT, MR_GOAL_ATTACHED), "attach_intent");
    return 0;
}

void mr_request_failed(struct mr_volume *volume, struct mr_operation *op,
                       const struct mr_err *err)
{
    op->prior_state = volume->state;
    volume->op = op;
    mr_operation_fail(op, err);
}

static int start_fresh(struct mr_volume *volume, struct mr_spec *spec,
                       const struct mr_mount_record *place, struct mr_operation **ret_op,
                       struct mr_err *err)
{
    struct mr_operation *op = mr_request_operation(volume, MR_GOAL_ATTACHED, err);
    if (!op) {
        mr_spec_free(spec);
        return -ENOMEM;
    }
    *ret_op = op;
    int rc = begin_fresh(volume, op, spec, place, err);
    if (rc < 0)
        mr_request_failed(volume, op, err);
    return rc;
}

int mr_request_attach_fresh(struct mr_volume *volume, struct mr_operation *op,
                            struct mr_spec *spec, struct mr_err *err)
{
    struct mr_mount_record place;
    int rc = mr_request_place(volume->engine->config, spec->mount_path, &place, err);

    if (rc == 0)
        rc = mr_request_check_unique(volume->engine, volume, spec, &place, err);
    if (rc == 0)
        return begin_fresh(volume, op, spec, &place, err);
    mr_spec_free(spec);
    return rc;
}

/* The same spec again: look at the kernel, and mend what is missing. */
static int start_verify(struct mr_volume *volume, struct mr_spec *spec,
                        struct mr_operation **ret_op, struct mr_err *err)
{
    const enum mr_step *plan = mr_plan(volume->state, MR_GOAL_ATTACHED);
    struct mr_operation *op =
        plan ? mr_request_operation(volume, MR_GOAL_ATTACHED, err) : NULL;

    if (!op) {
        mr_spec_free(spec);
        return plan ? -ENOMEM
                    : mr_fail(err, MR_E_FENCED, 0, "volume '%s' is fenced", volume->id);
    }
    mr_spec_free(volume->spec);
    volume->spec = spec; /* the secrets may be new */
    /* To look at what is attached promises nothing. */
    mr_operation_start(op, plan,
                       volume->state == MR_STATE_ATTACHED ? NULL : "mend_asked");
    *ret_op = op;
    return 0;
}

/* Takes spec in every case. */
static int join_attach(struct mr_volume *volume, struct mr_spec *spec,
                       struct mr_operation **ret_op, struct mr_err *err)
{
    struct mr_operation *op = volume->op;
    int rc = 0;

    if (volume->wedged)
        rc = mr_refuse_wedged(volume, err);
    else if (op->undoing && !op->known_held) /* a moment, then it is as it was */
        rc = mr_refuse_pending(volume, err);
    else if (!mr_spec_equal(volume->spec, spec))
        rc = mr_refuse_other_spec(volume, err);
    else if (op->goal == MR_GOAL_ATTACHED && !op->undoing)
        return mr_preempt_join(volume, spec, ret_op, err);
    else if ((rc = mr_preempt_may_follow(volume, spec, err)) == 0 &&
             (rc = mr_cancel_for_attach(volume, spec, ret_op, err)) == 0)
        return 0;
    mr_spec_free(spec);
    return rc;
}

int mr_engine_attach(struct mr_engine *engine, const char *id, struct mr_spec *spec,
                     struct mr_operation **ret_op, struct mr_err *err)
{
    struct mr_volume *volume = mr_engine_lookup(engine, id);
    struct mr_mount_record place;
    int rc = 0;

    if (volume && mr_volume_has_residue(volume) && !volume->op)
        mr_server_watch(volume); /* at rest, it may be unwatched */
    if (mr_engine_recovering(engine))
        rc = mr_refuse_recovering(err);
    else if (volume && volume->forgotten)
        rc = mr_refuse_orphan(volume, err);
    else if (volume && volume->op)
        return join_attach(volume, spec, ret_op, err);
    else if (volume && mr_volume_has_residue(volume) && volume->forced)
        rc = mr_refuse_forced(volume, err);
    else if (volume && mr_volume_has_residue(volume) && mr_act_may_touch(volume))
        rc = mr_refuse_acting(volume, err);
    else if (volume && mr_volume_has_residue(volume) &&
             !mr_spec_equal(volume->spec, spec))
        rc = mr_refuse_other_spec(volume, err);
    else if (volume && mr_volume_has_residue(volume) && mr_server_is_dead(volume))
        return mr_cancel_detach_first(volume, spec, ret_op, err);
    else if (volume && mr_volume_has_residue(volume) && volume->mount.root[0])
        return start_verify(volume, spec, ret_op, err);
    else {
        rc = mr_request_place(engine->config, spec->mount_path, &place, err);
        if (rc == 0)
            rc = mr_request_check_unique(engine, volume, spec, &place, err);
        if (rc == 0)
            volume = get_or_new(engine, volume, id, err);
        if (rc == 0 && volume && mr_volume_has_residue(volume)) {
            /* A detach ended without its record: what is left is looked at first. */
            volume->mount = place;
            return start_verify(volume, spec, ret_op, err);
        }
        if (rc == 0 && volume)
            return start_fresh(volume, spec, &place, ret_op, err);
        rc = rc < 0 ? rc : -ENOMEM;
    }
    mr_spec_free(spec); /* refused */
    return rc;
}

/* --- DELETE --- */

void mr_request_end_at_once(struct mr_volume *volume, struct mr_operation *op)
{
    op->before = mr_volume_to_row(volume);
    volume->op = op;
    mr_detach_finish(op);
}

/* Nothing of it exists in this boot: the end is all there is to do. */
static int end_at_once(struct mr_volume *volume, struct mr_operation **ret_op,
                       struct mr_err *err)
{
    struct mr_operation *op = mr_request_operation(volume, MR_GOAL_ABSENT, err);
    if (!op)
        return -ENOMEM;
    if (volume->state == MR_STATE_LOST_BY_REBOOT) {
        op->evidence = json_object_new_object();
        mr_json_set_bool(op->evidence, "exclusive_open", false);
        mr_json_set_string(op->evidence, "gone", "another boot");
        mr_json_set_string(op->evidence, "attach_boot_id", volume->boot_id);
        mr_json_set_string(op->evidence, "boot_id", volume->engine->boot_id);
    }
    mr_request_end_at_once(volume, op);
    *ret_op = op;
    return 0;
}

static int start_detach(struct mr_volume *volume, bool accept_data_loss,
                        struct mr_operation **ret_op, struct mr_err *err)
{
    const enum mr_step *plan = mr_plan(volume->state, MR_GOAL_ABSENT);
    if (!plan)
        return mr_refuse_wedged(volume, err);
    struct mr_operation *op = mr_request_operation(volume, MR_GOAL_ABSENT, err);
    if (!op)
        return -ENOMEM;
    op->accept_data_loss = accept_data_loss;
    op->waited_for = json_object_get(mr_json_get(volume->forgotten, "waited_for"));
    mr_volume_set_state(volume, MR_STATE_DETACHING);
    mr_operation_start(op, plan, "detach_intent");
    *ret_op = op;
    return 0;
}

static int join_detach(struct mr_volume *volume, bool accept_data_loss,
                       struct mr_operation **ret_op, struct mr_err *err)
{
    struct mr_operation *op = volume->op;
    bool undo_waits = op->undoing && op->known_held && !volume->wedged;

    if (op->goal == MR_GOAL_ABSENT || undo_waits)
        mr_cancel_for_delete(op);
    if (undo_waits)
        return mr_cancel_for_detach(volume, accept_data_loss, ret_op, err);
    if (op->goal != MR_GOAL_ABSENT)
        return volume->wedged ? mr_refuse_wedged(volume, err)
                              : mr_refuse_pending(volume, err);
    if (op->then) /* a PUT came before: what it asked for is to be awaited */
        return mr_refuse_pending(volume, err);
    op->accept_data_loss = op->accept_data_loss || accept_data_loss;
    *ret_op = op;
    return 0;
}

int mr_request_detach(struct mr_volume *volume, bool accept_data_loss,
                      struct mr_operation **ret_op, struct mr_err *err)
{
    if (volume->op)
        return join_detach(volume, accept_data_loss, ret_op, err);
    if (!mr_volume_has_residue(volume))
        return end_at_once(volume, ret_op, err);
    if (volume->data_not_written && !accept_data_loss)
        return mr_refuse_lost_writes(volume, err);
    return start_detach(volume, accept_data_loss, ret_op, err);
}

int mr_engine_detach(struct mr_engine *engine, const char *id, const char *mount_path,
                     bool accept_data_loss, struct mr_operation **ret_op,
                     struct json_object **ret_proof, struct mr_err *err)
{
    struct mr_volume *volume = mr_engine_lookup(engine, id);

    *ret_op = NULL;
    *ret_proof = NULL;
    if (mr_engine_recovering(engine))
        return mr_refuse_recovering(err);
    if (!volume)
        return mr_refuse_unknown_detach(engine, id, mount_path, err);
    if (volume->state == MR_STATE_ABSENT && !volume->op) {
        *ret_proof = json_object_get(volume->proof);
        return *ret_proof ? 0 : mr_refuse_unknown_detach(engine, id, mount_path, err);
    }
    if (mount_path && strcmp(mount_path, volume->spec->mount_path) != 0)
        return mr_fail(err, MR_E_SPEC_CONFLICT, 0,
                       "volume '%s' is not at '%s' but at '%s'; "
                       "nothing was changed",
                       id, mount_path, volume->spec->mount_path);
    if (volume->forgotten)
        return mr_refuse_orphan(volume, err);
    return mr_request_detach(volume, accept_data_loss, ret_op, err);
}
