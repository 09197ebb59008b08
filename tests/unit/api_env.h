/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of the API over real sockets: the server in a child process with an engine
 * that only pretends (fake_engine.h says what it does), and a client that sends bytes as
 * they are. The child must end cleanly, leaks included.
 */
#ifndef MR_TESTS_UNIT_API_ENV_H
#define MR_TESTS_UNIT_API_ENV_H

#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/server.h"
#include "fake_engine.h"
#include "storage/base/clock.h"
#include "storage/base/json.h"

#define TIMEOUT_MS 8000

static pid_t server;
static struct sockaddr_un unix_address = {.sun_family = AF_UNIX};
static struct sockaddr_in tcp_address = {.sin_family = AF_INET};

/* --- the server's side --- */

struct child {
    struct mr_loop *loop;
    struct mr_engine *engine;
    int signals;
};

static void on_signal(void *ctx, uint32_t events)
{
    struct child *child = ctx;
    struct signalfd_siginfo info;
    (void)events;
    if (read(child->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (info.ssi_signo == SIGUSR1)
        fake_engine_set_recovering(child->engine, !mr_engine_recovering(child->engine));
    else
        mr_loop_stop(child->loop);
}

static int serve(int unix_fd, int tcp_fd, const sigset_t *set)
{
    static char root[] = "/volumes-root";
    static struct mr_config config = {.mount_roots = {.path = {root}, .count = 1}};
    struct child child = {.signals = signalfd(-1, set, SFD_CLOEXEC)};
    struct mr_io *io = NULL;
    struct mr_api *api = NULL;
    struct mr_err err;

    (void)signal(SIGPIPE, SIG_IGN);
    int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
    (void)dup2(quiet, STDERR_FILENO);
    (void)close(quiet);
    if (mr_loop_new(&child.loop, &err) < 0 ||
        mr_engine_new(child.loop, &config, &child.engine, &err) < 0 ||
        mr_api_new(child.loop, child.engine, &config, &api, &err) < 0 ||
        mr_api_listen(api, unix_fd, &err) < 0 || mr_api_listen(api, tcp_fd, &err) < 0 ||
        mr_loop_add(child.loop, child.signals, EPOLLIN, on_signal, &child, &io, &err) <
            0 ||
        mr_loop_run(child.loop, &err) < 0)
        return 1;
    mr_api_stop(api);
    mr_api_free(api);
    mr_engine_free(child.engine);
    mr_io_remove(io);
    mr_loop_free(child.loop);
    (void)close(child.signals);
    return 0;
}

static inline int start_server(void **state)
{
    socklen_t bytes = sizeof(tcp_address);
    sigset_t set;
    (void)state;

    (void)signal(SIGPIPE, SIG_IGN);
    (void)snprintf(unix_address.sun_path, sizeof(unix_address.sun_path),
                   "/tmp/mr-api-%d.sock", getpid());
    tcp_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    tcp_address.sin_port = 0;
    int unix_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int tcp_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(unix_fd, (struct sockaddr *)&unix_address, sizeof(unix_address)) != 0 ||
        bind(tcp_fd, (struct sockaddr *)&tcp_address, sizeof(tcp_address)) != 0 ||
        getsockname(tcp_fd, (struct sockaddr *)&tcp_address, &bytes) != 0 ||
        listen(unix_fd, 64) != 0 || listen(tcp_fd, 64) != 0)
        return -1;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGUSR1);
    (void)sigprocmask(SIG_BLOCK, &set,
                      NULL); /* also before the child's signalfd exists */
    server = fork();
    if (server == 0)
        exit(serve(unix_fd, tcp_fd, &set));
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
    (void)close(unix_fd);
    (void)close(tcp_fd);
    return server > 0 ? 0 : -1;
}

static inline int stop_server(void **state)
{
    int status = -1;
    (void)state;
    if (server > 0) {
        (void)kill(server, SIGTERM);
        (void)waitpid(server, &status, 0);
        server = 0;
    }
    (void)unlink(unix_address.sun_path);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

/* --- the client's side --- */

struct answer {
    char text[128 * 1024]; /* head and body */
    size_t bytes;
    int status; /* 0: the connection was closed without an answer */
    const char *body;
};

static struct answer answer;

static inline int open_to(const void *address, socklen_t bytes, int family)
{
    struct timeval limit = {.tv_sec = TIMEOUT_MS / 1000};
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    assert_int_equal(connect(fd, address, bytes), 0);
    return fd;
}

static inline int open_unix(void)
{
    return open_to(&unix_address, sizeof(unix_address), AF_UNIX);
}

static inline void say(int fd, const char *text, size_t bytes)
{
    /* The server may have answered and closed before it has read all. */
    while (bytes > 0) {
        ssize_t sent = send(fd, text, bytes, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        text += sent;
        bytes -= (size_t)sent;
    }
}

/* How long the answer is, 0 as long as its head is not complete. */
static inline size_t whole(bool head_only)
{
    const char *end = strstr(answer.text, "\r\n\r\n");
    const char *length = strcasestr(answer.text, "\r\nContent-Length: ");
    if (!end)
        return 0;
    answer.body = end + 4;
    size_t bytes = (size_t)(answer.body - answer.text);
    if (!head_only && length && length < end)
        bytes += strtoul(length + 18, NULL, 10);
    return bytes;
}

static inline void listen_to(int fd, bool head_only)
{
    answer.bytes = 0;
    answer.status = 0;
    answer.text[0] = '\0';
    for (;;) {
        size_t wanted = whole(head_only);
        if (wanted > 0 && answer.bytes >= wanted)
            break;
        size_t room = wanted > 0 ? wanted - answer.bytes : 1;
        assert_true(answer.bytes + room < sizeof(answer.text));
        ssize_t got = recv(fd, answer.text + answer.bytes, room, 0);
        if (got < 0 && errno != ECONNRESET)
            fail_msg("no answer: %s; so far '%s'", strerror(errno), answer.text);
        if (got <= 0)
            break;
        answer.bytes += (size_t)got;
        answer.text[answer.bytes] = '\0';
    }
    if (answer.bytes > 0)
        assert_int_equal(sscanf(answer.text, "HTTP/1.1 %d ", &answer.status), 1);
}

static inline bool is_closed(int fd)
{
    char byte;
    ssize_t got = recv(fd, &byte, 1, 0);
    return got == 0 || (got < 0 && errno == ECONNRESET);
}

static inline bool has_field(const char *field)
{
    char line[256];
    (void)snprintf(line, sizeof(line), "\r\n%s\r\n", field);
    const char *at = strstr(answer.text, line);
    return at && at < answer.body;
}

/* One request on a connection of its own. extra: header lines with CR LF. */
static inline int ask(const char *method, const char *target, const char *extra,
                      const char *body)
{
    char text[4096];
    int fd = open_unix();
    int bytes = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: localhost\r\n%s",
                         method, target, extra);
    if (body)
        bytes +=
            snprintf(text + bytes, sizeof(text) - (size_t)bytes,
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     strlen(body), body);
    else
        bytes += snprintf(text + bytes, sizeof(text) - (size_t)bytes, "\r\n");
    say(fd, text, (size_t)bytes);
    listen_to(fd, strcmp(method, "HEAD") == 0 || strstr(extra, "If-None-Match"));
    (void)close(fd);
    return answer.status;
}

static inline void expect_code(const char *code)
{
    MR_AUTO_JSON struct json_object *problem = json_tokener_parse(answer.body);
    assert_true(has_field("Content-Type: application/problem+json"));
    const char *found = mr_json_get_string(problem, "code");
    if (!found || strcmp(found, code) != 0)
        fail_msg("expected '%s': %s", code, answer.text);
    assert_int_equal(mr_json_get_int(problem, "status", 0), answer.status);
}

static inline void expect_text(const char *key, const char *text)
{
    MR_AUTO_JSON struct json_object *document = json_tokener_parse(answer.body);
    const char *found = mr_json_get_string(document, key);
    if (!found || strcmp(found, text) != 0)
        fail_msg("expected %s '%s': %s", key, text, answer.text);
}

#define SPEC                                                                             \
    "{\"source\":{\"driver\":\"file\",\"path\":\"/"                                      \
    "a.img\"},\"filesystem\":{\"type\":\"xfs\"}}"
#define SPEC2                                                                            \
    "{\"source\":{\"driver\":\"file\",\"path\":\"/"                                      \
    "b.img\"},\"filesystem\":{\"type\":\"xfs\"}}"

/* A volume whose detach waits. */
static inline void held(const char *id)
{
    char target[64];
    (void)snprintf(target, sizeof(target), "/volumes/%s", id);
    assert_int_equal(ask("PUT", target, "", SPEC), 201);
    assert_int_equal(ask("DELETE", target, "Prefer: respond-async\r\n", NULL), 202);
}

/* Sends a request with a body and does not wait for the answer. */
static inline int post(const void *address, socklen_t bytes, int family,
                       const char *target, const char *body)
{
    char text[512];
    int fd = open_to(address, bytes, family);
    int length = snprintf(text, sizeof(text),
                          "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                          "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                          target, strlen(body), body);
    say(fd, text, (size_t)length);
    return fd;
}

static inline int post_unix(const char *target, const char *body)
{
    return post(&unix_address, sizeof(unix_address), AF_UNIX, target, body);
}

#define ACTIONS(id) "/volumes/" id "/holders/actions"
#define SIGNAL "{\"action\":\"signal\",\"holders\":[\"a1\"]}"

#endif
