/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/lun_server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"

static int socket_address(const char *runtime_dir, const char *token,
                          struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    return mr_format(ret->sun_path, sizeof(ret->sun_path), "%s/lun/%s.sock", runtime_dir,
                     token);
}

int mr_lun_connect(const char *runtime_dir, const char *token, struct mr_lun_server *ret)
{
    MR_AUTO_CLOSE int fd =
        socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address;
    struct ucred peer;
    socklen_t len = sizeof(peer);
    int r = socket_address(runtime_dir, token, &address);

    if (r < 0)
        return r;
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return -errno;
    *ret = (struct mr_lun_server){
        .pid = peer.pid,
        .start_time = mr_process_start_time(peer.pid),
    };
    return mr_take_fd(&fd);
}

struct json_object *mr_lun_ask(int fd, const char *cmd, const char *token, int limit_ms)
{
    MR_AUTO_JSON struct json_object *request = json_object_new_object();
    MR_AUTO_JSON struct json_object *status = NULL;
    struct pollfd answer = {.fd = fd, .events = POLLIN};
    const char *its_token;

    if (!request)
        return NULL;
    mr_json_set_string(request, "cmd", cmd);
    if (mr_msg_send(fd, request, -1, MSG_DONTWAIT, NULL) < 0 ||
        poll(&answer, 1, limit_ms) <= 0 ||
        mr_msg_recv(fd, &status, NULL, MSG_DONTWAIT, NULL) <= 0)
        return NULL;
    its_token = mr_json_get_string(status, "token");
    return its_token && strcmp(its_token, token) == 0 ? mr_take_ptr(status) : NULL;
}

/* The pidfd of this process, and of no other that got its number: -ESRCH. 0 as a start
 * time is "cannot tell": then the pidfd decides. */
static int open_process(const struct mr_lun_server *server)
{
    MR_AUTO_CLOSE int pidfd = pidfd_open(server->pid, 0);

    if (pidfd < 0)
        return -errno;
    /* Read after the pidfd was opened, which cannot change to another process any more.
     */
    uint64_t its_start = mr_process_start_time(server->pid);
    if (server->start_time != 0 && its_start != 0 && its_start != server->start_time)
        return -ESRCH;
    return mr_take_fd(&pidfd);
}

static bool has_ended(int pidfd, int64_t wait_ms)
{
    struct pollfd end = {.fd = pidfd, .events = POLLIN};

    return poll(&end, 1, wait_ms < INT32_MAX ? (int)wait_ms : INT32_MAX) > 0;
}

bool mr_lun_await_end(const struct mr_lun_server *server, int64_t wait_ms)
{
    MR_AUTO_CLOSE int pidfd = open_process(server);

    return pidfd < 0 ? pidfd == -ESRCH : has_ended(pidfd, wait_ms);
}

int mr_lun_kill(const struct mr_lun_server *server, int64_t wait_ms, struct mr_err *err)
{
    /* -EINVAL when the process is not known. */
    MR_AUTO_CLOSE int pidfd = open_process(server);

    if (pidfd == -ESRCH || (pidfd >= 0 && has_ended(pidfd, 0)))
        return 0;
    if (pidfd < 0 || server->start_time == 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, pidfd < 0 ? -pidfd : 0,
                       "cannot tell whether process %d is mooring-lun", server->pid);
    if (pidfd_send_signal(pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "kill mooring-lun %d", server->pid);
    if (!has_ended(pidfd, wait_ms))
        return mr_fail(err, MR_E_DEVICE_ERROR, ETIMEDOUT,
                       "mooring-lun %d was killed and does not end", server->pid);
    return 1;
}

bool mr_lun_logged_out(const char *runtime_dir, const char *token)
{
    struct sockaddr_un address;

    return socket_address(runtime_dir, token, &address) == 0 &&
           unlink(address.sun_path) < 0 && errno == ENOENT;
}
