/* SPDX-License-Identifier: Apache-2.0
 *
 * Fakes of mooring-lun at its control socket, each a child of the test: an old one, a
 * newer one, a mute one. They end with the test.
 */
#ifndef MR_TESTS_UNIT_TEST_WORKER_LUN_ENV_H
#define MR_TESTS_UNIT_TEST_WORKER_LUN_ENV_H

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "storage/base/msg.h"
#include "storage/worker/lun_server.h"
#include "tests/unit/test_worker_env.h"

#define FAKES_MAX 8

/* Answers one request with a new reference, NULL to say nothing. */
typedef struct json_object *(*fake_fn)(const char *token, struct json_object *request);

static pid_t fakes[FAKES_MAX];

static inline const char *fake_socket(char dst[ENV_PATH], const char *token)
{
    assert_int_equal(mr_format(dst, ENV_PATH, "%s/lun/%s.sock", env_dir, token), 0);
    return dst;
}

static inline int fake_listen(const char *token, int backlog)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[ENV_PATH];
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    (void)mkdir(env_path(path, env_dir, "lun"), 0700);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/lun/%s.sock", env_dir,
                   token);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static inline void fake_serve(int listen_fd, const char *token, fake_fn fn)
{
    for (;;) {
        MR_AUTO_CLOSE int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
        for (;;) {
            MR_AUTO_JSON struct json_object *request = NULL;
            if (fd < 0 || mr_msg_recv(fd, &request, NULL, 0, NULL) <= 0)
                break;
            MR_AUTO_JSON struct json_object *answer = fn(token, request);
            if (answer && mr_msg_send(fd, answer, -1, 0, NULL) < 0)
                break;
        }
    }
}

/* In a child, which owns the address: that belongs to who listened last (unix(7),
 * SO_PEERCRED). fn NULL: it accepts nobody. */
static inline pid_t fake_start_queue(const char *token, fake_fn fn, int backlog)
{
    int listen_fd = fake_listen(token, backlog);
    size_t i = 0;
    int ready[2];
    char byte;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (listen(listen_fd, backlog) < 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        while (!fn)
            (void)pause();
        fake_serve(listen_fd, token, fn);
    }
    assert_true(pid > 0);
    while (fakes[i] != 0)
        i++;
    fakes[i] = pid;
    (void)close(listen_fd);
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    return pid;
}

static inline pid_t fake_start(const char *token, fake_fn fn)
{
    return fake_start_queue(token, fn, 8);
}

static inline struct mr_lun_server fake_server(pid_t pid)
{
    return (struct mr_lun_server){.pid = pid, .start_time = mr_process_start_time(pid)};
}

static inline void fake_reap(pid_t pid)
{
    for (size_t i = 0; i < FAKES_MAX; i++) {
        if (fakes[i] == pid)
            fakes[i] = 0;
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static inline void fake_stop(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    fake_reap(pid);
}

static inline void fake_stop_all(void)
{
    for (size_t i = 0; i < FAKES_MAX; i++) {
        if (fakes[i] > 0)
            fake_stop(fakes[i]);
    }
}

/* What every version says. */
static inline struct json_object *fake_status(const char *token, int64_t version)
{
    struct json_object *json = json_object_new_object();

    mr_json_set_int(json, "version", version);
    mr_json_set_bool(json, "ok", true);
    mr_json_set_string(json, "token", token);
    mr_json_set_int(json, "pid", getpid());
    mr_json_set_string(json, "state", "up");
    mr_json_set_string(json, "target", "iqn.2026-11.example.test:disk1");
    mr_json_set_int(json, "lun", 3);
    mr_json_set_string(json, "portal", "127.0.0.1:3260");
    mr_json_set_string(json, "serial", "SER 1");
    return json;
}

/* Before there were versions: the one in the request is ignored. */
static inline struct json_object *fake_old(const char *token, struct json_object *request)
{
    const char *cmd = mr_json_get_string(request, "cmd");
    struct json_object *json = fake_status(token, 1);

    mr_json_set_bool(json, "cut", cmd && strcmp(cmd, "cut") == 0);
    return json;
}

/* Speaks `oldest` to `newest`, and refuses what is asked in another version. */
static inline struct json_object *
fake_range(const char *token, struct json_object *request, int64_t oldest, int64_t newest)
{
    int64_t version = mr_json_get_int(request, "version", 1);
    const char *cmd = mr_json_get_string(request, "cmd");
    struct json_object *json = fake_status(token, newest);

    mr_json_set_int(json, "oldest", oldest);
    mr_json_set_int(json, "asked", version);
    mr_json_set_bool(json, "ok", version >= oldest && version <= newest);
    if (version >= oldest && version <= newest)
        mr_json_set_bool(json, "cut", cmd && strcmp(cmd, "cut") == 0);
    return json;
}

static inline struct json_object *fake_newer(const char *token,
                                             struct json_object *request)
{
    return fake_range(token, request, 1000, 1002);
}

#endif
