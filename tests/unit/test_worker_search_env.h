/* SPDX-License-Identifier: Apache-2.0
 *
 * search in the test itself: what the journal is said to know, and the orphans.
 */
#ifndef MR_TESTS_UNIT_TEST_WORKER_SEARCH_ENV_H
#define MR_TESTS_UNIT_TEST_WORKER_SEARCH_ENV_H

#include "storage/worker/commands.h"
#include "storage/worker/survey.h"
#include "tests/unit/test_worker_lun_env.h"
#include "tests/unit/test_worker_survey_env.h"

#define DEADLINE_MS 5000

static char token[MR_TOKEN_TEXT];
static struct mr_identity device; /* of the running test, node "" none */
static struct json_object *last_reply;

/* What the journal is said to know; emptied by each test. */
static struct json_object *tokens;
static struct json_object *diskseqs;

static inline void know_token(const char *text)
{
    (void)json_object_array_add(tokens, json_object_new_string(text));
}

static inline void know_diskseq(uint64_t diskseq)
{
    (void)json_object_array_add(diskseqs, json_object_new_int64((int64_t)diskseq));
}

/* What was there before is none of the test's business. */
static inline bool know_device(void *ctx, const char *name)
{
    char path[80];
    char text[32];

    (void)ctx;
    (void)snprintf(path, sizeof(path), "/sys/block/%s/diskseq", name);
    if (mr_read_text(AT_FDCWD, path, text, sizeof(text)) > 0)
        know_diskseq(strtoull(text, NULL, 10));
    return true;
}

static inline struct json_object *new_command(void)
{
    struct json_object *cmd = json_object_new_object();
    struct json_object *roots = json_object_new_array();

    (void)json_object_array_add(roots, json_object_new_string(env_images));
    (void)json_object_array_add(roots, json_object_new_string(env_mounts));
    (void)json_object_array_add(roots, json_object_new_string(env_dir));
    mr_json_set_string(cmd, "cmd", "search");
    mr_json_set_string(cmd, "runtime_dir", env_dir);
    mr_json_set(cmd, "roots", roots);
    mr_json_set(cmd, "tokens", json_object_get(tokens));
    mr_json_set(cmd, "diskseqs", json_object_get(diskseqs));
    mr_json_set_int(cmd, "deadline_ms", DEADLINE_MS);
    return cmd;
}

/* The orphans, borrowed until the next call. */
static inline struct json_object *search(bool complete)
{
    struct mr_worker worker = {.mode = MR_WORKER_SURVEY};
    MR_AUTO_JSON struct json_object *cmd = new_command();
    struct mr_err err = {0};

    (void)json_object_put(last_reply);
    last_reply = json_object_new_object();
    if (mr_command_search(&worker, cmd, last_reply, &err) != 0)
        fail_msg("search: %s", err.message);
    if (mr_json_get_bool(last_reply, "complete", !complete) != complete)
        fail_msg("complete is not %d: %s", complete,
                 json_object_to_json_string(last_reply));
    return mr_json_get(last_reply, "orphans");
}

static inline struct json_object *find(struct json_object *orphans, const char *wanted)
{
    struct json_object *found = NULL;

    for (size_t i = 0; i < json_object_array_length(orphans); i++) {
        struct json_object *orphan = json_object_array_get_idx(orphans, i);
        if (strcmp(mr_json_get_string(orphan, "token"), wanted) != 0)
            continue;
        assert_null(found); /* each once */
        found = orphan;
    }
    return found;
}

static inline struct json_object *find_one(bool complete, const char *wanted)
{
    struct json_object *orphan = find(search(complete), wanted);

    if (!orphan)
        fail_msg("no orphan %s: %s", wanted, json_object_to_json_string(last_reply));
    return orphan;
}

static inline void assert_none(bool complete)
{
    struct json_object *orphans = search(complete);

    if (json_object_array_length(orphans) != 0)
        fail_msg("orphans: %s", json_object_to_json_string(orphans));
}

static inline void assert_text(struct json_object *json, const char *key,
                               const char *expected)
{
    const char *text = mr_json_get_string(json, key);

    if (!text || strcmp(text, expected) != 0)
        fail_msg("%s is not '%s': %s", key, expected, json_object_to_json_string(json));
}

static inline void assert_null_member(struct json_object *json, const char *key)
{
    struct json_object *value = NULL;

    assert_true(json_object_object_get_ex(json, key, &value));
    if (value)
        fail_msg("%s: %s", key, json_object_to_json_string(json));
}

static inline int setup(void **state)
{
    (void)state;
    device = (struct mr_identity){.diskseq = 0};
    tokens = json_object_new_array();
    diskseqs = json_object_new_array();
    return mr_loop_each(know_device, NULL, NULL);
}

static inline int teardown(void **state)
{
    (void)state;
    fake_stop_all();
    ENV_RUN("/bin/sh", "-c", "rm -rf --one-file-system \"$0\"/lun \"$0\"/jail", env_dir);
    (void)json_object_put(tokens);
    (void)json_object_put(diskseqs);
    (void)json_object_put(last_reply);
    last_reply = NULL;
    if (device.diskseq != 0 && mr_device_present(&device) == MR_PRESENT)
        env_unmap(token, &device);
    return 0;
}

#define SEARCH_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif
