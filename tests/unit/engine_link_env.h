/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine with an attached LUN "v", whose mooring-lun is tests/unit/fake_keeper.h.
 */
#ifndef MR_TESTS_UNIT_ENGINE_LINK_ENV_H
#define MR_TESTS_UNIT_ENGINE_LINK_ENV_H

#include "tests/unit/engine_sql_env.h"
#include "tests/unit/fake_keeper.h"

#include "storage/discovery.h"

#define TARGET "iqn.2026-11.example:disk1"
#define KEY "0x1122334455667788"
#define HOLDER "0xfeedf00d"
#define SINCE "2026-11-22T10:11:12.345Z"
#define TRANSPORT(state, more)                                                           \
    "'transport':{'state':'" state "','since':'" SINCE "','portal':'10.0.0.1:3260',"     \
    "'timeout_ms':10000,'replacement_ms':120000,'header_digest':'none'" more "}"
#define FENCING_KEYS(holder, keys)                                                       \
    "'fencing':{'mode':'reserve','key':'" KEY "','registered':true,'holder':'" holder    \
    "','type':5,'generation':3,'keys':[" keys "],'checked_at':'" SINCE "'}"
#define FENCING(holder) FENCING_KEYS(holder, "'" holder "'")
#define UP TRANSPORT("up", "") "," FENCING(KEY)
#define DOWN TRANSPORT("down", ",'reason':'connection reset'") "," FENCING(KEY)
#define FENCED TRANSPORT("fenced", ",'reason':'key gone'") "," FENCING(HOLDER)
#define MISMATCH TRANSPORT("mismatch", ",'reason':'another serial number'")

static struct keeper keeper;
static int64_t run_until_ns;

static inline void socket_path(struct env *env, char path[PATH_MAX])
{
    (void)snprintf(path, PATH_MAX, "%s/run/lun", env->dir);
    assert_int_equal(mr_mkdir_p(path, 0700), 0);
    (void)snprintf(path, PATH_MAX, "%s/run/lun/%s.sock", env->dir, v(env)->token);
}

/* A status document as the recorded server of "v" makes it, with ' for ". */
static inline const char *status(struct env *env, const char *more)
{
    static char text[8192];
    char raw[4096];

    (void)snprintf(raw, sizeof(raw),
                   "{'ok':true,'version':3,'oldest':1,'token':'%s','pid':%d,%s}",
                   v(env)->token, (int)keeper.pid, more);
    struct json_object *json = parse_json(raw);
    (void)snprintf(text, sizeof(text), "%s", json_object_to_json_string(json));
    (void)json_object_put(json);
    return text;
}

/* The keeper listens, and answers with this. */
static inline void keeper_listens(struct env *env, const char *answer)
{
    char path[PATH_MAX];

    socket_path(env, path);
    (void)json_object_put(keeper_do(&keeper, "listen", path, answer));
}

/* It says this by itself, and whenever it is asked from now on. */
static inline void keeper_says(struct env *env, const char *more)
{
    (void)json_object_put(keeper_do(&keeper, "say", NULL, status(env, more)));
}

static inline bool transport_is(struct env *env, const char *state)
{
    const char *now = mr_json_get_string(v(env)->transport, "state");
    return now ? strcmp(now, state) == 0 : !state[0];
}

/* As the API says it; state NULL: there is none. */
static inline void assert_transport(struct env *env, const char *state)
{
    MR_AUTO_JSON struct json_object *document = mr_volume_document(v(env));
    struct json_object *transport = mr_json_get(document, "transport");
    const char *now = mr_json_get_string(transport, "state");

    if (!state) {
        assert_null(transport);
        return;
    }
    assert_string_equal(now, state);
    if (strcmp(state, "unknown") == 0) {
        assert_non_null(mr_json_get_string(transport, "reason"));
        assert_null(mr_json_get(document, "fencing"));
    }
}

static inline bool is_up(struct env *env)
{
    return transport_is(env, "up");
}

static inline bool is_failed(struct env *env)
{
    return v(env)->state == MR_STATE_FAILED && !v(env)->op;
}

static inline bool is_fenced(struct env *env)
{
    return v(env)->state == MR_STATE_FENCED && !v(env)->op;
}

static inline bool time_is_over(struct env *env)
{
    (void)env;
    return mr_now_ns() >= run_until_ns;
}

static inline void run_ms(struct env *env, int64_t ms)
{
    run_until_ns = mr_now_ns() + ms * MR_NS_PER_MS;
    run_until(env, time_is_over);
}

/* more: members of the source, each behind a comma. */
static inline struct mr_spec *lun_spec_with(struct env *env, const char *more)
{
    char text[512];
    struct mr_spec *spec = NULL;
    struct mr_err err;
    (void)snprintf(text, sizeof(text),
                   "{'source':{'driver':'iscsi','portals':['10.0.0.1'],'target':'" TARGET
                   "','lun':7,'fencing':'reserve'%s},'filesystem':{'type':'xfs',"
                   "'format':'if-blank'},'mount_path':'/r/v'}",
                   more);
    struct json_object *json = parse_json(text);
    if (mr_spec_decode(json, "v", env->config.mount_roots.path[0], &spec, &err) < 0)
        fail_msg("spec: %s", err.message);
    (void)json_object_put(json);
    return spec;
}

static inline struct mr_spec *lun_spec(struct env *env)
{
    return lun_spec_with(env, "");
}

static inline struct mr_operation *put_lun(struct env *env)
{
    struct mr_operation *op = NULL;
    struct mr_err err;

    if (mr_engine_attach(env->engine, "v", lun_spec(env), &op, &err) < 0)
        fail_msg("attach: %s", err.message);
    return op;
}

static inline void script_map(struct env *env)
{
    char text[512];

    (void)snprintf(text, sizeof(text),
                   "[{'identity':{'node':'/dev/loop9','major':7,'minor':9,'diskseq':42,"
                   "'size_bytes':4096,'block_size':512,'source_key':'k',"
                   "'lun_pid':%d,'lun_start_time':%lld}}]",
                   (int)keeper.pid, (long long)mr_process_start_time(keeper.pid));
    script(env, "map", text);
}

/* Attached; its keeper does not listen yet. */
static inline int setup_mute(void **state)
{
    (void)setup(state);
    struct env *env = *state;

    keeper_start(&keeper);
    script_map(env);
    run_to_end(env, put_lun(env));
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    (void)asked(env);
    script(env, "inspect", FOUND);
    script(env, "map", "[]"); /* the next one has no server */
    script_same_content(env);
    return 0;
}

static inline int setup_up(void **state)
{
    (void)setup_mute(state);
    struct env *env = *state;

    keeper_listens(env, status(env, UP));
    run_until(env, is_up);
    return 0;
}

static inline int teardown_keeper(void **state)
{
    keeper_end(&keeper);
    return teardown(state);
}

static struct json_object *looked; /* what a dry run has answered */
static bool answered;

static inline void on_looked(void *ctx, struct json_object *json,
                             const struct mr_err *err)
{
    (void)ctx;
    (void)err;
    looked = json_object_get(json);
    answered = true;
}

static inline bool has_answer(struct env *env)
{
    (void)env;
    return answered;
}

/* The worker sees this; the answer is "would" or, when refused, the code. Takes spec. */
static inline void assert_dry_run_of(struct env *env, struct mr_spec *spec,
                                     const char *reply, const char *expected)
{
    struct mr_err err = {0};

    script(env, "preflight", reply);
    answered = false;
    if (!mr_engine_preflight(env->engine, "v", spec, on_looked, NULL, &err))
        fail_msg("preflight: %s", err.message);
    run_until(env, has_answer);
    const char *would = mr_json_get_string(looked, "would");
    assert_non_null(would);
    if (strcmp(would, "refused") == 0)
        would = mr_json_get_string(mr_json_get(looked, "problem"), "code");
    assert_string_equal(would, expected);
    (void)json_object_put(mr_take_ptr(looked));
}

#define LOOK(content)                                                                    \
    "[{'serial':'s','wwn':'','size_bytes':4096,'block_size':512,'source_key':'k',"       \
    "'content':" content "}]"

#endif
