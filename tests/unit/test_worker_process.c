/* SPDX-License-Identifier: Apache-2.0
 *
 * The real mooring-worker over its channel, as the core drives it. MR_WORKER_PROGRAM is
 * its path.
 */
#include <limits.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "storage/base/msg.h"
#include "storage/protocol.h"
#include "tests/unit/test_worker_env.h"

#define WAIT_MS 10000
#define UUID_A "0c3f0f5e-9f3a-4a6e-8f0b-6d4b7a1c2e01"
#define UUID_B "0c3f0f5e-9f3a-4a6e-8f0b-6d4b7a1c2e02"
#define DOCUMENT_BYTES 8192

struct process {
    pid_t pid;
    int pidfd;
    int channel;
    int inotify_fd;
};

static char lock_path[ENV_PATH];
static struct process p; /* the one worker of a test */

static void start(void)
{
    const char *const argv[] = {MR_WORKER_PROGRAM, "volume", lock_path, NULL};
    struct mr_err err = {0};
    int pair[2];

    assert_int_equal(mr_msg_pair(pair, &err), 0);
    p.channel = pair[0];
    p.inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    const struct mr_spawn_fd fds[] = {
        {.from = pair[1], .to = MR_WORKER_CHANNEL_FD},
        {.from = p.inotify_fd, .to = MR_WORKER_INOTIFY_FD},
    };
    const struct mr_spawn spawn = {
        .argv = argv, .fds = fds, .fd_count = 2, .stdout_fd = -1, .stderr_fd = -1};
    assert_int_equal(mr_spawn_start(&spawn, &p.pid, &p.pidfd, &err), 0);
    assert_int_equal(close(pair[1]), 0);
}

static bool readable(int fd, int wait_ms)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};

    return poll(&pfd, 1, wait_ms) == 1;
}

static struct json_object *receive(void)
{
    struct json_object *message = NULL;
    struct mr_err err = {0};

    assert_true(readable(p.channel, WAIT_MS));
    assert_int_equal(mr_msg_recv(p.channel, &message, NULL, 0, &err), 1);
    return message;
}

static void assert_text(struct json_object *json, const char *key, const char *expected)
{
    const char *text = mr_json_get_string(json, key);

    if (!text || strcmp(text, expected) != 0)
        fail_msg("%s is not '%s': %s", key, expected, json_object_to_json_string(json));
}

static void start_ready(void)
{
    start();
    MR_AUTO_JSON struct json_object *event = receive();
    assert_text(event, "event", "ready");
}

/* The exit status, after the channel was closed. */
static int stop(void)
{
    int status = -1;

    mr_close(&p.channel);
    assert_true(readable(p.pidfd, WAIT_MS));
    assert_int_equal(waitpid(p.pid, &status, 0), p.pid);
    mr_close(&p.pidfd);
    mr_close(&p.inotify_fd);
    p.pid = 0;
    return status;
}

/* A failed test leaves its worker, its mount and its device. */
static int teardown(void **state)
{
    char path[ENV_PATH];

    (void)state;
    if (p.pid > 0) {
        (void)kill(p.pid, SIGKILL);
        (void)stop();
    }
    while (umount2(env_path(path, env_mounts, "v"), MNT_DETACH) == 0)
        ;
    (void)rmdir(path);
    env_clear_loops();
    return 0;
}

/* A command from text with the members of common added; the final reply. *ret_wd gets the
 * armed event's. */
static struct json_object *ask_armed(struct json_object *common, const char *name,
                                     const char *more, int *ret_wd)
{
    MR_AUTO_JSON struct json_object *cmd = json_tokener_parse(more);
    struct mr_err err = {0};

    mr_json_set_string(cmd, "cmd", name);
    json_object_object_foreach(common, key, value)
    {
        mr_json_set(cmd, key, json_object_get(value));
    }
    assert_int_equal(mr_msg_send(p.channel, cmd, -1, 0, &err), 0);
    struct json_object *reply = receive();
    if (mr_json_get(reply, "event")) {
        assert_text(reply, "event", "armed");
        *ret_wd = (int)mr_json_get_int(reply, "wd", -1);
        (void)json_object_put(reply);
        reply = receive();
    }
    assert_text(reply, "reply", name);
    return reply;
}

static struct json_object *ask(struct json_object *common, const char *name,
                               const char *more)
{
    int wd = -1;
    struct json_object *reply = ask_armed(common, name, more, &wd);

    assert_int_equal(wd, -1);
    return reply;
}

static struct json_object *ask_ok(struct json_object *common, const char *name,
                                  const char *more)
{
    struct json_object *reply = ask(common, name, more);

    if (!mr_json_get_bool(reply, "ok", false))
        fail_msg("%s", json_object_to_json_string(reply));
    return reply;
}

static void ask_result(struct json_object *common, const char *name, const char *more,
                       const char *result)
{
    MR_AUTO_JSON struct json_object *reply = ask_ok(common, name, more);

    assert_text(reply, "result", result);
}

static void ask_error(struct json_object *common, const char *name, const char *more,
                      const char *code)
{
    MR_AUTO_JSON struct json_object *reply = ask(common, name, more);

    assert_false(mr_json_get_bool(reply, "ok", true));
    assert_text(mr_json_get(reply, "error"), "code", code);
}

static struct json_object *new_common(void)
{
    struct json_object *common = json_object_new_object();
    char token[MR_TOKEN_TEXT];

    mr_json_set_string(common, "token", env_token(token));
    mr_json_set_string(common, "driver", "file");
    mr_json_set_string(common, "runtime_dir", env_dir);
    return common;
}

static void map_image(struct json_object *common, const char *image, const char *fs_type)
{
    char more[DOCUMENT_BYTES];

    (void)snprintf(more, sizeof(more),
                   "{\"spec\": {\"source\": {\"driver\": \"file\", \"path\": \"%s\"},"
                   " \"filesystem\": {\"type\": \"%s\", \"format\": \"if-blank\"},"
                   " \"mount_path\": \"%s/v\", \"read_only\": false},"
                   " \"config\": {\"file_roots\": [\"%s\"], \"runtime_dir\": \"%s\","
                   " \"libexec_dir\": \"%s\", \"initiator_name\": \"\","
                   " \"iscsi_timeout_ms\": 1000}}",
                   image, fs_type, env_mounts, env_images, env_dir, env_dir);
    MR_AUTO_JSON struct json_object *reply = ask_ok(common, "map", more);
    struct json_object *identity = mr_json_get(reply, "identity");
    assert_non_null(identity);
    mr_json_set(common, "identity", json_object_get(identity));
}

static void take_mount(struct json_object *common, struct json_object *reply)
{
    assert_non_null(mr_json_get(reply, "mount"));
    mr_json_set(common, "mount", json_object_get(mr_json_get(reply, "mount")));
}

static void attach(struct json_object *common, const char *image, const char *fs_type)
{
    char more[DOCUMENT_BYTES];

    map_image(common, image, fs_type);
    (void)json_object_put(ask_ok(common, "identify", "{}"));
    MR_AUTO_JSON struct json_object *blank = ask_ok(common, "check", "{}");
    assert_text(blank, "content", "blank");
    (void)snprintf(more, sizeof(more),
                   "{\"fs_type\": \"%s\", \"fs_uuid\": \"%s\", \"deadline_ms\": 60000}",
                   fs_type, UUID_A);
    (void)json_object_put(ask_ok(common, "format", more));
    MR_AUTO_JSON struct json_object *formatted = ask_ok(common, "check", "{}");
    assert_text(formatted, "content", "formatted");
    assert_text(formatted, "fs_type", fs_type);
    (void)snprintf(more, sizeof(more),
                   "{\"fs_type\": \"%s\", \"fs_uuid\": \"%s\", \"root\": \"%s\","
                   " \"path\": \"v\", \"options\": [\"noatime\"], \"read_only\": false}",
                   fs_type, UUID_A, env_mounts);
    MR_AUTO_JSON struct json_object *mounted = ask_ok(common, "mount", more);
    assert_text(mounted, "fs_uuid", UUID_A);
    take_mount(common, mounted);
}

static void detach(struct json_object *common)
{
    int wd = -1;

    MR_AUTO_JSON struct json_object *reply =
        ask_armed(common, "unmount", "{\"arm\": true, \"sync\": true}", &wd);
    assert_text(reply, "result", "unmounted");
    assert_true(wd >= 0);
    assert_true(readable(p.inotify_fd, WAIT_MS)); /* our end sees the worker's watch */
    ask_error(common, "unmap", "{}", "device-held");
    ask_result(common, "claim", "{\"budget_ms\": 3000}", "claimed");
    MR_AUTO_JSON struct json_object *gone = ask_ok(common, "unmap", "{}");
    assert_text(gone, "result", "gone");
    struct json_object *evidence = mr_json_get(gone, "evidence");
    assert_true(mr_json_get_bool(evidence, "exclusive_open", false));
    assert_non_null(mr_json_get_string(evidence, "gone"));
    assert_int_equal(mr_json_get_int(evidence, "diskseq", 0),
                     mr_json_get_int(mr_json_get(common, "identity"), "diskseq", 1));
    ask_result(common, "gone", "{}", "gone");
    ask_result(common, "unmap", "{}", "gone");
    ask_result(common, "claim", "{\"budget_ms\": 0}", "gone");
}

static void full_cycle(const char *fs_type, off_t bytes)
{
    MR_AUTO_JSON struct json_object *common = new_common();
    char image[ENV_PATH];
    char path[ENV_PATH];

    env_image(image, "w.img", bytes);
    start_ready();
    MR_AUTO_JSON struct json_object *before = ask_ok(common, "inspect", "{}");
    assert_false(mr_json_get_bool(before, "found", true));
    attach(common, image, fs_type);
    ask_error(common, "mount",
              "{\"fs_type\": \"xfs\", \"fs_uuid\": \"" UUID_B "\", \"root\": \"/\","
              " \"path\": \"x\"}",
              strcmp(fs_type, "xfs") == 0 ? "device-mismatch" : "wrong-filesystem");
    MR_AUTO_JSON struct json_object *there = ask_ok(common, "inspect", "{}");
    assert_true(mr_json_get_bool(there, "found", false));
    assert_text(there, "mounted", "present");
    assert_true(mr_json_get_bool(there, "on_top", false));
    detach(common);
    assert_int_equal(access(env_path(path, env_mounts, "v"), F_OK), -1);
    assert_int_equal(stop(), 0);
}

static void test_ext4_volume_goes_up_and_down(void **state)
{
    (void)state;
    full_cycle("ext4", ENV_SMALL_BYTES);
}

static void test_xfs_volume_goes_up_and_down(void **state)
{
    (void)state;
    full_cycle("xfs", ENV_XFS_BYTES);
}

/* The attach died between mount(2) and its record: the next worker finds the mount by
 * device and place. */
static void test_next_worker_finds_device_and_mount_of_a_killed_one(void **state)
{
    MR_AUTO_JSON struct json_object *common = new_common();
    char image[ENV_PATH];
    int status = 0;

    (void)state;
    env_image(image, "w.img", ENV_SMALL_BYTES);
    start_ready();
    attach(common, image, "ext4");
    assert_int_equal(kill(p.pid, SIGKILL), 0);
    status = stop();
    assert_true(WIFSIGNALED(status));

    struct json_object *mount = mr_json_get(common, "mount");
    json_object_object_del(mount, "mount");
    json_object_object_del(mount, "id");
    start_ready();
    MR_AUTO_JSON struct json_object *found = ask_ok(common, "inspect", "{}");
    assert_true(mr_json_get_bool(found, "found", false));
    assert_text(found, "mounted", "present");
    take_mount(common, found);
    detach(common);
    assert_int_equal(stop(), 0);
}

static void test_unmap_with_a_plain_opener_is_bound_then_gone(void **state)
{
    MR_AUTO_JSON struct json_object *common = new_common();
    char image[ENV_PATH];

    (void)state;
    env_image(image, "w.img", ENV_SMALL_BYTES);
    start_ready();
    map_image(common, image, "ext4");
    const char *node = mr_json_get_string(mr_json_get(common, "identity"), "node");
    int opener = open(node, O_RDONLY | O_CLOEXEC);
    assert_true(opener >= 0);
    ask_result(common, "claim", "{\"budget_ms\": 0}", "claimed");
    ask_result(common, "unmap", "{}", "bound");
    ask_result(common, "gone", "{}", "bound");
    assert_int_equal(close(opener), 0);
    struct mr_identity identity;
    mr_identity_from_json(&identity, mr_json_get(common, "identity"));
    assert_true(env_wait_gone(&identity));
    MR_AUTO_JSON struct json_object *gone = ask_ok(common, "gone", "{}");
    assert_text(gone, "result", "gone");
    assert_true(mr_json_get_bool(mr_json_get(gone, "evidence"), "exclusive_open", false));
    assert_int_equal(stop(), 0);
}

static pid_t start_server(struct json_object *common)
{
    struct json_object *identity = json_object_new_object();
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            (void)pause();
    }
    mr_json_set_int(identity, "lun_pid", pid);
    mr_json_set_int(identity, "lun_start_time", (int64_t)mr_process_start_time(pid));
    mr_json_set(common, "identity", identity);
    mr_json_set_string(common, "driver", "iscsi");
    return pid;
}

/* There is no trace that would tell: no socket is also what a cleaner leaves. */
static void test_server_without_a_device_is_never_said_to_have_logged_out(void **state)
{
    MR_AUTO_JSON struct json_object *common = new_common();

    (void)state;
    pid_t server = start_server(common);
    start_ready();
    ask_result(common, "gone", "{}", "bound");
    assert_int_equal(kill(server, SIGKILL), 0);
    assert_int_equal(waitpid(server, NULL, 0), server);
    MR_AUTO_JSON struct json_object *gone = ask_ok(common, "gone", "{}");
    assert_text(gone, "result", "gone");
    struct json_object *evidence = mr_json_get(gone, "evidence");
    assert_text(evidence, "lun_server", "exited");
    assert_text(evidence, "session", "unknown");
    assert_false(mr_json_get_bool(evidence, "exclusive_open", true));
    assert_int_equal(stop(), 0);
}

static void test_claim_is_given_back_by_the_end_of_the_worker(void **state)
{
    MR_AUTO_JSON struct json_object *common = new_common();
    char image[ENV_PATH];

    (void)state;
    env_image(image, "w.img", ENV_SMALL_BYTES);
    start_ready();
    map_image(common, image, "ext4");
    const char *node = mr_json_get_string(mr_json_get(common, "identity"), "node");
    int fd = open(node, O_RDONLY | O_EXCL | O_CLOEXEC);
    assert_true(fd >= 0);
    ask_result(common, "claim", "{\"budget_ms\": 5}", "busy");
    assert_int_equal(close(fd), 0);
    MR_AUTO_JSON struct json_object *claim =
        ask_ok(common, "claim", "{\"budget_ms\": 1000}");
    assert_text(claim, "result", "claimed");
    assert_text(claim, "unmap", "deferred");
    assert_int_equal(open(node, O_RDONLY | O_EXCL | O_CLOEXEC), -1);
    assert_int_equal(stop(), 0);
    fd = open(node, O_RDONLY | O_EXCL | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    struct mr_identity identity;
    mr_identity_from_json(&identity, mr_json_get(common, "identity"));
    env_unmap(mr_json_get_string(common, "token"), &identity);
}

/* A detach that is called off after its unmap. */
static void test_keep_takes_a_put_off_unmap_back(void **state)
{
    MR_AUTO_JSON struct json_object *common = new_common();
    char image[ENV_PATH];
    struct mr_identity identity;

    (void)state;
    env_image(image, "w.img", ENV_SMALL_BYTES);
    start_ready();
    map_image(common, image, "ext4");
    mr_identity_from_json(&identity, mr_json_get(common, "identity"));
    ask_result(common, "keep", "{}", "kept"); /* there was nothing to take back */
    int opener = open(identity.node, O_RDONLY | O_CLOEXEC);
    assert_true(opener >= 0);
    ask_result(common, "claim", "{\"budget_ms\": 0}", "claimed");
    ask_result(common, "unmap", "{}", "bound");
    ask_result(common, "keep", "{}", "kept");
    assert_int_equal(close(opener), 0);
    mr_sleep_ns(50 * MR_NS_PER_MS);
    ask_result(common, "gone", "{}", "bound");
    ask_result(common, "claim", "{\"budget_ms\": 1000}", "claimed");
    ask_result(common, "unmap", "{}", "gone");
    ask_result(common, "keep", "{}", "gone");
    assert_int_equal(stop(), 0);
}

static void test_mapping_a_mapped_file_names_the_source(void **state)
{
    MR_AUTO_JSON struct json_object *common = new_common();
    MR_AUTO_JSON struct json_object *second = new_common();
    char image[ENV_PATH];
    char more[DOCUMENT_BYTES];

    (void)state;
    env_image(image, "w.img", ENV_SMALL_BYTES);
    start_ready();
    map_image(common, image, "ext4");
    (void)snprintf(more, sizeof(more),
                   "{\"spec\": {\"source\": {\"driver\": \"file\", \"path\": \"%s\"},"
                   " \"filesystem\": {\"type\": \"ext4\"}, \"mount_path\": \"%s/v\"},"
                   " \"config\": {\"file_roots\": [\"%s\"]}}",
                   image, env_mounts, env_images);
    MR_AUTO_JSON struct json_object *reply = ask(second, "map", more);
    assert_text(mr_json_get(reply, "error"), "code", "source-in-use");
    assert_text(reply, "source_key",
                mr_json_get_string(mr_json_get(common, "identity"), "source_key"));
    ask_result(common, "claim", "{\"budget_ms\": 0}", "claimed");
    ask_result(common, "unmap", "{}", "gone");
    assert_int_equal(stop(), 0);
}

static void test_bad_commands_are_error_replies(void **state)
{
    static const char *const commands[] = {
        "inspect", "map",   "identify", "check", "format",  "mount", "unmount",
        "claim",   "unmap", "gone",     "keep",  "examine", "act"};
    static const char *const members[] = {
        "{}",
        "{\"token\": 5, \"identity\": [], \"mount\": 7, \"spec\": 1, \"config\": \"x\"}",
        "{\"driver\": \"nvme\", \"token\": \"../../etc\", \"runtime_dir\": \"/\"}",
        "{\"identity\": {\"node\": \"/etc/passwd\", \"major\": 7, \"diskseq\": 1}}",
        "{\"identity\": {\"node\": \"/dev/../etc/x\", \"major\": 7, \"diskseq\": 1}}",
        "{\"identity\": {\"node\": \"/dev/loop0\", \"major\": 7, \"minor\": 0, "
        "\"diskseq\": 1},"
        " \"mount\": {\"root\": \"relative\", \"path\": \"../..\"}, \"budget_ms\": -1}",
    };
    MR_AUTO_JSON struct json_object *none = json_object_new_object();

    (void)state;
    start_ready();
    for (size_t c = 0; c < sizeof(commands) / sizeof(commands[0]); c++) {
        for (size_t m = 0; m < sizeof(members) / sizeof(members[0]); m++) {
            MR_AUTO_JSON struct json_object *reply = ask(none, commands[c], members[m]);
            assert_false(mr_json_get_bool(reply, "ok", true));
        }
    }
    ask_error(none, "reboot", "{}", "internal");
    MR_AUTO_JSON struct json_object *list = json_tokener_parse("[1, 2]");
    struct mr_err err = {0};
    assert_int_equal(mr_msg_send(p.channel, list, -1, 0, &err), 0);
    (void)json_object_put(receive());
    assert_int_equal(send(p.channel, "{\"cmd\":", 7, MSG_NOSIGNAL), 7);
    MR_AUTO_JSON struct json_object *reply = receive();
    assert_false(mr_json_get_bool(reply, "ok", true));
    assert_int_equal(stop(), 0);
}

static void test_ready_comes_only_with_the_lock(void **state)
{

    (void)state;
    int lock = open(lock_path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    start();
    assert_false(readable(p.channel, 100));
    assert_int_equal(close(lock), 0);
    MR_AUTO_JSON struct json_object *event = receive();
    assert_text(event, "event", "ready");
    /* and it is really held */
    lock = open(lock_path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), -1);
    assert_int_equal(stop(), 0);
    assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(close(lock), 0);
}

static void test_replaced_lock_file_is_locked_afresh(void **state)
{

    (void)state;
    int lock = open(lock_path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    start();
    assert_false(readable(p.channel, 100));
    assert_int_equal(unlink(lock_path), 0);
    assert_int_equal(close(lock), 0);
    MR_AUTO_JSON struct json_object *event = receive();
    assert_text(event, "event", "ready");
    lock = open(lock_path, O_RDWR | O_CLOEXEC);
    assert_true(lock >= 0); /* made again */
    assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), -1);
    assert_int_equal(close(lock), 0);
    assert_int_equal(stop(), 0);
}

static void test_waiting_for_the_lock_ends_when_the_agent_dies(void **state)
{

    (void)state;
    int lock = open(lock_path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    start();
    assert_false(readable(p.channel, 50));
    assert_int_equal(stop(), 0);
    assert_int_equal(close(lock), 0);
}

static void test_every_fd_of_the_worker_is_close_on_exec(void **state)
{
    char path[ENV_PATH];
    char info[256];
    unsigned seen = 0;

    (void)state;
    start_ready();
    for (int fd = 3; fd < 256; fd++) {
        (void)snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)p.pid, fd);
        if (mr_read_text(AT_FDCWD, path, info, sizeof(info)) <= 0)
            continue;
        const char *flags = strstr(info, "flags:");
        assert_non_null(flags);
        if (!(strtoul(flags + 6, NULL, 8) & O_CLOEXEC))
            fail_msg("fd %d: %s", fd, info);
        seen++;
    }
    assert_true(seen >= 3); /* channel, inotify, lock */
    assert_int_equal(stop(), 0);
}

static void test_wrong_usage_is_status_64(void **state)
{
    const char *const argv[] = {MR_WORKER_PROGRAM, "volume", NULL};
    char output[400];
    struct mr_err err = {0};

    (void)state;
    assert_int_equal(mr_spawn_run(argv, NULL, 0, mr_now_ns() + 10 * MR_NS_PER_S, output,
                                  sizeof(output), &err),
                     64);
    assert_non_null(strstr(output, "usage:"));
}

#define WITH_WORKER(test) cmocka_unit_test_teardown(test, teardown)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORKER(test_ext4_volume_goes_up_and_down),
        WITH_WORKER(test_xfs_volume_goes_up_and_down),
        WITH_WORKER(test_next_worker_finds_device_and_mount_of_a_killed_one),
        WITH_WORKER(test_unmap_with_a_plain_opener_is_bound_then_gone),
        WITH_WORKER(test_server_without_a_device_is_never_said_to_have_logged_out),
        cmocka_unit_test(test_claim_is_given_back_by_the_end_of_the_worker),
        WITH_WORKER(test_keep_takes_a_put_off_unmap_back),
        WITH_WORKER(test_mapping_a_mapped_file_names_the_source),
        WITH_WORKER(test_bad_commands_are_error_replies),
        WITH_WORKER(test_ready_comes_only_with_the_lock),
        WITH_WORKER(test_replaced_lock_file_is_locked_afresh),
        WITH_WORKER(test_waiting_for_the_lock_ends_when_the_agent_dies),
        WITH_WORKER(test_every_fd_of_the_worker_is_close_on_exec),
        WITH_WORKER(test_wrong_usage_is_status_64),
    };

    /* What this test got from outside must not pass for the worker's own. */
    if (close_range(3, UINT_MAX, CLOSE_RANGE_CLOEXEC) < 0)
        return 1;
    env_path(lock_path, env_dir, "volume.lock");
    return cmocka_run_group_tests_name("worker process", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
