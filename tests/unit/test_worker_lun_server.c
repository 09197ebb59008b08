/* SPDX-License-Identifier: Apache-2.0
 *
 * The worker and a mooring-lun of another version, and of none: what is understood, what
 * is refused, and that an end is seen in every case.
 */
#include <pthread.h>

#include "storage/lun/control.h"
#include "tests/unit/test_worker_lun_env.h"

#define LIMIT_MS 2000

static char token[MR_TOKEN_TEXT]; /* of the running test */

/* Asks the fake; the result of mr_lun_ask(). */
static int ask(const char *cmd, int limit_ms, struct json_object **ret,
               struct mr_err *err)
{
    struct mr_lun_server server = {0};
    MR_AUTO_CLOSE int fd = mr_lun_connect(env_dir, token, &server);

    assert_true(fd >= 0);
    return mr_lun_ask(fd, cmd, token, limit_ms, ret, err);
}

static void assert_refused(fake_fn fn, int expected)
{
    MR_AUTO_JSON struct json_object *status = NULL;
    struct mr_err err = {0};

    pid_t pid = fake_start(env_token(token), fn);
    assert_int_equal(ask("status", LIMIT_MS, &status, &err), expected);
    assert_null(status);
    fake_stop(pid);
}

static void test_old_server_is_understood(void **state)
{
    MR_AUTO_JSON struct json_object *status = NULL;
    MR_AUTO_JSON struct json_object *cut = NULL;
    struct mr_err err = {0};

    (void)state;
    (void)fake_start(env_token(token), fake_old);
    assert_int_equal(ask("status", LIMIT_MS, &status, &err), 0);
    assert_string_equal(mr_json_get_string(status, "serial"), "SER 1");
    assert_int_equal(ask("cut", LIMIT_MS, &cut, &err), 0);
    assert_true(mr_json_get_bool(cut, "cut", false));
}

/* The driver finds, cuts and awaits it, as it does with its own kind. */
static void test_old_server_is_cut_and_awaited(void **state)
{
    MR_AUTO_JSON struct json_object *evidence = json_object_new_object();
    char detail[MR_CUT_TEXT] = "";
    struct mr_err err = {0};

    (void)state;
    pid_t pid = fake_start(env_token(token), fake_old);
    struct mr_lun_server server = fake_server(pid);
    const struct mr_identity identity = {.lun_pid = pid,
                                         .lun_start_time = server.start_time};
    assert_int_equal(mr_driver_iscsi.cut(token, env_dir, &identity, detail, &err), 0);
    assert_non_null(strstr(detail, "dropped the session"));
    assert_int_equal(mr_driver_iscsi.finished(token, env_dir, &identity, 10, evidence),
                     0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(mr_driver_iscsi.finished(token, env_dir, &identity, 5000, evidence),
                     1);
}

static struct json_object *answer_two_up(const char *its, struct json_object *request)
{
    return fake_range(its, request, MR_CONTROL_VERSION, MR_CONTROL_VERSION + 2);
}

static struct json_object *answer_first_only(const char *its, struct json_object *request)
{
    return fake_range(its, request, 1, 1);
}

/* Asked in the newest version that both speak. */
static void test_highest_common_version_is_spoken(void **state)
{
    MR_AUTO_JSON struct json_object *newer = NULL;
    MR_AUTO_JSON struct json_object *older = NULL;
    struct mr_err err = {0};

    (void)state;
    (void)fake_start(env_token(token), answer_two_up);
    assert_int_equal(ask("cut", LIMIT_MS, &newer, &err), 0);
    assert_int_equal(mr_json_get_int(newer, "asked", 0), MR_CONTROL_VERSION);
    assert_true(mr_json_get_bool(newer, "cut", false));
    (void)fake_start(env_token(token), answer_first_only);
    assert_int_equal(ask("cut", LIMIT_MS, &older, &err), 0);
    assert_int_equal(mr_json_get_int(older, "asked", 0), 1);
    assert_true(mr_json_get_bool(older, "cut", false));
}

static void test_newer_server_is_refused_by_the_range_that_it_names(void **state)
{
    MR_AUTO_JSON struct json_object *status = NULL;
    struct mr_err err = {0};

    (void)state;
    (void)fake_start(env_token(token), fake_newer);
    assert_int_equal(ask("status", LIMIT_MS, &status, &err), -EPROTONOSUPPORT);
    assert_null(status);
    assert_non_null(strstr(err.message, "1000 to 1002"));
    assert_true(err.remedy[0]);
}

/* It says ok all the same: not believed. */
static struct json_object *answer_newer_gladly(const char *its,
                                               struct json_object *request)
{
    struct json_object *json = fake_newer(its, request);

    mr_json_set_bool(json, "ok", true);
    mr_json_set_bool(json, "cut", true);
    return json;
}

/* Neither guessed at nor killed, but its end is seen. */
static void test_newer_server_is_not_cut_and_its_end_is_awaited(void **state)
{
    MR_AUTO_JSON struct json_object *evidence = json_object_new_object();
    char detail[MR_CUT_TEXT] = "";
    struct mr_err err = {0};

    (void)state;
    pid_t pid = fake_start(env_token(token), answer_newer_gladly);
    struct mr_lun_server server = fake_server(pid);
    const struct mr_identity identity = {.lun_pid = pid,
                                         .lun_start_time = server.start_time};
    assert_int_equal(mr_driver_iscsi.cut(token, env_dir, &identity, detail, &err),
                     -EPROTONOSUPPORT);
    assert_non_null(strstr(err.message, "1000 to 1002"));
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    assert_int_equal(mr_driver_iscsi.finished(token, env_dir, &identity, 10, evidence),
                     0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(mr_driver_iscsi.finished(token, env_dir, &identity, 5000, evidence),
                     1);
}

/* The one that is recorded is ended by its number; the other one is not even asked. */
static void test_listener_that_is_not_the_recorded_one_is_not_believed(void **state)
{
    char other[MR_TOKEN_TEXT];
    char detail[MR_CUT_TEXT] = "";
    struct mr_err err = {0};

    (void)state;
    pid_t impostor = fake_start(env_token(token), fake_old);
    pid_t pid = fake_start(env_token(other), fake_old);
    const struct mr_identity identity = {.lun_pid = pid,
                                         .lun_start_time = mr_process_start_time(pid)};
    assert_int_equal(mr_driver_iscsi.cut(token, env_dir, &identity, detail, &err), 0);
    assert_non_null(strstr(detail, "was killed"));
    fake_reap(pid);
    assert_int_equal(waitpid(impostor, NULL, WNOHANG), 0);
}

static struct json_object *answer_foreign(const char *its, struct json_object *request)
{
    struct json_object *json = fake_old(its, request);

    mr_json_set_string(json, "token", "00000000000000000000000000000000");
    return json;
}

static struct json_object *answer_no_token(const char *its, struct json_object *request)
{
    struct json_object *json = fake_old(its, request);

    mr_json_set(json, "token", NULL);
    return json;
}

static struct json_object *answer_odd_version(const char *its,
                                              struct json_object *request)
{
    struct json_object *json = fake_old(its, request);

    mr_json_set_string(json, "version", "2");
    return json;
}

static struct json_object *answer_empty_range(const char *its,
                                              struct json_object *request)
{
    return fake_range(its, request, 2, 1);
}

/* Refuses every version although it says that it speaks them. */
static struct json_object *answer_never(const char *its, struct json_object *request)
{
    struct json_object *json = fake_range(its, request, 1, 1);

    mr_json_set_bool(json, "ok", false);
    return json;
}

static void test_answers_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    assert_refused(answer_foreign, -EBADMSG);
    assert_refused(answer_no_token, -EBADMSG);
    assert_refused(answer_odd_version, -EPROTONOSUPPORT);
    assert_refused(answer_empty_range, -EPROTONOSUPPORT);
    assert_refused(answer_never, -EBADMSG);
}

static struct json_object *answer_nothing(const char *its, struct json_object *request)
{
    (void)its;
    (void)request;
    return NULL;
}

static void test_silence_is_bounded(void **state)
{
    MR_AUTO_JSON struct json_object *status = NULL;
    struct mr_err err = {0};

    (void)state;
    (void)fake_start(env_token(token), answer_nothing);
    int64_t start_ns = mr_now_ns();
    assert_int_equal(ask("status", 200, &status, &err), -ETIMEDOUT);
    assert_true(mr_now_ns() - start_ns < 2 * MR_NS_PER_S);
}

static struct json_object *answer_as_we_do(const char *its, struct json_object *request)
{
    struct json_object *refusal = mr_control_refuse(request, its);

    if (refusal)
        return refusal;
    struct json_object *json = fake_status(its, 0);
    mr_control_say_version(json);
    return json;
}

static void test_our_own_server_is_understood(void **state)
{
    MR_AUTO_JSON struct json_object *status = NULL;
    struct mr_err err = {0};

    (void)state;
    (void)fake_start(env_token(token), answer_as_we_do);
    assert_int_equal(ask("status", LIMIT_MS, &status, &err), 0);
    assert_int_equal(mr_json_get_int(status, "version", 0), MR_CONTROL_VERSION);
    assert_int_equal(mr_json_get_int(status, "oldest", 0), MR_CONTROL_OLDEST);
    assert_string_equal(mr_json_get_string(status, "program_version"), MR_VERSION);
}

static void test_presence_of_a_server(void **state)
{
    (void)state;
    pid_t pid = fake_start(env_token(token), fake_old);
    struct mr_lun_server server = fake_server(pid);
    struct mr_lun_server other = {.pid = pid, .start_time = server.start_time - 1};
    struct mr_lun_server unsure = {.pid = pid};

    assert_int_equal(mr_lun_presence(&server), MR_PRESENT);
    assert_int_equal(mr_lun_presence(&other), MR_ABSENT_NOW); /* had the number before */
    assert_int_equal(mr_lun_presence(&unsure), MR_PRESENCE_UNKNOWN);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_true(mr_lun_await_end(&server, 5000));
    assert_int_equal(mr_lun_presence(&server), MR_ABSENT_NOW); /* a zombie */
    fake_reap(pid);
    assert_int_equal(mr_lun_presence(&server), MR_ABSENT_NOW);
    assert_int_equal(mr_lun_presence(&unsure), MR_ABSENT_NOW);
}

struct other_thread {
    pthread_barrier_t meeting; /* once it has said its number, and at its end */
    pid_t tid;
};

static void *stay(void *arg)
{
    struct other_thread *thread = arg;

    thread->tid = gettid();
    (void)pthread_barrier_wait(&thread->meeting);
    (void)pthread_barrier_wait(&thread->meeting);
    return NULL;
}

/* Threads and processes have their numbers from one pool. */
static void test_server_whose_number_a_thread_has_now_has_ended(void **state)
{
    static struct other_thread thread; /* which outlives a test that fails */
    pthread_t id;
    struct mr_err err = {0};

    (void)state;
    assert_int_equal(pthread_barrier_init(&thread.meeting, NULL, 2), 0);
    assert_int_equal(pthread_create(&id, NULL, stay, &thread), 0);
    (void)pthread_barrier_wait(&thread.meeting);
    struct mr_lun_server server = {.pid = thread.tid, .start_time = 5};
    assert_int_equal(mr_lun_presence(&server), MR_ABSENT_NOW);
    assert_true(mr_lun_await_end(&server, 0));
    assert_int_equal(mr_lun_kill(&server, 10, &err), 0);
    (void)pthread_barrier_wait(&thread.meeting);
    assert_int_equal(pthread_join(id, NULL), 0);
    (void)pthread_barrier_destroy(&thread.meeting);
}

static void test_server_without_a_number_is_not_said_to_have_ended(void **state)
{
    const struct mr_lun_server server = {.pid = 0};
    struct mr_err err = {0};

    (void)state;
    assert_int_equal(mr_lun_presence(&server), MR_PRESENCE_UNKNOWN);
    assert_false(mr_lun_await_end(&server, 0));
    assert_true(mr_lun_kill(&server, 10, &err) < 0);
}

static int teardown(void **state)
{
    (void)state;
    fake_stop_all();
    return 0;
}

#define LUN_TEST(test) cmocka_unit_test_teardown(test, teardown)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        LUN_TEST(test_old_server_is_understood),
        LUN_TEST(test_old_server_is_cut_and_awaited),
        LUN_TEST(test_highest_common_version_is_spoken),
        LUN_TEST(test_newer_server_is_refused_by_the_range_that_it_names),
        LUN_TEST(test_newer_server_is_not_cut_and_its_end_is_awaited),
        LUN_TEST(test_listener_that_is_not_the_recorded_one_is_not_believed),
        LUN_TEST(test_answers_that_make_no_sense_are_refused),
        LUN_TEST(test_silence_is_bounded),
        LUN_TEST(test_our_own_server_is_understood),
        LUN_TEST(test_presence_of_a_server),
        LUN_TEST(test_server_whose_number_a_thread_has_now_has_ended),
        LUN_TEST(test_server_without_a_number_is_not_said_to_have_ended),
    };

    return cmocka_run_group_tests_name("a mooring-lun of any version", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
