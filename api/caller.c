/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "api/internal.h"
#include "storage/base/json.h"

/* "127.0.0.1:5555" or "[::1]:5555"; false when the peer has no such address. */
static bool peer_address(int fd, char *dst, size_t size)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer = {.any = {.sa_family = AF_UNSPEC}};
    socklen_t bytes = sizeof(peer);
    char text[INET6_ADDRSTRLEN];

    if (getpeername(fd, &peer.any, &bytes) != 0)
        return false;
    if (peer.any.sa_family == AF_INET &&
        inet_ntop(AF_INET, &peer.v4.sin_addr, text, sizeof(text))) {
        (void)snprintf(dst, size, "%s:%u", text, ntohs(peer.v4.sin_port));
        return true;
    }
    if (peer.any.sa_family == AF_INET6 &&
        inet_ntop(AF_INET6, &peer.v6.sin6_addr, text, sizeof(text))) {
        (void)snprintf(dst, size, "[%s]:%u", text, ntohs(peer.v6.sin6_port));
        return true;
    }
    return false;
}

static void set_address(struct json_object *caller, int fd)
{
    char address[INET6_ADDRSTRLEN + sizeof("[]:65535")];

    mr_json_set_string(caller, "via", "tcp");
    mr_json_set_string(caller, "address",
                       peer_address(fd, address, sizeof(address)) ? address : NULL);
}

/* As they were at connect(2); the pid is 0 for a process of a foreign pid namespace:
 * unix(7), SO_PEERCRED. */
static void set_credentials(struct json_object *caller, int fd)
{
    struct ucred peer = {.pid = 0};
    socklen_t bytes = sizeof(peer);
    bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0;

    mr_json_set_string(caller, "via", "unix");
    mr_json_set(caller, "uid", known ? json_object_new_int64(peer.uid) : NULL);
    mr_json_set(caller, "gid", known ? json_object_new_int64(peer.gid) : NULL);
    mr_json_set(caller, "pid",
                known && peer.pid > 0 ? json_object_new_int64(peer.pid) : NULL);
}

struct json_object *mr_caller(const struct mr_request *req)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct json_object *caller = json_object_new_object();
    int fd = info ? info->connect_fd : -1;

    if (caller && req->listener->tcp)
        set_address(caller, fd);
    else if (caller)
        set_credentials(caller, fd);
    return caller;
}
