/* SPDX-License-Identifier: Apache-2.0
 *
 * cut-transport on a real iSCSI target (tgtd on a loopback port of its own) that has
 * fallen silent: what hung on the device comes back, and the device can be let go.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "storage/worker/lun_server.h"
#include "tests/unit/test_worker_action_env.h"

#define TARGET "iqn.2026-11.example.test:cut"
#define TGTD "/usr/sbin/tgtd"

struct target {
    pid_t pid;
    char portal[32];
    char socket[ENV_PATH]; /* of tgtadm */
};

static struct target target;
/* Keeps the loop device for as long as we live, and no longer: it has AUTOCLEAR. */
static int guard_fd = -1;

static void free_portal(char dst[32])
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    MR_AUTO_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    (void)snprintf(dst, 32, "127.0.0.1:%u", ntohs(address.sin_port));
}

#define TGTADM(...)                                                                      \
    (const char *const[])                                                                \
    {                                                                                    \
        "/usr/bin/env", target.socket, "tgtadm", "-C", "1", "--lld", "iscsi", "--op",    \
            __VA_ARGS__, NULL                                                            \
    }

static int admin(const char *const *argv)
{
    char output[2000] = "";

    return mr_spawn_run(argv, NULL, 0, mr_now_ns() + 10 * MR_NS_PER_S, output,
                        sizeof(output), NULL);
}

static void target_start(void)
{
    char portal[64];
    char image[ENV_PATH];
    char variable[ENV_PATH];

    free_portal(target.portal);
    (void)snprintf(portal, sizeof(portal), "portal=%s", target.portal);
    (void)snprintf(variable, sizeof(variable), "TGT_IPC_SOCKET=%s/tgt", env_dir);
    memcpy(target.socket, variable, sizeof(variable));
    env_image(image, "lun.img", ENV_SMALL_BYTES);
    target.pid = fork();
    if (target.pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        MR_AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        (void)putenv(variable);
        (void)execl(TGTD, "tgtd", "-f", "-C", "1", "--iscsi", portal, NULL);
        _exit(127);
    }
    for (int i = 0; i < 200 && admin(TGTADM("show", "--mode", "target")) != 0; i++)
        mr_sleep_ns(20 * MR_NS_PER_MS);
    assert_int_equal(
        admin(TGTADM("new", "--mode", "target", "--tid", "1", "--targetname", TARGET)),
        0);
    assert_int_equal(admin(TGTADM("bind", "--mode", "target", "--tid", "1",
                                  "--initiator-address", "127.0.0.1")),
                     0);
    assert_int_equal(admin(TGTADM("new", "--mode", "logicalunit", "--tid", "1", "--lun",
                                  "1", "--backing-store", image)),
                     0);
}

static void target_stop(void)
{
    (void)kill(target.pid, SIGKILL);
    assert_int_equal(waitpid(target.pid, NULL, 0), target.pid);
    target.pid = 0;
}

static void set_autoclear(void)
{
    struct loop_info64 info;

    guard_fd = open(vol.identity.node, O_RDONLY | O_CLOEXEC);
    assert_int_equal(ioctl(guard_fd, LOOP_GET_STATUS64, &info), 0);
    info.lo_flags |= LO_FLAGS_AUTOCLEAR;
    assert_int_equal(ioctl(guard_fd, LOOP_SET_STATUS64, &info), 0);
}

static int map_target(const char *token, struct mr_identity *ret, struct mr_err *err)
{
    char libexec[] = MR_WORKER_PROGRAM;
    MR_AUTO_JSON struct json_object *source = json_object_new_object();
    struct json_object *portals = json_object_new_array();
    struct mr_spec spec = {.driver = "iscsi", .source = source};
    struct mr_map_request request = {
        .token = token,
        .spec = &spec,
        .runtime_dir = env_dir,
        .libexec_dir = libexec,
        .initiator_name = "iqn.2026-11.example.test:initiator",
        .iscsi_timeout_ms = 60000, /* nothing ends by itself in time */
    };
    char *slash = strrchr(libexec, '/');

    if (slash)
        *slash = '\0';
    (void)json_object_array_add(portals, json_object_new_string(target.portal));
    mr_json_set(source, "portals", portals);
    mr_json_set_string(source, "target", TARGET);
    mr_json_set_int(source, "lun", 1);
    return mr_driver_iscsi.map(&request, ret, err);
}

static void volume_from_target(void)
{
    struct mr_err err = {0};

    vol.driver = "iscsi";
    vol.fs_type = "ext4";
    env_path(vol.path, env_mounts, "v");
    if (map_target(env_token(vol.token), &vol.identity, &err) < 0)
        fail_msg("map: %s", err.message);
    set_autoclear();
    volume_format();
    volume_mount(NULL);
}

static bool writes(const void *path)
{
    char name[ENV_PATH];
    char block[4096];
    int fd = open(env_path(name, path, "f"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    memset(block, 'x', sizeof(block));
    return fd >= 0 && write(fd, block, sizeof(block)) == sizeof(block) && close(fd) == 0;
}

/* A child that waits for the dead device in umount2(2). */
static pid_t unmount_in_child(void)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(umount2(vol.path, 0) == 0 ? 0 : 1);
    assert_true(pid > 0);
    mr_sleep_ns(300 * MR_NS_PER_MS);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    return pid;
}

static void assert_ends(pid_t pid)
{
    int status = -1;

    for (int i = 0; i < 500 && waitpid(pid, &status, WNOHANG) == 0; i++)
        mr_sleep_ns(10 * MR_NS_PER_MS);
    assert_int_equal(status, 0);
}

static void unmap_after_cut(void)
{
    MR_AUTO_JSON struct json_object *evidence = json_object_new_object();
    struct mr_err err = {0};
    unsigned tries = 0;
    int claim = -1;

    assert_int_equal(mr_claim(&vol.identity, 3000, &claim, &tries, &err), MR_CLAIM_OK);
    mr_close(&guard_fd);
    assert_int_equal(
        mr_driver_iscsi.unmap(vol.token, env_dir, &vol.identity, claim, &err), 0);
    assert_true(env_wait_gone(&vol.identity));
    assert_int_equal(
        mr_driver_iscsi.finished(vol.token, env_dir, &vol.identity, 5000, evidence), 1);
    assert_string_equal(mr_json_get_string(evidence, "session"), "not-logged-out");
    assert_int_equal(waitpid(vol.identity.lun_pid, NULL, 0), vol.identity.lun_pid);
}

static void cut(bool own, const char *detail)
{
    act("cut-transport", own, NULL, true, detail);
}

static void test_what_hangs_on_a_silent_target_comes_back_by_a_cut(void **state)
{
    (void)state;
    target_start();
    volume_from_target();
    assert_true(writes(vol.path));
    assert_int_equal(kill(target.pid, SIGSTOP), 0);
    pid_t hanging = unmount_in_child();
    int64_t start_ns = mr_now_ns();
    cut(false, "dropped the session without logout");
    assert_ends(hanging);
    assert_true(mr_now_ns() - start_ns < 5 * MR_NS_PER_S);
    cut(false, "dropped the session"); /* again does no harm */
    unmap_after_cut();
}

static void test_shutdown_of_a_silent_device_is_bounded_and_cut_ends_it(void **state)
{
    (void)state;
    target_start();
    volume_from_target();
    assert_true(writes(vol.path));
    assert_int_equal(kill(target.pid, SIGSTOP), 0);
    int64_t start_ns = mr_now_ns();
    act("shutdown", true, NULL, false, "syncfs did not end within 5 s");
    assert_true(mr_now_ns() - start_ns < 13 * MR_NS_PER_S);
    cut(true, "dropped the session");
    for (int i = 0; i < 300 && umount2(vol.path, 0) < 0; i++)
        mr_sleep_ns(10 * MR_NS_PER_MS);
    unmap_after_cut();
}

/* The child of mooring-lun that does the I/O. */
static pid_t io_server(void)
{
    MR_AUTO_JSON struct json_object *status = NULL;
    struct mr_lun_server keeper = {0};
    struct mr_err err = {0};
    MR_AUTO_CLOSE int fd = mr_lun_connect(env_dir, vol.token, &keeper);

    assert_true(fd >= 0);
    assert_int_equal(mr_lun_ask(fd, "status", vol.token, 2000, &status, &err), 0);
    pid_t pid = (pid_t)mr_json_get_int(status, "server_pid", 0);
    assert_true(pid > 0);
    return pid;
}

static void test_stopped_io_server_is_ended_by_its_keeper(void **state)
{
    (void)state;
    target_start();
    volume_from_target();
    assert_true(writes(vol.path));
    assert_int_equal(kill(io_server(), SIGSTOP), 0);
    pid_t hanging = unmount_in_child();
    int64_t start_ns = mr_now_ns();
    cut(false, "its FUSE connection aborted");
    assert_ends(hanging);
    assert_true(mr_now_ns() - start_ns < 5 * MR_NS_PER_S);
    cut(false, "has ended before");
    unmap_after_cut();
}

static void test_server_that_does_not_answer_is_killed(void **state)
{
    (void)state;
    target_start();
    volume_from_target();
    assert_true(writes(vol.path));
    assert_int_equal(kill(io_server(), SIGSTOP), 0);
    assert_int_equal(kill(vol.identity.lun_pid, SIGSTOP), 0);
    pid_t hanging = unmount_in_child();
    cut(false, "did not answer and was killed");
    assert_ends(hanging);
    cut(false, "has ended before");
    unmap_after_cut();
}

/* The number of the server may be another process's by now. */
static void test_only_the_recorded_server_is_killed(void **state)
{
    char socket_path[ENV_PATH];

    (void)state;
    pid_t bystander = helper_start(hold_nothing, NULL);
    target_start();
    volume_from_target();
    struct mr_identity recorded = vol.identity;
    vol.identity.lun_pid = bystander;
    (void)snprintf(socket_path, sizeof(socket_path), "%s/lun/%s.sock", env_dir,
                   vol.token);
    char hidden[ENV_PATH];
    assert_int_equal(rename(socket_path, env_path(hidden, env_dir, "hidden")), 0);
    cut(true, "has ended before");
    assert_true(helper_lives(bystander));
    assert_int_equal(kill(recorded.lun_pid, 0), 0);
    vol.identity = recorded;
    cut(true, "was killed");
    assert_int_equal(rename(hidden, socket_path), 0);
    (void)umount2(vol.path, 0);
    unmap_after_cut();
}

/* Whatever the journal says, or does not. */
static void test_served_lun_is_not_served_a_second_time(void **state)
{
    char second[MR_TOKEN_TEXT];
    struct mr_identity refused;
    struct mr_err err = {0};

    (void)state;
    target_start();
    volume_from_target();
    assert_true(map_target(env_token(second), &refused, &err) < 0);
    assert_int_equal(err.code, MR_E_SOURCE_IN_USE);
    assert_string_equal(refused.source_key, vol.identity.source_key);
    assert_int_equal(refused.diskseq, 0);
    assert_non_null(strstr(err.message, vol.token));
    assert_non_null(strstr(err.message, vol.identity.node));
    cut(true, "dropped the session");
    (void)umount2(vol.path, 0);
    unmap_after_cut();
    /* With the server the lock went. */
    assert_int_equal(map_target(second, &vol.identity, &err), 0);
    memcpy(vol.token, second, sizeof(second));
    set_autoclear();
    assert_int_equal(kill(vol.identity.lun_pid, SIGKILL), 0);
    unmap_after_cut();
}

static int after(void **state)
{
    if (target.pid > 0) {
        (void)kill(target.pid, SIGCONT);
        target_stop();
    }
    mr_close(&guard_fd);
    return env_after(state);
}

#define CUT_TEST(test) cmocka_unit_test_setup_teardown(test, env_before, after)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        CUT_TEST(test_what_hangs_on_a_silent_target_comes_back_by_a_cut),
        CUT_TEST(test_shutdown_of_a_silent_device_is_bounded_and_cut_ends_it),
        CUT_TEST(test_stopped_io_server_is_ended_by_its_keeper),
        CUT_TEST(test_server_that_does_not_answer_is_killed),
        CUT_TEST(test_only_the_recorded_server_is_killed),
        CUT_TEST(test_served_lun_is_not_served_a_second_time),
    };

    return cmocka_run_group_tests_name("cutting the transport", tests, NULL, NULL);
}

int main(void)
{
    if (access(TGTD, X_OK) < 0) {
        (void)fprintf(stderr, "SKIPPED: needs tgtd\n");
        return 77;
    }
    return env_main(run);
}
