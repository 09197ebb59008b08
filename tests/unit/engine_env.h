/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine in a directory of its own whose workers are tests/unit/fake/worker.c: scripts
 * say what they answer, a log says what they were asked. No root, no devices.
 */
#ifndef MR_TESTS_UNIT_ENGINE_ENV_H
#define MR_TESTS_UNIT_ENGINE_ENV_H

#include "tests/unit/unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/engine_internal.h"

#define DEVICE(diskseq)                                                                  \
    "'identity':{'node':'/dev/loop9','major':7,'minor':9,'diskseq':" #diskseq            \
    ",'size_bytes':4096,"                                                                \
    "'block_size':512,'source_key':'file:1:2:3'}"
#define FOUND "[{'found':true," DEVICE(42) ",'mounted':'present','on_top':true}]"
#define FOUND_UNMOUNTED "[{'found':true," DEVICE(42) ",'mounted':'absent'}]"
#define LOST_WRITE                                                                       \
    "[{'error':{'code':'data-not-written','message':'EIO','remedy':'x'}},"               \
    "{'result':'unmounted'}]"
#define NOT_FOUND "[{'found':false,'mounted':'absent'}]"

struct env {
    char dir[64];
    struct mr_config config;
    struct mr_loop *loop;
    struct mr_engine *engine;
    struct mr_timer tick;
    struct mr_operation *awaited;
    bool (*until)(struct env *env);
    int64_t give_up_ns;
    bool timed_out;
};

static inline void env_write(const struct env *env, const char *name, const char *text)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/state/fake/%s", env->dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(mr_write_all(fd, text, strlen(text)), 0);
    (void)close(fd);
}

/* replies: JSON array with ' for ". */
static inline void script(const struct env *env, const char *command, const char *replies)
{
    struct json_object *json = parse_json(replies);
    env_write(env, command, json_object_to_json_string(json));
    (void)json_object_put(json);
}

/* What the workers were asked since the last call, in one line. */
static inline const char *asked(const struct env *env)
{
    static char line[2048];
    char path[PATH_MAX];
    char *text = NULL;
    (void)snprintf(path, sizeof(path), "%s/state/fake/log", env->dir);
    line[0] = '\0';
    if (mr_read_file(AT_FDCWD, path, sizeof(line) - 1, &text) >= 0) {
        for (char *c = text; *c; c++)
            if (*c == '\n')
                *c = c[1] ? ' ' : '\0';
        (void)snprintf(line, sizeof(line), "%s", text);
        free(text);
        env_write(env, "log", "");
    }
    return line;
}

static inline void env_start(struct env *env)
{
    struct mr_err err;
    assert_int_equal(mr_loop_new(&env->loop, NULL), 0);
    if (mr_engine_new(env->loop, &env->config, &env->engine, &err) < 0)
        fail_msg("engine: %s", err.message);
}

static inline void env_stop(struct env *env)
{
    mr_engine_free(env->engine);
    mr_loop_free(env->loop);
    env->engine = NULL;
    env->loop = NULL;
}

static inline void on_tick(void *ctx)
{
    struct env *env = ctx;
    env->timed_out = mr_now_ns() > env->give_up_ns;
    if (env->until(env) || env->timed_out)
        mr_loop_stop(env->loop);
    else
        mr_timer_set(&env->tick, 0); /* each turn: some steps last only one */
}

/* Runs the loop until the condition holds; fails the test after 10 s. */
static inline void run_until(struct env *env, bool (*until)(struct env *env))
{
    env->until = until;
    env->timed_out = false;
    env->give_up_ns = mr_now_ns() + 10 * MR_NS_PER_S;
    mr_timer_init(&env->tick, env->loop, on_tick, env);
    mr_timer_set(&env->tick, 0);
    assert_int_equal(mr_loop_run(env->loop, NULL), 0);
    mr_timer_cancel(&env->tick);
    assert_false(env->timed_out);
}

static inline bool operation_ended(struct env *env)
{
    return mr_operation_ended(env->awaited) != 0;
}

static inline void run_to_end(struct env *env, struct mr_operation *op)
{
    env->awaited = op;
    run_until(env, operation_ended);
}

static inline struct mr_spec *spec_at(const struct env *env, const char *image,
                                      const char *path)
{
    char text[512];
    struct mr_spec *spec = NULL;
    struct mr_err err;
    (void)snprintf(
        text, sizeof(text),
        "{'source':{'driver':'file','path':'/i/%s'},"
        "'filesystem':{'type':'xfs','format':'if-blank'},'mount_path':'/r/%s'}",
        image, path);
    struct json_object *json = parse_json(text);
    if (mr_spec_decode(json, "x", env->config.mount_roots.path[0], &spec, &err) < 0)
        fail_msg("spec: %s", err.message);
    (void)json_object_put(json);
    return spec;
}

static inline struct mr_operation *put(struct env *env, const char *id)
{
    struct mr_operation *op = NULL;
    struct mr_err err;
    if (mr_engine_attach(env->engine, id, spec_at(env, id, id), &op, &err) < 0)
        fail_msg("attach %s: %s", id, err.message);
    return op;
}

/* The file system that was attached is still there. */
static inline void script_same_content(struct env *env)
{
    char text[256];
    (void)snprintf(text, sizeof(text),
                   "[{'content':'formatted','fs_type':'xfs','fs_uuid':'%s'}]",
                   mr_engine_lookup(env->engine, "v")->identity.fs_uuid);
    script(env, "check", text);
}

static inline struct mr_operation *del(struct env *env, const char *id)
{
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    struct mr_err err;
    if (mr_engine_detach(env->engine, id, NULL, false, &op, &proof, &err) < 0)
        fail_msg("detach %s: %s", id, err.message);
    assert_null(proof);
    return op;
}

static inline int setup(void **state)
{
    static char root[] = "/r";
    struct env *env = calloc(1, sizeof(*env));
    char path[PATH_MAX];

    (void)snprintf(env->dir, sizeof(env->dir), "/tmp/mooring-engine-XXXXXX");
    assert_non_null(mkdtemp(env->dir));
    (void)snprintf(env->config.state_dir, PATH_MAX, "%s/state", env->dir);
    (void)snprintf(env->config.runtime_dir, PATH_MAX, "%s/run", env->dir);
    (void)snprintf(env->config.libexec_dir, PATH_MAX, "%s/libexec", env->dir);
    assert_int_equal(symlink(MR_FAKE_LIBEXEC, env->config.libexec_dir), 0);
    env->config.mount_roots.path[0] = root;
    env->config.mount_roots.count = 1;
    env->config.worker_deadline_ns = 5 * MR_NS_PER_S;
    env->config.format_deadline_ns = 5 * MR_NS_PER_S;
    env->config.history_age_ms = 30LL * 24 * 3600 * 1000;
    env->config.history_bytes = 64LL * 1024 * 1024;
    env->config.proofs_kept = 1000;
    (void)snprintf(path, sizeof(path), "%s/state/fake", env->dir);
    assert_int_equal(mr_mkdir_p(path, 0700), 0);
    env_start(env);
    *state = env;
    return 0;
}

/* The volume of tests that need only one. */
static inline struct mr_volume *v(struct env *env)
{
    return mr_engine_lookup(env->engine, "v");
}

static inline bool held(struct env *env)
{
    return v(env)->op && v(env)->op->known_held;
}

static inline bool unmapping(struct env *env)
{
    return v(env)->op && v(env)->op->step == MR_STEP_UNMAP && v(env)->op->busy;
}

/* With "v" attached, and found as it was left. */
static inline int setup_attached(void **state)
{
    (void)setup(state);
    struct env *env = *state;
    struct mr_operation *op = put(env, "v");
    run_to_end(env, op);
    assert_int_equal(mr_operation_ended(op), 1);
    (void)asked(env);
    script(env, "inspect", FOUND);
    script_same_content(env);
    return 0;
}

static inline void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char child[PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        (void)snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
        if (unlink(child) < 0)
            remove_tree(child);
    }
    if (dir)
        (void)closedir(dir);
    (void)rmdir(path);
}

static inline int teardown(void **state)
{
    struct env *env = *state;
    env_stop(env);
    remove_tree(env->dir);
    free(env);
    return 0;
}

#endif
