/* SPDX-License-Identifier: Apache-2.0
 *
 * Holders that only the text of an fdinfo gives away, and those that nothing does: named
 * as candidates, when the device is held and there is nobody else.
 */
#include "tests/unit/test_scan_env.h"

static struct env_answer scan_held(void)
{
    env_held = true;
    struct env_answer answer = env_scan_of(&env_dev);
    env_held = false;
    return answer;
}

static void expect_certain(struct json_object *row, bool certain)
{
    assert_int_equal(mr_json_get_bool(row, "certain", !certain), certain);
}

/* Other programs of this machine may be candidates, too. */
static struct json_object *row_of(struct json_object *rows, const char *kind, pid_t pid)
{
    for (size_t i = 0; i < env_count(rows); i++) {
        struct json_object *row = json_object_array_get_idx(rows, i);
        if (strcmp(mr_json_get_string(row, "kind"), kind) == 0 &&
            mr_json_get_int(row, "pid", 0) == pid)
            return row;
    }
    return NULL;
}

/* A holder that is seen only when the device is known to be held, and never for sure. */
static void expect_candidate(const char *hold, const char *path, const char *kind)
{
    pid_t pid = env_start(env_hold, hold, path);
    env_umount(MNT_DETACH);
    MR_AUTO_JSON struct json_object *unasked = env_scan();
    MR_AUTO_JSON struct json_object *rows = scan_held().rows;
    env_stop(pid);
    MR_AUTO_JSON struct json_object *after = scan_held().rows;
    struct json_object *row = row_of(rows, kind, pid);
    if (!row)
        fail_msg("no %s of %d in %s", kind, pid, json_object_to_json_string(rows));
    expect_certain(row, false);
    env_expect_none(unasked);
    assert_null(row_of(after, kind, pid));
}

static void test_file_in_a_ring_is_named(void **state)
{
    char file[ENV_PATH];

    (void)state;
    pid_t pid = env_start(env_hold, "ring", env_path(file, env_mnt, "file"));
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    expect_certain(env_expect(rows, "io-uring", file, pid), true);
    assert_int_equal(env_count(rows), 1);
}

static void
test_path_in_a_ring_proves_nothing_when_the_volume_is_not_mounted(void **state)
{
    char file[ENV_PATH];

    (void)state;
    env_umount(0); /* from here on it is a file of the directory */
    int fd = open(env_path(file, env_mnt, "file"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
    pid_t pid = env_start(env_hold, "ring", file);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    assert_int_equal(unlink(file), 0);
    env_expect_none(rows);
}

static void test_file_in_a_ring_without_a_path_is_a_candidate(void **state)
{
    char file[ENV_PATH];
    (void)state;
    expect_candidate("ring", env_path(file, env_mnt, "file"), "io-uring");
}

static void test_fd_in_flight_is_a_candidate(void **state)
{
    char file[ENV_PATH];
    (void)state;
    expect_candidate("in-flight", env_path(file, env_mnt, "file"), "in-flight-fd");
}

static void test_file_system_context_is_a_candidate(void **state)
{
    (void)state;
    expect_candidate("context", env_mnt, "fs-context");
}

static void
test_tree_that_is_nowhere_is_a_candidate_when_it_starts_elsewhere(void **state)
{
    (void)state;
    expect_candidate("trees", env_dir, "detached-mount");
}

static void test_candidates_are_not_named_beside_a_certain_holder(void **state)
{
    char file[ENV_PATH];

    (void)state;
    pid_t guess = env_start(env_hold, "in-flight", env_path(file, env_mnt, "file"));
    pid_t certain = env_start(env_hold, "file", file);
    MR_AUTO_JSON struct json_object *rows = scan_held().rows;
    env_stop(guess);
    env_stop(certain);
    expect_certain(env_expect(rows, "open-file", file, certain), true);
    assert_int_equal(env_count(rows), 1);
}

static void test_candidates_are_few(void **state)
{
    char file[ENV_PATH];

    (void)state;
    pid_t pid = env_start(env_hold, "in-flight-many", env_path(file, env_mnt, "file"));
    struct env_answer answer = scan_held();
    MR_AUTO_JSON struct json_object *rows = answer.rows;
    env_stop(pid);
    assert_int_equal(env_count(rows), 20);
    assert_false(answer.complete);
}

static void expect_detached(const char *hold, const char *path)
{
    pid_t pid = env_start(env_hold, hold, path);
    env_umount(0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    expect_certain(env_expect(rows, "detached-mount", "/", pid), true);
    assert_int_equal(env_count(rows), 1);
    MR_AUTO_JSON struct json_object *after = env_scan();
    env_expect_none(after);
}

static void test_fd_of_a_mount_that_is_nowhere_is_named(void **state)
{
    char inner[ENV_PATH];

    (void)state;
    expect_detached("tree", env_mnt);
    env_mount_as("ext4");
    expect_detached("new-mount", env_dev.node);
    env_mount_as("ext4");
    assert_int_equal(mkdir(env_path(inner, env_mnt, "inner"), 0755), 0);
    expect_detached("tree", inner);
}

static void test_directory_on_a_mount_that_is_nowhere_is_an_open_file(void **state)
{
    (void)state;
    pid_t pid = env_start(env_hold, "file", env_mnt);
    env_umount(MNT_DETACH);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    (void)env_expect(rows, "open-file", "/", pid);
    assert_int_equal(env_count(rows), 1);
}

static void expect_fanotify(const char *hold, const char *path, bool expected)
{
    pid_t pid = env_start(env_hold, hold, path);
    MR_AUTO_JSON struct json_object *unasked = env_scan();
    MR_AUTO_JSON struct json_object *rows = scan_held().rows;
    bool busy = umount2(env_mnt, 0) < 0 && errno == EBUSY;
    if (!busy)
        env_mount_as("ext4");
    env_stop(pid);
    struct json_object *row = row_of(rows, "fanotify", pid);
    env_expect_none(unasked); /* marks alone are nobody's fault */
    assert_int_equal(row != NULL, expected);
    assert_int_equal(busy, expected);
    if (row)
        expect_certain(row, true);
}

static void test_fanotify_group_with_unread_events_is_named(void **state)
{
    char file[ENV_PATH];

    (void)state;
    expect_fanotify("fanotify", env_mnt, true);
    expect_fanotify("fanotify-mount", env_mnt, true);
    expect_fanotify("fanotify-inode", env_path(file, env_mnt, "file"), true);
}

static void test_fanotify_group_that_holds_nothing_is_not_named(void **state)
{
    (void)state;
    expect_fanotify("fanotify-idle", env_mnt, false);
    expect_fanotify("fanotify-fid", env_mnt, false);
}

static void test_fanotify_group_with_other_marks_is_a_candidate(void **state)
{
    (void)state;
    pid_t pid = env_start(env_hold, "fanotify", env_dir);
    MR_AUTO_JSON struct json_object *rows = scan_held().rows;
    env_stop(pid);
    struct json_object *row = row_of(rows, "fanotify", pid);
    assert_non_null(row);
    expect_certain(row, false);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, env_mount, env_unmount)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_file_in_a_ring_is_named),
        TEST(test_path_in_a_ring_proves_nothing_when_the_volume_is_not_mounted),
        TEST(test_file_in_a_ring_without_a_path_is_a_candidate),
        TEST(test_fd_in_flight_is_a_candidate),
        TEST(test_file_system_context_is_a_candidate),
        TEST(test_tree_that_is_nowhere_is_a_candidate_when_it_starts_elsewhere),
        TEST(test_candidates_are_not_named_beside_a_certain_holder),
        TEST(test_candidates_are_few),
        TEST(test_fd_of_a_mount_that_is_nowhere_is_named),
        TEST(test_directory_on_a_mount_that_is_nowhere_is_an_open_file),
        TEST(test_fanotify_group_with_unread_events_is_named),
        TEST(test_fanotify_group_that_holds_nothing_is_not_named),
        TEST(test_fanotify_group_with_other_marks_is_a_candidate),
    };
    return cmocka_run_group_tests(tests, env_make_device, env_drop_device);
}

int main(int argc, char **argv)
{
    return env_main(argc, argv, run);
}
