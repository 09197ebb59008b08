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
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/lun/control.h" /* the versions; nothing to link */

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

static int send_question(const struct mr_lun_question *question)
{
    MR_AUTO_JSON struct json_object *request = json_object_new_object();

    if (!request)
        return -ENOMEM;
    mr_json_set_int(request, "version", question->version);
    mr_json_set_string(request, "cmd", question->cmd);
    return mr_msg_send(question->fd, request, -1, MSG_DONTWAIT, NULL);
}

int mr_lun_send(struct mr_lun_question *question)
{
    question->version = MR_CONTROL_VERSION;
    return send_question(question);
}

/* The versions that the server understands; the first one knew of no versions. */
static void read_range(struct json_object *answer, int64_t *ret_oldest,
                       int64_t *ret_newest)
{
    bool says = mr_json_get(answer, "version") != NULL;

    *ret_newest = mr_json_get_int(answer, "version", says ? 0 : 1);
    *ret_oldest = mr_json_get_int(answer, "oldest", *ret_newest);
}

/* The newest version that both speak, 0 when there is none. */
static int64_t common_version(struct json_object *answer)
{
    int64_t oldest;
    int64_t newest;

    read_range(answer, &oldest, &newest);
    if (newest < MR_CONTROL_OLDEST || oldest > MR_CONTROL_VERSION || oldest > newest)
        return 0;
    return newest < MR_CONTROL_VERSION ? newest : MR_CONTROL_VERSION;
}

static int fail_version(struct json_object *answer, struct mr_err *err)
{
    int64_t oldest;
    int64_t newest;

    read_range(answer, &oldest, &newest);
    int r = mr_fail(err, MR_E_DEVICE_ERROR, EPROTONOSUPPORT,
                    "mooring-lun speaks versions %lld to %lld of the control protocol, "
                    "this agent %d to %d",
                    (long long)oldest, (long long)newest, MR_CONTROL_OLDEST,
                    MR_CONTROL_VERSION);
    return mr_err_remedy(err, r, "use the version of the agent that attached the volume");
}

int mr_lun_receive(struct mr_lun_question *question, struct json_object **ret,
                   struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *answer = NULL;
    int r = mr_msg_recv(question->fd, &answer, NULL, MSG_DONTWAIT, err);

    if (r == -EAGAIN)
        return 0;
    if (r <= 0)
        return r < 0 ? r : mr_fail(err, MR_E_DEVICE_ERROR, EPIPE, "mooring-lun hung up");
    int64_t version = common_version(answer);
    if (version == 0)
        return fail_version(answer, err);
    const char *token = mr_json_get_string(answer, "token");
    /* The first version ignores ours, and its refusals name no token. */
    bool refused = !mr_json_get_bool(answer, "ok", false);
    if (refused && version < question->version) {
        question->version = version;
        return send_question(question);
    }
    if (refused || !token || strcmp(token, question->token) != 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, EBADMSG,
                       "mooring-lun refused '%s', or serves another volume",
                       question->cmd);
    *ret = mr_take_ptr(answer);
    return 1;
}

int mr_lun_ask(int fd, const char *cmd, const char *token, int limit_ms,
               struct json_object **ret, struct mr_err *err)
{
    struct mr_lun_question question = {.fd = fd, .token = token, .cmd = cmd};
    const int64_t deadline_ns = mr_now_ns() + limit_ms * MR_NS_PER_MS;
    int r = mr_lun_send(&question);

    while (r == 0) {
        struct pollfd answer = {.fd = fd, .events = POLLIN};
        int64_t left_ms = (deadline_ns - mr_now_ns()) / MR_NS_PER_MS;
        if (left_ms <= 0 || poll(&answer, 1, (int)left_ms) == 0)
            return mr_fail(err, MR_E_DEVICE_ERROR, ETIMEDOUT,
                           "mooring-lun does not answer");
        r = mr_lun_receive(&question, ret, err);
    }
    return r < 0 ? r : 0;
}

/* The pidfd of this process, and of no other that got its number: -ESRCH. 0 as a start
 * time is "cannot tell": then the pidfd decides. */
static int open_process(const struct mr_lun_server *server)
{
    MR_AUTO_CLOSE int pidfd = pidfd_open(server->pid, 0);

    if (pidfd < 0) /* EINVAL, ENOENT: the number of a thread; pidfd_open(2) */
        return server->pid > 0 && (errno == EINVAL || errno == ENOENT) ? -ESRCH : -errno;
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

enum mr_presence mr_lun_presence(const struct mr_lun_server *server)
{
    MR_AUTO_CLOSE int pidfd = open_process(server);

    if (pidfd == -ESRCH || (pidfd >= 0 && has_ended(pidfd, 0)))
        return MR_ABSENT_NOW;
    /* Without a start time the number may be anybody's. */
    return pidfd >= 0 && server->start_time != 0 ? MR_PRESENT : MR_PRESENCE_UNKNOWN;
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
