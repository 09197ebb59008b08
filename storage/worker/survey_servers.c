/* SPDX-License-Identifier: Apache-2.0
 *
 * Running mooring-lun processes whose token nobody knows: by the sockets in the runtime
 * directory, and by those that have lost their name there.
 */
#include "storage/worker/survey.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/worker/cgroup.h"
#include "storage/worker/own_process.h"

#define STATUS_NS (500 * MR_NS_PER_MS)
#define TABLE_BYTES_MAX (16UL * 1024 * 1024)
#define SOCKET_SUFFIX ".sock"
#define CGROUP_SUFFIX ".cgroup"
#define ACCEPTS 0x10000U /* __SO_ACCEPTCON: it is listened to */

MR_DEFINE_CLEANUP(dir, DIR *, (void)closedir);

/* Being asked for its status. */
struct talk {
    struct mr_orphan *orphan;
    struct mr_lun_question question;
};

struct talks {
    struct talk list[MR_ORPHANS_MAX];
    struct pollfd fds[MR_ORPHANS_MAX]; /* fd -1: ended */
    size_t count;
};

/* "TOKEN.sock" and the like */
static bool read_name(const char *name, const char *suffix, char token[MR_TOKEN_TEXT])
{
    if (strlen(name) < MR_TOKEN_TEXT - 1 || strcmp(name + MR_TOKEN_TEXT - 1, suffix) != 0)
        return false;
    memcpy(token, name, MR_TOKEN_TEXT - 1);
    token[MR_TOKEN_TEXT - 1] = '\0';
    return mr_token_valid(token);
}

static void set_state(struct mr_orphan *orphan, const char *state)
{
    (void)snprintf(orphan->state, sizeof(orphan->state), "%s", state);
}

/* Mute until it says something. NULL when it is known, or has ended meanwhile. */
static struct mr_orphan *note_server(struct mr_search *search, const char *token,
                                     const struct mr_lun_server *server)
{
    if (mr_lun_presence(server) == MR_ABSENT_NOW)
        return NULL;
    struct mr_orphan *orphan = mr_search_orphan(search, token);
    if (!orphan || orphan->server.pid != 0)
        return NULL;
    orphan->on_lun = true;
    orphan->server = *server;
    orphan->identity.lun_pid = server->pid;
    orphan->identity.lun_start_time = server->start_time;
    set_state(orphan, "mute");
    return orphan;
}

/* --- sockets with a name --- */

static void connect_to(struct mr_search *search, const char *token, struct talks *talks)
{
    struct mr_lun_server server = {0};
    MR_AUTO_CLOSE int fd = mr_lun_connect(search->runtime_dir, token, &server);

    /* Nobody listens any more, or (EAGAIN) somebody does who accepts no one: then it is
     * found in the table of sockets. */
    if (fd == -ECONNREFUSED || fd == -ENOENT || fd == -EAGAIN)
        return;
    if (fd < 0) {
        search->complete = false;
        return;
    }
    struct mr_orphan *orphan = note_server(search, token, &server);
    if (!orphan)
        return;
    struct talk *talk = &talks->list[talks->count];
    *talk = (struct talk){
        .orphan = orphan,
        .question = {.fd = fd, .token = orphan->token, .cmd = "status"},
    };
    if (mr_lun_send(&talk->question) < 0)
        return;
    talks->fds[talks->count++] = (struct pollfd){.fd = mr_take_fd(&fd), .events = POLLIN};
}

static void connect_all(struct mr_search *search, struct talks *talks)
{
    char path[PATH_MAX];
    char token[MR_TOKEN_TEXT];

    if (mr_format(path, sizeof(path), "%s/lun", search->runtime_dir) < 0) {
        search->complete = false;
        return;
    }
    MR_CLEANUP(dir) DIR *dir = opendir(path);
    if (!dir && errno != ENOENT)
        search->complete = false;
    if (!dir)
        return;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry && errno != 0)
            search->complete = false;
        if (!entry)
            return;
        if (read_name(entry->d_name, SOCKET_SUFFIX, token) &&
            !mr_search_knows_token(search, token))
            connect_to(search, token, talks);
        if (read_name(entry->d_name, CGROUP_SUFFIX, token) &&
            !mr_search_knows_token(search, token))
            mr_cgroup_sweep(search->runtime_dir, token);
    }
}

/* --- what they say --- */

/* A word of a version that we may not know. */
static bool is_word(const char *text, size_t size)
{
    size_t len = text ? strspn(text, "abcdefghijklmnopqrstuvwxyz-") : 0;

    return len > 0 && len < size && text[len] == '\0';
}

static void take_source(struct mr_orphan *orphan, struct json_object *status)
{
    struct json_object *json = json_object_new_object();
    struct json_object *portals = json_object_new_array();

    (void)json_object_array_add(portals, json_object_get(mr_json_get(status, "portal")));
    mr_json_set_string(json, "driver", "iscsi");
    mr_json_set(json, "portals", portals);
    mr_json_set(json, "target", json_object_get(mr_json_get(status, "target")));
    mr_json_set(json, "lun", json_object_get(mr_json_get(status, "lun")));
    orphan->source = mr_search_source(json, orphan->identity.source_key);
}

static void take_status(struct mr_orphan *orphan, struct json_object *status)
{
    const char *state = mr_json_get_string(status, "state");

    if (mr_json_get_int(status, "pid", 0) != orphan->server.pid ||
        !is_word(state, sizeof(orphan->state)))
        return;
    set_state(orphan, state);
    mr_json_copy_string(status, "serial", orphan->identity.serial,
                        sizeof(orphan->identity.serial));
    mr_json_copy_string(status, "wwn", orphan->identity.wwn,
                        sizeof(orphan->identity.wwn));
    take_source(orphan, status);
}

/* False when there is no more to come. */
static bool listen_to(struct talk *talk)
{
    MR_AUTO_JSON struct json_object *status = NULL;
    int r = mr_lun_receive(&talk->question, &status, NULL);

    if (r > 0)
        take_status(talk->orphan, status);
    else if (r == -EPROTONOSUPPORT)
        set_state(talk->orphan, "incompatible");
    return r == 0;
}

static void listen_to_all(struct talks *talks, int64_t until_ns)
{
    size_t open = talks->count;

    while (open > 0) {
        int64_t left_ms = (until_ns - mr_now_ns()) / MR_NS_PER_MS;
        if (left_ms <= 0 || poll(talks->fds, talks->count, (int)left_ms) <= 0)
            break;
        for (size_t i = 0; i < talks->count; i++) {
            if (talks->fds[i].fd < 0 || talks->fds[i].revents == 0 ||
                listen_to(&talks->list[i]))
                continue;
            mr_close(&talks->fds[i].fd);
            open--;
        }
    }
    for (size_t i = 0; i < talks->count; i++)
        mr_close(&talks->fds[i].fd);
}

/* --- sockets without a name --- */

/* A socket of a process of ours. */
struct owned {
    unsigned long inode;
    pid_t pid;
    int fd; /* its number there */
};

struct sockets {
    struct owned *list;
    size_t count;
    bool known; /* the list is made */
};

static bool add_socket(struct sockets *sockets, pid_t pid, int fd, unsigned long inode)
{
    struct owned *bigger =
        realloc(sockets->list, (sockets->count + 1) * sizeof(*sockets->list));

    if (!bigger)
        return false;
    sockets->list = bigger;
    sockets->list[sockets->count++] =
        (struct owned){.inode = inode, .pid = pid, .fd = fd};
    return true;
}

/* dir is /proc/PID. False when it could not be read to the end. */
static bool read_sockets(int dir, pid_t pid, struct sockets *sockets)
{
    unsigned long inode = 0;
    char target[40];
    bool all = true;
    int fd = openat(dir, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MR_CLEANUP(dir) DIR *fds = fd < 0 ? NULL : fdopendir(fd);

    if (!fds) {
        mr_close(&fd);
        return false;
    }
    for (const struct dirent *entry = readdir(fds); entry; entry = readdir(fds)) {
        ssize_t len = readlinkat(dirfd(fds), entry->d_name, target, sizeof(target) - 1);
        target[len > 0 ? len : 0] = '\0';
        if (sscanf(target, "socket:[%lu]", &inode) == 1)
            all = add_socket(sockets, pid, (int)strtol(entry->d_name, NULL, 10), inode) &&
                  all;
    }
    return all;
}

/* The numbers in the table come from a text that others can shape: nobody else's process
 * counts. */
static void read_owned(struct mr_search *search, struct sockets *sockets)
{
    MR_CLEANUP(dir) DIR *proc = opendir("/proc");

    sockets->known = true;
    if (!proc)
        search->complete = false;
    for (const struct dirent *entry = proc ? readdir(proc) : NULL; entry;
         entry = readdir(proc)) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid <= 0 || pid == getpid() || pid == getppid())
            continue;
        MR_AUTO_CLOSE int dir =
            openat(dirfd(proc), entry->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (dir >= 0 && mr_is_own_process(pid, dir) && !read_sockets(dir, pid, sockets) &&
            mr_process_start_time(pid) != 0)
            search->complete = false;
    }
}

/* The line said so; the socket itself cannot lie (getsockname(2)). */
static bool is_bound_to(const struct owned *owned, const char *path)
{
    MR_AUTO_CLOSE int pidfd = pidfd_open(owned->pid, 0);
    MR_AUTO_CLOSE int fd = pidfd < 0 ? -1 : pidfd_getfd(pidfd, owned->fd, 0);
    struct sockaddr_un address = {.sun_family = AF_UNSPEC};
    char name[sizeof(address.sun_path) + 1] = "";
    socklen_t len = sizeof(address);

    if (fd < 0 || getsockname(fd, (struct sockaddr *)&address, &len) < 0 ||
        address.sun_family != AF_UNIX)
        return false;
    memcpy(name, address.sun_path, sizeof(address.sun_path));
    return strcmp(name, path) == 0;
}

/* 0: it has ended, is not ours, or has another name. */
static pid_t owner_of(const struct sockets *sockets, unsigned long inode,
                      const char *path)
{
    for (size_t i = 0; i < sockets->count; i++)
        if (sockets->list[i].inode == inode && is_bound_to(&sockets->list[i], path))
            return sockets->list[i].pid;
    return 0;
}

/* One line of /proc/net/unix (net/unix/af_unix.c unix_seq_show()): whose token, and which
 * socket. */
static bool read_line(const struct mr_search *search, const char *line,
                      char token[MR_TOKEN_TEXT], unsigned long *ret_inode)
{
    size_t len = strlen(search->runtime_dir);
    unsigned flags = 0;
    int end = 0;

    if (sscanf(line, "%*x: %*x %*x %x %*x %*x %lu %n", &flags, ret_inode, &end) != 2 ||
        end == 0 || !(flags & ACCEPTS))
        return false;
    const char *path = line + end;
    return strncmp(path, search->runtime_dir, len) == 0 &&
           strncmp(path + len, "/lun/", 5) == 0 &&
           read_name(path + len + 5, SOCKET_SUFFIX, token);
}

static bool has_server(const struct mr_search *search, const char *token)
{
    for (size_t i = 0; i < search->orphan_count; i++)
        if (strcmp(search->orphans[i].token, token) == 0)
            return search->orphans[i].server.pid != 0;
    return false;
}

static void find_nameless(struct mr_search *search)
{
    MR_AUTO_FREE char *text = NULL;
    struct sockets sockets = {.count = 0};
    char token[MR_TOKEN_TEXT];
    unsigned long inode = 0;

    if (mr_read_file(AT_FDCWD, "/proc/net/unix", TABLE_BYTES_MAX, &text) < 0)
        search->complete = false;
    char *rest = text;
    for (const char *line; (line = strsep(&rest, "\n"));) {
        if (!read_line(search, line, token, &inode) ||
            mr_search_knows_token(search, token) || has_server(search, token))
            continue;
        if (!sockets.known)
            read_owned(search, &sockets);
        char path[PATH_MAX];
        struct mr_lun_server server = {.pid = 0};
        if (mr_format(path, sizeof(path), "%s/lun/%s" SOCKET_SUFFIX, search->runtime_dir,
                      token) == 0)
            server.pid = owner_of(&sockets, inode, path);
        server.start_time = server.pid ? mr_process_start_time(server.pid) : 0;
        if (server.pid != 0)
            (void)note_server(search, token, &server);
    }
    free(sockets.list);
}

void mr_search_servers(struct mr_search *search)
{
    struct talks talks = {.count = 0};
    int64_t until_ns = mr_now_ns() + STATUS_NS;

    connect_all(search, &talks);
    find_nameless(search);
    listen_to_all(&talks,
                  until_ns < search->deadline_ns ? until_ns : search->deadline_ns);
}
