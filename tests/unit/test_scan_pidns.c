/* SPDX-License-Identifier: Apache-2.0
 *
 * Where mount namespaces cannot be listed (a pid namespace of our own here, kernels
 * before 6.12 elsewhere) the mountinfo of the processes has to do, and the answer is
 * never complete.
 */
#include "tests/unit/test_scan_env.h"

static void test_copy_is_found_by_the_mountinfo_of_its_process(void **state)
{
    (void)state;
    pid_t pid = env_start(env_hold, "space", "/");
    env_umount(0);
    struct env_answer answer = env_scan_of(&env_dev);
    MR_AUTO_JSON struct json_object *rows = answer.rows;
    env_stop(pid);
    struct json_object *row = env_expect(rows, "mount-copy", env_mnt, pid);
    assert_int_equal(env_count(rows), 1);
    assert_int_equal(mr_json_get_int(row, "processes", 0), 1);
    assert_false(answer.complete);
}

static void test_copy_of_a_thread_is_found_by_its_mountinfo(void **state)
{
    (void)state;
    pid_t pid = env_start(env_hold, "thread-space", "/");
    env_umount(0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    struct json_object *row = env_expect(rows, "mount-copy", env_mnt, pid);
    assert_true(mr_json_get_int(row, "tid", 0) > pid);
}

/* The first process in the namespace is chrooted and does not see the mount. */
static void test_mount_out_of_sight_of_the_first_process_is_found(void **state)
{
    char jail[ENV_PATH];

    (void)state;
    assert_int_equal(mkdir(env_path(jail, env_mnt, "jail"), 0755), 0);
    ENV_RUN("/bin/mount", "-t", "tmpfs", "none", jail);
    pid_t pid = env_start(env_hold, "space-by-two", jail);
    assert_int_equal(umount(jail), 0);
    env_umount(0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    (void)env_expect(rows, "mount-copy", env_mnt, pid);
    (void)env_expect(rows, "nested-mount", jail, pid);
    assert_int_equal(env_count(rows), 2);
}

static void test_own_namespace_is_looked_at_without_any_other_process(void **state)
{
    (void)state;
    env_own = (struct mr_mount_id){0};
    MR_AUTO_JSON struct json_object *rows = env_scan();
    assert_non_null(env_row(rows, "mount-copy", env_mnt));
}

static void test_mount_inside_and_mount_on_top_are_found_by_mountinfo(void **state)
{
    char inner[ENV_PATH];

    (void)state;
    assert_int_equal(mkdir(env_path(inner, env_mnt, "inner"), 0755), 0);
    assert_int_equal(mount("none", inner, "tmpfs", 0, NULL), 0);
    assert_int_equal(mount("none", env_mnt, "tmpfs", 0, NULL), 0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    assert_int_equal(umount(env_mnt), 0);
    assert_int_equal(umount(inner), 0);
    assert_non_null(env_row(rows, "nested-mount", inner));
    assert_non_null(env_row(rows, "covering-mount", env_mnt));
    assert_int_equal(env_count(rows), 2);
}

static void test_overlay_is_found_by_mountinfo(void **state)
{
    char merged[ENV_PATH];
    char options[256];

    (void)state;
    assert_int_equal(mkdir(env_path(merged, env_dir, "mer ged"), 0755), 0);
    assert_int_equal(
        mr_format(options, sizeof(options), "lowerdir=%s:%s", env_dir, env_mnt), 0);
    assert_int_equal(mount("none", merged, "overlay", MS_RDONLY, options), 0);
    env_umount(0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    assert_int_equal(umount(merged), 0);
    assert_int_equal(rmdir(merged), 0);
    assert_non_null(env_row(rows, "overlay", merged));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, env_mount, env_unmount)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_copy_is_found_by_the_mountinfo_of_its_process),
        TEST(test_copy_of_a_thread_is_found_by_its_mountinfo),
        TEST(test_mount_out_of_sight_of_the_first_process_is_found),
        TEST(test_own_namespace_is_looked_at_without_any_other_process),
        TEST(test_mount_inside_and_mount_on_top_are_found_by_mountinfo),
        TEST(test_overlay_is_found_by_mountinfo),
    };
    return cmocka_run_group_tests(tests, env_make_device, env_drop_device);
}

int main(int argc, char **argv)
{
    env_pid_space = true;
    return env_main(argc, argv, run);
}
