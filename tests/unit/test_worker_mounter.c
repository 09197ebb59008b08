/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounting, and taking exactly that mount away again, on real loop devices.
 */
#include "storage/worker/mounter.h"

#include <poll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "storage/worker/filesystem.h"
#include "tests/unit/test_worker_env.h"

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif

#define UUID_A "0c3f0f5e-9f3a-4a6e-8f0b-6d4b7a1c2e01"

static char token[MR_TOKEN_TEXT];
static struct mr_identity device;

static int setup_device(void **state, const char *type, off_t bytes)
{
    struct mr_err err = {0};

    (void)state;
    env_map("m.img", bytes, token, &device);
    return mr_filesystem_format(&device, type, UUID_A, -1, mr_now_ns() + 60 * MR_NS_PER_S,
                                &err);
}

static int setup(void **state)
{
    return setup_device(state, "ext4", ENV_SMALL_BYTES);
}

static int setup_xfs(void **state)
{
    return setup_device(state, "xfs", ENV_XFS_BYTES);
}

/* Whatever a failed test left mounted goes lazily: this namespace is ours. */
static int teardown(void **state)
{
    static const char *const names[] = {"a/b/c", "a/b", "a/note", "a",
                                        "moved", "x",   "link"};
    char path[ENV_PATH];

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        env_path(path, env_mounts, names[i]);
        while (umount2(path, MNT_DETACH) == 0)
            ;
        if (rmdir(path) < 0 && errno == ENOTDIR)
            (void)unlink(path);
    }
    env_unmap(token, &device);
    return 0;
}

static int mount_at(const char *path, const char *fs_type, struct json_object *options,
                    bool read_only, struct mr_mount_record *ret, struct mr_err *err)
{
    struct mr_mount_request request = {
        .identity = &device,
        .fs_type = fs_type,
        .root = env_mounts,
        .path = path,
        .options = options,
        .read_only = read_only,
    };

    return mr_mounter_mount(&request, ret, err);
}

static void mount_ok(const char *path, const char *fs_type, struct mr_mount_record *ret)
{
    struct mr_err err = {0};

    int r = mount_at(path, fs_type, NULL, false, ret, &err);
    if (r != 0)
        print_error("%s\n", err.message);
    assert_int_equal(r, 0);
}

static void assert_mount_fails(const char *path, enum mr_code code, const char *text)
{
    struct mr_mount_record record;
    struct mr_err err = {0};

    assert_true(mount_at(path, "ext4", NULL, false, &record, &err) < 0);
    assert_string_equal(mr_code_slug(err.code), mr_code_slug(code));
    if (!strstr(err.message, text))
        fail_msg("'%s' does not say '%s'", err.message, text);
}

static void unmount_as(const struct mr_mount_record *record,
                       enum mr_unmount_result expected, const char *text)
{
    struct mr_err err = {0};
    char detail[200];

    enum mr_unmount_result result = mr_mounter_unmount(record, detail, &err);
    if (result != expected)
        print_error("result %d, detail '%s', error '%s'\n", (int)result, detail,
                    err.message);
    assert_int_equal(result, expected);
    assert_non_null(strstr(detail, text));
}

/* The whole way down: the directories go last. */
static void take_down(const struct mr_mount_record *record)
{
    unmount_as(record, MR_UNMOUNT_DONE, "");
    mr_mounter_tidy(record);
}

/* The options field of the topmost mount's line at env_mounts/path. */
static void mount_flags(const char *path, char dst[256])
{
    MR_AUTO_FREE char *text = NULL;
    char needle[ENV_PATH];

    (void)snprintf(needle, sizeof(needle), " %s/%s ", env_mounts, path);
    assert_true(mr_read_file(AT_FDCWD, "/proc/self/mountinfo", 1 << 20, &text) > 0);
    char *at = strstr(text, needle);
    assert_non_null(at);
    assert_int_equal(sscanf(at + strlen(needle), "%255s", dst), 1);
}

static bool exists(const char *path)
{
    char full[ENV_PATH];

    return access(env_path(full, env_mounts, path), F_OK) == 0;
}

static void test_mount_and_unmount_leave_nothing_behind(void **state)
{
    struct mr_mount_record record;
    struct stat st;
    char path[ENV_PATH];
    char flags[256];
    bool on_top = false;

    (void)state;
    mount_ok("a/b/c", "ext4", &record);
    assert_int_equal(record.created, 3);
    assert_int_equal(record.mount.major, device.major);
    assert_int_equal(record.mount.minor, device.minor);
    assert_int_equal(stat(env_path(path, env_mounts, "a/b"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0755);
    mount_flags("a/b/c", flags);
    assert_string_equal(flags, "rw,nosuid,nodev,relatime");
    assert_int_equal(mr_mounter_present(&record, &on_top), MR_PRESENT);
    assert_true(on_top);
    unmount_as(&record, MR_UNMOUNT_DONE, "");
    assert_int_equal(mr_mounter_present(&record, &on_top), MR_ABSENT_NOW);
    assert_false(on_top);
    assert_true(exists("a/b/c")); /* stays until the device is gone */
    mr_mounter_tidy(&record);
    assert_false(exists("a"));
    assert_true(access(env_mounts, F_OK) == 0);
    unmount_as(&record, MR_UNMOUNT_ABSENT, "");
}

static void test_existing_directories_are_kept(void **state)
{
    struct mr_mount_record record;
    char path[ENV_PATH];

    (void)state;
    assert_int_equal(mkdir(env_path(path, env_mounts, "a"), 0700), 0);
    mount_ok("a/b", "ext4", &record);
    assert_int_equal(record.created, 1);
    take_down(&record);
    assert_false(exists("a/b"));
    assert_true(exists("a"));
    mount_ok("a", "ext4", &record);
    assert_int_equal(record.created, 0);
    take_down(&record);
    assert_true(exists("a"));
}

static void test_directories_with_something_in_them_are_kept(void **state)
{
    struct mr_mount_record record;
    char path[ENV_PATH];

    (void)state;
    mount_ok("a/b", "ext4", &record);
    MR_AUTO_CLOSE int fd =
        open(env_path(path, env_mounts, "a/note"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    take_down(&record);
    assert_false(exists("a/b"));
    assert_true(exists("a/note"));
    assert_int_equal(unlink(path), 0);
}

static void test_options_lift_and_add_flags(void **state)
{
    MR_AUTO_JSON struct json_object *options =
        json_tokener_parse("[\"suid\",\"noatime\"]");
    MR_AUTO_JSON struct json_object *evil = json_tokener_parse("[\"noatime,suid\"]");
    struct mr_mount_record record;
    struct mr_err err = {0};
    char flags[256];

    (void)state;
    assert_int_equal(mount_at("a", "ext4", options, true, &record, &err), 0);
    mount_flags("a", flags);
    assert_string_equal(flags, "ro,nodev,noatime");
    take_down(&record);
    assert_true(mount_at("a", "ext4", evil, false, &record, &err) < 0);
    assert_int_equal(err.code, MR_E_INVALID_SPEC);
    assert_false(exists("a"));
}

static void test_target_that_is_not_empty_is_refused(void **state)
{
    char path[ENV_PATH];

    (void)state;
    assert_int_equal(mkdir(env_path(path, env_mounts, "a"), 0700), 0);
    assert_int_equal(mkdir(env_path(path, env_mounts, "a/b"), 0700), 0);
    assert_mount_fails("a", MR_E_MOUNT_PATH_BUSY, "holds 'b'");
    assert_int_equal(rmdir(path), 0);
    MR_AUTO_CLOSE int fd =
        open(env_path(path, env_mounts, "x"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_mount_fails("x", MR_E_MOUNT_PATH_BUSY, "");
    assert_int_equal(unlink(path), 0);
}

static void test_target_with_a_mount_on_it_is_refused(void **state)
{
    struct mr_mount_record record;
    char path[ENV_PATH];

    (void)state;
    assert_int_equal(mkdir(env_path(path, env_mounts, "a"), 0700), 0);
    assert_int_equal(mount("none", path, "tmpfs", 0, NULL), 0);
    assert_mount_fails("a", MR_E_MOUNT_PATH_BUSY, "has a mount on it");
    assert_int_equal(umount2(path, 0), 0);
    mount_ok("a", "ext4", &record);
    assert_mount_fails("a", MR_E_MOUNT_PATH_BUSY, "has a mount on it");
    take_down(&record);
}

static void test_paths_that_lead_out_of_the_root_are_refused(void **state)
{
    char path[ENV_PATH];

    (void)state;
    assert_int_equal(symlink("/tmp", env_path(path, env_mounts, "link")), 0);
    assert_mount_fails("link/b", MR_E_PATH_NOT_ALLOWED, "symbolic link");
    assert_mount_fails("link", MR_E_PATH_NOT_ALLOWED, "symbolic link");
    assert_int_equal(unlink(path), 0);
    assert_mount_fails("a/../../x", MR_E_PATH_NOT_ALLOWED, "");
    assert_mount_fails("/etc", MR_E_PATH_NOT_ALLOWED, "");
    assert_mount_fails("", MR_E_PATH_NOT_ALLOWED, "");
    assert_false(exists("a"));
}

static void test_failed_mount_removes_what_it_made(void **state)
{
    struct mr_mount_record record;
    struct mr_err err = {0};

    (void)state;
    assert_true(mount_at("a/b", "xfs", NULL, false, &record, &err) < 0);
    assert_int_equal(err.code, MR_E_DEVICE_ERROR);
    assert_false(exists("a"));
    struct mr_identity good = device;
    device.diskseq--;
    assert_mount_fails("a/b", MR_E_DEVICE_MISMATCH, "disk sequence number");
    device = good;
    assert_false(exists("a"));
    int holder = open(device.node, O_RDONLY | O_EXCL | O_CLOEXEC);
    assert_mount_fails("a/b", MR_E_DEVICE_HELD, "");
    assert_int_equal(close(holder), 0);
    assert_false(exists("a"));
}

/* libmount mounts a write-protected device read-only by itself unless told not to. */
static void test_read_write_is_never_silently_read_only(void **state)
{
    struct mr_mount_record record;
    struct mr_err err = {0};
    struct mr_identity ro;
    char ro_token[MR_TOKEN_TEXT];
    char path[ENV_PATH];

    (void)state;
    env_unmap(token, &device);
    env_path(path, env_images, "m.img");
    assert_int_equal(env_try_map(env_token(ro_token), path, true, &ro, &err), 0);
    memcpy(token, ro_token, sizeof(ro_token));
    device = ro;
    assert_true(mount_at("a", "ext4", NULL, false, &record, &err) < 0);
    assert_int_equal(err.code, MR_E_DEVICE_ERROR);
    assert_non_null(strstr(err.remedy, "read-only"));
    assert_int_equal(mount_at("a", "ext4", NULL, true, &record, &err), 0);
    take_down(&record);
}

static void test_claim_is_busy_while_mounted_and_free_afterwards(void **state)
{
    struct mr_mount_record record;
    struct mr_err err = {0};
    unsigned tries = 0;
    int fd = -1;

    (void)state;
    mount_ok("a", "ext4", &record);
    assert_int_equal(mr_claim(&device, 0, &fd, &tries, &err), MR_CLAIM_BUSY);
    take_down(&record);
    assert_int_equal(mr_claim(&device, 1000, &fd, &tries, &err), MR_CLAIM_OK);
    assert_int_equal(close(fd), 0);
}

static void test_unmount_with_an_open_file_is_busy(void **state)
{
    struct mr_mount_record record;
    char path[ENV_PATH];

    (void)state;
    mount_ok("a", "ext4", &record);
    int fd =
        open(env_path(path, env_mounts, "a/f"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    unmount_as(&record, MR_UNMOUNT_BUSY, "EBUSY");
    assert_int_equal(close(fd), 0);
    take_down(&record);
}

/* In a mount namespace of its own: says when it has its copies, then, asked, whether the
 * copy of our mount is still there. */
static void keep_copy(int channel)
{
    struct mr_mount_id id;
    char path[ENV_PATH];
    char byte = 0;

    bool ok = unshare(CLONE_NEWNS) == 0 && write(channel, "r", 1) == 1 &&
              read(channel, &byte, 1) == 1 &&
              mr_mount_id_at(AT_FDCWD, env_path(path, env_mounts, "a"), &id) == 0 &&
              id.major == device.major && id.minor == device.minor;
    _exit(ok ? 0 : 1);
}

/* Removing a mount point detaches the copies of the mount in other namespaces. */
static void test_unmount_leaves_copies_in_other_namespaces_alone(void **state)
{
    struct mr_mount_record record;
    int pair[2];
    int status = -1;
    char byte = 0;

    (void)state;
    mount_ok("a", "ext4", &record);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    pid_t pid = fork();
    if (pid == 0) {
        mr_close(&pair[0]);
        keep_copy(pair[1]);
    }
    assert_int_equal(close(pair[1]), 0);
    assert_int_equal(read(pair[0], &byte, 1), 1);
    unmount_as(&record, MR_UNMOUNT_DONE, "");
    assert_int_equal(write(pair[0], "g", 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(close(pair[0]), 0);
    assert_int_equal(status, 0);
    mr_mounter_tidy(&record);
    assert_false(exists("a"));
}

static void test_asking_whether_it_is_busy_never_unmounts(void **state)
{
    struct mr_mount_record record;
    char path[ENV_PATH];

    (void)state;
    mount_ok("a", "ext4", &record);
    for (int i = 0; i < 3; i++) /* MNT_EXPIRE would unmount at the second call in a row */
        assert_false(mr_mounter_busy(&record));
    assert_int_equal(mr_mount_present(&record.mount), MR_PRESENT);
    int fd = open(env_path(path, env_mounts, "a"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(mr_mounter_busy(&record));
    assert_int_equal(close(fd), 0);
    assert_false(mr_mounter_busy(&record));
    assert_int_equal(mr_mount_present(&record.mount), MR_PRESENT);
    take_down(&record);
}

static void test_foreign_mount_on_top_is_named_and_stays(void **state)
{
    struct mr_mount_record record;
    struct mr_mount_id cover;
    struct mr_mount_id after;
    struct mr_err err = {0};
    char path[ENV_PATH];
    bool on_top = true;

    (void)state;
    mount_ok("a", "ext4", &record);
    assert_int_equal(mount("none", env_path(path, env_mounts, "a"), "tmpfs", 0, NULL), 0);
    assert_int_equal(mr_mount_id_at(AT_FDCWD, path, &cover), 0);
    assert_int_equal(mr_mounter_present(&record, &on_top), MR_PRESENT);
    assert_false(on_top);
    unmount_as(&record, MR_UNMOUNT_BUSY, "covered by mount ");
    unmount_as(&record, MR_UNMOUNT_BUSY, "(tmpfs)");
    assert_int_equal(mr_mounter_sync(&record, &err), 0);
    assert_int_equal(mr_mounter_arm(&record, -1, &err), -ENOENT);
    assert_int_equal(mr_mount_id_at(AT_FDCWD, path, &after), 0);
    assert_int_equal(after.id, cover.id);
    assert_int_equal(umount2(path, 0), 0);
    take_down(&record);
}

/* An operator mounted the same device over ours by hand: same major:minor, not our mount.
 */
static void test_second_mount_of_our_device_is_not_ours(void **state)
{
    struct mr_mount_record record;
    char path[ENV_PATH];

    (void)state;
    mount_ok("a", "ext4", &record);
    assert_int_equal(mkdir(env_path(path, env_mounts, "a/sub"), 0700), 0);
    char target[ENV_PATH];
    assert_int_equal(mount(path, env_path(target, env_mounts, "a"), NULL, MS_BIND, NULL),
                     0);
    unmount_as(&record, MR_UNMOUNT_BUSY, "covered by mount ");
    assert_int_equal(umount2(target, 0), 0);
    take_down(&record);
}

static void test_moved_mount_is_busy_not_absent(void **state)
{
    struct mr_mount_record record;
    char from[ENV_PATH];
    char to[ENV_PATH];

    (void)state;
    mount_ok("a", "ext4", &record);
    env_path(from, env_mounts, "a");
    assert_int_equal(mkdir(env_path(to, env_mounts, "moved"), 0700), 0);
    assert_int_equal(mount(from, to, NULL, MS_MOVE, NULL), 0);
    unmount_as(&record, MR_UNMOUNT_BUSY, "not at its path");
    assert_int_equal(umount2(to, 0), 0);
    unmount_as(&record, MR_UNMOUNT_ABSENT, "");
    mr_mounter_tidy(&record);
    assert_false(exists("a"));
}

static void test_adopt_finds_only_our_device_on_top(void **state)
{
    struct mr_mount_record record;
    static struct mr_mount_record lost;
    struct mr_err err = {0};
    char path[ENV_PATH];

    (void)state;
    mount_ok("a", "ext4", &record);
    lost = record;
    lost.mount = (struct mr_mount_id){0};
    assert_int_equal(mr_mounter_adopt(&device, &lost, &err), 1);
    assert_memory_equal(&lost.mount, &record.mount, sizeof(lost.mount));
    struct mr_identity other = device;
    other.diskseq--;
    assert_int_equal(mr_mounter_adopt(&other, &lost, &err), 0);
    assert_int_equal(mount("none", env_path(path, env_mounts, "a"), "tmpfs", 0, NULL), 0);
    assert_int_equal(mr_mounter_adopt(&device, &lost, &err), 0);
    assert_int_equal(umount2(path, 0), 0);
    take_down(&record);
    assert_int_equal(mr_mounter_adopt(&device, &lost, &err), 0); /* path is gone */
}

static bool unmounted_event(int inotify_fd, int wd, int wait_ms)
{
    char buffer[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    struct pollfd pfd = {.fd = inotify_fd, .events = POLLIN};

    if (poll(&pfd, 1, wait_ms) <= 0)
        return false;
    ssize_t n = read(inotify_fd, buffer, sizeof(buffer));
    assert_true(n >= (ssize_t)sizeof(struct inotify_event));
    const struct inotify_event *event = (const void *)buffer;
    return event->wd == wd && (event->mask & IN_UNMOUNT);
}

/* The watch does not hold the mount, stays silent while a copy lives, and fires when that
 * goes. */
static void armed_through_a_holder(const char *fs_type)
{
    struct mr_mount_record record;
    struct mr_err err = {0};
    char path[ENV_PATH];
    unsigned tries = 0;
    int fd = -1;

    mount_ok("a", fs_type, &record);
    assert_int_equal(mr_filesystem_harden(&device, fs_type, &err), 0);
    MR_AUTO_CLOSE int inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    int wd = mr_mounter_arm(&record, inotify_fd, &err);
    assert_true(wd >= 0);
    int copy = (int)syscall(SYS_open_tree, AT_FDCWD, env_path(path, env_mounts, "a"),
                            OPEN_TREE_CLONE | O_CLOEXEC);
    assert_true(copy >= 0);
    assert_int_equal(mr_mounter_sync(&record, &err), 0);
    take_down(&record);
    assert_int_equal(mr_claim(&device, 0, &fd, &tries, &err), MR_CLAIM_BUSY);
    assert_false(unmounted_event(inotify_fd, wd, 50));
    assert_int_equal(close(copy), 0);
    assert_true(unmounted_event(inotify_fd, wd, 3000));
    assert_int_equal(mr_claim(&device, 3000, &fd, &tries, &err), MR_CLAIM_OK);
    assert_int_equal(close(fd), 0);
}

static void test_armed_watch_fires_when_the_last_holder_goes(void **state)
{
    (void)state;
    armed_through_a_holder("ext4");
}

static void test_armed_watch_fires_for_xfs_too(void **state)
{
    (void)state;
    armed_through_a_holder("xfs");
}

static void test_harden_puts_fail_at_unmount_back(void **state)
{
    struct mr_mount_record record;
    struct mr_err err = {0};
    char path[ENV_PATH];
    char value[8];

    (void)state;
    mount_ok("a", "xfs", &record);
    (void)snprintf(path, sizeof(path), "/sys/fs/xfs/%s/error/fail_at_unmount",
                   strrchr(device.node, '/') + 1);
    MR_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(mr_write_all(fd, "0", 1), 0);
    assert_int_equal(mr_filesystem_harden(&device, "xfs", &err), 0);
    assert_true(mr_read_text(AT_FDCWD, path, value, sizeof(value)) > 0);
    assert_string_equal(value, "1");
    take_down(&record);
}

/* A file system that has shut down cannot have written everything. */
static void test_sync_of_a_shut_down_file_system_says_data_not_written(void **state)
{
    struct mr_mount_record record;
    struct mr_err err = {0};
    char path[ENV_PATH];
    uint32_t no_log_flush = 2; /* FS_IOC_SHUTDOWN, XFS_FSOP_GOING_FLAGS_NOLOGFLUSH */

    (void)state;
    mount_ok("a", "xfs", &record);
    int fd =
        open(env_path(path, env_mounts, "a/f"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, "data", 4), 4);
    assert_int_equal(ioctl(fd, _IOR('X', 125, uint32_t), &no_log_flush), 0);
    assert_int_equal(close(fd), 0);
    assert_true(mr_mounter_sync(&record, &err) < 0);
    assert_int_equal(err.code, MR_E_DATA_NOT_WRITTEN);
    assert_non_null(strstr(err.message, "EIO"));
    assert_non_null(strstr(err.remedy, "accept_data_loss"));
    take_down(&record);
}

#define WITH_EXT4(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
#define WITH_XFS(test) cmocka_unit_test_setup_teardown(test, setup_xfs, teardown)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        WITH_EXT4(test_mount_and_unmount_leave_nothing_behind),
        WITH_EXT4(test_existing_directories_are_kept),
        WITH_EXT4(test_directories_with_something_in_them_are_kept),
        WITH_EXT4(test_options_lift_and_add_flags),
        WITH_EXT4(test_target_that_is_not_empty_is_refused),
        WITH_EXT4(test_target_with_a_mount_on_it_is_refused),
        WITH_EXT4(test_paths_that_lead_out_of_the_root_are_refused),
        WITH_EXT4(test_failed_mount_removes_what_it_made),
        WITH_EXT4(test_read_write_is_never_silently_read_only),
        WITH_EXT4(test_claim_is_busy_while_mounted_and_free_afterwards),
        WITH_EXT4(test_unmount_with_an_open_file_is_busy),
        WITH_EXT4(test_unmount_leaves_copies_in_other_namespaces_alone),
        WITH_EXT4(test_asking_whether_it_is_busy_never_unmounts),
        WITH_EXT4(test_foreign_mount_on_top_is_named_and_stays),
        WITH_EXT4(test_second_mount_of_our_device_is_not_ours),
        WITH_EXT4(test_moved_mount_is_busy_not_absent),
        WITH_EXT4(test_adopt_finds_only_our_device_on_top),
        WITH_EXT4(test_armed_watch_fires_when_the_last_holder_goes),
        WITH_XFS(test_armed_watch_fires_for_xfs_too),
        WITH_XFS(test_harden_puts_fail_at_unmount_back),
        WITH_XFS(test_sync_of_a_shut_down_file_system_says_data_not_written),
    };

    return cmocka_run_group_tests_name("worker mounter", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
