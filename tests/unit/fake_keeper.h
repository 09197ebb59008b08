/* SPDX-License-Identifier: Apache-2.0
 *
 * A process that plays mooring-lun at a control socket: it answers every question with
 * what the test told it to say, says something by itself when the test wants that, and
 * counts. It ends with the test.
 */
#ifndef MR_TESTS_UNIT_FAKE_KEEPER_H
#define MR_TESTS_UNIT_FAKE_KEEPER_H

#include "tests/unit/unit.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/json.h"
#include "storage/base/msg.h"

#define KEEPER_QUEUE 8

struct keeper {
    pid_t pid;
    int channel;
};

/* --- the process --- */

struct keeper_state {
    int listen_fd;
    int client;
    int queue[KEEPER_QUEUE]; /* connections of its own, which fill the backlog */
    bool deaf;               /* accepts nobody */
    char answer[16384];      /* raw bytes */
    int64_t asked;
    int64_t clients;
    struct json_object *question;
};

static inline int keeper_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static inline int keeper_bind(const char *path, int backlog)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    (void)unlink(path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, backlog) < 0)
        _exit(3);
    return fd;
}

static inline void keeper_say(struct keeper_state *k)
{
    if (k->client >= 0 && k->answer[0])
        (void)send(k->client, k->answer, strlen(k->answer), MSG_NOSIGNAL);
}

static inline void keeper_accept(struct keeper_state *k)
{
    if (k->client >= 0)
        (void)close(k->client);
    k->client = accept4(k->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    k->clients++;
}

static inline void keeper_read(struct keeper_state *k)
{
    struct json_object *question = NULL;

    if (mr_msg_recv(k->client, &question, NULL, MSG_DONTWAIT, NULL) <= 0) {
        (void)close(k->client);
        k->client = -1;
        return;
    }
    (void)json_object_put(k->question);
    k->question = question;
    k->asked++;
    keeper_say(k);
}

static inline void keeper_obey(struct keeper_state *k, struct json_object *order)
{
    const char *what = mr_json_get_string(order, "do");
    const char *text = mr_json_get_string(order, "text");

    if (text)
        (void)snprintf(k->answer, sizeof(k->answer), "%s", text);
    if (strcmp(what, "listen") == 0)
        k->listen_fd = keeper_bind(mr_json_get_string(order, "path"), 8);
    if (strcmp(what, "be_full") == 0) {
        k->deaf = true;
        k->listen_fd = keeper_bind(mr_json_get_string(order, "path"), 0);
        for (int i = 0; i < KEEPER_QUEUE; i++)
            k->queue[i] = keeper_connect(mr_json_get_string(order, "path"));
        if (k->queue[KEEPER_QUEUE - 1] >= 0)
            _exit(4);
    }
    for (int i = 0; strcmp(what, "make_room") == 0 && i < KEEPER_QUEUE; i++)
        if (k->queue[i] >= 0) {
            (void)close(accept4(k->listen_fd, NULL, NULL, SOCK_CLOEXEC));
            (void)close(k->queue[i]);
            k->deaf = false;
        }
    if (strcmp(what, "say") == 0)
        keeper_say(k);
    if (strcmp(what, "hang_up") == 0 && k->client >= 0) {
        (void)close(k->client);
        k->client = -1;
    }
}

static inline void keeper_run(int channel)
{
    struct keeper_state k = {.listen_fd = -1, .client = -1};

    for (int i = 0; i < KEEPER_QUEUE; i++)
        k.queue[i] = -1;
    for (;;) {
        struct pollfd fds[] = {
            {.fd = channel, .events = POLLIN},
            {.fd = k.deaf ? -1 : k.listen_fd, .events = POLLIN},
            {.fd = k.client, .events = POLLIN},
        };
        (void)poll(fds, 3, -1);
        if (fds[1].revents)
            keeper_accept(&k);
        else if (fds[2].revents)
            keeper_read(&k);
        if (!fds[0].revents)
            continue;
        struct json_object *order = NULL;
        if (mr_msg_recv(channel, &order, NULL, 0, NULL) <= 0)
            _exit(0);
        keeper_obey(&k, order);
        (void)json_object_put(order);
        struct json_object *report = json_object_new_object();
        mr_json_set_int(report, "asked", k.asked);
        mr_json_set_int(report, "clients", k.clients);
        mr_json_set_bool(report, "connected", k.client >= 0);
        mr_json_set(report, "question", json_object_get(k.question));
        (void)mr_msg_send(channel, report, -1, 0, NULL);
        (void)json_object_put(report);
    }
}

/* --- the test's side --- */

static inline void keeper_start(struct keeper *keeper)
{
    int pair[2];

    assert_int_equal(mr_msg_pair(pair, NULL), 0);
    keeper->pid = fork();
    assert_true(keeper->pid >= 0);
    if (keeper->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(pair[1], 3);
        (void)close_range(4, ~0U, 0); /* the agent's locks among them */
        keeper_run(3);
    }
    (void)close(pair[1]);
    keeper->channel = pair[0];
}

static inline void keeper_end(struct keeper *keeper)
{
    if (keeper->pid <= 0)
        return;
    (void)kill(keeper->pid, SIGKILL);
    (void)waitpid(keeper->pid, NULL, 0);
    (void)close(keeper->channel);
    keeper->pid = 0;
}

/* What it has seen so far: {asked, clients, connected, question}. text (may be NULL) is
 * what it answers from now on. New reference. */
static inline struct json_object *keeper_do(const struct keeper *keeper, const char *what,
                                            const char *path, const char *text)
{
    MR_AUTO_JSON struct json_object *order = json_object_new_object();
    struct json_object *report = NULL;

    mr_json_set_string(order, "do", what);
    if (path)
        mr_json_set_string(order, "path", path);
    if (text)
        mr_json_set_string(order, "text", text);
    assert_int_equal(mr_msg_send(keeper->channel, order, -1, 0, NULL), 0);
    assert_int_equal(mr_msg_recv(keeper->channel, &report, NULL, 0, NULL), 1);
    return report;
}

static inline int64_t keeper_count(const struct keeper *keeper, const char *what)
{
    MR_AUTO_JSON struct json_object *report = keeper_do(keeper, "report", NULL, NULL);
    return mr_json_get_int(report, what, -1);
}

#endif
