/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory control group of a mooring-lun: where it is, and that nothing of it stays.
 */
#include <signal.h>
#include <sys/wait.h>

#include "storage/worker/cgroup.h"
#include "tests/unit/test_worker_env.h"

#define V1_MOUNT                                                                         \
    "31 24 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n"               \
    "32 24 0:28 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n"        \
    "33 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
#define V2_MOUNT                                                                         \
    "23 60 0:21 / /proc rw - proc proc rw\n"                                             \
    "33 24 0:29 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"

static void assert_own(const char *cgroup, const char *mountinfo, const char *expected)
{
    char path[ENV_PATH];

    assert_int_equal(mr_cgroup_own(cgroup, mountinfo, path, sizeof(path)), 0);
    assert_string_equal(path, expected);
}

static void assert_none(const char *cgroup, const char *mountinfo)
{
    char path[ENV_PATH];

    assert_true(mr_cgroup_own(cgroup, mountinfo, path, sizeof(path)) < 0);
}

static void test_memory_hierarchy_of_version_1_comes_first(void **state)
{
    (void)state;
    assert_own("5:devices:/x\n4:memory:/a/b\n0::/u\n", V1_MOUNT,
               "/sys/fs/cgroup/memory/a/b");
    assert_own("4:cpu,memory:/\n", V1_MOUNT, "/sys/fs/cgroup/memory");
}

static void test_version_2_where_there_is_no_other(void **state)
{
    (void)state;
    assert_own("0::/system.slice/mooring.service\n", V2_MOUNT,
               "/sys/fs/cgroup/system.slice/mooring.service");
    assert_own("1:name=systemd:/s\n0::/", V2_MOUNT, "/sys/fs/cgroup");
}

static void test_mount_of_a_part_shows_what_is_below_it(void **state)
{
    (void)state;
    assert_own("4:memory:/docker/12/x\n",
               "9 8 0:28 /docker/12 /cg/memory ro - cgroup none rw,memory\n",
               "/cg/memory/x");
    assert_none("4:memory:/docker/123\n",
                "9 8 0:28 /docker/12 /cg/memory ro - cgroup none rw,memory\n");
}

static void test_nonsense_is_no_group(void **state)
{
    (void)state;
    assert_none("", V1_MOUNT);
    assert_none("4:memory:/a\n", "");
    assert_none("::::\nmemory\n4:memory", V1_MOUNT);
    assert_none("4:memory:/a\n",
                "a b c - \n32 24 0:28 - cgroup\n - cgroup x rw,memory\n");
    assert_none("4:nomemory:/a\n", V1_MOUNT);
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

/* Version 2 has a file that says so. */
static bool has_memory(const char *path)
{
    char name[ENV_PATH];
    char text[256] = "";

    assert_int_equal(mr_format(name, sizeof(name), "%s/cgroup.controllers", path), 0);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true;
    assert_true(read(fd, text, sizeof(text) - 1) >= 0);
    (void)close(fd);
    return strstr(text, "memory") != NULL;
}

static void test_group_holds_the_process_and_goes_with_it(void **state)
{
    char token[MR_TOKEN_TEXT];
    char link[ENV_PATH];
    char path[PATH_MAX];
    struct mr_err err;
    int end[2];

    (void)state;
    assert_int_equal(mr_format(link, sizeof(link), "%s/lun", env_dir), 0);
    (void)mkdir(link, 0700);
    assert_int_equal(pipe2(end, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char byte;

        (void)close(end[1]);
        _exit(read(end[0], &byte, 1) == 0 ? 0 : 1);
    }
    int r = mr_cgroup_join(env_dir, env_token(token), pid, path, sizeof(path), &err);
    assert_int_equal(mr_format(link, sizeof(link), "%s/lun/%s.cgroup", env_dir, token),
                     0);
    if (r < 0) {
        print_message("no memory control group: %s\n", err.message);
        assert_false(exists(link));
    } else {
        assert_true(exists(path) && exists(link));
        assert_true(has_memory(path));
        assert_false(mr_cgroup_remove(env_dir, token, 0)); /* somebody is in it */
        assert_true(exists(path) && exists(link));
    }
    (void)close(end[1]);
    (void)close(end[0]);
    assert_true(r < 0 || mr_cgroup_remove(env_dir, token, 5000));
    assert_false(r == 0 && exists(path));
    assert_false(exists(link));
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(mr_cgroup_remove(env_dir, token, 0)); /* again does no harm */
}

static void test_link_to_something_else_is_not_followed(void **state)
{
    char token[MR_TOKEN_TEXT];
    char link[ENV_PATH];
    char other[ENV_PATH];

    (void)state;
    assert_int_equal(mr_format(link, sizeof(link), "%s/lun", env_dir), 0);
    (void)mkdir(link, 0700);
    assert_int_equal(
        mr_format(link, sizeof(link), "%s/lun/%s.cgroup", env_dir, env_token(token)), 0);
    assert_int_equal(mkdir(env_path(other, env_dir, "other"), 0700), 0);
    assert_int_equal(symlink(other, link), 0);
    assert_true(mr_cgroup_remove(env_dir, token, 0));
    assert_true(exists(other));
    assert_false(exists(link));
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_hierarchy_of_version_1_comes_first),
        cmocka_unit_test(test_version_2_where_there_is_no_other),
        cmocka_unit_test(test_mount_of_a_part_shows_what_is_below_it),
        cmocka_unit_test(test_nonsense_is_no_group),
        cmocka_unit_test(test_group_holds_the_process_and_goes_with_it),
        cmocka_unit_test(test_link_to_something_else_is_not_followed),
    };

    return cmocka_run_group_tests_name("control groups", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
