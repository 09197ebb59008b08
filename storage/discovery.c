/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/discovery.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/engine_internal.h"
#include "storage/preflight.h"
#include "storage/spec_fields.h"

/* The answer shall come within the caller's time; the rest is for processes. */
#define ANSWER_MS 150
#define GRACE_NS (3 * MR_NS_PER_S)
#define TARGET_TIMEOUT_MAX_MS 60000LL

struct mr_discovery {
    struct mr_engine *engine;
    struct mr_discovery *next;
    struct mr_pending *pending; /* NULL: was answered; its process is still to end */
    struct mr_worker *worker;
    char portal[MR_FIELD_TEXT_MAX]; /* of a discovery */
    struct mr_preflight asked;      /* spec NULL: a discovery */
};

/* --- its life --- */

static void discovery_free(struct mr_discovery *discovery)
{
    for (struct mr_discovery **at = &discovery->engine->discoveries; *at;
         at = &(*at)->next) {
        if (*at == discovery) {
            *at = discovery->next;
            break;
        }
    }
    mr_spec_free(discovery->asked.spec);
    free(discovery);
}

/* The process gets SIGKILL; where that has to wait for the kernel, so has our place. */
void mr_discovery_cancel(struct mr_discovery *discovery)
{
    if (!discovery)
        return;
    discovery->pending = NULL;
    mr_worker_kill(discovery->worker);
}

void mr_discovery_stop(struct mr_engine *engine)
{
    while (engine->discoveries) {
        mr_worker_kill(engine->discoveries->worker);
        mr_worker_end(engine->discoveries->worker);
        discovery_free(engine->discoveries);
    }
}

static void answer(struct mr_discovery *discovery, struct json_object *document,
                   const struct mr_err *err)
{
    struct mr_pending *pending = discovery->pending;

    discovery->pending = NULL;
    if (!pending)
        return;
    pending->discovery = NULL;
    mr_pending_answer(pending, document, err);
}

static unsigned count(const struct mr_engine *engine)
{
    unsigned n = 0;

    for (const struct mr_discovery *d = engine->discoveries; d; d = d->next)
        n++;
    return n;
}

/* --- GET /discovery: its document --- */

static const struct mr_field *portal_field(void)
{
    const struct mr_field *field = mr_source_driver("iscsi")->fields;

    while (field->name && strcmp(field->name, "portals") != 0)
        field++;
    return field;
}

bool mr_discovery_portal_valid(const char *portal)
{
    const struct mr_field *field = portal_field();
    size_t len = strlen(portal);

    return len >= (size_t)field->min && len <= (size_t)field->max && field->check(portal);
}

/* Members that are there only when they are known, are null else. */
static void copy(struct json_object *from, struct json_object *to, const char *key)
{
    struct json_object *value = mr_json_get(from, key);

    mr_json_set(to, key, value ? json_object_get(value) : NULL);
}

static struct json_object *lun_document(struct json_object *lun)
{
    static const char *const members[] = {
        "lun",    "size_bytes", "block_size",      "serial", "wwn",
        "vendor", "product",    "write_protected", "thin",   "error"};
    struct json_object *json = json_object_new_object();

    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        copy(lun, json, members[i]);
    return json;
}

static struct json_object *target_document(struct json_object *target)
{
    struct json_object *json = json_object_new_object();
    struct json_object *luns = json_object_new_array();

    copy(target, json, "name");
    copy(target, json, "portals");
    mr_json_set_bool(json, "complete", mr_json_get_bool(target, "complete", false));
    for (size_t i = 0; i < mr_json_count(target, "luns"); i++)
        (void)json_object_array_add(luns, lun_document(mr_json_at(target, "luns", i)));
    mr_json_set(json, "luns", luns);
    copy(target, json, "error");
    return json;
}

static void answer_discovered(struct mr_discovery *discovery, struct json_object *message)
{
    MR_AUTO_JSON struct json_object *json = json_object_new_object();
    struct json_object *targets = json_object_new_array();

    mr_json_set_string(json, "driver", "iscsi");
    mr_json_set_string(json, "portal", discovery->portal);
    mr_json_set_bool(json, "complete", mr_json_get_bool(message, "complete", false));
    for (size_t i = 0; i < mr_json_count(message, "targets"); i++)
        (void)json_object_array_add(targets,
                                    target_document(mr_json_at(message, "targets", i)));
    mr_json_set(json, "targets", targets);
    answer(discovery, json, NULL);
}

/* --- dry_run --- */

static void answer_preflight(struct mr_discovery *discovery, bool ok,
                             struct json_object *message, const struct mr_err *failure)
{
    struct mr_err err = {0};
    MR_AUTO_JSON struct json_object *json = mr_preflight_document(
        discovery->engine, &discovery->asked, message, ok ? NULL : failure, &err);

    answer(discovery, json, &err);
}

/* --- the worker --- */

static void on_reply(void *ctx, bool ok, struct json_object *message,
                     const struct mr_err *err)
{
    struct mr_discovery *discovery = ctx;

    if (discovery->asked.spec)
        answer_preflight(discovery, ok, message, err);
    else if (ok)
        answer_discovered(discovery, message);
    else
        answer(discovery, NULL, err);
    mr_worker_end(discovery->worker);
    discovery_free(discovery);
}

static void on_overdue(void *ctx)
{
    struct mr_discovery *discovery = ctx;
    struct mr_err err;
    char stack[256];

    (void)mr_fail(&err, MR_E_TARGET_TIMEOUT, ETIMEDOUT, "no answer: %s",
                  mr_worker_stack(discovery->worker, stack));
    err.residue = MR_RESIDUE_NONE;
    mr_worker_kill(discovery->worker);
    answer(discovery, NULL, &err);
}

static void on_died(void *ctx, const struct mr_err *err)
{
    struct mr_discovery *discovery = ctx;
    struct mr_err copy = *err;

    copy.residue = MR_RESIDUE_NONE; /* of a look */
    answer(discovery, NULL, &copy);
    discovery_free(discovery); /* the worker is freed by its table */
}

static const struct mr_worker_events events = {
    .reply = on_reply,
    .overdue = on_overdue,
    .died = on_died,
};

/* Takes command. */
static int send(struct mr_discovery *discovery, struct json_object *command,
                int64_t limit_ms, struct mr_err *err)
{
    const int64_t deadline_ns = mr_now_ns() + limit_ms * MR_NS_PER_MS + GRACE_NS;
    int r = mr_worker_start(discovery->engine->workers, "probe", NULL, deadline_ns,
                            &events, discovery, &discovery->worker, err);

    if (r == 0)
        mr_worker_command(discovery->worker, command, deadline_ns);
    else
        (void)json_object_put(command);
    return r;
}

/* --- asking --- */

static struct mr_discovery *discovery_new(struct mr_engine *engine, struct mr_err *err)
{
    struct mr_discovery *discovery;

    if (count(engine) >= MR_DISCOVERIES_MAX) {
        (void)mr_fail(err, MR_E_TOO_MANY_REQUESTS, 0,
                      "%d discoveries and preflights are under way", MR_DISCOVERIES_MAX);
        return NULL;
    }
    discovery = calloc(1, sizeof(*discovery));
    if (!discovery) {
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "begin a discovery");
        return NULL;
    }
    discovery->engine = engine;
    discovery->next = engine->discoveries;
    engine->discoveries = discovery;
    return discovery;
}

/* Its process is on its way, or it is freed. */
static struct mr_pending *await(struct mr_discovery *discovery, int started,
                                mr_answer_fn fn, void *ctx, struct mr_err *err)
{
    struct mr_pending *pending =
        started == 0 ? mr_pending_new(discovery->engine, NULL, fn, ctx) : NULL;

    if (started == 0 && !pending) {
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "wait for a discovery");
        mr_worker_end(discovery->worker);
    }
    if (!pending) {
        discovery_free(discovery);
        return NULL;
    }
    pending->discovery = discovery;
    discovery->pending = pending;
    return pending;
}

struct mr_pending *mr_engine_discover(struct mr_engine *engine, const char *portal,
                                      int64_t timeout_ms, mr_answer_fn fn, void *ctx,
                                      struct mr_err *err)
{
    struct mr_discovery *discovery = discovery_new(engine, err);

    if (!discovery)
        return NULL;
    portal_field()->normalise(portal, discovery->portal);
    struct json_object *command = json_object_new_object();
    mr_json_set_string(command, "cmd", "discover");
    mr_json_set_string(command, "portal", discovery->portal);
    mr_json_set_string(command, "initiator_name", engine->config->initiator_name);
    mr_json_set_string(command, "libexec_dir", engine->config->libexec_dir);
    mr_json_set_int(command, "deadline_ms", timeout_ms - ANSWER_MS);
    return await(discovery, send(discovery, command, timeout_ms, err), fn, ctx, err);
}

static struct json_object *preflight_command(const struct mr_discovery *discovery,
                                             const struct mr_mount_record *place,
                                             int64_t timeout_ms)
{
    struct json_object *command = json_object_new_object();
    struct json_object *settings = mr_attach_settings(discovery->engine->config);
    char token[MR_TOKEN_TEXT] = "";

    /* Of no attachment: it only has to be another one's. */
    (void)mr_random_hex(16, token);
    mr_json_set_int(settings, "iscsi_timeout_ms", timeout_ms);
    mr_json_set_string(command, "cmd", "preflight");
    mr_json_set_string(command, "token", token);
    mr_json_set(command, "config", settings);
    /* Secrets: to the worker, over its own socket. */
    mr_json_set(command, "spec", json_object_get(discovery->asked.spec->full));
    mr_json_set_bool(command, "mapped", discovery->asked.mapped);
    mr_json_set_string(command, "root", place->root);
    mr_json_set_string(command, "path", place->path);
    return command;
}

struct mr_pending *mr_engine_preflight(struct mr_engine *engine, const char *id,
                                       struct mr_spec *spec, mr_answer_fn fn, void *ctx,
                                       struct mr_err *err)
{
    int64_t timeout_ms = engine->config->iscsi_timeout_ns / MR_NS_PER_MS;
    struct mr_preflight asked = {.spec = spec};
    struct mr_mount_record place;

    (void)mr_format(asked.id, sizeof(asked.id), "%s", id);
    if (mr_preflight_would_attach(engine, &asked, &place) < 0 &&
        (mr_preflight_is_about_request(asked.why.code) ||
         asked.why.code == MR_E_RECOVERING)) {
        *err = asked.why;
        mr_spec_free(spec);
        return NULL;
    }
    struct mr_discovery *discovery = discovery_new(engine, err);
    if (!discovery) {
        mr_spec_free(spec);
        return NULL;
    }
    discovery->asked = asked;
    if (timeout_ms > TARGET_TIMEOUT_MAX_MS)
        timeout_ms = TARGET_TIMEOUT_MAX_MS;
    int r = send(discovery, preflight_command(discovery, &place, timeout_ms),
                 2 * timeout_ms, err);
    return await(discovery, r, fn, ctx, err);
}
