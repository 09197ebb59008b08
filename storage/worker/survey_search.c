/* SPDX-License-Identifier: Apache-2.0
 *
 * search: what is known, what was found, and the reply.
 */
#include "storage/worker/survey.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/spec_fields.h"
#include "storage/worker/commands.h"

#define DEADLINE_MAX_MS 60000
#define REPLY_BYTES_MAX (MR_MSG_MAX - 1024) /* of all orphans together */

static int compare_tokens(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int compare_diskseqs(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

bool mr_search_knows_token(const struct mr_search *search, const char *token)
{
    return bsearch(&token, search->tokens, search->token_count, sizeof(token),
                   compare_tokens) != NULL;
}

bool mr_search_knows_device(const struct mr_search *search, uint64_t diskseq)
{
    return bsearch(&diskseq, search->diskseqs, search->diskseq_count, sizeof(diskseq),
                   compare_diskseqs) != NULL;
}

struct mr_orphan *mr_search_orphan(struct mr_search *search, const char *token)
{
    if (mr_search_knows_token(search, token))
        return NULL;
    for (size_t i = 0; i < search->orphan_count; i++)
        if (strcmp(search->orphans[i].token, token) == 0)
            return &search->orphans[i];
    if (search->orphan_count == MR_ORPHANS_MAX) {
        search->complete = false;
        return NULL;
    }
    struct mr_orphan *orphan = &search->orphans[search->orphan_count];
    if (mr_format(orphan->token, sizeof(orphan->token), "%s", token) < 0)
        return NULL;
    search->orphan_count++;
    return orphan;
}

struct json_object *mr_search_source(struct json_object *json, char *ret_key)
{
    MR_AUTO_JSON struct json_object *in = json;
    const struct mr_source_driver *driver =
        mr_source_driver(mr_json_get_string(json, "driver"));
    struct json_object *source = NULL;

    if (!driver ||
        mr_fields_decode(driver->fields, in, MR_DECODE_PUBLIC, &source, NULL) < 0)
        return NULL;
    if (ret_key && driver->key(source, ret_key, MR_KEY_TEXT) < 0)
        ret_key[0] = '\0';
    return source;
}

/* --- the command --- */

static int fail_member(struct mr_err *err, const char *key)
{
    return mr_fail(err, MR_E_INTERNAL, EINVAL, "worker command: member '%s'", key);
}

static struct json_object *get_array(struct json_object *cmd, const char *key)
{
    struct json_object *array = mr_json_get(cmd, key);

    return json_object_is_type(array, json_type_array) ? array : NULL;
}

static int read_known(struct json_object *cmd, struct mr_search *search,
                      struct mr_err *err)
{
    struct json_object *tokens = get_array(cmd, "tokens");
    struct json_object *diskseqs = get_array(cmd, "diskseqs");

    if (!tokens || !diskseqs)
        return fail_member(err, tokens ? "diskseqs" : "tokens");
    search->token_count = json_object_array_length(tokens);
    search->diskseq_count = json_object_array_length(diskseqs);
    search->tokens = calloc(search->token_count + 1, sizeof(*search->tokens));
    search->diskseqs = calloc(search->diskseq_count + 1, sizeof(*search->diskseqs));
    search->orphans = calloc(MR_ORPHANS_MAX, sizeof(*search->orphans));
    if (!search->tokens || !search->diskseqs || !search->orphans)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "search");
    for (size_t i = 0; i < search->token_count; i++) {
        struct json_object *item = json_object_array_get_idx(tokens, i);
        if (!json_object_is_type(item, json_type_string))
            return fail_member(err, "tokens");
        search->tokens[i] = json_object_get_string(item);
    }
    for (size_t i = 0; i < search->diskseq_count; i++) {
        struct json_object *item = json_object_array_get_idx(diskseqs, i);
        if (!json_object_is_type(item, json_type_int))
            return fail_member(err, "diskseqs");
        search->diskseqs[i] = (uint64_t)json_object_get_int64(item);
    }
    qsort(search->tokens, search->token_count, sizeof(*search->tokens), compare_tokens);
    qsort(search->diskseqs, search->diskseq_count, sizeof(*search->diskseqs),
          compare_diskseqs);
    return 0;
}

static int read_command(struct json_object *cmd, struct mr_search *search,
                        struct mr_err *err)
{
    int64_t deadline_ms = mr_json_get_int(cmd, "deadline_ms", 0);

    search->complete = true;
    search->roots = get_array(cmd, "roots");
    if (!search->roots)
        return fail_member(err, "roots");
    for (size_t i = 0; i < json_object_array_length(search->roots); i++)
        if (!json_object_is_type(json_object_array_get_idx(search->roots, i),
                                 json_type_string))
            return fail_member(err, "roots");
    if (deadline_ms <= 0 || deadline_ms > DEADLINE_MAX_MS)
        return fail_member(err, "deadline_ms");
    search->deadline_ns = mr_now_ns() + deadline_ms * MR_NS_PER_MS;
    int r = mr_arg_text(cmd, "runtime_dir", &search->runtime_dir, err);
    return r == 0 ? read_known(cmd, search, err) : r;
}

static void clear(struct mr_search *search)
{
    for (size_t i = 0; i < search->orphan_count; i++) {
        struct mr_orphan *orphan = &search->orphans[i];
        free(orphan->backing_file);
        (void)json_object_put(orphan->source);
        (void)json_object_put(orphan->mounts);
        (void)json_object_put(orphan->fuse_mounts);
    }
    free(search->orphans);
    free(search->tokens);
    free(search->diskseqs);
}

/* --- the reply --- */

static struct json_object *server_json(const struct mr_search *search,
                                       const struct mr_orphan *orphan)
{
    struct json_object *json;
    char socket[PATH_MAX];

    if (orphan->server.pid == 0)
        return NULL;
    json = json_object_new_object();
    mr_json_set_int(json, "pid", orphan->server.pid);
    mr_json_set_int(json, "start_time", (int64_t)orphan->server.start_time);
    if (mr_format(socket, sizeof(socket), "%s/lun/%s.sock", search->runtime_dir,
                  orphan->token) == 0)
        mr_json_set_text(json, "socket", socket);
    mr_json_set_string(json, "state", orphan->state);
    return json;
}

static struct json_object *array_or_empty(struct json_object *array)
{
    return array ? json_object_get(array) : json_object_new_array();
}

static struct json_object *orphan_json(const struct mr_search *search,
                                       const struct mr_orphan *orphan)
{
    struct json_object *json = json_object_new_object();
    bool mapped = orphan->identity.diskseq != 0;

    mr_json_set_string(json, "token", orphan->token);
    mr_json_set_string(json, "driver", orphan->on_lun ? "iscsi" : "file");
    mr_json_set(json, "identity", mapped ? mr_identity_to_json(&orphan->identity) : NULL);
    if (orphan->backing_file)
        mr_json_set_text(json, "backing_file", orphan->backing_file);
    else
        mr_json_set(json, "backing_file", NULL);
    mr_json_set(json, "server", server_json(search, orphan));
    mr_json_set(json, "source", json_object_get(orphan->source));
    mr_json_set(json, "mounts", array_or_empty(orphan->mounts));
    mr_json_set(json, "fuse_mounts", array_or_empty(orphan->fuse_mounts));
    return json;
}

/* As many as fit into a message. */
static struct json_object *orphans_json(struct mr_search *search)
{
    struct json_object *array = json_object_new_array();
    size_t bytes = 0;

    for (size_t i = 0; i < search->orphan_count; i++) {
        struct json_object *json = orphan_json(search, &search->orphans[i]);
        size_t length =
            strlen(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN)) + 1;
        if (bytes + length > REPLY_BYTES_MAX || json_object_array_add(array, json) < 0) {
            search->complete = false;
            (void)json_object_put(json);
            continue;
        }
        bytes += length;
    }
    return array;
}

int mr_command_search(struct mr_worker *worker, struct json_object *cmd,
                      struct json_object *reply, struct mr_err *err)
{
    struct mr_search search = {0};

    (void)worker;
    int r = read_command(cmd, &search, err);
    if (r == 0) {
        mr_search_servers(&search);
        mr_search_devices(&search);
        mr_search_mounts(&search);
        mr_json_set(reply, "orphans", orphans_json(&search));
        mr_json_set_bool(reply, "complete", search.complete);
    }
    clear(&search);
    return r;
}
