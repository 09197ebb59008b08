/* SPDX-License-Identifier: Apache-2.0
 *
 * What the block layer puts on a device: loop devices and swap, which no process owns and
 * an exclusive open does not always see.
 */
#include "tests/unit/test_scan_env.h"

#include <linux/blkpg.h>
#include <sys/swap.h>

static void test_loop_on_the_device_is_named(void **state)
{
    struct env_loop upper = {.fd = -1};

    (void)state;
    env_loop_open(&upper, env_dev.fd);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    MR_AUTO_JSON struct json_object *of_upper = env_scan_of(&upper).rows;
    env_loop_close(&upper);
    struct json_object *row = env_row(rows, "loop", NULL);
    assert_non_null(row);
    assert_string_equal(mr_json_get_string(row, "device"), upper.node);
    assert_int_equal(env_count(rows), 1);
    env_expect_none(of_upper); /* a loop device does not hold itself */
    MR_AUTO_JSON struct json_object *after = env_scan();
    env_expect_none(after);
}

/* A name in /dev is not what makes a device. */
static void test_loop_on_another_node_of_the_device_is_named(void **state)
{
    struct env_loop upper = {.fd = -1};
    char node[ENV_PATH];

    (void)state;
    assert_int_equal(mknod(env_path(node, env_dir, "node"), S_IFBLK | 0600, env_dev.dev),
                     0);
    MR_AUTO_CLOSE int fd = open(node, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    env_loop_open(&upper, fd);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_loop_close(&upper);
    assert_int_equal(unlink(node), 0);
    assert_non_null(env_row(rows, "loop", node));
}

static void test_loop_on_a_file_of_the_file_system_is_named(void **state)
{
    struct env_loop upper = {.fd = -1};
    char path[ENV_PATH];

    (void)state;
    MR_AUTO_CLOSE int fd =
        open(env_path(path, env_mnt, "image"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, MIB), 0);
    env_loop_open(&upper, fd);
    mr_close(&fd);
    env_umount(MNT_DETACH); /* the path is gone, the file is not */
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_loop_close(&upper);
    struct json_object *row = env_row(rows, "loop", NULL);
    assert_non_null(row);
    assert_string_equal(mr_json_get_string(row, "device"), upper.node);
    assert_int_equal(env_count(rows), 1);
}

static void test_swap_on_the_device_is_named(void **state)
{
    struct env_loop other = {.fd = -1};

    (void)state;
    env_loop_file(&other, "swap.img", 8 * MIB);
    ENV_RUN("/sbin/mkswap", other.node);
    if (swapon(other.node, 0) < 0) {
        env_loop_close(&other);
        skip(); /* no swap in this kernel or container */
    }
    MR_AUTO_JSON struct json_object *rows = env_scan_of(&other).rows;
    assert_int_equal(swapoff(other.node), 0);
    MR_AUTO_JSON struct json_object *after = env_scan_of(&other).rows;
    env_loop_close(&other);
    struct json_object *row = env_row(rows, "swap", other.node);
    assert_non_null(row);
    assert_string_equal(mr_json_get_string(row, "device"), other.node);
    env_expect_none(after);
}

static void test_swap_file_is_named(void **state)
{
    char path[ENV_PATH];
    char block[4096] = {0};

    (void)state;
    MR_AUTO_CLOSE int fd =
        open(env_path(path, env_mnt, "swap file"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    for (int i = 0; i < 1024; i++)
        assert_int_equal(mr_write_all(fd, block, sizeof(block)), 0);
    mr_close(&fd);
    ENV_RUN("/sbin/mkswap", path);
    if (swapon(path, 0) < 0)
        skip();
    MR_AUTO_JSON struct json_object *rows = env_scan();
    assert_int_equal(swapoff(path), 0);
    assert_non_null(env_row(rows, "swap", path));
    assert_int_equal(env_count(rows), 1);
}

static int partition(const struct env_loop *disk, int op)
{
    struct blkpg_partition part = {.pno = 1, .start = 4 * MIB, .length = 8 * MIB};
    struct blkpg_ioctl_arg arg = {.op = op, .datalen = sizeof(part), .data = &part};

    return ioctl(disk->fd, BLKPG, &arg);
}

/* The partition has numbers of its own; its users hold the whole device. */
static void test_user_of_a_partition_holds_the_disk(void **state)
{
    struct env_loop disk = {.fd = -1};
    char node[ENV_PATH];

    (void)state;
    env_loop_file(&disk, "disk.img", 16 * MIB);
    assert_int_equal(mr_format(node, sizeof(node), "%sp1", disk.node), 0);
    assert_int_equal(partition(&disk, BLKPG_ADD_PARTITION), 0);
    for (int i = 0; i < 2000 && access(node, F_OK) < 0; i++)
        mr_sleep_ns(MR_NS_PER_MS);
    pid_t pid = env_start(env_hold, "file", node);
    MR_AUTO_JSON struct json_object *rows = env_scan_of(&disk).rows;
    env_stop(pid);
    assert_int_equal(partition(&disk, BLKPG_DEL_PARTITION), 0);
    env_loop_close(&disk);
    (void)env_expect(rows, "raw-device", node, pid);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, env_mount, env_unmount)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_loop_on_the_device_is_named),
        TEST(test_loop_on_another_node_of_the_device_is_named),
        TEST(test_loop_on_a_file_of_the_file_system_is_named),
        TEST(test_swap_on_the_device_is_named),
        TEST(test_swap_file_is_named),
        TEST(test_user_of_a_partition_holds_the_disk),
    };
    return cmocka_run_group_tests(tests, env_make_device, env_drop_device);
}

int main(int argc, char **argv)
{
    return env_main(argc, argv, run);
}
