/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/log.h"

#define STALE_LIMIT_NS (1 * MR_NS_PER_S)
#define STALE_RETRY_NS (20 * MR_NS_PER_MS)
#define BACKLOG 511

union address {
    struct sockaddr any;
    struct sockaddr_un unix_path;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
    struct sockaddr_storage storage;
};

static int usage(const char *text, enum mr_exit *ret_exit, struct mr_err *err)
{
    *ret_exit = MR_EXIT_USAGE;
    int rc = mr_fail_at(err, MR_E_INVALID_REQUEST, "", "--listen '%s' is not an address",
                        text);
    return mr_err_remedy(err, rc,
                         "write unix:/ABSOLUTE/PATH (at most 107 bytes), 127.0.0.1:PORT "
                         "or [::1]:PORT");
}

/* HOST:PORT into host and port. Returns false when it does not have that form. */
static bool split(const char *text, char *host, size_t size, in_port_t *port)
{
    const char *colon = strrchr(text, ':');
    const char *begin = text[0] == '[' ? text + 1 : text;

    if (!colon || colon[1] < '0' || colon[1] > '9')
        return false;
    const char *end = text[0] == '[' ? colon - 1 : colon;
    if (end <= begin || (text[0] == '[') != (*end == ']'))
        return false;
    char *rest = NULL;
    unsigned long number = strtoul(colon + 1, &rest, 10);
    if (*rest || number > 65535 ||
        mr_format(host, size, "%.*s", (int)(end - begin), begin) < 0)
        return false;
    *port = htons((in_port_t)number);
    return true;
}

static int parse(const char *text, union address *ret, socklen_t *ret_size,
                 enum mr_exit *ret_exit, struct mr_err *err)
{
    char host[64];
    in_port_t port = 0;

    *ret = (union address){.storage = {.ss_family = AF_UNSPEC}};
    if (strncmp(text, "unix:", 5) == 0) {
        *ret_size = sizeof(ret->unix_path);
        ret->unix_path.sun_family = AF_UNIX;
        if (text[5] != '/' ||
            mr_format(ret->unix_path.sun_path, sizeof(ret->unix_path.sun_path), "%s",
                      text + 5) < 0)
            return usage(text, ret_exit, err);
        return 0;
    }
    if (!split(text, host, sizeof(host), &port))
        return usage(text, ret_exit, err);
    const char *numeric = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    if (inet_pton(AF_INET, numeric, &ret->ipv4.sin_addr) == 1) {
        ret->ipv4.sin_family = AF_INET;
        ret->ipv4.sin_port = port;
        *ret_size = sizeof(ret->ipv4);
    } else if (inet_pton(AF_INET6, numeric, &ret->ipv6.sin6_addr) == 1) {
        ret->ipv6.sin6_family = AF_INET6;
        ret->ipv6.sin6_port = port;
        *ret_size = sizeof(ret->ipv6);
    } else {
        return usage(text, ret_exit, err);
    }
    return 0;
}

static bool is_loopback(const union address *address)
{
    if (address->any.sa_family == AF_INET)
        return ntohl(address->ipv4.sin_addr.s_addr) >> 24 == 127;
    return address->any.sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&address->ipv6.sin6_addr);
}

/* Any local user can connect to a loopback port, and the API has no tokens or TLS yet. */
static int check_allowed(const char *text, const union address *address, bool insecure,
                         enum mr_exit *ret_exit, struct mr_err *err)
{
    if (address->any.sa_family == AF_UNIX || (is_loopback(address) && insecure))
        return 0;
    *ret_exit = MR_EXIT_CONFIG;
    if (!is_loopback(address)) {
        int rc =
            mr_fail_at(err, MR_E_INVALID_REQUEST, "",
                       "'%s' is not a loopback address; TCP beyond loopback needs TLS, "
                       "which this version does not have",
                       text);
        return mr_err_remedy(err, rc, "listen on a unix socket");
    }
    int rc = mr_fail_at(err, MR_E_INVALID_REQUEST, "",
                        "'%s' would let every local user use the API", text);
    return mr_err_remedy(
        err, rc, "listen on a unix socket, or give --insecure-loopback if you mean it");
}

/* Does anybody listen there? */
static bool is_live(const union address *address, socklen_t size)
{
    MR_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 || connect(fd, &address->any, size) == 0 || errno != ECONNREFUSED;
}

/* Removes a socket file that nobody listens on. A live one is left, bind(2) will say so;
 * but not at once: of an agent that was killed a child on its way to exec(2) may have the
 * socket for a moment. */
static void remove_stale(const union address *address, socklen_t size)
{
    const char *path = address->unix_path.sun_path;
    int64_t deadline_ns = mr_now_ns() + STALE_LIMIT_NS;
    struct stat st;

    if (lstat(path, &st) != 0 || !S_ISSOCK(st.st_mode))
        return;
    while (is_live(address, size)) {
        if (mr_now_ns() >= deadline_ns)
            return;
        mr_sleep_ns(STALE_RETRY_NS);
    }
    (void)unlink(path);
}

static void log_address(int fd)
{
    union address address = {.storage = {.ss_family = AF_UNSPEC}};
    socklen_t size = sizeof(address);
    char host[INET6_ADDRSTRLEN] = "";

    (void)getsockname(fd, &address.any, &size);
    if (address.any.sa_family == AF_UNIX) {
        mr_log(MR_LOG_NOTICE, "listening on unix:%.107s", address.unix_path.sun_path);
    } else if (address.any.sa_family == AF_INET) {
        (void)inet_ntop(AF_INET, &address.ipv4.sin_addr, host, sizeof(host));
        mr_log(MR_LOG_NOTICE, "listening on tcp:%s:%u", host,
               ntohs(address.ipv4.sin_port));
    } else {
        (void)inet_ntop(AF_INET6, &address.ipv6.sin6_addr, host, sizeof(host));
        mr_log(MR_LOG_NOTICE, "listening on tcp:[%s]:%u", host,
               ntohs(address.ipv6.sin6_port));
    }
}

/* umask 077 at start: the socket is private until its mode is set. */
static int own_path(struct mr_listen *ret, const char *path, struct mr_err *err)
{
    struct stat st;

    if (chmod(path, 0660) != 0 || lstat(path, &st) != 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "set the mode of '%s'", path);
    (void)mr_format(ret->path, sizeof(ret->path), "%s", path);
    ret->dev = st.st_dev;
    ret->ino = st.st_ino;
    return 0;
}

static int open_address(const char *text, const union address *address, socklen_t size,
                        struct mr_listen *ret, struct mr_err *err)
{
    const int one = 1;
    int family = address->any.sa_family;

    MR_AUTO_CLOSE int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "open a socket for '%s'", text);
    if (family == AF_UNIX)
        remove_stale(address, size);
    else
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, &address->any, size) != 0 || listen(fd, BACKLOG) != 0) {
        int rc = mr_fail(err, MR_E_INTERNAL, errno, "listen on '%s'", text);
        return rc == -EADDRINUSE ? mr_err_remedy(err, rc, "is another agent running?")
                                 : rc;
    }
    int rc = family == AF_UNIX ? own_path(ret, address->unix_path.sun_path, err) : 0;
    if (rc == 0)
        ret->fd = mr_take_fd(&fd);
    return rc;
}

static int open_text(const char *text, bool insecure, struct mr_listens *listens,
                     enum mr_exit *ret_exit, struct mr_err *err)
{
    struct mr_listen *slot = &listens->socket[listens->count];
    union address address;
    socklen_t size = 0;

    int rc = parse(text, &address, &size, ret_exit, err);
    if (rc == 0)
        rc = check_allowed(text, &address, insecure, ret_exit, err);
    if (rc < 0)
        return rc;
    *slot = (struct mr_listen){.fd = -1};
    rc = open_address(text, &address, size, slot, err);
    if (rc < 0)
        return rc;
    listens->count++;
    log_address(slot->fd);
    return 0;
}

/* Sockets that the service manager opened; the same rules hold. */
static int adopt(int fd, bool insecure, struct mr_listens *listens,
                 enum mr_exit *ret_exit, struct mr_err *err)
{
    union address address = {.storage = {.ss_family = AF_UNSPEC}};
    socklen_t size = sizeof(address);

    listens->socket[listens->count++] = (struct mr_listen){.fd = fd};
    if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0 ||
        getsockname(fd, &address.any, &size) != 0) {
        *ret_exit = MR_EXIT_CONFIG;
        return mr_fail_at(err, MR_E_INVALID_REQUEST, "",
                          "fd %d of the service manager is not a listening stream socket",
                          fd);
    }
    int flags = fcntl(fd, F_GETFL);
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    int rc = check_allowed("the socket of the service manager", &address, insecure,
                           ret_exit, err);
    if (rc == 0)
        log_address(fd);
    return rc;
}

int mr_listen_open(const struct mr_options *options, struct mr_listens *ret,
                   enum mr_exit *ret_exit, struct mr_err *err)
{
    char standard[PATH_MAX];
    int rc = 0;

    *ret = (struct mr_listens){.count = 0};
    *ret_exit = MR_EXIT_SYSTEM;
    int given = sd_listen_fds(1);
    if (given > MR_LISTEN_MAX)
        return mr_fail_at(err, MR_E_INVALID_REQUEST, "",
                          "too many sockets from the service manager");
    for (int i = 0; rc == 0 && i < given; i++)
        rc = adopt(SD_LISTEN_FDS_START + i, options->insecure_loopback, ret, ret_exit,
                   err);
    for (size_t i = 0; rc == 0 && i < options->listen_count; i++)
        rc =
            open_text(options->listen[i], options->insecure_loopback, ret, ret_exit, err);
    if (rc < 0 || ret->count > 0)
        return rc;
    rc =
        mr_format(standard, sizeof(standard), "unix:%s/agent.sock", options->runtime_dir);
    return rc < 0 ? mr_fail(err, MR_E_INVALID_REQUEST, -rc, "--runtime-dir")
                  : open_text(standard, false, ret, ret_exit, err);
}

int mr_listen_check(const struct mr_options *options, enum mr_exit *ret_exit,
                    struct mr_err *err)
{
    union address address;
    socklen_t size = 0;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < options->listen_count; i++) {
        rc = parse(options->listen[i], &address, &size, ret_exit, err);
        if (rc == 0)
            rc = check_allowed(options->listen[i], &address, options->insecure_loopback,
                               ret_exit, err);
    }
    return rc;
}

void mr_listen_done(struct mr_listens *listens)
{
    for (size_t i = 0; i < listens->count; i++) {
        struct mr_listen *socket_ = &listens->socket[i];
        struct stat st;
        if (socket_->path[0] && lstat(socket_->path, &st) == 0 &&
            st.st_dev == socket_->dev && st.st_ino == socket_->ino)
            (void)unlink(socket_->path);
        mr_close(&socket_->fd);
    }
    listens->count = 0;
}
