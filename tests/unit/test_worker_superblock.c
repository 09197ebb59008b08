/* SPDX-License-Identifier: Apache-2.0
 *
 * examine, thaw and shutdown: through our own mount, and when none is left.
 */
#include "tests/unit/test_worker_action_env.h"

static void freeze(void)
{
    MR_AUTO_CLOSE int fd = open(vol.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_int_equal(ioctl(fd, FIFREEZE, 0), 0);
}

/* A holder that no scan can name, and that does not need our mount. */
static int hold_tree(void)
{
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, vol.path, OPEN_TREE_CLONE | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static void assert_examined(const char *frozen, bool armed)
{
    int wd = -1;
    struct json_object *reply = worker_ask(command_new("examine"), &wd);
    const char *text = mr_json_get_string(reply, "frozen");

    if (!mr_json_get_bool(reply, "ok", false) || !text || strcmp(text, frozen) != 0)
        fail_msg("not '%s': %s", frozen, json_object_to_json_string(reply));
    assert_int_equal(wd >= 0, armed);
}

static bool watcher_fired(void)
{
    struct pollfd ready = {.fd = watcher, .events = POLLIN};

    return poll(&ready, 1, 3000) == 1;
}

static void frozen_volume_is_seen_and_thawed(const char *fs_type, bool read_only)
{
    volume_make(fs_type);
    vol.read_only = read_only;
    volume_mount(NULL);
    freeze();
    volume_unmount();
    assert_held();
    assert_examined("yes", true);
    assert_held();
    act("thaw", false, NULL, true, "thawed");
    assert_free();
    assert_true(watcher_fired()); /* the watch of examine */
}

static void test_frozen_xfs_is_seen_and_thawed(void **state)
{
    (void)state;
    frozen_volume_is_seen_and_thawed("xfs", false);
}

static void test_frozen_ext4_is_seen_and_thawed(void **state)
{
    (void)state;
    frozen_volume_is_seen_and_thawed("ext4", false);
}

static void test_frozen_read_only_volumes_are_seen_and_thawed(void **state)
{
    (void)state;
    frozen_volume_is_seen_and_thawed("ext4", true);
    env_unmap(vol.token, &vol.identity);
    frozen_volume_is_seen_and_thawed("xfs", true);
}

/* The options of the super block as a new mount of it shows them. */
static void options_of(int tree_fd, char dst[512])
{
    char path[ENV_PATH];
    struct mr_mount_table table;
    MR_AUTO_CLOSE int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

    (void)mkdir(env_path(path, env_mounts, "b"), 0755);
    assert_int_equal(syscall(SYS_move_mount, tree_fd, "", AT_FDCWD, path, 4 /* empty */),
                     0);
    assert_int_equal(mr_mount_table_read(self, &table), 0);
    dst[0] = '\0';
    for (size_t i = 0; i < table.count; i++) {
        if (strcmp(table.entries[i].point, path) == 0)
            (void)snprintf(dst, 512, "%s", table.entries[i].options);
    }
    mr_mount_table_clear(&table);
}

static void examine_changes_nothing(const char *fs_type, bool read_only,
                                    const char *option)
{
    char before[512];
    char after[512];

    volume_make(fs_type);
    vol.read_only = read_only;
    volume_mount(option);
    MR_AUTO_CLOSE int first = hold_tree();
    MR_AUTO_CLOSE int second = hold_tree();
    options_of(first, before);
    volume_unmount();
    assert_examined("no", true);
    options_of(second, after);
    if (option && !strstr(before, option))
        fail_msg("%s is not in %s", option, before);
    assert_string_equal(before, after);
    mr_close(&first);
    mr_close(&second);
    char path[ENV_PATH];
    while (umount2(env_path(path, env_mounts, "b"), 0) == 0)
        ;
    assert_true(watcher_fired());
    assert_free();
    env_unmap(vol.token, &vol.identity);
}

static void test_examine_of_what_is_not_frozen_changes_nothing(void **state)
{
    (void)state;
    examine_changes_nothing("xfs", false, "inode32");
    examine_changes_nothing("xfs", true, NULL);
    examine_changes_nothing("ext4", false, "lazytime");
    examine_changes_nothing("ext4", true, NULL);
}

static void test_examine_of_a_dead_or_foreign_holder_is_unknown(void **state)
{
    struct mr_err err = {0};
    unsigned tries = 0;
    MR_AUTO_CLOSE int claim = -1;

    (void)state;
    volume_up("ext4");
    volume_unmount();
    assert_free();
    assert_examined("unknown", false);
    assert_free();
    assert_int_equal(mr_claim(&vol.identity, 1000, &claim, &tries, &err), MR_CLAIM_OK);
    assert_examined("unknown", false);
    mr_close(&claim);
    act("thaw", false, NULL, false, "not alive");
    act("shutdown", false, NULL, false, "not alive");
    assert_free();
}

/* The claim goes to another user of the same file system type. */
static void test_other_super_block_of_the_device_is_not_joined(void **state)
{
    (void)state;
    volume_up("ext4");
    volume_unmount();
    vol.fs_type = "xfs";
    assert_examined("unknown", false);
    vol.fs_type = "";
    assert_examined("unknown", false);
    assert_free();
}

static void test_thaw_of_what_is_not_frozen_says_so(void **state)
{
    (void)state;
    volume_up("ext4");
    act("thaw", true, NULL, false, "not frozen");
    MR_AUTO_CLOSE int tree = hold_tree();
    volume_unmount();
    act("thaw", false, NULL, false, "not frozen");
    mr_close(&tree);
    assert_free();
}

static void test_thaw_works_through_our_own_mount(void **state)
{
    (void)state;
    volume_up("xfs");
    freeze();
    act("thaw", true, NULL, true, "thawed");
    volume_unmount();
    assert_free();
}

static void test_thaw_works_when_our_own_mount_is_covered(void **state)
{
    (void)state;
    volume_up("ext4");
    freeze();
    assert_int_equal(mount("none", vol.path, "tmpfs", 0, NULL), 0);
    act("thaw", true, NULL, true, "thawed");
    assert_int_equal(umount2(vol.path, 0), 0);
    volume_unmount();
    assert_free();
}

static void shutdown_on_a_mount(const char *fs_type)
{
    char path[ENV_PATH];

    volume_up(fs_type);
    MR_AUTO_CLOSE int file =
        open(env_path(path, vol.path, "f"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(write(file, "data", 4), 4);
    act("shutdown", true, NULL, true, "shut down; all data was written before");
    assert_true(write(file, "more", 4) < 0 || fsync(file) < 0);
    act("shutdown", true, NULL, true, "shut down");
    mr_close(&file);
    volume_unmount();
    assert_free();
    volume_mount(NULL); /* nothing was lost */
    char text[8] = "";
    file = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(file, text, 4), 4);
    assert_string_equal(text, "data");
    mr_close(&file);
    volume_unmount();
}

static void test_shutdown_on_our_own_mount_fails_its_users(void **state)
{
    (void)state;
    shutdown_on_a_mount("ext4");
    env_unmap(vol.token, &vol.identity);
    shutdown_on_a_mount("xfs");
}

static void shutdown_without_a_mount(const char *fs_type)
{
    char path[ENV_PATH];

    volume_up(fs_type);
    MR_AUTO_CLOSE int file =
        open(env_path(path, vol.path, "f"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(umount2(vol.path, MNT_DETACH), 0);
    assert_held();
    act("shutdown", false, NULL, true, "shut down; all data was written before");
    assert_true(write(file, "more", 4) < 0 || fsync(file) < 0);
    assert_held();
    mr_close(&file);
    assert_free();
}

static void test_shutdown_without_our_mount_fails_an_invisible_holder(void **state)
{
    (void)state;
    shutdown_without_a_mount("ext4");
    env_unmap(vol.token, &vol.identity);
    shutdown_without_a_mount("xfs");
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        ACTION_TEST(test_frozen_xfs_is_seen_and_thawed),
        ACTION_TEST(test_frozen_ext4_is_seen_and_thawed),
        ACTION_TEST(test_frozen_read_only_volumes_are_seen_and_thawed),
        ACTION_TEST(test_examine_of_what_is_not_frozen_changes_nothing),
        ACTION_TEST(test_examine_of_a_dead_or_foreign_holder_is_unknown),
        ACTION_TEST(test_other_super_block_of_the_device_is_not_joined),
        ACTION_TEST(test_thaw_of_what_is_not_frozen_says_so),
        ACTION_TEST(test_thaw_works_through_our_own_mount),
        ACTION_TEST(test_thaw_works_when_our_own_mount_is_covered),
        ACTION_TEST(test_shutdown_on_our_own_mount_fails_its_users),
        ACTION_TEST(test_shutdown_without_our_mount_fails_an_invisible_holder),
    };

    return cmocka_run_group_tests_name("worker actions on the super block", tests, NULL,
                                       NULL);
}

int main(void)
{
    return env_main(run);
}
