/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/reach.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/lun/start.h"

MR_DEFINE_CLEANUP(addrinfo, struct addrinfo *, freeaddrinfo);

/* One address of a portal. */
struct attempt {
    size_t of; /* that portal */
    int64_t started_ns;
    char portal[MR_PORTAL_TEXT];
};

static int fail_refused(const struct attempt *attempt, struct mr_reach *reach, int errnum)
{
    int r = mr_fail(&reach->err, MR_E_PORTAL_UNREACHABLE, errnum, "portal %s",
                    attempt->portal);

    return mr_err_remedy(&reach->err, r,
                         "check the portal's address and port, and the network");
}

static int fail_silent(const struct attempt *attempt, struct mr_reach *reach)
{
    int r = mr_fail(&reach->err, MR_E_TARGET_TIMEOUT, ETIMEDOUT,
                    "portal %s: no answer to the connection request", attempt->portal);

    return mr_err_remedy(&reach->err, r,
                         "check that the portal answers and that no firewall drops its "
                         "packets");
}

/* The address of a numeric portal. */
static int address_of(const char *portal, struct addrinfo **ret)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
    };
    struct mr_portal parts;
    char port[8];

    if (mr_portal_parse(portal, &parts) < 0)
        return -EINVAL;
    (void)snprintf(port, sizeof(port), "%u", (unsigned)parts.port);
    return getaddrinfo(parts.host, port, &hints, ret) == 0 ? 0 : -EINVAL;
}

/* A socket whose connection is on its way, or -1 and err. */
static int begin(const struct attempt *attempt, struct mr_reach *reach)
{
    MR_CLEANUP(addrinfo) struct addrinfo *address = NULL;

    if (address_of(attempt->portal, &address) < 0) {
        (void)fail_refused(attempt, reach, EINVAL);
        return -1;
    }
    MR_AUTO_CLOSE int fd =
        socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || (connect(fd, address->ai_addr, address->ai_addrlen) < 0 &&
                   errno != EINPROGRESS)) {
        (void)fail_refused(attempt, reach, errno);
        return -1;
    }
    return mr_take_fd(&fd);
}

/* The socket became writable: connected, or not. */
static void end(int fd, const struct attempt *attempt, struct mr_reach *reach)
{
    socklen_t size = sizeof(int);
    int errnum = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &size) < 0)
        errnum = errno;
    if (errnum != 0) {
        (void)fail_refused(attempt, reach, errnum);
        return;
    }
    if (reach->reachable) /* at another address already */
        return;
    reach->reachable = true;
    reach->connect_ms = (mr_now_ns() - attempt->started_ns) / MR_NS_PER_MS;
    memcpy(reach->portal, attempt->portal, sizeof(reach->portal));
}

static int left_ms(int64_t deadline_ns)
{
    int64_t ns = deadline_ns - mr_now_ns();

    return ns > 0 ? (int)((ns + MR_NS_PER_MS - 1) / MR_NS_PER_MS) : 0;
}

/* As an attach would: as many addresses as there may be portals. */
static size_t begin_all(const char (*texts)[256], size_t count, struct mr_reach *ret,
                        struct attempt attempts[MR_LUN_PORTALS_MAX],
                        struct pollfd fds[MR_LUN_PORTALS_MAX])
{
    char portals[MR_LUN_PORTALS_MAX][MR_PORTAL_TEXT];
    size_t used = 0;

    for (size_t i = 0; i < count; i++) {
        ret[i] = (struct mr_reach){.reachable = false};
        /* Each of those that follow has one for sure. */
        int n = mr_portal_resolve_all(
            texts[i], portals, MR_LUN_PORTALS_MAX - used - (count - i - 1), &ret[i].err);
        for (int k = 0; k < n; k++, used++) {
            attempts[used] = (struct attempt){.of = i, .started_ns = mr_now_ns()};
            memcpy(attempts[used].portal, portals[k], sizeof(portals[k]));
            fds[used] =
                (struct pollfd){.fd = begin(&attempts[used], &ret[i]), .events = POLLOUT};
        }
    }
    return used;
}

static size_t count_open(const struct pollfd *fds, size_t used)
{
    size_t n = 0;

    for (size_t i = 0; i < used; i++)
        n += fds[i].fd >= 0;
    return n;
}

void mr_reach(const char (*texts)[256], size_t count, int64_t enough_ns,
              int64_t deadline_ns, struct mr_reach *ret)
{
    struct pollfd fds[MR_LUN_PORTALS_MAX];
    struct attempt attempts[MR_LUN_PORTALS_MAX];
    const size_t used = begin_all(texts, count, ret, attempts, fds);
    bool reached = false;

    while (count_open(fds, used) > 0) {
        int n = poll(fds, (nfds_t)used, left_ms(reached ? enough_ns : deadline_ns));
        if (n < 0 && errno == EINTR)
            continue;
        for (size_t i = 0; i < used; i++) {
            struct mr_reach *reach = &ret[attempts[i].of];
            if (fds[i].fd < 0 || (n > 0 && fds[i].revents == 0))
                continue;
            if (n > 0)
                end(fds[i].fd, &attempts[i], reach);
            else
                (void)fail_silent(&attempts[i], reach);
            reached = reached || reach->reachable;
            mr_close(&fds[i].fd);
        }
    }
}
