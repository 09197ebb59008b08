/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/base/mountid.h"

#include <inttypes.h>
#include <sys/sysmacros.h>

#include "tests/unit/test_worker_env.h"

static char point[ENV_PATH];

static int setup(void **state)
{
    (void)state;
    env_path(point, env_mounts, "tmp");
    assert_int_equal(mkdir(point, 0755), 0);
    assert_int_equal(mount("none", point, "tmpfs", 0, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)umount2(point, MNT_DETACH);
    return rmdir(point);
}

static void test_mount_point_names_the_topmost_mount(void **state)
{
    struct mr_mount_id parent;
    struct mr_mount_id first;
    struct mr_mount_id second;
    struct stat st;

    (void)state;
    assert_int_equal(mr_mount_id_at(AT_FDCWD, env_mounts, &parent), 0);
    assert_int_equal(mr_mount_id_at(AT_FDCWD, point, &first), 0);
    assert_int_not_equal(first.id, parent.id);
    assert_int_equal(stat(point, &st), 0);
    assert_int_equal(first.major, major(st.st_dev));
    assert_int_equal(first.minor, minor(st.st_dev));
    assert_int_equal(mount("none", point, "tmpfs", 0, NULL), 0);
    assert_int_equal(mr_mount_id_at(AT_FDCWD, point, &second), 0);
    assert_int_not_equal(first.id, second.id);
    assert_int_equal(umount2(point, 0), 0);
    assert_int_equal(mr_mount_id_at(AT_FDCWD, point, &second), 0);
    assert_int_equal(first.id, second.id);
}

static void test_empty_path_names_the_fd_itself(void **state)
{
    struct mr_mount_id by_path;
    struct mr_mount_id by_fd;

    (void)state;
    MR_AUTO_CLOSE int fd = open(point, O_PATH | O_CLOEXEC);
    assert_int_equal(mr_mount_id_at(AT_FDCWD, point, &by_path), 0);
    assert_int_equal(mr_mount_id_at(fd, "", &by_fd), 0);
    assert_memory_equal(&by_path, &by_fd, sizeof(by_fd));
}

static void test_symlink_to_a_mount_is_not_followed(void **state)
{
    struct mr_mount_id parent;
    struct mr_mount_id by_link;
    char link[ENV_PATH];

    (void)state;
    assert_int_equal(symlink(point, env_path(link, env_mounts, "link")), 0);
    assert_int_equal(mr_mount_id_at(AT_FDCWD, env_mounts, &parent), 0);
    assert_int_equal(mr_mount_id_at(AT_FDCWD, link, &by_link), 0);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(by_link.id, parent.id);
}

static void test_mount_is_present_until_unmounted_even_if_detached_and_open(void **state)
{
    struct mr_mount_id id;

    (void)state;
    assert_int_equal(mr_mount_id_at(AT_FDCWD, point, &id), 0);
    assert_int_equal(mr_mount_present(&id), MR_PRESENT);
    MR_AUTO_CLOSE int fd = open(point, O_RDONLY | O_CLOEXEC);
    assert_int_equal(umount2(point, MNT_DETACH), 0);
    assert_int_equal(mr_mount_present(&id), MR_ABSENT_NOW);
}

static void test_id_of_a_new_mount_is_never_an_old_one(void **state)
{
    struct mr_mount_id old;
    struct mr_mount_id new;

    (void)state;
    assert_int_equal(mr_mount_id_at(AT_FDCWD, point, &old), 0);
    if (!old.unique)
        skip();
    assert_int_equal(umount2(point, 0), 0);
    assert_int_equal(mount("none", point, "tmpfs", 0, NULL), 0);
    assert_int_equal(mr_mount_id_at(AT_FDCWD, point, &new), 0);
    assert_int_not_equal(old.id, new.id);
    assert_int_equal(mr_mount_present(&old), MR_ABSENT_NOW);
    assert_int_equal(mr_mount_present(&new), MR_PRESENT);
}

/* What kernels before 6.8 get: the id of mountinfo, with the device. */
static void test_reusable_id_is_looked_up_with_its_device(void **state)
{
    struct statx stx;
    struct mr_mount_id id = {0};

    (void)state;
    assert_int_equal(statx(AT_FDCWD, point, 0, STATX_MNT_ID, &stx), 0);
    id.id = stx.stx_mnt_id;
    id.major = stx.stx_dev_major;
    id.minor = stx.stx_dev_minor;
    assert_int_equal(mr_mount_present(&id), MR_PRESENT);
    id.minor++;
    assert_int_equal(mr_mount_present(&id), MR_ABSENT_NOW);
    id.minor--;
    assert_int_equal(umount2(point, 0), 0);
    assert_int_equal(mr_mount_present(&id), MR_ABSENT_NOW);
}

static void test_no_id_is_unknown_and_no_path_is_an_error(void **state)
{
    struct mr_mount_id id = {0};

    (void)state;
    assert_int_equal(mr_mount_present(&id), MR_PRESENCE_UNKNOWN);
    assert_int_equal(mr_mount_id_at(AT_FDCWD, "/nonexistent/x", &id), -ENOENT);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_mount_point_names_the_topmost_mount, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_empty_path_names_the_fd_itself, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_symlink_to_a_mount_is_not_followed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_mount_is_present_until_unmounted_even_if_detached_and_open, setup,
            teardown),
        cmocka_unit_test_setup_teardown(test_id_of_a_new_mount_is_never_an_old_one, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_reusable_id_is_looked_up_with_its_device,
                                        setup, teardown),
        cmocka_unit_test(test_no_id_is_unknown_and_no_path_is_an_error),
    };

    return cmocka_run_group_tests_name("mountid", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
