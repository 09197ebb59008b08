/* SPDX-License-Identifier: Apache-2.0
 *
 * search: every device and mount with our mark that no journal knows, and nothing else,
 * whatever others call theirs.
 */
#include "tests/unit/test_worker_search_env.h"

/* LOOP_SET_STATUS64: anybody with the rights may call a device anything. */
static void rename_device(const char *name, size_t len)
{
    MR_AUTO_CLOSE int fd = open(device.node, O_RDWR | O_CLOEXEC);
    struct loop_info64 info;

    assert_int_equal(ioctl(fd, LOOP_GET_STATUS64, &info), 0);
    memset(info.lo_file_name, 0, sizeof(info.lo_file_name));
    memcpy(info.lo_file_name, name, len);
    assert_int_equal(ioctl(fd, LOOP_SET_STATUS64, &info), 0);
}

/* --- devices --- */

static void test_unknown_device_with_our_mark_is_an_orphan(void **state)
{
    char path[ENV_PATH];
    struct mr_identity found;

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &device);
    struct json_object *orphan = find_one(true, token);
    assert_text(orphan, "driver", "file");
    assert_text(orphan, "backing_file", env_path(path, env_images, "a.img"));
    assert_text(mr_json_get(orphan, "source"), "path", path);
    assert_null_member(orphan, "server");
    assert_int_equal(json_object_array_length(mr_json_get(orphan, "mounts")), 0);
    assert_int_equal(json_object_array_length(mr_json_get(orphan, "fuse_mounts")), 0);
    mr_identity_from_json(&found, mr_json_get(orphan, "identity"));
    assert_string_equal(found.node, device.node);
    assert_int_equal(found.minor, device.minor);
    assert_int_equal(found.diskseq, device.diskseq);
    assert_int_equal(found.size_bytes, ENV_SMALL_BYTES);
    assert_string_equal(found.source_key, device.source_key);
}

static void test_what_the_journal_knows_is_no_orphan(void **state)
{
    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &device);
    know_diskseq(device.diskseq);
    assert_none(true);
    assert_int_equal(
        json_object_array_del_idx(diskseqs, json_object_array_length(diskseqs) - 1, 1),
        0);
    know_token("00000000000000000000000000000000");
    know_token(token); /* an attach that died before it wrote the device down */
    know_token("ffffffffffffffffffffffffffffffff");
    assert_none(true);
}

static void test_mark_of_another_agent_is_no_orphan_of_ours(void **state)
{
    char mark[MR_MARK_TEXT];

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &device);
    mr_mark(mark, token, "/run/another");
    rename_device(mark, strlen(mark));
    assert_none(true);
    mr_mark(mark, token, env_dir);
    rename_device(mark, strlen(mark));
    (void)find_one(true, token);
}

static void test_hostile_names_of_devices_are_no_marks(void **state)
{
    char mark[MR_MARK_TEXT];
    char name[LO_NAME_SIZE];

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &device);
    memset(name, 0xff, sizeof(name)); /* without an end */
    rename_device(name, sizeof(name));
    assert_none(true);
    mr_mark(mark, token, env_dir);
    memset(name, '0', sizeof(name));
    memcpy(name, mark, sizeof(mark) - 1); /* goes on after the mark */
    rename_device(name, sizeof(name));
    assert_none(true);
    rename_device(mark, MR_MARK_TEXT - 2); /* ends before it does */
    assert_none(true);
    rename_device("mooring:../../../../../../../etc/passwd:", 40);
    assert_none(true);
    rename_device("", 0);
    assert_none(true);
}

static void test_forged_second_device_of_a_token_is_not_hidden(void **state)
{
    char other[MR_TOKEN_TEXT];
    char mark[MR_MARK_TEXT];
    struct mr_identity first;

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &first);
    env_map("b.img", ENV_SMALL_BYTES, other, &device);
    mr_mark(mark, token, env_dir);
    rename_device(mark, strlen(mark));
    (void)find_one(false, token); /* there is more than can be said */
    env_unmap(other, &device);
    env_unmap(token, &first);
}

static void test_deleted_file_is_no_source(void **state)
{
    char path[ENV_PATH];

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &device);
    assert_int_equal(unlink(env_path(path, env_images, "a.img")), 0);
    struct json_object *orphan = find_one(true, token);
    assert_null_member(orphan, "source");
    assert_non_null(strstr(mr_json_get_string(orphan, "backing_file"), " (deleted)"));
}

static void test_file_name_that_is_no_text_is_no_source(void **state)
{
    char path[ENV_PATH];
    struct mr_err err = {0};

    (void)state;
    env_image(path, "a\xff\n", ENV_SMALL_BYTES);
    assert_int_equal(env_try_map(env_token(token), path, false, &device, &err), 0);
    struct json_object *orphan = find_one(true, token);
    assert_null_member(orphan, "source");
    assert_non_null(strstr(mr_json_get_string(orphan, "backing_file"), "/a?\n"));
}

/* --- mounts --- */

static void test_mounts_of_an_orphan_can_be_taken_down_by_their_record(void **state)
{
    MR_AUTO_JSON struct json_object *options = json_object_new_array();
    struct mr_mount_record record;
    struct mr_err err = {0};
    char path[ENV_PATH];
    char detail[200];

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &device);
    ENV_RUN("/sbin/mkfs.ext4", "-q", "-F", device.node);
    const struct mr_mount_request request = {.identity = &device,
                                             .fs_type = "ext4",
                                             .root = env_mounts,
                                             .path = "a b/v",
                                             .options = options};
    assert_int_equal(mr_mounter_mount(&request, &record, &err), 0);
    assert_int_equal(mkdir("/tmp/mooring-outside", 0700), 0);
    int r = mount(device.node, "/tmp/mooring-outside", "ext4", 0, NULL);
    struct json_object *mounts = mr_json_get(find_one(true, token), "mounts");
    (void)umount2("/tmp/mooring-outside", MNT_DETACH);
    (void)rmdir("/tmp/mooring-outside");
    assert_int_equal(r, 0);
    assert_int_equal(json_object_array_length(mounts), 2);
    struct json_object *ours = json_object_array_get_idx(mounts, 0);
    struct json_object *outside = json_object_array_get_idx(mounts, 1);
    assert_text(outside, "path", "/tmp/mooring-outside");
    assert_null_member(outside, "mount");
    assert_true(mr_json_get_int(outside, "mount_id", 0) > 0);
    assert_text(ours, "path", env_path(path, env_mounts, "a b/v"));
    assert_text(ours, "fs_type", "ext4");

    struct mr_mount_record found;
    mr_mount_record_from_json(&found, mr_json_get(ours, "mount"));
    assert_string_equal(found.root, env_mounts); /* the longest of the roots */
    assert_string_equal(found.path, "a b/v");
    assert_int_equal(found.mount.id, record.mount.id);
    assert_true(found.mount.unique);
    assert_int_equal(found.created, 0);
    assert_int_equal(mr_mounter_unmount(&found, detail, &err), MR_UNMOUNT_DONE);
    mr_mounter_tidy(&record);
}

/* A bind of somebody else's: to unmount it is not ours. */
static void test_mount_of_a_subdirectory_has_no_record(void **state)
{
    char whole[ENV_PATH];
    char part[ENV_PATH];
    char bound[ENV_PATH];

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &device);
    ENV_RUN("/sbin/mkfs.ext4", "-q", "-F", device.node);
    assert_int_equal(mkdir(env_path(whole, env_mounts, "whole"), 0700), 0);
    assert_int_equal(mkdir(env_path(bound, env_mounts, "bound"), 0700), 0);
    assert_int_equal(mount(device.node, whole, "ext4", 0, NULL), 0);
    assert_int_equal(mkdir(env_path(part, whole, "part"), 0700), 0);
    assert_int_equal(mount(part, bound, NULL, MS_BIND, NULL), 0);
    struct json_object *mounts = mr_json_get(find_one(true, token), "mounts");
    assert_int_equal(umount2(bound, 0), 0);
    assert_int_equal(umount2(whole, 0), 0);
    assert_int_equal(rmdir(bound), 0);
    assert_int_equal(rmdir(whole), 0);
    assert_int_equal(json_object_array_length(mounts), 2);
    assert_text(json_object_array_get_idx(mounts, 0), "path", whole);
    assert_non_null(mr_json_get(json_object_array_get_idx(mounts, 0), "mount"));
    assert_text(json_object_array_get_idx(mounts, 1), "path", bound);
    assert_null_member(json_object_array_get_idx(mounts, 1), "mount");
}

static void test_mount_path_that_is_no_text_has_no_record(void **state)
{
    char path[ENV_PATH];

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &device);
    ENV_RUN("/sbin/mkfs.ext4", "-q", "-F", device.node);
    assert_int_equal(mkdir(env_path(path, env_mounts, "a\xff"), 0700), 0);
    assert_int_equal(mount(device.node, path, "ext4", 0, NULL), 0);
    struct json_object *mounts = mr_json_get(find_one(true, token), "mounts");
    assert_int_equal(umount2(path, 0), 0);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(json_object_array_length(mounts), 1);
    assert_null_member(json_object_array_get_idx(mounts, 0), "mount");
}

/* 20 mounts at long paths for each of three orphans: more than a message holds. */
static void test_reply_fits_into_a_message(void **state)
{
    struct mr_identity devices[3];
    char device_token[3][MR_TOKEN_TEXT];
    char path[PATH_MAX];
    size_t len = strlen(env_mounts);

    (void)state;
    memcpy(path, env_mounts, len);
    while (len < 3800) {
        (void)snprintf(path + len, sizeof(path) - len, "/%0200d", 0);
        len += 201;
    }
    for (int i = 0; i < 3; i++) {
        env_map(i == 0   ? "a.img"
                : i == 1 ? "b.img"
                         : "c.img",
                ENV_SMALL_BYTES, device_token[i], &devices[i]);
        ENV_RUN("/sbin/mkfs.ext4", "-q", "-F", devices[i].node);
    }
    for (int i = 0; i < 60; i++) {
        (void)snprintf(path + len, sizeof(path) - len, "/%d", i);
        assert_int_equal(mr_mkdir_p(path, 0700), 0);
        assert_int_equal(mount(devices[i % 3].node, path, "ext4", 0, NULL), 0);
    }
    struct json_object *orphans = search(false);
    assert_true(json_object_array_length(orphans) >= 1);
    assert_true(strlen(json_object_to_json_string_ext(
                    last_reply, JSON_C_TO_STRING_PLAIN)) < MR_MSG_MAX);
    for (int i = 0; i < 60; i++) {
        (void)snprintf(path + len, sizeof(path) - len, "/%d", i);
        assert_int_equal(umount2(path, 0), 0);
    }
    for (int i = 0; i < 3; i++)
        env_unmap(device_token[i], &devices[i]);
    ENV_RUN("/bin/sh", "-c", "rm -rf --one-file-system \"$0\"/*", env_mounts);
}

static void mount_fuse(int fd, const char *path, const char *source, unsigned uid)
{
    char options[100];

    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40700,user_id=%u,group_id=0",
                   fd, uid);
    assert_int_equal(mount(source, path, "fuse", 0, options), 0);
}

static void test_fuse_mount_with_our_mark_is_an_orphan(void **state)
{
    char path[ENV_PATH];
    char mark[MR_MARK_TEXT];

    (void)state;
    mr_mark(mark, env_token(token), env_dir);
    MR_AUTO_CLOSE int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        skip();
    assert_int_equal(mkdir(env_path(path, env_mounts, "f"), 0700), 0);
    mount_fuse(fd, path, mark, 0);
    struct json_object *orphan = find_one(true, token);
    assert_text(orphan, "driver", "iscsi");
    assert_null_member(orphan, "identity");
    assert_null_member(orphan, "server");
    struct json_object *mounts = mr_json_get(orphan, "fuse_mounts");
    assert_int_equal(json_object_array_length(mounts), 1);
    assert_text(json_object_array_get_idx(mounts, 0), "path", path);
    know_token(token);
    assert_none(true);
    assert_int_equal(umount2(path, MNT_DETACH), 0);
    assert_int_equal(rmdir(path), 0);
}

/* fusermount(1) mounts for everybody, and lets them choose the source. */
static void test_fuse_mount_of_somebody_else_is_none(void **state)
{
    char path[ENV_PATH];
    char mark[MR_MARK_TEXT];

    (void)state;
    mr_mark(mark, env_token(token), env_dir);
    MR_AUTO_CLOSE int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        skip();
    assert_int_equal(mkdir(env_path(path, env_mounts, "f"), 0700), 0);
    mount_fuse(fd, path, mark, 1000);
    assert_none(true);
    assert_int_equal(umount2(path, MNT_DETACH), 0);
    assert_int_equal(rmdir(path), 0);
}

/* --- the command --- */

static void assert_command_refused(const char *key, const char *value)
{
    struct mr_worker worker = {.mode = MR_WORKER_SURVEY};
    MR_AUTO_JSON struct json_object *cmd = new_command();
    MR_AUTO_JSON struct json_object *reply = json_object_new_object();
    struct mr_err err = {0};

    mr_json_set(cmd, key, json_tokener_parse(value));
    assert_true(mr_command_search(&worker, cmd, reply, &err) < 0);
    assert_int_equal(err.code, MR_E_INTERNAL);
}

static void test_commands_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    assert_command_refused("tokens", "{}");
    assert_command_refused("tokens", "[1]");
    assert_command_refused("tokens", "[null]");
    assert_command_refused("diskseqs", "null");
    assert_command_refused("diskseqs", "[\"7\"]");
    assert_command_refused("roots", "[{}]");
    assert_command_refused("roots", "\"/\"");
    assert_command_refused("runtime_dir", "5");
    assert_command_refused("deadline_ms", "0");
    assert_command_refused("deadline_ms", "9223372036854775807");
    assert_command_refused("deadline_ms", "\"5\"");
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        SEARCH_TEST(test_unknown_device_with_our_mark_is_an_orphan),
        SEARCH_TEST(test_what_the_journal_knows_is_no_orphan),
        SEARCH_TEST(test_mark_of_another_agent_is_no_orphan_of_ours),
        SEARCH_TEST(test_hostile_names_of_devices_are_no_marks),
        SEARCH_TEST(test_forged_second_device_of_a_token_is_not_hidden),
        SEARCH_TEST(test_deleted_file_is_no_source),
        SEARCH_TEST(test_file_name_that_is_no_text_is_no_source),
        SEARCH_TEST(test_mounts_of_an_orphan_can_be_taken_down_by_their_record),
        SEARCH_TEST(test_mount_of_a_subdirectory_has_no_record),
        SEARCH_TEST(test_mount_path_that_is_no_text_has_no_record),
        SEARCH_TEST(test_reply_fits_into_a_message),
        SEARCH_TEST(test_fuse_mount_with_our_mark_is_an_orphan),
        SEARCH_TEST(test_fuse_mount_of_somebody_else_is_none),
        SEARCH_TEST(test_commands_that_make_no_sense_are_refused),
    };

    return cmocka_run_group_tests_name("survey: search", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
