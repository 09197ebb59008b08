/* SPDX-License-Identifier: Apache-2.0
 *
 * look: many volumes compared with the kernel at once, and nothing can make it hang.
 */
#include "storage/base/mountid.h"
#include "storage/protocol.h"
#include "storage/worker/commands.h"
#include "tests/unit/test_worker_lun_env.h"
#include "tests/unit/test_worker_survey_env.h"

static char token[MR_TOKEN_TEXT];
static struct mr_identity device; /* of the running test, node "" none */
static struct mr_mount_record mounted;
static struct json_object *last_reply;

static struct json_object *new_target(const struct mr_identity *identity,
                                      const struct mr_mount_record *record)
{
    struct json_object *target = json_object_new_object();

    mr_json_set_string(target, "volume", "v1");
    mr_json_set(target, "identity", mr_identity_to_json(identity));
    mr_json_set(target, "mount", mr_mount_record_to_json(record));
    return target;
}

/* Takes the targets. The elements of the reply are borrowed until the next call. */
static struct json_object *look_at_all(struct json_object *targets)
{
    struct mr_worker worker = {.mode = MR_WORKER_SURVEY};
    MR_AUTO_JSON struct json_object *cmd = json_object_new_object();
    struct mr_err err = {0};

    mr_json_set(cmd, "targets", targets);
    (void)json_object_put(last_reply);
    last_reply = json_object_new_object();
    if (mr_command_look(&worker, cmd, last_reply, &err) != 0)
        fail_msg("look: %s", err.message);
    struct json_object *volumes = mr_json_get(last_reply, "volumes");
    assert_int_equal(json_object_array_length(volumes),
                     json_object_array_length(targets));
    return volumes;
}

static struct json_object *look(const struct mr_identity *identity,
                                const struct mr_mount_record *record)
{
    struct json_object *targets = json_object_new_array();

    (void)json_object_array_add(targets, new_target(identity, record));
    struct json_object *seen = json_object_array_get_idx(look_at_all(targets), 0);
    assert_string_equal(mr_json_get_string(seen, "volume"), "v1");
    return seen;
}

static void assert_found(const struct mr_identity *identity, bool found)
{
    struct json_object *seen = look(identity, &mounted);

    if (!mr_json_get(seen, "found") || mr_json_get_bool(seen, "found", !found) != found)
        fail_msg("found is not %d: %s", found, json_object_to_json_string(seen));
}

/* And inspect agrees. */
static void assert_mounted(const struct mr_mount_record *record, const char *expected)
{
    struct json_object *seen = look(&device, record);
    bool on_top = false;

    assert_string_equal(mr_json_get_string(seen, "mounted"), expected);
    assert_string_equal(mr_presence_name(mr_mounter_present(record, &on_top)), expected);
}

static void mount_at(const char *path)
{
    MR_AUTO_JSON struct json_object *options = json_object_new_array();
    struct mr_err err = {0};
    struct mr_mount_request request = {.identity = &device,
                                       .fs_type = "ext4",
                                       .root = env_mounts,
                                       .path = path,
                                       .options = options};

    if (mr_mounter_mount(&request, &mounted, &err) != 0)
        fail_msg("mount: %s", err.message);
}

static void cover(const char *path)
{
    assert_int_equal(mount("cover", path, "tmpfs", 0, NULL), 0);
}

static void test_recorded_device_is_found(void **state)
{
    (void)state;
    assert_found(&device, true);
}

static void test_device_with_another_diskseq_is_not_found(void **state)
{
    struct mr_identity earlier = device;
    struct mr_identity other = device;

    (void)state;
    earlier.diskseq--; /* an earlier life of this number */
    assert_found(&earlier, false);
    other.major = 4000;
    assert_found(&other, false);
}

/* The same token in another device: the token is not searched. */
static void test_device_bound_again_is_not_found(void **state)
{
    char path[ENV_PATH];
    struct mr_identity recorded = device;
    struct mr_err err = {0};

    (void)state;
    env_unmap(token, &device);
    assert_found(&recorded, false);
    env_image(path, "again.img", ENV_SMALL_BYTES);
    assert_int_equal(env_try_map(token, path, false, &device, &err), 0);
    assert_found(&recorded, false);
    assert_found(&device, true);
}

static void test_device_that_cannot_be_told_is_neither(void **state)
{
    struct mr_identity nothing = device;

    (void)state;
    nothing.diskseq = 0;
    struct json_object *seen = look(&nothing, &mounted);
    assert_true(json_object_object_get_ex(seen, "found", NULL));
    assert_null(mr_json_get(seen, "found"));
}

static void test_mount_is_present_until_it_is_unmounted(void **state)
{
    struct mr_mount_record unmounted = {.created = 0};
    char detail[200];

    (void)state;
    mount_at("a b/v"); /* mountinfo escapes the blank */
    assert_mounted(&mounted, "present");
    assert_string_equal(mr_json_get_string(look(&device, &unmounted), "mounted"),
                        "absent");
    assert_int_equal(mr_mounter_unmount(&mounted, detail, NULL), MR_UNMOUNT_DONE);
    assert_mounted(&mounted, "absent");
}

static void test_covered_mount_is_present(void **state)
{
    char path[ENV_PATH];

    (void)state;
    mount_at("a/v");
    cover(env_path(path, env_mounts, "a/v"));
    assert_mounted(&mounted, "present");
    assert_int_equal(umount2(path, 0), 0);
    cover(env_path(path, env_mounts, "a")); /* the way to it */
    assert_mounted(&mounted, "present");
    assert_int_equal(umount2(path, 0), 0);
}

/* Before Linux 6.8 there were no unique ids. */
static void test_reusable_mount_id_is_compared_with_the_device(void **state)
{
    struct mr_mount_record old;
    uint64_t id = 0;

    (void)state;
    mount_at("v");
    old = mounted;
    assert_int_equal(mr_mount_old_id(&mounted.mount, &id), 0);
    old.mount.id = id;
    old.mount.unique = false;
    struct json_object *seen = look(&device, &old);
    assert_string_equal(mr_json_get_string(seen, "mounted"), "present");
    old.mount.minor++; /* another mount has the number now */
    seen = look(&device, &old);
    assert_string_equal(mr_json_get_string(seen, "mounted"), "absent");
}

/* Who resolves a path through it, as inspect does, waits for ever. */
static void test_mute_file_system_on_the_way_does_not_hang_it(void **state)
{
    char path[ENV_PATH];
    char options[100];

    (void)state;
    mount_at("a/v");
    MR_AUTO_CLOSE int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        skip();
    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40755,user_id=0,group_id=0",
                   fd);
    env_path(path, env_mounts, "a");
    assert_int_equal(mount("mute", path, "fuse", 0, options), 0);
    int64_t start_ns = mr_now_ns();
    struct json_object *seen = look(&device, &mounted);
    assert_true(mr_now_ns() - start_ns < MR_NS_PER_S);
    assert_string_equal(mr_json_get_string(seen, "mounted"), "present");
}

/* Nor does a device whose file is on a mute server. */
static void test_mute_server_does_not_hang_it(void **state)
{
    struct fuse_server server;
    char other[MR_TOKEN_TEXT];

    (void)state;
    fuse_start(&server, "test");
    fuse_map(&server, env_token(other));
    fuse_go_mute(&server);
    int64_t start_ns = mr_now_ns();
    assert_found(&server.device, true);
    assert_true(mr_now_ns() - start_ns < MR_NS_PER_S);
    fuse_end(&server);
}

static void test_targets_that_make_no_sense_do_no_harm(void **state)
{
    struct mr_worker worker = {.mode = MR_WORKER_SURVEY};
    MR_AUTO_JSON struct json_object *cmd = json_tokener_parse("{\"targets\": {}}");
    MR_AUTO_JSON struct json_object *reply = json_object_new_object();
    struct mr_err err = {0};

    (void)state;
    assert_true(mr_command_look(&worker, cmd, reply, &err) < 0);
    struct json_object *targets = json_tokener_parse(
        "[null, 1, {}, {\"volume\": 3}, {\"volume\": \"a\", \"identity\": {\"node\": 1, "
        "\"diskseq\": -1, \"lun_pid\": -4}, \"mount\": {\"id\": 1, \"path\": \"..\"}},"
        "{\"volume\": \"b\", \"mount\": {\"id\": 99999999999, \"unique\": true, \"root\":"
        " \"\", \"path\": \"//\"}}]");
    struct json_object *volumes = look_at_all(targets);
    for (size_t i = 0; i < json_object_array_length(volumes); i++) {
        struct json_object *seen = json_object_array_get_idx(volumes, i);
        assert_false(mr_json_get_bool(seen, "found", false));
    }
}

/* One reply of the real program. */
static struct json_object *ask(int channel, const char *text)
{
    MR_AUTO_JSON struct json_object *cmd = json_tokener_parse(text);
    struct pollfd ready = {.fd = channel, .events = POLLIN};
    struct json_object *reply = NULL;
    struct mr_err err = {0};

    assert_int_equal(mr_msg_send(channel, cmd, -1, 0, &err), 0);
    assert_int_equal(poll(&ready, 1, 10000), 1);
    assert_int_equal(mr_msg_recv(channel, &reply, NULL, 0, &err), 1);
    return reply;
}

static void test_program_answers_until_its_channel_closes(void **state)
{
    const char *const argv[] = {MR_WORKER_PROGRAM, "survey", NULL};
    struct mr_err err = {0};
    pid_t pid = 0;
    int status = -1;
    int pair[2];

    (void)state;
    assert_int_equal(mr_msg_pair(pair, &err), 0);
    const struct mr_spawn_fd fd = {.from = pair[1], .to = MR_WORKER_CHANNEL_FD};
    const struct mr_spawn spawn = {
        .argv = argv, .fds = &fd, .fd_count = 1, .stdout_fd = -1, .stderr_fd = -1};
    assert_int_equal(mr_spawn_start(&spawn, &pid, NULL, &err), 0);
    (void)close(pair[1]);
    MR_AUTO_JSON struct json_object *looked =
        ask(pair[0], "{\"cmd\": \"look\", \"targets\": [{\"volume\": \"v\"}]}");
    MR_AUTO_JSON struct json_object *searched =
        ask(pair[0], "{\"cmd\": \"search\", \"runtime_dir\": \"/run/no-such\", "
                     "\"roots\": [], \"tokens\": [], \"diskseqs\": [], "
                     "\"deadline_ms\": 5000}");
    MR_AUTO_JSON struct json_object *refused = ask(pair[0], "{\"cmd\": \"map\"}");
    assert_true(mr_json_get_bool(looked, "ok", false));
    assert_true(mr_json_get_bool(searched, "ok", false));
    assert_int_equal(json_object_array_length(mr_json_get(searched, "orphans")), 0);
    assert_false(mr_json_get_bool(refused, "ok", true)); /* it changes nothing */
    (void)close(pair[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_order_of_the_answers_is_that_of_the_targets(void **state)
{
    struct json_object *targets = json_object_new_array();
    struct mr_identity other = device;
    char name[16];

    (void)state;
    other.diskseq++;
    for (int i = 0; i < 200; i++) {
        struct json_object *target = new_target(i % 3 ? &device : &other, &mounted);
        (void)snprintf(name, sizeof(name), "v%d", i);
        mr_json_set_string(target, "volume", name);
        (void)json_object_array_add(targets, target);
    }
    struct json_object *volumes = look_at_all(targets);
    for (size_t i = 0; i < 200; i++) {
        struct json_object *seen = json_object_array_get_idx(volumes, i);
        (void)snprintf(name, sizeof(name), "v%zu", i);
        assert_string_equal(mr_json_get_string(seen, "volume"), name);
        assert_int_equal(mr_json_get_bool(seen, "found", false), i % 3 != 0);
    }
}

static int setup(void **state)
{
    (void)state;
    mounted = (struct mr_mount_record){.created = 0};
    env_map("a.img", ENV_SMALL_BYTES, token, &device);
    ENV_RUN("/sbin/mkfs.ext4", "-q", "-F", device.node);
    return 0;
}

static int teardown(void **state)
{
    static const char *const names[] = {"a/v/inside", "a/vv", "a/v", "a b/v",
                                        "a",          "b",    "v"};
    char path[ENV_PATH];

    (void)state;
    fake_stop_all();
    for (int again = 0; again < 2; again++) {
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            while (umount2(env_path(path, env_mounts, names[i]), MNT_DETACH) == 0)
                ;
    }
    ENV_RUN("/bin/sh", "-c", "rm -rf --one-file-system \"$0\"/*", env_mounts);
    (void)json_object_put(last_reply);
    last_reply = NULL;
    if (mr_device_present(&device) == MR_PRESENT)
        env_unmap(token, &device);
    return 0;
}

#define LOOK_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        LOOK_TEST(test_recorded_device_is_found),
        LOOK_TEST(test_device_with_another_diskseq_is_not_found),
        LOOK_TEST(test_device_bound_again_is_not_found),
        LOOK_TEST(test_device_that_cannot_be_told_is_neither),
        LOOK_TEST(test_mount_is_present_until_it_is_unmounted),
        LOOK_TEST(test_covered_mount_is_present),
        LOOK_TEST(test_reusable_mount_id_is_compared_with_the_device),
        LOOK_TEST(test_mute_file_system_on_the_way_does_not_hang_it),
        LOOK_TEST(test_mute_server_does_not_hang_it),
        LOOK_TEST(test_targets_that_make_no_sense_do_no_harm),
        LOOK_TEST(test_program_answers_until_its_channel_closes),
        LOOK_TEST(test_order_of_the_answers_is_that_of_the_targets),
    };

    return cmocka_run_group_tests_name("survey: look", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
