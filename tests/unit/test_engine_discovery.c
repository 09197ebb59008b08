/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking before attaching: documents, refusals, and that no look outlives its time or
 * leaves anything. The worker answers from scripts.
 */
#include "tests/unit/engine_env.h"

#include "storage/discovery.h"

#define FACTS                                                                            \
    "'portals':[{'portal':'127.0.0.1:3260'}],'credentials':'accepted','serial':'s1',"    \
    "'wwn':'naa.1','size_bytes':4096,'block_size':512,'write_protected':false,"          \
    "'thin':true,'source_key':'file:9:9:9'"
#define BLANK "'content':'blank','fs_type':'','fs_uuid':'','label':'','detail':'blank'"
#define EXT4                                                                             \
    "'content':'formatted','fs_type':'ext4','fs_uuid':'u-1','label':'my label',"         \
    "'detail':'ext4 file system, UUID u-1'"

static struct json_object *document;
static struct mr_err failure;
static unsigned came;
static unsigned expected;

static void on_answer(void *ctx, struct json_object *json, const struct mr_err *err)
{
    (void)ctx;
    (void)json_object_put(document);
    document = json_object_get(json);
    memset(&failure, 0, sizeof(failure));
    if (err)
        failure = *err;
    came++;
}

static bool answered(struct env *env)
{
    (void)env;
    return came == expected;
}

static int clear(void **state)
{
    (void)json_object_put(document);
    document = NULL;
    came = 0;
    expected = 1;
    return teardown(state);
}

static struct mr_pending *preflight_of(struct env *env, const char *id, const char *image,
                                       struct mr_err *err)
{
    return mr_engine_preflight(env->engine, id, spec_at(env, image, id), on_answer, NULL,
                               err);
}

/* The document for volume v and its own image. */
static void preflight(struct env *env, const char *reply)
{
    struct mr_err err;

    script(env, "preflight", reply);
    came = 0;
    expected = 1;
    if (!preflight_of(env, "v", "v", &err))
        fail_msg("preflight: %s", err.message);
    run_until(env, answered);
}

static void expect(const char *would, const char *code)
{
    struct json_object *problem = mr_json_get(document, "problem");
    const char *found = mr_json_get_string(document, "would");
    const char *slug = mr_json_get_string(problem, "code");

    if (!found || strcmp(found, would) != 0 || (code == NULL) != (slug == NULL) ||
        (code && strcmp(code, slug) != 0))
        fail_msg("expected %s %s: %s %s", would, code ? code : "",
                 json_object_to_json_string(document), failure.message);
}

static const char *found(const char *key)
{
    const char *text = mr_json_get_string(mr_json_get(document, "found"), key);
    return text ? text : "(null)";
}

/* --- what an attach would meet --- */

static void test_blank_source_would_be_formatted(void **state)
{
    struct env *env = *state;

    preflight(env, "[{" FACTS "," BLANK "}]");
    expect("format", NULL);
    assert_string_equal(mr_json_get_string(document, "volume"), "v");
    assert_string_equal(mr_json_get_string(document, "mount_path"), "/r/v");
    assert_string_equal(mr_json_get_string(document, "content"), "blank");
    assert_string_equal(mr_json_get_string(document, "credentials"), "accepted");
    assert_string_equal(found("fs_type"), "(null)");
    assert_string_equal(found("detail"), "blank");
    struct json_object *identity = mr_json_get(document, "identity");
    assert_string_equal(mr_json_get_string(identity, "serial"), "s1");
    assert_string_equal(mr_json_get_string(identity, "wwn"), "naa.1");
    assert_int_equal(mr_json_get_int(document, "size_bytes", 0), 4096);
    assert_true(mr_json_get_bool(document, "thin", false));
    assert_int_equal(mr_json_count(document, "portals"), 1);
    assert_null(mr_json_get(document, "source_key"));
    /* And nothing of it is left. */
    assert_string_equal(asked(env), "preflight");
    assert_null(mr_engine_lookup(env->engine, "v"));
    assert_null(env->engine->discoveries);
    assert_null(env->engine->operations);
}

static void test_content_is_judged_as_by_an_attach(void **state)
{
    struct env *env = *state;

    preflight(env, "[{" FACTS "," EXT4 "}]");
    expect("refused", "wrong-filesystem");
    assert_string_equal(found("label"), "my label");
    assert_string_equal(found("fs_uuid"), "u-1");
    preflight(env, "[{" FACTS ",'content':'formatted','fs_type':'xfs'}]");
    expect("attach", NULL);
    preflight(env, "[{" FACTS ",'content':'unknown','detail':'a byte'}]");
    expect("refused", "not-blank");
    preflight(env, "[{" FACTS "}]"); /* says nothing: never blank */
    expect("refused", "not-blank");
    assert_null(mr_json_get(document, "found"));
}

static void test_failure_keeps_what_was_seen(void **state)
{
    struct env *env = *state;

    preflight(env, "[{'portals':[],'credentials':'refused','error':{'code':"
                   "'chap-refused','errno':13,'message':'no'}}]");
    expect("refused", "chap-refused");
    assert_string_equal(mr_json_get_string(document, "credentials"), "refused");
    assert_null(mr_json_get(document, "identity"));
    assert_null(mr_json_get(document, "size_bytes"));
    assert_true(
        json_object_object_get_ex(document, "size_bytes", NULL)); /* but is there */
    struct json_object *problem = mr_json_get(document, "problem");
    assert_string_equal(mr_json_get_string(problem, "residue"), "none");
}

static void test_mkfs_that_was_cut_off_is_not_overlooked(void **state)
{
    struct env *env = *state;
    struct json_object *problem;

    script(env, "format", "[{'error':{'code':'device-error','message':'gone'}}]");
    struct mr_operation *op = put(env, "v");
    run_to_end(env, op);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    preflight(env, "[{" FACTS ",'content':'unknown','detail':'half of it'}]");
    expect("refused", "not-blank");
    problem = mr_json_get(document, "problem");
    assert_non_null(strstr(mr_json_get_string(problem, "message"), "interrupted mkfs"));
    preflight(env, "[{" FACTS "," BLANK "}]");
    expect("format", NULL);
    preflight(env, "[{" FACTS ",'content':'formatted','fs_type':'xfs','fs_uuid':'u'}]");
    expect("attach", NULL); /* another mkfs's */
}

static void test_mount_path_comes_last(void **state)
{
    struct env *env = *state;
    const char *busy = ",'mount_error':{'code':'mount-path-busy','message':'full'}}]";
    char reply[1024];

    (void)snprintf(reply, sizeof(reply), "[{%s,%s%s", FACTS, BLANK, busy);
    preflight(env, reply);
    expect("refused", "mount-path-busy");
    (void)snprintf(reply, sizeof(reply), "[{%s,%s%s", FACTS, EXT4, busy);
    preflight(env, reply);
    expect("refused", "wrong-filesystem");
}

static void test_what_is_wrong_with_the_request_is_no_document(void **state)
{
    struct env *env = *state;

    preflight(env, "[{'error':{'code':'path-not-allowed','message':'no'}}]");
    assert_null(document);
    assert_int_equal(failure.code, MR_E_PATH_NOT_ALLOWED);
    preflight(env, "[{'error':{'code':'internal','message':'no'}}]");
    assert_null(document);
    assert_int_equal(failure.code, MR_E_INTERNAL);
}

static void test_path_below_no_root_is_refused_at_once(void **state)
{
    struct env *env = *state;
    struct mr_spec *spec = NULL;
    struct mr_err err;
    struct json_object *json =
        parse_json("{'source':{'driver':'file','path':'/i/v'},'filesystem':{'type':"
                   "'xfs'},'mount_path':'/etc'}");

    assert_int_equal(mr_spec_decode(json, "v", "/r", &spec, &err), 0);
    (void)json_object_put(json);
    assert_null(mr_engine_preflight(env->engine, "v", spec, on_answer, NULL, &err));
    assert_int_equal(err.code, MR_E_PATH_NOT_ALLOWED);
    assert_string_equal(asked(env), "");
}

/* --- beside what is attached --- */

static void test_attached_volume_would_be_verified(void **state)
{
    struct env *env = *state;

    preflight(env, "[{" FACTS "," EXT4 "}]"); /* what is mounted is not judged */
    expect("verify", NULL);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_string_equal(asked(env), "preflight");
}

static void ask_other(struct env *env, const char *id, const char *image)
{
    struct mr_err err;

    came = 0;
    expected = 1;
    if (!preflight_of(env, id, image, &err))
        fail_msg("preflight: %s", err.message);
    run_until(env, answered);
    assert_string_equal(mr_json_get_string(document, "content"), "blank");
}

static void test_conflicts_are_told_with_all_that_is_seen(void **state)
{
    struct env *env = *state;

    script(env, "preflight", "[{" FACTS "," BLANK "}]");
    ask_other(env, "v", "another"); /* image under this id */
    expect("refused", "spec-conflict");
    ask_other(env, "w", "v");
    expect("refused", "source-in-use");
    struct json_object *problem = mr_json_get(document, "problem");
    assert_string_equal(mr_json_get_string(problem, "volume"), "v");
}

static void test_same_disk_by_another_name_is_in_use(void **state)
{
    struct env *env = *state;

    (void)snprintf(v(env)->identity.wwn, sizeof(v(env)->identity.wwn), "naa.1");
    script(env, "preflight", "[{" FACTS "," BLANK "}]");
    ask_other(env, "w", "w");
    expect("refused", "source-in-use");
    script(env, "preflight",
           "[{'wwn':'naa.2','source_key':'file:1:2:3','size_bytes':1," BLANK "}]");
    ask_other(env, "w", "w");
    expect("refused", "source-in-use");
    script(env, "preflight", "[{'wwn':'','source_key':'','size_bytes':1," BLANK "}]");
    ask_other(env, "w", "w");
    expect("format", NULL);
}

/* --- discovery --- */

static void discover(struct env *env)
{
    struct mr_err err;

    came = 0;
    expected = 1;
    if (!mr_engine_discover(env->engine, "target.example", 1000, on_answer, NULL, &err))
        fail_msg("discover: %s", err.message);
    run_until(env, answered);
}

static void test_discovery_has_every_member(void **state)
{
    struct env *env = *state;

    script(env, "discover",
           "[{'complete':true,'targets':[{'name':'iqn.x','portals':['h:1'],'complete':"
           "true,'luns':[{'lun':3,'size_bytes':512,'secret':1}]},{'name':'iqn.y',"
           "'error':{'code':'chap-refused'}}]}]");
    discover(env);
    assert_string_equal(mr_json_get_string(document, "portal"), "target.example:3260");
    assert_string_equal(mr_json_get_string(document, "driver"), "iscsi");
    assert_true(mr_json_get_bool(document, "complete", false));
    struct json_object *target = mr_json_at(document, "targets", 0);
    struct json_object *lun = mr_json_at(target, "luns", 0);
    assert_int_equal(mr_json_get_int(lun, "lun", 0), 3);
    assert_true(json_object_object_get_ex(lun, "wwn", NULL));
    assert_true(json_object_object_get_ex(lun, "error", NULL));
    assert_false(json_object_object_get_ex(lun, "secret", NULL));
    assert_true(json_object_object_get_ex(target, "error", NULL));
    target = mr_json_at(document, "targets", 1);
    assert_int_equal(mr_json_count(target, "luns"), 0);
    assert_false(mr_json_get_bool(target, "complete", true));
    assert_string_equal(mr_json_get_string(mr_json_get(target, "error"), "code"),
                        "chap-refused");
}

static void test_discovery_that_fails_says_why(void **state)
{
    struct env *env = *state;

    script(env, "discover", "[{'error':{'code':'target-timeout','message':'silent'}}]");
    discover(env);
    assert_null(document);
    assert_int_equal(failure.code, MR_E_TARGET_TIMEOUT);
    script(env, "discover", "[{'exit':3}]");
    discover(env);
    assert_int_equal(failure.code, MR_E_INTERNAL);
    assert_int_equal(failure.residue, MR_RESIDUE_NONE);
    assert_null(env->engine->discoveries);
}

static void test_portals_are_those_of_a_spec(void **state)
{
    (void)state;
    assert_true(mr_discovery_portal_valid("127.0.0.1"));
    assert_true(mr_discovery_portal_valid("[::1]:3260"));
    assert_false(mr_discovery_portal_valid(""));
    assert_false(mr_discovery_portal_valid("h:0"));
    assert_false(mr_discovery_portal_valid("h,i"));
    assert_false(mr_discovery_portal_valid("[::1"));
}

/* --- bounds --- */

static bool all_gone(struct env *env)
{
    return env->engine->discoveries == NULL;
}

static void test_few_at_a_time_and_cancelled_ones_end(void **state)
{
    struct env *env = *state;
    struct mr_pending *pending[MR_DISCOVERIES_MAX];
    struct mr_err err;

    script(env, "discover", "[{'sleep_ms':60000}]");
    for (size_t i = 0; i < MR_DISCOVERIES_MAX; i++) {
        pending[i] = mr_engine_discover(env->engine, "h", 60000, on_answer, NULL, &err);
        assert_non_null(pending[i]);
    }
    assert_null(mr_engine_discover(env->engine, "h", 60000, on_answer, NULL, &err));
    assert_int_equal(err.code, MR_E_TOO_MANY_REQUESTS);
    assert_null(preflight_of(env, "v", "v", &err));
    assert_int_equal(err.code, MR_E_TOO_MANY_REQUESTS);
    for (size_t i = 0; i < MR_DISCOVERIES_MAX; i++)
        mr_pending_cancel(pending[i]);
    run_until(env, all_gone);
    assert_int_equal(came, 0);
    script(env, "discover", "[{'complete':true,'targets':[]}]");
    discover(env);
    assert_non_null(document);
}

static void test_look_past_its_deadline_is_killed(void **state)
{
    struct env *env = *state;

    script(env, "preflight", "[{'sleep_ms':60000}]");
    int64_t started_ns = mr_now_ns();
    preflight(env, "[{'sleep_ms':60000}]");
    assert_null(document);
    assert_int_equal(failure.code, MR_E_TARGET_TIMEOUT);
    assert_true(mr_now_ns() - started_ns < 8 * MR_NS_PER_S);
    run_until(env, all_gone);
}

static void test_agent_that_stops_answers(void **state)
{
    struct env *env = *state;
    struct mr_err err;

    script(env, "discover", "[{'sleep_ms':60000}]");
    assert_non_null(mr_engine_discover(env->engine, "h", 60000, on_answer, NULL, &err));
    mr_engine_free(env->engine);
    env->engine = NULL;
    assert_int_equal(came, 1);
    assert_null(document);
    mr_loop_free(env->loop);
    env_start(env);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, clear)
#define ATTACHED(name) cmocka_unit_test_setup_teardown(name, setup_attached, clear)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_blank_source_would_be_formatted),
        TEST(test_content_is_judged_as_by_an_attach),
        TEST(test_failure_keeps_what_was_seen),
        TEST(test_mkfs_that_was_cut_off_is_not_overlooked),
        TEST(test_mount_path_comes_last),
        TEST(test_what_is_wrong_with_the_request_is_no_document),
        TEST(test_path_below_no_root_is_refused_at_once),
        ATTACHED(test_attached_volume_would_be_verified),
        ATTACHED(test_conflicts_are_told_with_all_that_is_seen),
        ATTACHED(test_same_disk_by_another_name_is_in_use),
        TEST(test_discovery_has_every_member),
        TEST(test_discovery_that_fails_says_why),
        TEST(test_portals_are_those_of_a_spec),
        TEST(test_few_at_a_time_and_cancelled_ones_end),
        TEST(test_look_past_its_deadline_is_killed),
        TEST(test_agent_that_stops_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
