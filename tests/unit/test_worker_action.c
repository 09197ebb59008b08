/* SPDX-License-Identifier: Apache-2.0
 *
 * Actions on holders that are mounts or processes: real ones, ended by the real worker.
 */
#include "tests/unit/test_worker_action_env.h"

#include "storage/worker/action.h"

static void test_copy_is_unmounted_while_its_process_goes_on(void **state)
{
    (void)state;
    volume_up("ext4");
    pid_t pid = helper_start(hold_copy, NULL);
    struct json_object *row = row_mount("mount-copy", pid, vol.path);
    volume_unmount();
    assert_held();
    act("unmount-copies", false, row, true, "unmounted");
    assert_free();
    assert_true(helper_lives(pid));
    assert_int_equal(mount_id_in(pid, vol.path), 0);
}

static void test_copy_in_a_namespace_without_a_process_is_unmounted(void **state)
{
    (void)state;
    volume_up("ext4");
    pid_t pid = helper_start(hold_copy, NULL);
    struct json_object *row = row_mount("mount-copy", pid, vol.path);
    char path[ENV_PATH];
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
    MR_AUTO_CLOSE int pin = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(pin >= 0);
    helper_stop(pid);
    volume_unmount();
    assert_held();
    act("unmount-copies", false, row, true, "unmounted");
    assert_free();
}

static void test_copy_that_went_by_itself_is_done(void **state)
{
    (void)state;
    volume_up("ext4");
    pid_t pid = helper_start(hold_copy, NULL);
    struct json_object *row = row_mount("mount-copy", pid, vol.path);
    helper_stop(pid);
    act("unmount-copies", true, json_object_get(row), true, "namespace has ended");
    pid = helper_start(hold_copy, NULL);
    mr_json_set_int(row, "mount_ns", (int64_t)ns_of(pid));
    mr_json_set_int(row, "mount_id", INT32_MAX);
    act("unmount-copies", true, row, true, "not there any more");
}

static void test_busy_copy_stays_and_says_so(void **state)
{
    (void)state;
    volume_up("ext4");
    pid_t pid = helper_start(hold_copy_and_cwd, vol.path);
    act("unmount-copies", true, row_mount("mount-copy", pid, vol.path), false, "busy");
    assert_true(mount_id_in(pid, vol.path) != 0);
}

static void test_locked_copy_names_what_works_instead(void **state)
{
    (void)state;
    volume_up("ext4");
    pid_t pid = helper_start(hold_locked_copy, NULL);
    struct json_object *row = row_mount("mount-copy", pid, vol.path);
    volume_unmount();
    act("unmount-copies", false, json_object_get(row), false, "locked: a copy in a user");
    assert_held();
    struct json_object *command = command_act("signal", false, rows_of(row));
    mr_json_set_string(command, "signal", "KILL");
    assert_result(act_results(command), 0, true, "has ended");
    helper_reap(pid);
    assert_free();
}

static void test_covered_copy_stays(void **state)
{
    (void)state;
    volume_up("ext4");
    pid_t pid = helper_start(hold_copy_covered, vol.path);
    struct json_object *row = row_mount("mount-copy", pid, vol.path);
    uint64_t cover = mount_id_in(pid, vol.path);
    struct mr_mount_table table;
    char path[ENV_PATH];
    (void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    MR_AUTO_CLOSE int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mr_mount_table_read(dir, &table), 0);
    for (size_t i = 0; i < table.count; i++) {
        if (table.entries[i].dev == makedev(vol.identity.major, vol.identity.minor))
            mr_json_set_int(row, "mount_id", (int64_t)table.entries[i].id);
    }
    mr_mount_table_clear(&table);
    act("unmount-copies", true, row, false, "covered by another mount");
    assert_int_equal(mount_id_in(pid, vol.path), cover);
}

static void test_links_in_a_foreign_namespace_are_not_followed(void **state)
{
    (void)state;
    volume_up("ext4");
    pid_t pid = helper_start(hold_copy_behind_link, NULL);
    act("unmount-copies", true, row_mount("mount-copy", pid, vol.path), false,
        "symbolic link");
    assert_true(mount_id_in(pid, vol.path) != 0);
}

static void test_our_own_mount_is_never_taken_for_a_copy(void **state)
{
    bool on_top = false;

    (void)state;
    volume_up("ext4");
    act("unmount-copies", true, row_mount("mount-copy", getpid(), vol.path), false,
        "the volume's own mount");
    assert_int_equal(mr_mounter_present(&vol.record, &on_top), MR_PRESENT);
    assert_true(on_top);
}

static void test_bind_mount_in_our_namespace_is_unmounted(void **state)
{
    char bind[ENV_PATH];

    (void)state;
    volume_up("ext4");
    assert_int_equal(mkdir(env_path(bind, env_mounts, "b"), 0755), 0);
    assert_int_equal(mount(vol.path, bind, NULL, MS_BIND, NULL), 0);
    act("unmount-copies", true, row_mount("mount-copy", getpid(), bind), true,
        "unmounted");
    assert_int_equal(mount_id_in(getpid(), bind), 0);
    assert_true(mount_id_in(getpid(), vol.path) != 0);
}

/* The numbers of a row may be another mount's by now. */
static void test_mount_of_something_else_is_refused(void **state)
{
    static const char *const kinds[] = {"mount-copy", "nested-mount", "covering-mount"};
    char other[ENV_PATH];

    (void)state;
    volume_up("ext4");
    assert_int_equal(mkdir(env_path(other, env_mounts, "b"), 0755), 0);
    assert_int_equal(mount("none", other, "tmpfs", 0, NULL), 0);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        act("unmount-copies", true, row_mount(kinds[i], getpid(), other), false,
            "is not what was seen");
    act("unmount-overlay", true, row_mount("overlay", getpid(), other), false,
        "is not what was seen");
    assert_true(mount_id_in(getpid(), other) != 0);
}

static void test_nested_and_covering_mounts_are_unmounted(void **state)
{
    char sub[ENV_PATH];

    (void)state;
    volume_up("ext4");
    assert_int_equal(mkdir(env_path(sub, vol.path, "sub"), 0755), 0);
    assert_int_equal(mount("none", sub, "tmpfs", 0, NULL), 0);
    act("unmount-copies", true, row_mount("nested-mount", getpid(), sub), true,
        "unmounted");
    assert_int_equal(mount_id_in(getpid(), sub), 0);

    uint64_t own = mount_id_in(getpid(), vol.path);
    assert_int_equal(mount("none", vol.path, "tmpfs", 0, NULL), 0);
    act("unmount-copies", true, row_mount("covering-mount", getpid(), vol.path), true,
        "unmounted");
    assert_int_equal(mount_id_in(getpid(), vol.path), own);

    assert_int_equal(mount("none", env_mounts, "tmpfs", 0, NULL), 0);
    act("unmount-copies", true, row_mount("covering-mount", getpid(), env_mounts), true,
        "unmounted");
    volume_unmount();
    assert_free();
}

static void test_overlay_is_unmounted(void **state)
{
    char point[ENV_PATH];
    char options[ENV_PATH + 32];

    (void)state;
    volume_up("ext4");
    assert_int_equal(mkdir(env_path(point, env_mounts, "o"), 0755), 0);
    (void)snprintf(options, sizeof(options), "lowerdir=%s:/usr/share", vol.path);
    assert_int_equal(mount("none", point, "overlay", MS_RDONLY, options), 0);
    struct json_object *row = row_mount("overlay", getpid(), point);
    volume_unmount();
    assert_held();
    act("unmount-copies", false, json_object_get(row), false, "does not apply");
    act("unmount-overlay", false, row, true, "unmounted");
    assert_free();
}

static void test_overlay_without_a_layer_on_the_volume_is_refused(void **state)
{
    char point[ENV_PATH];

    (void)state;
    volume_up("ext4");
    assert_int_equal(mkdir(env_path(point, env_mounts, "o"), 0755), 0);
    assert_int_equal(
        mount("none", point, "overlay", MS_RDONLY, "lowerdir=/usr/share:/usr/lib"), 0);
    act("unmount-overlay", true, row_mount("overlay", getpid(), point), false,
        "is not what was seen");
    assert_true(mount_id_in(getpid(), point) != 0);
}

/* --- signal --- */

static bool ignore_term(const void *arg)
{
    (void)arg;
    return signal(SIGTERM, SIG_IGN) != SIG_ERR;
}

static struct json_object *signal_rows(const char *name, struct json_object *rows)
{
    struct json_object *command = command_act("signal", true, rows);

    mr_json_set_string(command, "signal", name);
    return act_results(command);
}

static void test_signal_ends_each_process_and_waits_for_all(void **state)
{
    (void)state;
    volume_up("ext4");
    pid_t obeys = helper_start(hold_nothing, NULL);
    pid_t ignores = helper_start(ignore_term, NULL);
    struct json_object *rows = rows_of(row_new("open-file", obeys));
    (void)json_object_array_add(rows, row_new("cwd", ignores));
    (void)json_object_array_add(rows, row_new("cwd", obeys));
    (void)json_object_array_add(rows, row_new("open-file", 0));
    int64_t start_ns = mr_now_ns();
    struct json_object *results = signal_rows("TERM", rows);
    assert_true(mr_now_ns() - start_ns < 4 * MR_NS_PER_S);
    assert_result(results, 0, true, "has ended");
    assert_result(results, 1, false, "still running after 2 s");
    assert_result(results, 2, true, "has ended");
    assert_result(results, 3, false, "names no process");
    results = signal_rows("KILL", rows_of(row_new("cwd", ignores)));
    assert_result(results, 0, true, "has ended");
}

static void test_signal_refuses_a_process_with_another_start_time(void **state)
{
    (void)state;
    volume_up("ext4");
    pid_t pid = helper_start(hold_nothing, NULL);
    struct json_object *row = row_new("open-file", pid);
    mr_json_set_int(row, "start_time", mr_json_get_int(row, "start_time", 0) - 1);
    assert_result(signal_rows("KILL", rows_of(json_object_get(row))), 0, false,
                  "refused");
    mr_json_set(row, "start_time", NULL);
    assert_result(signal_rows("KILL", rows_of(row)), 0, false, "refused");
    assert_true(helper_lives(pid));
}

static void test_signal_spares_init_kernel_and_our_own(void **state)
{
    char lock[ENV_PATH];
    const char *const argv[] = {MR_WORKER_PROGRAM, "volume", env_path(lock, env_dir, "l"),
                                NULL};
    struct mr_err err = {0};
    pid_t worker = 0;
    int pair[2];

    (void)state;
    volume_up("ext4");
    assert_int_equal(mr_msg_pair(pair, &err), 0);
    const struct mr_spawn_fd fds[] = {
        {.from = pair[1], .to = MR_WORKER_CHANNEL_FD},
        {.from = watcher, .to = MR_WORKER_INOTIFY_FD},
    };
    const struct mr_spawn spawn = {
        .argv = argv, .fds = fds, .fd_count = 2, .stdout_fd = -1, .stderr_fd = -1};
    assert_int_equal(mr_spawn_start(&spawn, &worker, NULL, &err), 0);
    (void)close(pair[1]);
    (void)json_object_put(worker_receive(pair[0])); /* ready */
    struct json_object *rows = rows_of(row_new("open-file", 1));
    (void)json_object_array_add(rows, row_new("open-file", 2));        /* kthreadd */
    (void)json_object_array_add(rows, row_new("open-file", getpid())); /* its parent */
    (void)json_object_array_add(rows, row_new("open-file", worker));
    struct json_object *results = signal_rows("KILL", rows);
    assert_result(results, 0, false, "init process");
    assert_result(results, 1, false, "thread of the kernel");
    assert_result(results, 2, false, "process of this agent");
    assert_result(results, 3, false, "process of this agent");
    assert_true(helper_lives(worker));
    (void)close(pair[0]);
    assert_int_equal(waitpid(worker, NULL, 0), worker);
}

/* --- what the command says is checked --- */

static void test_nothing_is_touched_for_another_device(void **state)
{
    (void)state;
    volume_up("ext4");
    pid_t pid = helper_start(hold_copy, NULL);
    struct json_object *rows = rows_of(row_mount("mount-copy", pid, vol.path));
    static const char *const actions[] = {"unmount-copies",  "signal",   "thaw",
                                          "unmount-overlay", "shutdown", "cut-transport"};

    vol.identity.diskseq--; /* an earlier life of this number */
    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        struct json_object *command =
            command_act(actions[i], true, json_object_get(rows));
        mr_json_set_string(command, "signal", "KILL");
        struct json_object *reply = worker_ask(command, NULL);
        assert_false(mr_json_get_bool(reply, "ok", true));
        assert_string_equal(mr_json_get_string(mr_json_get(reply, "error"), "code"),
                            "device-mismatch");
    }
    struct json_object *reply = worker_ask(command_new("examine"), NULL);
    assert_false(mr_json_get_bool(reply, "ok", true));
    vol.identity.diskseq++;
    (void)json_object_put(rows);
    assert_true(helper_lives(pid));
    assert_true(mount_id_in(pid, vol.path) != 0);
    MR_AUTO_CLOSE int fd = open(vol.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(syncfs(fd), 0); /* not shut down */
}

static void test_bad_commands_are_error_replies(void **state)
{
    static const char *const broken[] = {
        "{\"action\": \"reboot\"}",
        "{\"action\": 5}",
        "{\"action\": \"signal\", \"signal\": \"STOP\"}",
        "{\"action\": \"signal\", \"signal\": null}",
        "{\"action\": \"unmount-copies\", \"holders\": []}",
        "{\"action\": \"unmount-copies\", \"holders\": [5]}",
        "{\"action\": \"unmount-copies\", \"holders\": {\"id\": \"x\"}}",
        "{\"action\": \"thaw\", \"driver\": \"nvme\"}",
        "{\"action\": \"thaw\", \"token\": \"../x\"}",
        "{\"action\": \"thaw\", \"mount\": {\"root\": \"x\", \"path\": \"..\"}}",
        "{\"action\": \"thaw\", \"identity\": {}}",
        "{\"cmd\": \"unmount\"}",
        "{\"cmd\": \"scan\"}",
    };

    (void)state;
    volume_up("ext4");
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        MR_AUTO_JSON struct json_object *more = json_tokener_parse(broken[i]);
        struct json_object *command = command_act("thaw", true, NULL);
        json_object_object_foreach(more, key, value)
        {
            mr_json_set(command, key, json_object_get(value));
        }
        struct json_object *reply = worker_ask(command, NULL);
        if (mr_json_get_bool(reply, "ok", true))
            fail_msg("%s: %s", broken[i], json_object_to_json_string(reply));
    }
    /* A row of nonsense is one bad result, not the end of the others. */
    struct json_object *rows =
        rows_of(json_tokener_parse("{\"id\": \"x\", \"kind\": \"unheard-of\"}"));
    (void)json_object_array_add(
        rows, json_tokener_parse("{\"id\": \"y\", \"kind\": \"mount-copy\","
                                 " \"mount_ns\": -1, \"mount_id\": \"z\"}"));
    struct json_object *results = act_results(command_act("unmount-copies", true, rows));
    assert_result(results, 0, false, "does not apply");
    assert_result(results, 1, false, "names no mount");
}

static void test_a_local_file_has_no_transport_to_cut(void **state)
{
    (void)state;
    volume_up("ext4");
    struct json_object *reply =
        worker_ask(command_act("cut-transport", true, NULL), NULL);
    assert_string_equal(mr_json_get_string(mr_json_get(reply, "error"), "code"),
                        "action-unsupported");
}

/* --- the child that acts --- */

static void hang(void *ctx, struct mr_outcome *ret)
{
    (void)ctx;
    mr_outcome(ret, true, "never said");
    for (;;)
        (void)pause();
}

static void die(void *ctx, struct mr_outcome *ret)
{
    (void)ctx;
    (void)ret;
    _exit(0);
}

static void answer_long(void *ctx, struct mr_outcome *ret)
{
    mr_outcome(ret, true, "%s%0500d", (const char *)ctx, 1);
}

static void test_child_that_hangs_or_dies_is_given_up(void **state)
{
    struct mr_act act = {.channel_fd = -1, .inotify_fd = -1, .device_fd = -1};
    struct mr_outcome outcome;
    char text[] = "x";

    (void)state;
    int64_t start_ns = mr_now_ns();
    assert_false(mr_act_in_child(&act, hang, NULL, 100, &outcome));
    assert_true(mr_now_ns() - start_ns < 2 * MR_NS_PER_S);
    assert_false(outcome.done);
    assert_string_equal(outcome.detail, "no answer from the kernel within 100 ms");
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* killed and reaped */
    assert_false(mr_act_in_child(&act, die, NULL, 10000, &outcome));
    assert_false(outcome.done);
    assert_true(mr_act_in_child(&act, answer_long, text, 10000, &outcome));
    assert_true(outcome.done);
    assert_int_equal(strlen(outcome.detail), sizeof(outcome.detail) - 1);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        ACTION_TEST(test_copy_is_unmounted_while_its_process_goes_on),
        ACTION_TEST(test_copy_in_a_namespace_without_a_process_is_unmounted),
        ACTION_TEST(test_copy_that_went_by_itself_is_done),
        ACTION_TEST(test_busy_copy_stays_and_says_so),
        ACTION_TEST(test_locked_copy_names_what_works_instead),
        ACTION_TEST(test_covered_copy_stays),
        ACTION_TEST(test_links_in_a_foreign_namespace_are_not_followed),
        ACTION_TEST(test_our_own_mount_is_never_taken_for_a_copy),
        ACTION_TEST(test_bind_mount_in_our_namespace_is_unmounted),
        ACTION_TEST(test_mount_of_something_else_is_refused),
        ACTION_TEST(test_nested_and_covering_mounts_are_unmounted),
        ACTION_TEST(test_overlay_is_unmounted),
        ACTION_TEST(test_overlay_without_a_layer_on_the_volume_is_refused),
        ACTION_TEST(test_signal_ends_each_process_and_waits_for_all),
        ACTION_TEST(test_signal_refuses_a_process_with_another_start_time),
        ACTION_TEST(test_signal_spares_init_kernel_and_our_own),
        ACTION_TEST(test_nothing_is_touched_for_another_device),
        ACTION_TEST(test_bad_commands_are_error_replies),
        cmocka_unit_test(test_child_that_hangs_or_dies_is_given_up),
        ACTION_TEST(test_a_local_file_has_no_transport_to_cut),
    };

    return cmocka_run_group_tests_name("worker actions", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
