/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking without mapping: what `mooring-worker probe` finds on files, in mount roots and
 * behind a mooring-lun that does not keep its word. Nothing is changed by any of it.
 */
#include <sys/file.h>

#include "storage/worker/commands.h"
#include "storage/worker/filesystem.h"
#include "storage/worker/lun_oneshot.h"
#include "storage/worker/source_lock.h"
#include "tests/unit/test_worker_env.h"

#define KEY "iscsi:iqn.2026-11.example.test:disk1:1"
#define TOKEN "00112233445566778899aabbccddeeff"
#define UUID "0c3f0f5e-9f3a-4a6e-8f0b-6d4b7a1c2e01"

static struct mr_err failure;

static void make_ext4(const char *path)
{
    ENV_RUN("/sbin/mkfs.ext4", "-q", "-L", "a \"label\"", "-U", UUID, path);
}

/* --- content --- */

static struct mr_probe probe(const char *path)
{
    MR_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct mr_probe found;

    assert_int_equal(mr_filesystem_probe_file(fd, 512, &found, &failure), 0);
    return found;
}

static void write_byte(const char *path, off_t at)
{
    MR_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

    assert_int_equal(pwrite(fd, "x", 1, at), 1);
}

static void test_file_is_probed_as_a_device(void **state)
{
    char path[ENV_PATH];

    (void)state;
    env_image(path, "a.img", ENV_SMALL_BYTES);
    assert_int_equal(probe(path).content, MR_CONTENT_BLANK);
    write_byte(path, 8 * MIB); /* neither end */
    assert_int_equal(probe(path).content, MR_CONTENT_BLANK);
    write_byte(path, ENV_SMALL_BYTES - 1);
    assert_int_equal(probe(path).content, MR_CONTENT_UNKNOWN);
    make_ext4(path);
    struct mr_probe found = probe(path);
    assert_int_equal(found.content, MR_CONTENT_FORMATTED);
    assert_string_equal(found.type, "ext4");
    assert_string_equal(found.uuid, UUID);
    assert_string_equal(found.label, "a \"label\"");
}

/* --- mount path --- */

static enum mr_code check(const char *path)
{
    const struct mr_mount_request request = {
        .fs_type = "ext4", .root = env_mounts, .path = path};

    memset(&failure, 0, sizeof(failure));
    return mr_mounter_check(&request, &failure) == 0 ? MR_CODE_COUNT : failure.code;
}

static void test_mount_path_is_checked_and_not_made(void **state)
{
    char path[ENV_PATH];
    char inner[ENV_PATH];

    (void)state;
    assert_int_equal(check("v"), MR_CODE_COUNT);
    assert_int_equal(check("not/there/yet"), MR_CODE_COUNT);
    assert_int_equal(access(env_path(path, env_mounts, "not"), F_OK), -1);
    assert_int_equal(mkdir(env_path(path, env_mounts, "v"), 0755), 0);
    assert_int_equal(check("v"), MR_CODE_COUNT);
    assert_int_equal(mkdir(env_path(inner, path, "inside"), 0755), 0);
    assert_int_equal(check("v"), MR_E_MOUNT_PATH_BUSY);
    assert_int_equal(rmdir(inner), 0);
    assert_int_equal(mount("none", path, "tmpfs", 0, NULL), 0);
    assert_int_equal(check("v"), MR_E_MOUNT_PATH_BUSY);
    assert_int_equal(umount(path), 0);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(symlink("/tmp", path), 0);
    assert_int_equal(check("v"), MR_E_PATH_NOT_ALLOWED);
    assert_int_equal(check("v/w"), MR_E_PATH_NOT_ALLOWED);
    assert_int_equal(unlink(path), 0);
    (void)close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(check("v"), MR_E_MOUNT_PATH_BUSY);
    assert_int_equal(check("v/w"), MR_E_MOUNT_PATH_BUSY);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(check("../v"), MR_E_PATH_NOT_ALLOWED);
}

/* --- who has the source --- */

static void test_lock_of_a_source_is_seen_and_left_alone(void **state)
{
    MR_AUTO_CLOSE int fd = -1;
    char holder[MR_TOKEN_TEXT];

    (void)state;
    assert_int_equal(mr_source_look(env_dir, KEY, holder, &failure), 0);
    assert_int_equal(mr_source_lock(env_dir, KEY, TOKEN, 0, &fd, holder, &failure), 0);
    assert_int_equal(mr_source_look(env_dir, KEY, holder, &failure), -EWOULDBLOCK);
    assert_int_equal(failure.code, MR_E_SOURCE_IN_USE);
    assert_string_equal(holder, TOKEN);
    mr_close(&fd);
    assert_int_equal(mr_source_look(env_dir, KEY, holder, &failure), 0);
    assert_int_equal(mr_source_lock(env_dir, KEY, TOKEN, 0, &fd, holder, &failure), 0);
}

/* --- the command --- */

/* New reference: the reply, with failure. */
static struct json_object *preflight(const char *path, bool read_only, bool mapped)
{
    struct mr_worker worker = {.channel_fd = -1, .mode = MR_WORKER_PROBE};
    struct json_object *reply = json_object_new_object();
    char text[1024];

    (void)snprintf(
        text, sizeof(text),
        "{\"token\":\"" TOKEN "\",\"root\":\"%s\",\"path\":\"v\",\"mapped\":%s,"
        "\"config\":{\"file_roots\":[\"%s\"],\"runtime_dir\":\"%s\"},\"spec\":{"
        "\"source\":{\"driver\":\"file\",\"path\":\"%s\"},\"read_only\":%s,"
        "\"filesystem\":{\"type\":\"ext4\"},\"mount_path\":\"%s/v\"}}",
        env_mounts, mapped ? "true" : "false", env_images, env_dir, path,
        read_only ? "true" : "false", env_mounts);
    MR_AUTO_JSON struct json_object *cmd = json_tokener_parse(text);
    assert_non_null(cmd);
    memset(&failure, 0, sizeof(failure));
    int r = mr_command_preflight(&worker, cmd, reply, &failure);
    assert_int_equal(r < 0, failure.message[0] != '\0');
    return reply;
}

static void test_preflight_of_a_file_says_what_is_there(void **state)
{
    char path[ENV_PATH];
    struct stat before;
    struct stat after;

    (void)state;
    env_image(path, "a.img", ENV_SMALL_BYTES);
    make_ext4(path);
    assert_int_equal(stat(path, &before), 0);
    MR_AUTO_JSON struct json_object *reply = preflight(path, false, false);
    assert_string_equal(failure.message, "");
    assert_string_equal(mr_json_get_string(reply, "content"), "formatted");
    assert_string_equal(mr_json_get_string(reply, "fs_uuid"), UUID);
    assert_int_equal(mr_json_get_int(reply, "size_bytes", 0), ENV_SMALL_BYTES);
    assert_false(mr_json_get_bool(reply, "write_protected", true));
    assert_null(mr_json_get(reply, "mount_error"));
    assert_int_equal(stat(path, &after), 0);
    assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim));
}

static void test_mapped_file_is_in_use_but_for_its_own_volume(void **state)
{
    char token[MR_TOKEN_TEXT];
    char path[ENV_PATH];
    struct mr_identity identity;

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &identity);
    env_path(path, env_images, "a.img");
    MR_AUTO_JSON struct json_object *reply = preflight(path, false, false);
    assert_int_equal(failure.code, MR_E_SOURCE_IN_USE);
    assert_non_null(strstr(failure.message, identity.node));
    assert_string_equal(mr_json_get_string(reply, "content"), "blank");
    assert_string_equal(mr_json_get_string(reply, "source_key"), identity.source_key);
    MR_AUTO_JSON struct json_object *own = preflight(path, false, true);
    assert_string_equal(failure.message, "");
    env_unmap(token, &identity);
}

static void test_what_no_attach_would_take_is_refused(void **state)
{
    char path[ENV_PATH];

    (void)state;
    MR_AUTO_JSON struct json_object *outside = preflight("/etc/passwd", false, false);
    assert_int_equal(failure.code, MR_E_PATH_NOT_ALLOWED);
    MR_AUTO_JSON struct json_object *missing =
        preflight(env_path(path, env_images, "missing"), false, false);
    assert_int_equal(failure.code, MR_E_INVALID_SPEC);
    assert_int_equal(mkfifo(env_path(path, env_images, "pipe"), 0600), 0);
    MR_AUTO_JSON struct json_object *pipe = preflight(path, false, false);
    assert_int_equal(failure.code, MR_E_INVALID_SPEC);
    assert_int_equal(unlink(path), 0);
    MR_AUTO_JSON struct json_object *odd =
        preflight(env_image(path, "a.img", 1000), false, false);
    assert_int_equal(failure.code, MR_E_INVALID_SPEC);
    assert_null(mr_json_get(odd, "content"));
}

/* --- a mooring-lun that does not keep its word --- */

static int run_as(const char *program, int64_t deadline_ms)
{
    MR_AUTO_JSON struct json_object *message = json_object_new_object();
    MR_AUTO_JSON struct json_object *reply = NULL;
    char path[ENV_PATH];

    (void)unlink(env_path(path, env_dir, "mooring-lun"));
    assert_int_equal(symlink(program, path), 0);
    memset(&failure, 0, sizeof(failure));
    int r =
        mr_lun_oneshot(env_dir, "discover", message, deadline_ms, &reply, NULL, &failure);
    assert_null(reply);
    return r;
}

static void test_program_that_does_not_answer_is_ended(void **state)
{
    (void)state;
    assert_true(run_as("/bin/true", 60000) < 0); /* at once */
    assert_int_equal(failure.code, MR_E_INTERNAL);
    int64_t started_ns = mr_now_ns();
    assert_int_equal(run_as("/usr/bin/yes", 100), -ETIMEDOUT);
    assert_int_equal(failure.code, MR_E_TARGET_TIMEOUT);
    assert_int_equal(failure.residue, MR_RESIDUE_NONE);
    assert_true(mr_now_ns() - started_ns < 6 * MR_NS_PER_S);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* reaped */
    assert_true(run_as("/does/not/exist", 100) < 0);
    assert_int_equal(failure.code, MR_E_INTERNAL);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_is_probed_as_a_device),
        cmocka_unit_test(test_mount_path_is_checked_and_not_made),
        cmocka_unit_test(test_lock_of_a_source_is_seen_and_left_alone),
        cmocka_unit_test(test_preflight_of_a_file_says_what_is_there),
        cmocka_unit_test(test_mapped_file_is_in_use_but_for_its_own_volume),
        cmocka_unit_test(test_what_no_attach_would_take_is_refused),
        cmocka_unit_test(test_program_that_does_not_answer_is_ended),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
