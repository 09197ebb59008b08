/* SPDX-License-Identifier: Apache-2.0
 *
 * search: servers that no journal knows, also silent and nameless ones, and none of
 * somebody else's.
 */
#include <grp.h>
#include <stddef.h>

#include "tests/unit/test_worker_search_env.h"

#define FLOOD (MR_ORPHANS_MAX + 20)

static void test_server_without_a_device_is_an_orphan(void **state)
{
    char path[ENV_PATH];

    (void)state;
    pid_t pid = fake_start(env_token(token), fake_old);
    struct json_object *orphan = find_one(true, token);
    struct json_object *server = mr_json_get(orphan, "server");
    struct json_object *source = mr_json_get(orphan, "source");
    assert_text(orphan, "driver", "iscsi");
    assert_null_member(orphan, "identity");
    assert_null_member(orphan, "backing_file");
    assert_int_equal(mr_json_get_int(server, "pid", 0), pid);
    assert_int_equal(mr_json_get_int(server, "start_time", 0),
                     mr_process_start_time(pid));
    assert_text(server, "socket", fake_socket(path, token));
    assert_text(server, "state", "up");
    assert_text(source, "target", "iqn.2026-11.example.test:disk1");
    assert_int_equal(mr_json_get_int(source, "lun", -1), 3);
    assert_string_equal(json_object_get_string(
                            json_object_array_get_idx(mr_json_get(source, "portals"), 0)),
                        "127.0.0.1:3260");
    know_token(token);
    assert_none(true);
}

static void test_server_and_its_device_are_one_orphan(void **state)
{
    struct fuse_server server;
    struct mr_identity found;

    (void)state;
    fuse_start(&server, "test");
    pid_t pid = fake_start(env_token(token), fake_old);
    fuse_map(&server, token);
    struct json_object *orphan = find_one(true, token);
    assert_int_equal(json_object_array_length(mr_json_get(last_reply, "orphans")), 1);
    mr_identity_from_json(&found, mr_json_get(orphan, "identity"));
    assert_int_equal(found.diskseq, server.device.diskseq);
    assert_int_equal(found.lun_pid, pid);
    assert_int_equal(found.lun_start_time, mr_process_start_time(pid));
    assert_string_equal(found.serial, "SER 1");
    assert_string_equal(found.source_key, "iscsi:iqn.2026-11.example.test:disk1:3");
    assert_text(mr_json_get(orphan, "server"), "state", "up");
    fuse_end(&server);
}

static void test_socket_that_nobody_listens_on_is_none(void **state)
{
    (void)state;
    pid_t pid = fake_start(env_token(token), fake_old);
    fake_stop(pid);
    assert_none(true);
}

/* One accepts and says nothing, one does not even accept, one speaks a language of the
 * future. */
static void test_silent_servers_are_listed_as_mute(void **state)
{
    char full[MR_TOKEN_TEXT];
    char newer[MR_TOKEN_TEXT];
    struct mr_lun_server peer;

    (void)state;
    (void)fake_start(env_token(token), NULL);
    pid_t blocked = fake_start_queue(env_token(full), NULL, 0);
    MR_AUTO_CLOSE int first = mr_lun_connect(env_dir, full, &peer);
    assert_true(first >= 0);
    assert_int_equal(mr_lun_connect(env_dir, full, &peer), -EAGAIN);
    (void)fake_start(env_token(newer), fake_newer);
    int64_t start_ns = mr_now_ns();
    struct json_object *orphans = search(true);
    assert_true(mr_now_ns() - start_ns < 2 * MR_NS_PER_S);
    assert_text(mr_json_get(find(orphans, token), "server"), "state", "mute");
    struct json_object *server = mr_json_get(find(orphans, full), "server");
    assert_text(server, "state", "mute");
    assert_int_equal(mr_json_get_int(server, "pid", 0), blocked);
    assert_text(mr_json_get(find(orphans, newer), "server"), "state", "incompatible");
    assert_null_member(find(orphans, newer), "source");
}

/* A cleaner of the runtime directory was here. */
static void test_server_whose_socket_was_unlinked_is_found(void **state)
{
    char path[ENV_PATH];

    (void)state;
    pid_t pid = fake_start(env_token(token), fake_old);
    assert_int_equal(unlink(fake_socket(path, token)), 0);
    struct json_object *server = mr_json_get(find_one(true, token), "server");
    assert_int_equal(mr_json_get_int(server, "pid", 0), pid);
    assert_text(server, "state", "mute");
    know_token(token);
    assert_none(true);
}

/* A child without rights, in this root directory, that binds a name and keeps it. */
static pid_t nobody_start(const char *root, void (*bind_name)(void))
{
    size_t i = 0;
    int ready[2];
    char byte;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (chroot(root) < 0 || chdir("/") < 0 || setgroups(0, NULL) < 0 ||
            setgid(65534) < 0 || setuid(65534) < 0)
            _exit(1);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* setuid(2) would have cleared it */
        bind_name();
        if (write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            (void)pause();
    }
    assert_true(pid > 0);
    while (fakes[i] != 0)
        i++;
    fakes[i] = pid;
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    return pid;
}

/* A name like ours, in a root directory of his own. */
static void bind_our_name(void)
{
    (void)fake_listen(token, 8);
}

static void test_socket_of_somebody_else_is_no_server_of_ours(void **state)
{
    char path[2 * ENV_PATH];
    char jail[ENV_PATH];

    (void)state;
    (void)env_token(token);
    (void)snprintf(path, sizeof(path), "%s/jail%s/lun", env_dir, env_dir);
    assert_int_equal(mr_mkdir_p(path, 0755), 0);
    assert_int_equal(chown(path, 65534, 65534), 0);
    pid_t pid = nobody_start(env_path(jail, env_dir, "jail"), bind_our_name);
    assert_none(true);
    fake_stop(pid);
}

/* Of the socket that is bound to the name of this token. */
static unsigned long socket_inode(const char *its)
{
    MR_AUTO_FREE char *table = NULL;
    char path[ENV_PATH];
    unsigned long inode = 0;

    assert_true(mr_read_file(AT_FDCWD, "/proc/net/unix", 1 << 24, &table) > 0);
    char *end = strstr(table, fake_socket(path, its));
    assert_non_null(end);
    end[-1] = '\0';
    assert_int_equal(sscanf(strrchr(table, ' '), "%lu", &inode), 1);
    return inode;
}

static unsigned long forged_inode;

/* An abstract name with a whole line of /proc/net/unix in it. */
static void bind_forged_line(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (mr_format(address.sun_path + 1, sizeof(address.sun_path) - 1,
                  "\n0: 0 0 10000 1 1 %lu %s/lun/%s.sock", forged_inode, env_dir,
                  "ffffffffffffffffffffffffffffffff") < 0 ||
        bind(fd, (const struct sockaddr *)&address,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                         strlen(address.sun_path + 1))) < 0)
        _exit(1);
}

/* It would be ended as an orphan. */
static void test_forged_line_makes_no_orphan_of_a_known_server(void **state)
{
    (void)state;
    (void)fake_start(env_token(token), fake_old);
    know_token(token);
    forged_inode = socket_inode(token);
    (void)nobody_start("/", bind_forged_line);
    assert_none(true);
}

static struct json_object *answer_hostile(const char *its, struct json_object *request)
{
    struct json_object *json = fake_old(its, request);

    mr_json_set_string(json, "state", "up\n\x1b[2J");
    mr_json_set_string(json, "target", "iqn.2026-11.example:\x07");
    mr_json_set_int(json, "portal", 5);
    mr_json_set_int(json, "lun", 70000);
    mr_json_set_int(json, "serial", 5);
    return json;
}

static struct json_object *answer_bad_source(const char *its, struct json_object *request)
{
    struct json_object *json = fake_old(its, request);

    mr_json_set_string(json, "portal", "no portal at all\n");
    return json;
}

static struct json_object *answer_as_another(const char *its, struct json_object *request)
{
    struct json_object *json = fake_old(its, request);

    mr_json_set_int(json, "pid", 1);
    return json;
}

static void test_hostile_status_is_not_passed_on(void **state)
{
    char bad[MR_TOKEN_TEXT];
    char another[MR_TOKEN_TEXT];

    (void)state;
    (void)fake_start(env_token(token), answer_hostile);
    (void)fake_start(env_token(bad), answer_bad_source);
    (void)fake_start(env_token(another), answer_as_another);
    struct json_object *orphans = search(true);
    assert_text(mr_json_get(find(orphans, token), "server"), "state", "mute");
    assert_null_member(find(orphans, token), "source");
    assert_text(mr_json_get(find(orphans, bad), "server"), "state", "up");
    assert_null_member(find(orphans, bad), "source");
    assert_null_member(find(orphans, another), "source");
}

static void test_other_files_among_the_sockets_are_left_alone(void **state)
{
    static const char *const names[] = {"x",
                                        "x.sock",
                                        ".sock",
                                        "..sock",
                                        "00112233445566778899aabbccddeeff",
                                        "00112233445566778899aabbccddeeff.sock.sock",
                                        "00112233445566778899AABBCCDDEEFF.sock"};
    char path[ENV_PATH];
    char lun[ENV_PATH];

    (void)state;
    (void)mkdir(env_path(lun, env_dir, "lun"), 0700);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        MR_AUTO_CLOSE int fd =
            open(env_path(path, lun, names[i]), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
    }
    assert_none(true);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(unlink(env_path(path, lun, names[i])), 0);
}

static void test_number_of_orphans_is_bounded(void **state)
{
    char tokens_of_flood[FLOOD][MR_TOKEN_TEXT];
    int fds[FLOOD];
    char path[ENV_PATH];

    (void)state;
    for (size_t i = 0; i < FLOOD; i++)
        fds[i] = fake_listen(env_token(tokens_of_flood[i]), 8);
    struct json_object *orphans = search(false);
    for (size_t i = 0; i < FLOOD; i++) {
        (void)close(fds[i]);
        (void)unlink(fake_socket(path, tokens_of_flood[i]));
    }
    assert_int_equal(json_object_array_length(orphans), MR_ORPHANS_MAX);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        SEARCH_TEST(test_server_without_a_device_is_an_orphan),
        SEARCH_TEST(test_server_and_its_device_are_one_orphan),
        SEARCH_TEST(test_socket_that_nobody_listens_on_is_none),
        SEARCH_TEST(test_silent_servers_are_listed_as_mute),
        SEARCH_TEST(test_server_whose_socket_was_unlinked_is_found),
        SEARCH_TEST(test_socket_of_somebody_else_is_no_server_of_ours),
        SEARCH_TEST(test_forged_line_makes_no_orphan_of_a_known_server),
        SEARCH_TEST(test_hostile_status_is_not_passed_on),
        SEARCH_TEST(test_other_files_among_the_sockets_are_left_alone),
        SEARCH_TEST(test_number_of_orphans_is_bounded),
    };

    return cmocka_run_group_tests_name("survey: search for servers", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
