/* SPDX-License-Identifier: Apache-2.0
 *
 * What other mount namespaces do to a scan: paths that mean something else in there, more
 * mounts than anybody can read, mounts that no path leads to.
 */
#include "tests/unit/test_scan_env.h"

static struct env_answer scan_held(void)
{
    env_held = true;
    struct env_answer answer = env_scan_of(&env_dev);
    env_held = false;
    return answer;
}

static size_t count_kind(struct json_object *rows, const char *kind)
{
    size_t count = 0;

    for (size_t i = 0; i < env_count(rows); i++) {
        struct json_object *row = json_object_array_get_idx(rows, i);
        count += strcmp(mr_json_get_string(row, "kind"), kind) == 0;
    }
    return count;
}

static size_t count_copies_of(struct json_object *rows, pid_t pid)
{
    size_t count = 0;

    for (size_t i = 0; i < env_count(rows); i++) {
        struct json_object *row = json_object_array_get_idx(rows, i);
        count += strcmp(mr_json_get_string(row, "kind"), "mount-copy") == 0 &&
                 mr_json_get_int(row, "pid", 0) == pid;
    }
    return count;
}

static void test_path_in_another_namespace_is_a_guess(void **state)
{
    char merged[ENV_PATH];

    (void)state;
    pid_t pid = env_start(env_hold, "overlay-elsewhere", env_mnt);
    env_umount(0);
    MR_AUTO_JSON struct json_object *unasked = env_scan();
    MR_AUTO_JSON struct json_object *rows = scan_held().rows;
    env_stop(pid);
    env_expect_none(unasked);
    struct json_object *row =
        env_expect(rows, "overlay", env_path(merged, env_mnt, "merged"), pid);
    assert_false(mr_json_get_bool(row, "certain", true));
}

static void test_overlay_on_a_foreign_copy_is_certain(void **state)
{
    char merged[ENV_PATH];

    (void)state;
    pid_t pid = env_start(env_hold, "overlay-on-copy", env_mnt);
    env_umount(0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    struct json_object *row =
        env_expect(rows, "overlay", env_path(merged, env_mnt, "merged"), pid);
    assert_true(mr_json_get_bool(row, "certain", false));
}

/* In there it has no copy of the volume, but the overlay is the same as ours. */
static void test_inherited_overlay_is_certain(void **state)
{
    char merged[ENV_PATH];
    char options[400];

    (void)state;
    assert_int_equal(mkdir(env_path(merged, env_dir, "merged"), 0755), 0);
    assert_int_equal(
        mr_format(options, sizeof(options), "lowerdir=%s:%s", env_mnt, env_dir), 0);
    assert_int_equal(mount("none", merged, "overlay", MS_RDONLY, options), 0);
    env_umount(0);
    pid_t pid = env_start(env_hold, "space", "/");
    MR_AUTO_JSON struct json_object *rows = env_scan();
    assert_int_equal(umount(merged), 0);
    MR_AUTO_JSON struct json_object *alone = scan_held().rows;
    env_stop(pid);
    assert_int_equal(rmdir(merged), 0);
    assert_int_equal(env_count(rows), 2);
    assert_int_equal(count_kind(rows, "overlay"), 2);
    struct json_object *row = env_expect(alone, "overlay", merged, pid);
    assert_false(mr_json_get_bool(row, "certain", true));
}

static void test_own_mount_is_no_copy_when_its_id_cannot_be_learned(void **state)
{
    char other[ENV_PATH];

    (void)state;
    assert_int_equal(mkdir(env_path(other, env_dir, "other"), 0755), 0);
    assert_int_equal(mount(env_mnt, other, NULL, MS_BIND, NULL), 0);
    env_no_statmount = true;
    struct env_answer answer = env_scan_of(&env_dev);
    env_no_statmount = false;
    MR_AUTO_JSON struct json_object *rows = answer.rows;
    assert_int_equal(umount(other), 0);
    assert_int_equal(rmdir(other), 0);
    assert_null(env_row(rows, "mount-copy", env_mnt));
    assert_non_null(env_row(rows, "mount-copy", other));
    assert_false(answer.complete);
}

/* One user in a namespace of his own must not stop the naming of anybody else. */
static void expect_no_flood(const char *hold)
{
    char file[ENV_PATH];

    pid_t flood = env_start(env_hold, hold, env_mnt);
    pid_t pid = env_start(env_hold, "file", env_path(file, env_mnt, "file"));
    struct env_answer answer = scan_held();
    MR_AUTO_JSON struct json_object *rows = answer.rows;
    env_stop(flood);
    env_stop(pid);
    (void)env_expect(rows, "open-file", file, pid);
    assert_in_range(count_copies_of(rows, flood), 1, 20);
    assert_false(answer.complete);
}

static void test_thousands_of_long_paths_are_cut_short(void **state)
{
    (void)state;
    expect_no_flood("flood");
}

static void test_thousands_of_mounts_on_each_other_are_cut_short(void **state)
{
    (void)state;
    expect_no_flood("flood-stacked");
}

/* listmount(2) begins at the first mount on the root of a foreign namespace. */
static void test_copy_beside_the_root_of_a_namespace_is_found(void **state)
{
    (void)state;
    pid_t pid = env_start(env_hold, "on-rootfs", env_mnt);
    env_umount(0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    env_stop(env_start(env_hold, "clean-rootfs", "/"));
    assert_int_equal(count_copies_of(rows, pid), 1);
}

static void test_socket_in_the_network_namespace_of_a_thread_is_named(void **state)
{
    char path[ENV_PATH];

    (void)state;
    pid_t pid = env_start(env_hold, "thread-socket", env_path(path, env_mnt, "socket"));
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    (void)env_expect(rows, "unix-socket", path, pid);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, env_mount, env_unmount)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_path_in_another_namespace_is_a_guess),
        TEST(test_overlay_on_a_foreign_copy_is_certain),
        TEST(test_inherited_overlay_is_certain),
        TEST(test_own_mount_is_no_copy_when_its_id_cannot_be_learned),
        TEST(test_copy_beside_the_root_of_a_namespace_is_found),
        TEST(test_thousands_of_long_paths_are_cut_short),
        TEST(test_thousands_of_mounts_on_each_other_are_cut_short),
        TEST(test_socket_in_the_network_namespace_of_a_thread_is_named),
    };
    return cmocka_run_group_tests(tests, env_make_device, env_drop_device);
}

int main(int argc, char **argv)
{
    return env_main(argc, argv, run);
}
