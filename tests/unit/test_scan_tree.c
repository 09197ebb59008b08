/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounts that are no copies of the volume but keep it from being unmounted: inside of it,
 * on top of it, above it.
 */
#include "tests/unit/test_scan_env.h"

static void mount_tmpfs(const char *path)
{
    assert_int_equal(mount("none", path, "tmpfs", 0, NULL), 0);
}

static const char *make_dir(char dst[ENV_PATH], const char *dir, const char *name)
{
    (void)mkdir(env_path(dst, dir, name), 0755);
    return dst;
}

static void test_mounts_inside_are_named_however_deep(void **state)
{
    char inner[ENV_PATH];
    char deeper[ENV_PATH];

    (void)state;
    mount_tmpfs(make_dir(inner, env_mnt, "in ner"));
    mount_tmpfs(make_dir(deeper, inner, "deeper"));
    pid_t bystander = env_start(env_hold, "nothing", "/");
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(bystander);
    assert_int_equal(umount(deeper), 0);
    assert_int_equal(umount(inner), 0);
    struct json_object *row = env_row(rows, "nested-mount", inner);
    assert_non_null(row);
    assert_true(mr_json_get_int(row, "mount_id", 0) > 0);
    assert_null(mr_json_get(row, "pid")); /* everybody is in our own namespace */
    assert_non_null(env_row(rows, "nested-mount", deeper));
    assert_int_equal(env_count(rows), 2);
    MR_AUTO_JSON struct json_object *after = env_scan();
    env_expect_none(after);
}

static void test_mount_inside_of_a_bind_mount_is_named(void **state)
{
    char other[ENV_PATH];
    char inner[ENV_PATH];

    (void)state;
    (void)make_dir(other, env_dir, "other");
    (void)make_dir(inner, env_mnt, "inner");
    assert_int_equal(mount(env_mnt, other, NULL, MS_BIND, NULL), 0);
    mount_tmpfs(env_path(inner, other, "inner"));
    MR_AUTO_JSON struct json_object *rows = env_scan();
    assert_int_equal(umount(inner), 0);
    assert_int_equal(umount(other), 0);
    assert_non_null(env_row(rows, "mount-copy", other));
    assert_non_null(env_row(rows, "nested-mount", inner));
    assert_int_equal(env_count(rows), 2);
}

static void test_mount_inside_of_a_foreign_copy_is_named_with_its_process(void **state)
{
    char inner[ENV_PATH];

    (void)state;
    pid_t pid = env_start(env_hold, "space-nested", make_dir(inner, env_mnt, "inner"));
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    (void)env_expect(rows, "mount-copy", env_mnt, pid);
    (void)env_expect(rows, "nested-mount", inner, pid);
    assert_int_equal(env_count(rows), 2);
}

/* Each volume is a target of its own: one inside of the other holds the outer one. */
static void test_volume_mounted_inside_of_another_holds_that(void **state)
{
    struct env_loop inner_dev = {.fd = -1};
    char inner[ENV_PATH];

    (void)state;
    env_loop_file(&inner_dev, "inner.img", 16 * MIB);
    ENV_RUN("/sbin/mkfs.ext4", "-q", "-F", inner_dev.node);
    assert_int_equal(
        mount(inner_dev.node, make_dir(inner, env_mnt, "inner"), "ext4", 0, NULL), 0);
    const struct env_loop *const both[] = {&env_dev, &inner_dev};
    struct env_answer answers[2];
    env_scan_all(both, 2, ENV_DEADLINE_MS, answers);
    MR_AUTO_JSON struct json_object *rows = answers[0].rows;
    MR_AUTO_JSON struct json_object *inner_rows = answers[1].rows;
    assert_int_equal(umount(inner), 0);
    env_loop_close(&inner_dev);
    assert_non_null(env_row(rows, "nested-mount", inner));
    assert_int_equal(env_count(rows), 1);
    assert_non_null(env_row(inner_rows, "mount-copy", inner)); /* no own mount was told */
    assert_int_equal(env_count(inner_rows), 1);
}

static void test_cover_is_named_as_such(void **state)
{
    (void)state;
    mount_tmpfs(env_mnt);
    mount_tmpfs(env_mnt); /* and one on that */
    MR_AUTO_JSON struct json_object *rows = env_scan();
    assert_int_equal(umount(env_mnt), 0);
    assert_int_equal(umount(env_mnt), 0);
    assert_int_equal(env_count(rows), 2);
    for (size_t i = 0; i < 2; i++) {
        struct json_object *row = json_object_array_get_idx(rows, i);
        assert_string_equal(mr_json_get_string(row, "kind"), "covering-mount");
        assert_string_equal(mr_json_get_string(row, "path"), env_mnt);
    }
}

static void test_cover_of_a_directory_above_is_named(void **state)
{
    (void)state;
    mount_tmpfs(env_dir);
    env_held = true;
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_held = false;
    assert_int_equal(umount(env_dir), 0);
    assert_non_null(env_row(rows, "covering-mount", env_dir));
    assert_int_equal(env_count(rows), 1);
}

static void test_neighbours_and_what_it_stands_on_hide_nothing(void **state)
{
    char below[ENV_PATH];
    char mnt[ENV_PATH];
    char beside[ENV_PATH];
    char old[ENV_PATH];

    (void)state;
    (void)env_unmount(NULL);
    assert_int_equal(mr_format(old, sizeof(old), "%s", env_mnt), 0);
    mount_tmpfs(make_dir(below, env_dir, "below"));
    mount_tmpfs(make_dir(beside, env_dir, "bel"));
    (void)make_dir(mnt, below, "mnt");
    assert_int_equal(mr_format(env_mnt, sizeof(env_mnt), "%s", mnt), 0);
    env_mount_as("ext4");
    env_held = true;
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_held = false;
    (void)env_unmount(NULL);
    assert_int_equal(mr_format(env_mnt, sizeof(env_mnt), "%s", old), 0);
    assert_int_equal(umount(below), 0);
    assert_int_equal(umount(beside), 0);
    for (size_t i = 0; i < env_count(rows); i++) /* others may be candidates */
        assert_false(
            mr_json_get_bool(json_object_array_get_idx(rows, i), "certain", true));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, env_mount, env_unmount)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_mounts_inside_are_named_however_deep),
        TEST(test_mount_inside_of_a_bind_mount_is_named),
        TEST(test_mount_inside_of_a_foreign_copy_is_named_with_its_process),
        TEST(test_volume_mounted_inside_of_another_holds_that),
        TEST(test_cover_is_named_as_such),
        TEST(test_cover_of_a_directory_above_is_named),
        TEST(test_neighbours_and_what_it_stands_on_hide_nothing),
    };
    return cmocka_run_group_tests(tests, env_make_device, env_drop_device);
}

int main(int argc, char **argv)
{
    return env_main(argc, argv, run);
}
