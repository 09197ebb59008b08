/* SPDX-License-Identifier: Apache-2.0
 *
 * The holder scan names processes and mounts: one real holder at a time.
 */
#include "tests/unit/test_scan_env.h"

#include <dirent.h>

static uint64_t own_space(void)
{
    struct stat st;

    assert_int_equal(stat("/proc/self/ns/mnt", &st), 0);
    return st.st_ino;
}

/* A process may be closed even to root (another user namespace, a security module). */
static bool everybody_is_visible(void)
{
    DIR *dir = opendir("/proc");
    char path[64];
    char link[64] = "";
    bool visible = true;

    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        int pid = atoi(entry->d_name);
        (void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
        if (pid > 0 && readlink(path, link, sizeof(link) - 1) < 0 && errno == EACCES)
            visible = false;
    }
    (void)closedir(dir);
    ssize_t len = readlink("/proc/self/ns/pid", link, sizeof(link) - 1);
    link[len > 0 ? len : 0] = '\0';
    return visible && strcmp(link, "pid:[4026531836]") == 0;
}

static void test_nothing_is_reported_when_only_we_mounted_it(void **state)
{
    bool complete = false;

    (void)state;
    bool visible = everybody_is_visible();
    for (int i = 0; i < 10 && !complete; i++) { /* other processes may be stuck in D */
        struct env_answer answer = env_scan_of(&env_dev);
        MR_AUTO_JSON struct json_object *rows = answer.rows;
        env_expect_none(rows);
        complete = answer.complete;
    }
    if (!visible)
        print_message("not all processes can be looked at here\n");
    assert_int_equal(complete, visible);
}

static void test_own_mount_is_a_row_when_it_is_not_told(void **state)
{
    (void)state;
    env_own = (struct mr_mount_id){0};
    MR_AUTO_JSON struct json_object *rows = env_scan();
    struct json_object *row = env_row(rows, "mount-copy", env_mnt);
    assert_non_null(row);
    assert_int_equal(mr_json_get_int(row, "mount_ns", 0), own_space());
}

static void test_bind_mount_in_own_namespace_is_a_holder(void **state)
{
    char other[ENV_PATH];

    (void)state;
    assert_int_equal(mkdir(env_path(other, env_dir, "with space"), 0755), 0);
    assert_int_equal(mount(env_mnt, other, NULL, MS_BIND, NULL), 0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    assert_int_equal(umount(other), 0);
    assert_int_equal(rmdir(other), 0);
    assert_non_null(env_row(rows, "mount-copy", other));
    assert_int_equal(env_count(rows), 1);
}

static void test_copy_in_another_namespace_is_named(void **state)
{
    (void)state;
    pid_t pid = env_start(env_hold, "space", "/");
    env_umount(0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    struct json_object *row = env_expect(rows, "mount-copy", env_mnt, pid);
    assert_int_equal(env_count(rows), 1);
    assert_string_equal(mr_json_get_string(row, "comm"), "hold");
    assert_int_equal(mr_json_get_int(row, "start_time", 0),
                     (int64_t)mr_process_start_time(pid));
    assert_int_equal(mr_json_get_int(row, "processes", 0), 1);
    assert_true((uint64_t)mr_json_get_int(row, "mount_ns", 0) != own_space());
    MR_AUTO_JSON struct json_object *again = env_scan();
    assert_string_equal(mr_json_get_string(env_row(again, "mount-copy", NULL), "id"),
                        mr_json_get_string(row, "id"));
    env_stop(pid);
    MR_AUTO_JSON struct json_object *after = env_scan();
    env_expect_none(after);
}

static void test_copy_is_found_although_its_only_process_is_chrooted(void **state)
{
    char jail[ENV_PATH];

    (void)state;
    assert_int_equal(mkdir(env_path(jail, env_dir, "jail"), 0755), 0);
    pid_t pid = env_start(env_hold, "chrooted-space", jail);
    env_umount(0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    assert_int_equal(rmdir(jail), 0);
    (void)env_expect(rows, "mount-copy", env_mnt, pid);
}

static void test_copy_of_a_single_thread_is_named_with_its_tid(void **state)
{
    (void)state;
    pid_t pid = env_start(env_hold, "thread-space", "/");
    env_umount(0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    struct json_object *row = env_expect(rows, "mount-copy", env_mnt, pid);
    assert_int_equal(env_count(rows), 1);
    assert_true(mr_json_get_int(row, "tid", 0) > pid);
}

/* Returns the file that the namespace is bound to; its process has ended. */
static const char *pin_space(char pin[ENV_PATH])
{
    char path[ENV_PATH];

    pid_t pid = env_start(env_hold, "space", "/");
    int fd = open(env_path(pin, env_dir, "pin"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_int_equal(mr_format(path, sizeof(path), "/proc/%d/ns/mnt", pid), 0);
    assert_int_equal(mount(path, pin, NULL, MS_BIND, NULL), 0);
    env_stop(pid);
    return pin;
}

static void test_copy_in_a_namespace_without_process_is_found(void **state)
{
    char pin[ENV_PATH];

    (void)state;
    (void)pin_space(pin);
    env_umount(0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    assert_int_equal(umount(pin), 0);
    struct json_object *row = env_row(rows, "mount-copy", env_mnt);
    assert_non_null(row);
    assert_null(mr_json_get(row, "pid"));
    assert_int_equal(mr_json_get_int(row, "processes", -1), 0);
    assert_int_equal(env_count(rows), 1);
}

static void test_process_with_an_fd_on_such_a_namespace_is_named(void **state)
{
    char pin[ENV_PATH];

    (void)state;
    pid_t pid = env_start(env_hold, "file", pin_space(pin));
    assert_int_equal(umount2(pin, MNT_DETACH), 0);
    env_umount(0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    struct json_object *row = env_expect(rows, "mount-copy", env_mnt, pid);
    assert_int_equal(mr_json_get_int(row, "processes", -1), 0);
    assert_int_equal(json_object_array_length(mr_json_get(row, "actions")), 1);
}

/* A holder that makes exactly one row, of this kind and path. */
static void expect_one(const char *hold, const char *hold_path, const char *kind,
                       const char *row_path)
{
    pid_t pid = env_start(env_hold, hold, hold_path);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    (void)env_expect(rows, kind, row_path, pid);
    assert_int_equal(env_count(rows), 1);
    MR_AUTO_JSON struct json_object *after = env_scan();
    env_expect_none(after);
}

static void test_open_file_is_named(void **state)
{
    char file[ENV_PATH];
    (void)state;
    expect_one("file", env_path(file, env_mnt, "file"), "open-file", file);
}

static void test_user_is_named_where_the_password_file_has_one(void **state)
{
    char file[ENV_PATH];

    (void)state;
    pid_t root = env_start(env_hold, "file", env_path(file, env_mnt, "file"));
    pid_t nobody = env_start(env_hold, "file-as-user", file);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(root);
    env_stop(nobody);
    assert_int_equal(env_count(rows), 2);
    for (size_t i = 0; i < 2; i++) {
        struct json_object *row = json_object_array_get_idx(rows, i);
        bool is_root = mr_json_get_int(row, "pid", 0) == root;
        assert_int_equal(mr_json_get_int(row, "uid", -1), is_root ? 0 : HOLD_UID);
        if (is_root)
            assert_string_equal(mr_json_get_string(row, "user"), "root");
        else
            assert_null(mr_json_get(row, "user"));
    }
}

static void test_file_that_threads_share_is_one_row(void **state)
{
    char file[ENV_PATH];
    (void)state;
    expect_one("file-with-thread", env_path(file, env_mnt, "file"), "open-file", file);
}

static void test_path_only_fd_is_named(void **state)
{
    char file[ENV_PATH];
    (void)state;
    expect_one("opath", env_path(file, env_mnt, "file"), "open-file", file);
}

static void test_mapped_file_is_named(void **state)
{
    char file[ENV_PATH];
    (void)state;
    expect_one("mmap", env_path(file, env_mnt, "file"), "mmap", file);
}

static void test_cwd_and_root_are_named(void **state)
{
    (void)state;
    expect_one("cwd", env_mnt, "cwd", env_mnt);
    expect_one("root", env_mnt, "root", env_mnt);
}

static void test_raw_opener_is_named_but_no_path_only_fd(void **state)
{
    (void)state;
    expect_one("file", env_dev.node, "raw-device", env_dev.node);
    pid_t pid = env_start(env_hold, "opath", env_dev.node);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    env_expect_none(rows);
}

static void test_raw_mapping_is_named(void **state)
{
    (void)state;
    expect_one("mmap", env_dev.node, "mmap", env_dev.node);
}

static void test_file_of_a_single_thread_is_named_with_its_tid(void **state)
{
    char file[ENV_PATH];

    (void)state;
    pid_t pid = env_start(env_hold, "thread-file", env_path(file, env_mnt, "file"));
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    struct json_object *row = env_expect(rows, "open-file", file, pid);
    assert_int_equal(env_count(rows), 1);
    assert_true(mr_json_get_int(row, "tid", 0) > pid);
}

static void test_running_program_is_named(void **state)
{
    char program[ENV_PATH];

    (void)state;
    ENV_RUN("/bin/cp", env_hold, env_path(program, env_mnt, "program"));
    pid_t pid = env_start(program, "nothing", "/");
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    (void)env_expect(rows, "exe", program, pid);
    (void)env_expect(rows, "mmap", program, pid);
    assert_int_equal(env_count(rows), 2);
}

static void test_cwd_is_still_named_after_a_lazy_unmount(void **state)
{
    (void)state;
    pid_t pid = env_start(env_hold, "cwd", env_mnt);
    env_umount(MNT_DETACH);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    (void)env_expect(rows, "cwd", NULL, pid);
    assert_int_equal(env_count(rows), 1);
}

static void test_overlay_on_it_is_named_after_unmount(void **state)
{
    char lower[ENV_PATH];
    char merged[ENV_PATH];
    char options[256];

    (void)state;
    assert_int_equal(mkdir(env_path(lower, env_mnt, "a,b:c"), 0755), 0);
    assert_int_equal(mkdir(env_path(merged, env_dir, "merged"), 0755), 0);
    assert_int_equal(
        mr_format(options, sizeof(options), "lowerdir=%s/a\\,b\\:c:%s", env_mnt, env_dir),
        0);
    assert_int_equal(mount("none", merged, "overlay", MS_RDONLY, options), 0);
    env_umount(0);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    assert_int_equal(umount(merged), 0);
    assert_int_equal(rmdir(merged), 0);
    assert_non_null(env_row(rows, "overlay", merged));
    assert_int_equal(env_count(rows), 1);
}

static void test_other_diskseq_is_unknown_never_free(void **state)
{
    (void)state;
    struct env_loop old = env_dev;
    old.diskseq++;
    pid_t pid = env_start(env_hold, "file", env_dev.node);
    struct env_answer answer = env_scan_of(&old);
    MR_AUTO_JSON struct json_object *rows = answer.rows;
    env_stop(pid);
    env_expect_none(rows);
    assert_false(answer.complete);
}

static void test_one_scan_serves_several_devices(void **state)
{
    struct env_loop other = {.fd = -1};
    const struct env_loop *const both[] = {&env_dev, &other};
    struct env_answer answers[2];
    char file[ENV_PATH];

    (void)state;
    env_loop_file(&other, "other.img", MIB);
    pid_t first = env_start(env_hold, "file", env_path(file, env_mnt, "file"));
    pid_t second = env_start(env_hold, "file", other.node);
    env_scan_all(both, 2, ENV_DEADLINE_MS, answers);
    MR_AUTO_JSON struct json_object *rows = answers[0].rows;
    MR_AUTO_JSON struct json_object *other_rows = answers[1].rows;
    env_stop(first);
    env_stop(second);
    env_loop_close(&other);
    (void)env_expect(rows, "open-file", file, first);
    (void)env_expect(other_rows, "raw-device", other.node, second);
    assert_int_equal(env_count(rows), 1);
    assert_int_equal(env_count(other_rows), 1);
}

static void test_scan_stops_at_the_deadline(void **state)
{
    const struct env_loop *const one[] = {&env_dev};
    struct env_answer answer;

    (void)state;
    pid_t pid = env_start(env_hold, "file", env_dev.node);
    env_scan_all(one, 1, 0, &answer);
    MR_AUTO_JSON struct json_object *rows = answer.rows;
    env_stop(pid);
    env_expect_none(rows);
    assert_false(answer.complete);
}

static void wait_for_d(pid_t pid)
{
    char path[64];
    char text[512] = "";

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    for (int i = 0; i < 5000 && !strstr(text, ") D "); i++) {
        mr_sleep_ns(MR_NS_PER_MS);
        assert_true(mr_read_text(AT_FDCWD, path, text, sizeof(text)) > 0);
    }
    assert_non_null(strstr(text, ") D "));
}

static void test_address_space_of_a_process_in_d_is_left_alone(void **state)
{
    char file[ENV_PATH];

    (void)state;
    pid_t pid = env_start(env_hold, "mmap-in-d", env_path(file, env_mnt, "file"));
    wait_for_d(pid);
    struct env_answer answer = env_scan_of(&env_dev);
    MR_AUTO_JSON struct json_object *rows = answer.rows;
    env_stop(pid);
    for (size_t i = 0; i < env_count(rows); i++)
        assert_true(mr_json_get_int(json_object_array_get_idx(rows, i), "pid", 0) != pid);
    assert_false(answer.complete);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, env_mount, env_unmount)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_is_reported_when_only_we_mounted_it),
        TEST(test_own_mount_is_a_row_when_it_is_not_told),
        TEST(test_bind_mount_in_own_namespace_is_a_holder),
        TEST(test_copy_in_another_namespace_is_named),
        TEST(test_copy_is_found_although_its_only_process_is_chrooted),
        TEST(test_copy_of_a_single_thread_is_named_with_its_tid),
        TEST(test_copy_in_a_namespace_without_process_is_found),
        TEST(test_process_with_an_fd_on_such_a_namespace_is_named),
        TEST(test_open_file_is_named),
        TEST(test_user_is_named_where_the_password_file_has_one),
        TEST(test_file_that_threads_share_is_one_row),
        TEST(test_path_only_fd_is_named),
        TEST(test_mapped_file_is_named),
        TEST(test_cwd_and_root_are_named),
        TEST(test_raw_opener_is_named_but_no_path_only_fd),
        TEST(test_raw_mapping_is_named),
        TEST(test_file_of_a_single_thread_is_named_with_its_tid),
        TEST(test_running_program_is_named),
        TEST(test_cwd_is_still_named_after_a_lazy_unmount),
        TEST(test_overlay_on_it_is_named_after_unmount),
        TEST(test_other_diskseq_is_unknown_never_free),
        TEST(test_one_scan_serves_several_devices),
        TEST(test_scan_stops_at_the_deadline),
        TEST(test_address_space_of_a_process_in_d_is_left_alone),
    };
    return cmocka_run_group_tests(tests, env_make_device, env_drop_device);
}

int main(int argc, char **argv)
{
    return env_main(argc, argv, run);
}
