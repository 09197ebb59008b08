/* SPDX-License-Identifier: Apache-2.0
 *
 * Holders inside the kernel: bound sockets, probes, and what it serves to other hosts.
 * The tables of servers that the kernel may not have are stood in for by files.
 */
#include "tests/unit/test_scan_env.h"

#define PROBE "mooring_test_probe"

static void test_bound_socket_is_named_with_its_process(void **state)
{
    char name[ENV_PATH];

    (void)state;
    pid_t pid = env_start(env_hold, "socket", env_path(name, env_mnt, "socket"));
    MR_AUTO_JSON struct json_object *rows = env_scan();
    bool busy = umount2(env_mnt, 0) < 0 && errno == EBUSY;
    env_stop(pid);
    MR_AUTO_JSON struct json_object *after = env_scan();
    assert_true(busy);
    (void)env_expect(rows, "unix-socket", name, pid);
    assert_int_equal(env_count(rows), 1);
    env_expect_none(after);
}

static void test_socket_in_another_network_namespace_is_named(void **state)
{
    char name[ENV_PATH];

    (void)state;
    pid_t pid = env_start(env_hold, "socket-in-net", env_path(name, env_mnt, "socket"));
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    (void)env_expect(rows, "unix-socket", name, pid);
}

static void test_socket_that_nobody_has_open_is_named_alone(void **state)
{
    char name[ENV_PATH];

    (void)state;
    pid_t pid =
        env_start(env_hold, "socket-in-flight", env_path(name, env_mnt, "socket"));
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    struct json_object *row = env_row(rows, "unix-socket", name);
    assert_non_null(row);
    assert_null(mr_json_get(row, "pid"));
    assert_int_equal(env_count(rows), 1);
}

static bool write_probe(const char *text)
{
    MR_AUTO_CLOSE int fd =
        open("/sys/kernel/tracing/uprobe_events", O_WRONLY | O_APPEND | O_CLOEXEC);

    return fd >= 0 && mr_write_all(fd, text, strlen(text)) == 0;
}

static void test_probe_on_a_program_is_named(void **state)
{
    char program[ENV_PATH];
    char text[ENV_PATH + 100];

    (void)state;
    if (mount("none", "/sys/kernel/tracing", "tracefs", 0, NULL) < 0)
        skip();
    ENV_RUN("/bin/cp", env_hold, env_path(program, env_mnt, "pro:0x1"));
    (void)snprintf(text, sizeof(text), "p:" PROBE " %s:0x100 %%ax\n", program);
    bool made = write_probe(text);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    bool busy = umount2(env_mnt, 0) < 0 && errno == EBUSY;
    bool dropped = write_probe("-:" PROBE "\n");
    MR_AUTO_JSON struct json_object *after = env_scan();
    assert_int_equal(umount("/sys/kernel/tracing"), 0);
    assert_true(made && busy && dropped);
    struct json_object *row = env_row(rows, "uprobe", program);
    assert_non_null(row);
    assert_true(mr_json_get_bool(row, "certain", false));
    assert_int_equal(env_count(rows), 1);
    env_expect_none(after);
}

static void put_text(const char *dir, const char *name, const char *text)
{
    char path[ENV_PATH];

    assert_int_equal(mr_mkdir_p(dir, 0755), 0);
    MR_AUTO_CLOSE int fd =
        open(env_path(path, dir, name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(mr_write_all(fd, text, strlen(text)), 0);
}

static void test_nfs_export_is_named(void **state)
{
    char inner[ENV_PATH];
    char text[3 * ENV_PATH];

    (void)state;
    (void)env_path(inner, env_mnt, "a b");
    (void)snprintf(text, sizeof(text),
                   "# Version 1.1\n# Path Client(Flags) # IPs\n/\t*(ro)\n%sx\t*(ro)\n"
                   "%s/a\\040b\thost(rw,uuid=1:2)\n",
                   env_mnt, env_mnt);
    assert_int_equal(mount("none", "/proc/fs", "tmpfs", 0, NULL), 0);
    put_text("/proc/fs/nfsd", "exports", text);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_umount(0);
    MR_AUTO_JSON struct json_object *unmounted = env_scan();
    env_held = true;
    MR_AUTO_JSON struct json_object *held = env_scan();
    env_held = false;
    assert_int_equal(umount("/proc/fs"), 0);
    struct json_object *row = env_row(rows, "nfs-export", inner);
    assert_non_null(row);
    assert_true(mr_json_get_bool(row, "certain", false));
    assert_int_equal(env_count(rows), 1);
    /* A path alone may be any file system now. */
    env_expect_none(unmounted);
    row = env_row(held, "nfs-export", inner);
    assert_non_null(row);
    assert_false(mr_json_get_bool(row, "certain", true));
}

#define CONFIG "/sys/kernel/config"

static void test_device_or_file_that_a_target_serves_is_named(void **state)
{
    char link[] = "/dev/mooring-scan-test";
    char image[ENV_PATH];

    (void)state;
    (void)unlink(link);
    assert_int_equal(symlink(env_dev.node, link), 0);
    assert_int_equal(mount("none", "/sys/kernel", "tmpfs", 0, NULL), 0);
    put_text(CONFIG "/nvmet/subsystems/nqn.x/namespaces/1", "device_path", env_dev.node);
    put_text(CONFIG "/nvmet/subsystems/nqn.x/namespaces/1", "enable", "1\n");
    put_text(CONFIG "/nvmet/subsystems/nqn.x/namespaces/2", "device_path",
             env_path(image, env_mnt, "image"));
    put_text(CONFIG "/nvmet/subsystems/nqn.x/namespaces/2", "enable", "0\n");
    put_text(CONFIG "/target/core/iblock_0/disk", "udev_path", link);
    put_text(CONFIG "/target/core/iblock_0/disk", "enable", "1\n");
    put_text(CONFIG "/target/core/fileio_1/image", "udev_path", image);
    put_text(CONFIG "/target/core/fileio_1/other", "udev_path", "/dev/null\n");
    put_text(CONFIG "/target/core/fileio_1/bad", "udev_path", "");
    MR_AUTO_JSON struct json_object *rows = env_scan();
    put_text(CONFIG "/target/core/fileio_1/image", "enable", "0\n");
    MR_AUTO_JSON struct json_object *disabled = env_scan();
    assert_int_equal(umount("/sys/kernel"), 0);
    assert_int_equal(unlink(link), 0);
    assert_non_null(env_row(rows, "target-export", env_dev.node));
    assert_non_null(env_row(rows, "target-export", link));
    assert_non_null(env_row(rows, "target-export", image));
    assert_int_equal(env_count(rows), 3);
    assert_int_equal(env_count(disabled), 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, env_mount, env_unmount)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_bound_socket_is_named_with_its_process),
        TEST(test_socket_in_another_network_namespace_is_named),
        TEST(test_socket_that_nobody_has_open_is_named_alone),
        TEST(test_probe_on_a_program_is_named),
        TEST(test_nfs_export_is_named),
        TEST(test_device_or_file_that_a_target_serves_is_named),
    };
    return cmocka_run_group_tests(tests, env_make_device, env_drop_device);
}

int main(int argc, char **argv)
{
    return env_main(argc, argv, run);
}
