/* SPDX-License-Identifier: Apache-2.0
 *
 * Journal against kernel: at the start, on demand, and what is in no journal.
 */
#include "tests/unit/engine_sql_env.h"

#define TOKEN "00112233445566778899aabbccddeeff"
#define ORPHAN "orphan-" TOKEN
#define EVIDENCE                                                                         \
    "{'token':'" TOKEN "','driver':'file','backing_file':'/i/x'," DEVICE(                \
        77) ","                                                                          \
            "'source':{'path':'/i/x'},'server':null,'fuse_mounts':[],"                   \
            "'mounts':[{'mount':null,'mount_id':3,'path':'/elsewhere','fs_type':'xfs'}," \
            "{'mount':{'id':9,'unique':true,'major':7,'minor':9,'root':'/"               \
            "r','path':'x'},"                                                            \
            "'mount_id':9,'path':'/r/x','fs_type':'xfs'}]}"

static struct json_object *document;
static struct mr_err last_err;
static unsigned answers;
static struct mr_pending *asking;

static void on_answer(void *ctx, struct json_object *answer, const struct mr_err *err)
{
    (void)ctx;
    (void)json_object_put(document);
    document = json_object_get(answer);
    if (err)
        last_err = *err;
    answers++;
}

static bool one_answer(struct env *env)
{
    (void)env;
    return answers == 1;
}

static bool two_answers(struct env *env)
{
    (void)env;
    return answers == 2;
}

static int setup_answers(void **state)
{
    (void)json_object_put(document);
    document = NULL;
    answers = 0;
    return setup_attached(state);
}

static int teardown_answers(void **state)
{
    (void)json_object_put(document);
    document = NULL;
    return teardown(state);
}

static void restart(struct env *env)
{
    env_stop(env);
    env_start(env);
}

/* --- the start --- */

static void test_nothing_starts_before_all_was_compared(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    struct mr_err err;

    restart(env);
    assert_true(mr_engine_recovering(env->engine));
    assert_int_equal(mr_engine_recovery(env->engine).total, 1);
    assert_int_equal(mr_engine_recovery(env->engine).done, 0);
    assert_true(mr_engine_attach(env->engine, "v", spec_at(env, "v", "v"), &op, &err) <
                0);
    assert_int_equal(err.code, MR_E_RECOVERING);
    assert_true(mr_engine_detach(env->engine, "v", NULL, false, &op, &proof, &err) < 0);
    assert_int_equal(err.code, MR_E_RECOVERING);
    assert_null(mr_engine_reconcile(env->engine, on_answer, NULL, &err));
    assert_null(mr_engine_orphans(env->engine, on_answer, NULL, &err));
    assert_null(mr_engine_adopt(env->engine, ORPHAN, NULL, on_answer, NULL, &err));
    run_until(env, recovered);
    assert_int_equal(mr_engine_recovery(env->engine).done, 1);
    assert_string_equal(asked(env), ""); /* no worker of the volume's own */
}

static void test_what_differs_is_said_and_recorded(void **state)
{
    struct env *env = *state;
    script(env, "look", "[{'found':true,'mounted':'absent'}]");
    restart(env);
    run_until(env, recovered);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_non_null(strstr(v(env)->error.message, "unmounted by somebody else"));
    script(env, "look", "[{'exit':1}]");
    restart(env); /* it is in the journal */
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
}

static void test_gone_device_is_not_attached(void **state)
{
    struct env *env = *state;
    script(env, "look", "[{'found':false,'mounted':'present'}]");
    restart(env);
    run_until(env, recovered);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    assert_int_equal(v(env)->error.code, MR_E_DEVICE_MISMATCH);
}

static void test_survey_that_dies_is_repeated(void **state)
{
    struct env *env = *state;
    script(env, "look", "[{'exit':1},{'found':true,'mounted':'present'}]");
    restart(env);
    run_until(env, recovered);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_false(v(env)->has_error);
}

static void test_what_could_not_be_compared_is_not_called_compared(void **state)
{
    struct env *env = *state;
    script(env, "look", "[{'exit':1}]");
    restart(env);
    run_until(env, recovered);
    assert_true(v(env)->has_error);
    assert_non_null(strstr(v(env)->error.message, "not compared with the kernel"));
    struct mr_operation *op = put(env, "v"); /* looks by itself */
    run_to_end(env, op);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_false(v(env)->has_error);
}

static void test_reconcile_makes_up_for_a_look_that_failed(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    script(env, "look",
           "[{'exit':1},{'exit':1},{'exit':1},{'found':true,'mounted':'present'}]");
    restart(env);
    run_until(env, recovered);
    assert_true(v(env)->has_error);
    assert_non_null(mr_engine_reconcile(env->engine, on_answer, NULL, &err));
    run_until(env, one_answer);
    assert_false(v(env)->has_error);
}

static const char *const cannot_tell[] = {
    "[{'found':null,'mounted':'present'}]",
    "[{'found':true,'mounted':'unknown'}]",
};

static void assert_not_compared(struct env *env)
{
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_true(v(env)->has_error);
    assert_non_null(strstr(v(env)->error.message, "not compared with the kernel"));
}

static void test_start_that_cannot_tell_calls_nothing_failed(void **state)
{
    struct env *env = *state;
    for (size_t i = 0; i < 2; i++) {
        script(env, "look", cannot_tell[i]);
        restart(env);
        run_until(env, recovered);
        assert_not_compared(env);
    }
}

#define MANY 20

static bool all_gone(struct env *env)
{
    for (int i = 0; i < MANY; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "m%d", i);
        if (mr_engine_find(env->engine, id))
            return false;
    }
    return true;
}

static unsigned running_workers(const struct env *env)
{
    unsigned count = 0;
    for (size_t i = 0; i < env->engine->volume_count; i++) {
        const struct mr_operation *op = env->engine->volumes[i]->op;
        count += op && op->worker && !op->ready;
    }
    return count;
}

static bool none_too_many(struct env *env)
{
    assert_true(running_workers(env) <= 8);
    return all_gone(env);
}

static void test_many_cut_off_detaches_go_on_some_at_a_time(void **state)
{
    struct env *env = *state;
    char sql[512];

    env_stop(env);
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(sql, sizeof(sql),
                       "INSERT INTO volume(number, id, state, doc, updated_at) SELECT "
                       "%d, 'm%d', 'detaching', doc, 0 FROM volume WHERE id = 'v'",
                       100 + i, i);
        run_sql(env, sql);
    }
    env_start(env);
    assert_int_equal(mr_engine_recovery(env->engine).total, MANY + 1);
    run_until(env, none_too_many);
    run_until(env, recovered);
    assert_int_equal(mr_engine_recovery(env->engine).done, MANY + 1);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
}

/* --- on demand --- */

static void test_reconcile_says_what_it_looked_at(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    script(env, "claim", "[{'result':'busy'}]");
    (void)del(env, "v");
    run_until(env, held);
    assert_non_null(mr_engine_reconcile(env->engine, on_answer, NULL, &err));
    run_until(env, one_answer);
    assert_int_equal(mr_json_get_int(document, "looked", -1), 0);
    struct json_object *busy = mr_json_get(document, "not_looked");
    assert_int_equal(json_object_array_length(busy), 1);
    assert_string_equal(json_object_get_string(json_object_array_get_idx(busy, 0)), "v");
    assert_int_equal(mr_json_get_int(document, "orphans", -1), 0);
}

static void test_reconcile_finds_what_differs(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    script(env, "look", "[{'found':false,'mounted':'absent'}]");
    script(env, "search", "[{'complete':false,'orphans':[]}]");
    assert_non_null(mr_engine_reconcile(env->engine, on_answer, NULL, &err));
    run_until(env, one_answer);
    assert_int_equal(mr_json_get_int(document, "looked", -1), 1);
    assert_int_equal(mr_json_get_int(document, "as_recorded", -1), 0);
    assert_int_equal(mr_json_count(document, "differs"), 1);
    assert_null(mr_json_get(document, "orphans")); /* half a search counts nothing */
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
}

static void reconcile(struct env *env)
{
    struct mr_err err;
    answers = 0;
    assert_non_null(mr_engine_reconcile(env->engine, on_answer, NULL, &err));
    run_until(env, one_answer);
}

static void assert_only_not_looked(void)
{
    assert_int_equal(mr_json_get_int(document, "looked", -1), 0);
    assert_int_equal(mr_json_get_int(document, "as_recorded", -1), 0);
    assert_int_equal(mr_json_count(document, "differs"), 0);
    struct json_object *ids = mr_json_get(document, "not_looked");
    assert_int_equal(json_object_array_length(ids), 1);
    assert_string_equal(json_object_get_string(json_object_array_get_idx(ids, 0)), "v");
}

static void test_reconcile_that_cannot_tell_calls_nothing_failed(void **state)
{
    struct env *env = *state;
    for (size_t i = 0; i < 2; i++) {
        script(env, "look", cannot_tell[i]);
        reconcile(env);
        assert_only_not_looked();
        assert_not_compared(env);
        script(env, "look", "[{'found':true,'mounted':'present'}]");
        reconcile(env);
        assert_int_equal(mr_json_get_int(document, "as_recorded", -1), 1);
        assert_false(v(env)->has_error);
    }
}

static void test_reconcile_does_not_look_at_what_is_not_attached(void **state)
{
    struct env *env = *state;
    script(env, "look", "[{'found':false,'mounted':'absent'}]");
    reconcile(env);
    assert_int_equal(v(env)->state, MR_STATE_FAILED);
    reconcile(env);
    assert_only_not_looked();
}

static bool looked_at(struct env *env)
{
    return v(env)->asked;
}

static void test_look_at_one_attachment_says_nothing_of_the_next(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    script(env, "look", "[{'sleep_ms':1000,'found':false,'mounted':'absent'}]");
    assert_non_null(mr_engine_reconcile(env->engine, on_answer, NULL, &err));
    run_until(env, looked_at);
    run_to_end(env, del(env, "v"));
    script(env, "inspect", NOT_FOUND);
    script(env, "check", "[{'content':'blank','detail':'all zero'}]");
    run_to_end(env, put(env, "v"));
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    run_until(env, one_answer);
    assert_int_equal(mr_json_get_int(document, "looked", -1), 0);
    assert_int_equal(mr_json_count(document, "differs"), 0);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
    assert_false(v(env)->has_error);
}

static void test_reconcile_whose_look_fails_says_so(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    script(env, "look", "[{'exit':1}]");
    assert_non_null(mr_engine_reconcile(env->engine, on_answer, NULL, &err));
    run_until(env, one_answer);
    assert_null(document);
    assert_int_equal(v(env)->state, MR_STATE_ATTACHED);
}

static void test_caller_who_hangs_up_is_not_answered(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    mr_pending_cancel(mr_engine_reconcile(env->engine, on_answer, NULL, &err));
    struct mr_pending *two = mr_engine_orphans(env->engine, on_answer, NULL, &err);
    assert_non_null(mr_engine_orphans(env->engine, on_answer, NULL, &err));
    mr_pending_cancel(two);
    run_until(env, one_answer);
    assert_non_null(document);
}

/* --- orphans --- */

static void list(struct env *env)
{
    struct mr_err err;
    answers = 0;
    assert_non_null(mr_engine_orphans(env->engine, on_answer, NULL, &err));
    run_until(env, one_answer);
}

static void test_unknown_orphan_is_listed_with_evidence_and_not_touched(void **state)
{
    struct env *env = *state;
    script(env, "search", "[{'complete':true,'orphans':[" EVIDENCE "]}]");
    list(env);
    struct json_object *items = mr_json_get(document, "items");
    assert_int_equal(json_object_array_length(items), 1);
    struct json_object *item = json_object_array_get_idx(items, 0);
    assert_string_equal(mr_json_get_string(item, "id"), ORPHAN);
    assert_string_equal(mr_json_get_string(item, "kind"), "unknown");
    assert_string_equal(mr_json_get_string(mr_json_get(item, "evidence"), "backing_file"),
                        "/i/x");
    assert_true(mr_json_get_bool(document, "complete", false));
    assert_string_equal(asked(env), "");
    assert_null(mr_engine_find(env->engine, ORPHAN));
}

static void test_what_is_in_the_journal_is_no_orphan(void **state)
{
    struct env *env = *state;
    char text[512];
    /* The worker began before it was written down; and tokens that are none. */
    (void)snprintf(text, sizeof(text),
                   "[{'complete':true,'orphans':[{'token':'%s'},"
                   "{'token':'" TOKEN
                   "'," DEVICE(42) "},"
                                   "{'token':'../../etc'},{'token':7},{}]}]",
                   v(env)->token);
    script(env, "search", text);
    list(env);
    assert_int_equal(mr_json_count(document, "items"), 0);
}

static void test_search_that_fails_is_not_complete(void **state)
{
    struct env *env = *state;
    script(env, "search", "[{'exit':1}]");
    list(env);
    assert_false(mr_json_get_bool(document, "complete", true));
}

static void test_lists_asked_for_together_share_one_search(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    list(env); /* the search of the start is over */
    answers = 0;
    script(env, "search",
           "[{'complete':true,'orphans':[" EVIDENCE "]},{'complete':true,'orphans':[]}]");
    assert_non_null(mr_engine_orphans(env->engine, on_answer, NULL, &err));
    assert_non_null(mr_engine_orphans(env->engine, on_answer, NULL, &err));
    run_until(env, two_answers);
    assert_int_equal(mr_json_count(document, "items"), 1);
    list(env);
    assert_int_equal(mr_json_count(document, "items"), 0);
}

static void adopt(struct env *env)
{
    struct json_object *caller = parse_json("{'uid':7}");
    struct mr_err err;
    answers = 0;
    memset(&last_err, 0, sizeof(last_err));
    asking = mr_engine_adopt(env->engine, ORPHAN, caller, on_answer, NULL, &err);
    (void)json_object_put(caller);
    assert_non_null(asking);
    run_until(env, one_answer);
}

static struct mr_volume *orphan(struct env *env)
{
    return mr_engine_lookup(env->engine, ORPHAN);
}

static void test_adopted_orphan_is_detached_by_the_rules_of_all(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct mr_err err;
    script(env, "search", "[{'complete':true,'orphans':[" EVIDENCE "]}]");
    adopt(env);
    assert_string_equal(mr_json_get_string(document, "state"), "orphan");
    assert_string_equal(asked(env), "");
    assert_int_equal(orphan(env)->mount.mount.id, 9);
    assert_string_equal(orphan(env)->spec->mount_path, "/r/x");
    restart(env); /* it is in the journal */
    run_until(env, recovered);
    assert_int_equal(orphan(env)->state, MR_STATE_ORPHAN);
    list(env);
    struct json_object *item =
        json_object_array_get_idx(mr_json_get(document, "items"), 0);
    assert_string_equal(mr_json_get_string(item, "kind"), "forgotten");
    assert_int_equal(mr_json_count(document, "items"), 1);
    /* Its source is taken until then. */
    assert_true(mr_engine_attach(env->engine, "x", spec_at(env, "x", "y"), &op, &err) <
                0);
    assert_int_equal(err.code, MR_E_SOURCE_IN_USE);
    script(env, "inspect",
           "[{'found':true," DEVICE(77) ",'mounted':'present','on_top':true}]");
    assert_int_equal(mr_engine_detach_orphan(env->engine, ORPHAN, false, &op, &err), 0);
    run_to_end(env, op);
    assert_string_equal(asked(env), "inspect unmount claim unmap");
    assert_int_equal(mr_operation_ended(op), 1);
    assert_int_equal(orphan(env)->state, MR_STATE_ABSENT);
}

static void test_server_without_a_device_is_waited_for(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct mr_err err;
    script(env, "search",
           "[{'complete':true,'orphans':[{'token':'" TOKEN "','driver':'iscsi',"
           "'identity':null,'source':{'target':'no iqn'},'mounts':[],"
           "'server':{'pid':4000000,'start_time':5,'state':'mute'}}]}]");
    adopt(env);
    assert_int_equal(orphan(env)->identity.lun_pid, 4000000);
    script(env, "inspect", NOT_FOUND);
    script(env, "gone", "[{'result':'bound'},{'result':'gone'}]");
    assert_int_equal(mr_engine_detach_orphan(env->engine, ORPHAN, false, &op, &err), 0);
    run_to_end(env, op);
    assert_string_equal(asked(env), "inspect gone gone");
    assert_int_equal(mr_operation_ended(op), 1);
}

#define NO_SERVER(complete)                                                              \
    "[{'complete':" complete ",'orphans':[{'token':'" TOKEN                              \
    "','driver':'iscsi'," DEVICE(77) ",'source':null,'mounts':[],'server':null}]}]"

static void test_adopted_device_whose_server_is_gone_says_so(void **state)
{
    struct env *env = *state;
    script(env, "search", NO_SERVER("true"));
    adopt(env);
    assert_true(orphan(env)->server_lost);
}

static void test_server_that_may_not_have_been_seen_is_not_called_gone(void **state)
{
    struct env *env = *state;
    script(env, "search", NO_SERVER("false"));
    adopt(env);
    assert_false(orphan(env)->server_lost);
}

static void test_mount_without_device_and_server_is_not_called_released(void **state)
{
    struct env *env = *state;
    script(env, "search",
           "[{'complete':true,'orphans':[{'token':'" TOKEN "','driver':'iscsi',"
           "'identity':null,'server':null,'mounts':[],"
           "'fuse_mounts':[{'mount_id':5,'path':'/x'}]}]}]");
    adopt(env);
    assert_int_equal(last_err.code, MR_E_DEVICE_HELD);
    assert_null(orphan(env));
}

static enum mr_code refused_delete(struct env *env, const char *id, const char *path)
{
    struct mr_operation *op = NULL;
    struct json_object *proof = NULL;
    memset(&last_err, 0, sizeof(last_err));
    assert_true(mr_engine_detach(env->engine, id, path, false, &op, &proof, &last_err) <
                0);
    return last_err.code;
}

static void test_delete_of_what_no_journal_knows_is_not_a_plain_not_found(void **state)
{
    struct env *env = *state;
    list(env); /* complete, and nothing there */
    assert_int_equal(refused_delete(env, "x", NULL), MR_E_VOLUME_NOT_FOUND);
    assert_string_equal(last_err.remedy, "");
    script(env, "search", "[{'complete':true,'orphans':[" EVIDENCE "]}]");
    list(env);
    /* By the default place of this id, and by the guard. */
    assert_int_equal(refused_delete(env, "x", NULL), MR_E_ORPHAN);
    assert_non_null(strstr(last_err.remedy, ORPHAN));
    assert_int_equal(refused_delete(env, "y", "/elsewhere"), MR_E_ORPHAN);
    assert_int_equal(last_err.residue, MR_RESIDUE_POSSIBLE);
    assert_int_equal(refused_delete(env, "y", NULL), MR_E_VOLUME_NOT_FOUND);
    assert_int_equal(last_err.residue, MR_RESIDUE_UNKNOWN);
    assert_non_null(strstr(last_err.remedy, "GET /orphans"));
    adopt(env); /* then the journal knows it */
    assert_int_equal(refused_delete(env, "x", NULL), MR_E_VOLUME_NOT_FOUND);
    assert_string_equal(last_err.remedy, "");
}

static void test_volume_with_the_id_of_an_orphan_is_in_its_way(void **state)
{
    struct env *env = *state;
    run_to_end(env, put(env, ORPHAN)); /* fails: the fake maps the same device again */
    script(env, "search", "[{'complete':true,'orphans':[" EVIDENCE "]}]");
    adopt(env);
    assert_int_equal(last_err.code, MR_E_SPEC_CONFLICT);
}

static void test_orphan_that_is_gone_is_not_adopted(void **state)
{
    struct env *env = *state;
    struct mr_err err;
    adopt(env);
    assert_int_equal(last_err.code, MR_E_VOLUME_NOT_FOUND);
    script(env, "search", "[{'complete':false,'orphans':[]}]");
    adopt(env); /* not found is not gone */
    assert_int_equal(last_err.code, MR_E_DEVICE_ERROR);
    assert_null(orphan(env));
    assert_null(mr_engine_adopt(env->engine, "v", NULL, on_answer, NULL, &err));
    assert_int_equal(err.code, MR_E_VOLUME_NOT_FOUND);
}

static void test_adoption_that_cannot_be_written_did_not_happen(void **state)
{
    struct env *env = *state;
    struct mr_operation *op = NULL;
    struct mr_err err;
    env_stop(env);
    run_sql(env, "CREATE TRIGGER t BEFORE INSERT ON history WHEN new.event = 'adopted' "
                 "BEGIN SELECT raise(ABORT, 'no'); END;");
    env_start(env);
    run_until(env, recovered);
    script(env, "search", "[{'complete':true,'orphans':[" EVIDENCE "]}]");
    adopt(env);
    assert_int_equal(last_err.code, MR_E_JOURNAL_UNAVAILABLE);
    assert_true(mr_engine_detach_orphan(env->engine, ORPHAN, false, &op, &err) < 0);
    list(env); /* it still is what it was */
    assert_int_equal(mr_json_count(document, "items"), 1);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup_answers, teardown_answers)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_nothing_starts_before_all_was_compared),
        T(test_what_differs_is_said_and_recorded),
        T(test_gone_device_is_not_attached),
        T(test_survey_that_dies_is_repeated),
        T(test_what_could_not_be_compared_is_not_called_compared),
        T(test_reconcile_makes_up_for_a_look_that_failed),
        T(test_start_that_cannot_tell_calls_nothing_failed),
        T(test_many_cut_off_detaches_go_on_some_at_a_time),
        T(test_reconcile_says_what_it_looked_at),
        T(test_reconcile_finds_what_differs),
        T(test_reconcile_that_cannot_tell_calls_nothing_failed),
        T(test_reconcile_does_not_look_at_what_is_not_attached),
        T(test_look_at_one_attachment_says_nothing_of_the_next),
        T(test_reconcile_whose_look_fails_says_so),
        T(test_caller_who_hangs_up_is_not_answered),
        T(test_unknown_orphan_is_listed_with_evidence_and_not_touched),
        T(test_what_is_in_the_journal_is_no_orphan),
        T(test_search_that_fails_is_not_complete),
        T(test_lists_asked_for_together_share_one_search),
        T(test_adopted_orphan_is_detached_by_the_rules_of_all),
        T(test_server_without_a_device_is_waited_for),
        T(test_adopted_device_whose_server_is_gone_says_so),
        T(test_server_that_may_not_have_been_seen_is_not_called_gone),
        T(test_mount_without_device_and_server_is_not_called_released),
        T(test_delete_of_what_no_journal_knows_is_not_a_plain_not_found),
        T(test_volume_with_the_id_of_an_orphan_is_in_its_way),
        T(test_orphan_that_is_gone_is_not_adopted),
        T(test_adoption_that_cannot_be_written_did_not_happen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
