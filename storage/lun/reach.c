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

static int fail_refused(struct mr_reach *reach, int errnum)
{
    int r =
        mr_fail(&reach->err, MR_E_PORTAL_UNREACHABLE, errnum, "portal %s", reach->portal);

    return mr_err_remedy(&reach->err, r,
                         "check the portal's address and port, and the network");
}

static int fail_silent(struct mr_reach *reach)
{
    int r = mr_fail(&reach->err, MR_E_TARGET_TIMEOUT, ETIMEDOUT,
                    "portal %s: no answer to the connection request", reach->portal);

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
static int begin(const char *text, struct mr_reach *reach)
{
    MR_CLEANUP(addrinfo) struct addrinfo *address = NULL;

    if (mr_portal_resolve(text, reach->portal, &reach->err) < 0) {
        reach->portal[0] = '\0';
        return -1;
    }
    if (address_of(reach->portal, &address) < 0) {
        (void)fail_refused(reach, EINVAL);
        return -1;
    }
    MR_AUTO_CLOSE int fd =
        socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || (connect(fd, address->ai_addr, address->ai_addrlen) < 0 &&
                   errno != EINPROGRESS)) {
        (void)fail_refused(reach, errno);
        return -1;
    }
    return mr_take_fd(&fd);
}

/* The socket became writable: connected, or not. */
static void end(int fd, int64_t started_ns, struct mr_reach *reach)
{
    socklen_t size = sizeof(int);
    int errnum = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &size) < 0)
        errnum = errno;
    if (errnum != 0) {
        (void)fail_refused(reach, errnum);
        return;
    }
    reach->reachable = true;
    reach->connect_ms = (mr_now_ns() - started_ns) / MR_NS_PER_MS;
}

static int left_ms(int64_t deadline_ns)
{
    int64_t ns = deadline_ns - mr_now_ns();

    return ns > 0 ? (int)((ns + MR_NS_PER_MS - 1) / MR_NS_PER_MS) : 0;
}

void mr_reach(const char (*texts)[256], size_t count, int64_t enough_ns,
              int64_t deadline_ns, struct mr_reach *ret)
{
    struct pollfd fds[MR_LUN_PORTALS_MAX];
    int64_t started_ns[MR_LUN_PORTALS_MAX];
    bool reached = false;
    size_t open = 0;

    for (size_t i = 0; i < count; i++) {
        ret[i] = (struct mr_reach){.reachable = false};
        started_ns[i] = mr_now_ns();
        fds[i] = (struct pollfd){.fd = begin(texts[i], &ret[i]), .events = POLLOUT};
        open += fds[i].fd >= 0;
    }
    while (open > 0) {
        int n = poll(fds, (nfds_t)count, left_ms(reached ? enough_ns : deadline_ns));
        if (n < 0 && errno == EINTR)
            continue;
        for (size_t i = 0; i < count; i++) {
            if (fds[i].fd < 0 || (n > 0 && fds[i].revents == 0))
                continue;
            if (n > 0)
                end(fds[i].fd, started_ns[i], &ret[i]);
            else
                (void)fail_silent(&ret[i]);
            reached = reached || ret[i].reachable;
            mr_close(&fds[i].fd);
            open--;
        }
    }
}
