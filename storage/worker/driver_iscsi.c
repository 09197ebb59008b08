/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver `iscsi`: mooring-lun <-> FUSE file <-> loop device. Opening the file and the
 * loop ioctls belong here, not into mooring-lun, which would wait for itself.
 */
#include "storage/worker/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fault.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/base/spawn.h"
#include "storage/lun/start.h" /* the message and its fd; nothing to link */
#include "storage/worker/loopdev.h"
#include "storage/worker/lun_server.h"
#include "storage/worker/source_lock.h"

#define ANSWER_GRACE_MS 5000 /* on top of the target's own timeout */
#define END_MS 5000          /* a server whose file was released logs out within 2 s */
#define STATUS_MS 500
#define CUT_MS 1000
#define KILLED_MS 1000
#define LOCK_MS 3000 /* a server whose file was released logs out within 2 s */
#define IO_KB "1024" /* one FUSE request; the default of 1280 would be split */

/* A server that we started and that did not yet prove itself. */
struct server {
    pid_t pid;
    int pidfd;
    int channel;
    int mount_fd;
};

static void server_close(struct server *server)
{
    mr_close(&server->channel);
    mr_close(&server->mount_fd);
}

/* Our child, after a failed map: nothing of it is in use, it ends by itself; if not, it
 * is ended. */
static void server_reap(struct server *server)
{
    struct pollfd end = {.fd = server->pidfd, .events = POLLIN};
    siginfo_t info;

    server_close(server);
    if (server->pidfd < 0)
        return;
    if (poll(&end, 1, END_MS) == 0)
        (void)pidfd_send_signal(server->pidfd, SIGKILL, NULL, 0);
    (void)waitid(P_PIDFD, (id_t)server->pidfd, &info, WEXITED);
    mr_close(&server->pidfd);
}

static int copy_member(struct json_object *from, const char *key, struct json_object *to)
{
    struct json_object *value = mr_json_get(from, key);

    if (value)
        mr_json_set(to, key, json_object_get(value));
    return value ? 0 : -EINVAL;
}

static struct json_object *start_message(const struct mr_map_request *request)
{
    struct json_object *json = json_object_new_object();

    if (!json)
        return NULL;
    mr_json_set_string(json, "token", request->token);
    mr_json_set_string(json, "runtime_dir", request->runtime_dir);
    mr_json_set_string(json, "initiator_name", request->initiator_name);
    mr_json_set_int(json, "timeout_ms", request->iscsi_timeout_ms);
    mr_json_set_bool(json, "read_only", request->spec->read_only);
    /* What is missing is refused by the server, by name. */
    (void)copy_member(request->spec->source, "portals", json);
    (void)copy_member(request->spec->source, "target", json);
    (void)copy_member(request->spec->source, "lun", json);
    (void)copy_member(request->spec->source, "chap", json);
    return json;
}

static int server_start(const struct mr_map_request *request, int lock_fd,
                        struct server *server, struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *message = start_message(request);
    MR_AUTO_CLOSE int theirs = -1;
    char path[PATH_MAX];
    const char *argv[] = {path, "serve", NULL};
    struct mr_spawn_fd fds[] = {
        {.to = MR_LUN_CHANNEL_FD},
        {.from = lock_fd, .to = MR_LUN_LOCK_FD},
    };
    struct mr_spawn spawn = {
        .argv = argv,
        .fds = fds,
        .fd_count = 2,
        .stdout_fd = -1,
        .stderr_fd = -1,
        .new_session = true,
    };
    int pair[2];
    int r;

    if (!message)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "start message");
    if (mr_format(path, sizeof(path), "%s/mooring-lun", request->libexec_dir) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "path of mooring-lun");
    r = mr_msg_pair(pair, err);
    if (r < 0)
        return r;
    server->channel = pair[0];
    theirs = pair[1];
    fds[0].from = theirs;
    r = mr_spawn_start(&spawn, &server->pid, &server->pidfd, err);
    if (r < 0)
        return mr_err_context(err, r, "start '%s'", path);
    return mr_msg_send(server->channel, message, -1, 0, err);
}

/* The server's answer, in *ret; its refusal becomes err. */
static int server_answer(const struct mr_map_request *request, struct server *server,
                         struct json_object **ret, struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *answer = NULL;
    struct pollfd channel = {.fd = server->channel, .events = POLLIN};
    int r;

    do
        r = poll(&channel, 1, (int)request->iscsi_timeout_ms + ANSWER_GRACE_MS);
    while (r < 0 && errno == EINTR);
    if (r == 0)
        return mr_fail(err, MR_E_TARGET_TIMEOUT, ETIMEDOUT, "no answer from mooring-lun");
    r = mr_msg_recv(server->channel, &answer, &server->mount_fd, MSG_DONTWAIT, err);
    if (r <= 0)
        return mr_fail(err, MR_E_INTERNAL, EIO, "mooring-lun ended without an answer");
    if (!mr_json_get_bool(answer, "ok", false)) {
        mr_err_from_json(err, mr_json_get(answer, "error"));
        err->residue = MR_RESIDUE_NONE;
        return err->errnum ? -err->errnum : -EIO;
    }
    if (server->mount_fd < 0 || mr_json_get_int(answer, "pid", 0) != server->pid)
        return mr_fail(err, MR_E_INTERNAL, EBADMSG, "bad answer from mooring-lun");
    *ret = mr_take_ptr(answer);
    return 0;
}

/* The served file. The fstat is not only a check: it is what makes the kernel learn the
 * size. */
static int open_file(const struct mr_map_request *request, const struct server *server,
                     uint64_t size_bytes, int *ret_fd, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    char path[40];
    struct stat st;

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", server->mount_fd);
    fd = open(path, (request->spec->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "open the file of mooring-lun");
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size_bytes)
        return mr_fail(err, MR_E_DEVICE_MISMATCH, EINVAL,
                       "the file of mooring-lun has %lld bytes instead of %llu",
                       (long long)st.st_size, (unsigned long long)size_bytes);
    *ret_fd = mr_take_fd(&fd);
    return 0;
}

/* Best effort: larger requests work, but are split. */
static void tune(const struct mr_identity *identity)
{
    MR_AUTO_CLOSE int fd = -1;
    char path[80];

    (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/queue/max_sectors_kb",
                   identity->major, identity->minor);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        (void)mr_write_all(fd, IO_KB, sizeof(IO_KB) - 1);
}

/* From the server's answer on, whatever it says, to the identity. */
static int build(const struct mr_map_request *request, const struct server *server,
                 struct json_object *answer, struct mr_identity *ret, struct mr_err *err)
{
    const uint64_t size = (uint64_t)mr_json_get_int(answer, "size_bytes", 0);
    MR_AUTO_CLOSE int file_fd = -1;
    struct mr_loop_setup setup = {
        .token = request->token,
        .runtime_dir = request->runtime_dir,
        .read_only = request->spec->read_only,
        .direct_io = true,
        .require_direct = true,
        .block_size = (uint32_t)mr_json_get_int(answer, "block_size", 0),
    };
    int r;

    if (!setup.read_only && !mr_json_get_bool(answer, "writable", false)) {
        r = mr_fail(err, MR_E_DEVICE_ERROR, EROFS, "the LUN is write-protected");
        return mr_err_remedy(err, r, "attach it with read_only: true");
    }
    r = open_file(request, server, size, &file_fd, err);
    if (r < 0)
        return r;
    setup.backing_fd = file_fd;
    r = mr_loop_attach(&setup, ret, err);
    if (r < 0)
        return r;
    tune(ret);
    if (ret->size_bytes != size) {
        r = mr_fail(err, MR_E_DEVICE_MISMATCH, EINVAL,
                    "'%s' has %llu bytes instead of %llu", ret->node,
                    (unsigned long long)ret->size_bytes, (unsigned long long)size);
        mr_loop_undo(ret->node);
        return r;
    }
    mr_json_copy_string(answer, "serial", ret->serial, sizeof(ret->serial));
    mr_json_copy_string(answer, "wwn", ret->wwn, sizeof(ret->wwn));
    ret->lun_pid = server->pid;
    ret->lun_start_time = mr_process_start_time(server->pid);
    return 0;
}

/* Two servers of one LUN would be two writers. The core knows the volumes of its journal;
 * this is for what is in none. */
static int lock_source(const struct mr_map_request *request, const char *key, int *ret_fd,
                       struct mr_err *err)
{
    struct mr_identity other = {.node = ""};
    char holder[MR_TOKEN_TEXT];
    int r = mr_source_lock(request->runtime_dir, key, request->token, LOCK_MS, ret_fd,
                           holder, err);

    if (r != -EWOULDBLOCK)
        return r;
    if (holder[0])
        (void)mr_loop_find(holder, request->runtime_dir, MR_LOOP_ON_LUN, &other, NULL);
    (void)mr_fail(err, MR_E_SOURCE_IN_USE, EBUSY,
                  "the LUN is served by another mooring-lun (attach token %s%s%s)",
                  holder[0] ? holder : "not known", other.node[0] ? ", as " : "",
                  other.node);
    return mr_err_remedy(err, r, "GET /orphans lists what no volume knows");
}

static int iscsi_map(const struct mr_map_request *request, struct mr_identity *ret,
                     struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *answer = NULL;
    struct server server = {.pidfd = -1, .channel = -1, .mount_fd = -1};
    MR_AUTO_CLOSE int lock_fd = -1;
    char key[MR_KEY_TEXT];
    int r = mr_spec_source_key(request->spec, key, sizeof(key));

    *ret = (struct mr_identity){.diskseq = 0};
    if (r < 0)
        return mr_fail(err, MR_E_INVALID_SPEC, -r, "target name");
    r = lock_source(request, key, &lock_fd, err);
    if (r == -EWOULDBLOCK)
        memcpy(ret->source_key, key, sizeof(key));
    if (r < 0)
        return r;
    r = server_start(request, lock_fd, &server, err);
    if (r == 0)
        r = server_answer(request, &server, &answer, err);
    if (r == 0)
        r = mr_fault_fail("worker", "map", "inside", err);
    if (r == 0)
        r = build(request, &server, answer, ret, err);
    if (r < 0) {
        server_reap(&server);
        (void)mr_lun_logged_out(request->runtime_dir, request->token); /* if it died */
        *ret = (struct mr_identity){.diskseq = 0};
        return r;
    }
    memcpy(ret->source_key, key, sizeof(key));
    /* From here on only the loop device holds the file: the server lives as long as it
     * does. */
    server_close(&server);
    mr_close(&server.pidfd);
    return 0;
}

static struct mr_lun_server recorded(const struct mr_identity *identity)
{
    return (struct mr_lun_server){
        .pid = identity->lun_pid,
        .start_time = identity->lun_start_time,
    };
}

/* Adds what the server says: it need not be there. */
static void ask_server(const char *token, const char *runtime_dir,
                       struct mr_identity *ret)
{
    MR_AUTO_JSON struct json_object *status = NULL;
    struct mr_lun_server server = {0};
    MR_AUTO_CLOSE int fd = mr_lun_connect(runtime_dir, token, &server);

    if (fd < 0)
        return;
    ret->lun_pid = server.pid;
    ret->lun_start_time = server.start_time;
    if (mr_lun_ask(fd, "status", token, STATUS_MS, &status, NULL) < 0 ||
        mr_json_get_int(status, "pid", 0) != server.pid)
        return;
    mr_json_copy_string(status, "serial", ret->serial, sizeof(ret->serial));
    mr_json_copy_string(status, "wwn", ret->wwn, sizeof(ret->wwn));
}

static int iscsi_find(const char *token, const char *runtime_dir, struct mr_identity *ret,
                      struct mr_err *err)
{
    int r = mr_loop_find(token, runtime_dir, MR_LOOP_ON_LUN, ret, err);

    if (r > 0)
        ask_server(token, runtime_dir, ret);
    return r;
}

static int iscsi_unmap(const char *token, const char *runtime_dir,
                       const struct mr_identity *identity, int claim_fd,
                       struct mr_err *err)
{
    (void)token;
    (void)runtime_dir;
    (void)identity;
    return mr_loop_clear(claim_fd, err);
}

/* Whoever listens is asked only when nothing is recorded, or when it is the recorded one:
 * another's word would be taken for the deed. */
static bool may_ask(const struct mr_lun_server *listener,
                    const struct mr_identity *identity)
{
    return identity->lun_pid <= 0 || (listener->pid == identity->lun_pid &&
                                      (identity->lun_start_time == 0 ||
                                       listener->start_time == identity->lun_start_time));
}

static int iscsi_cut(const char *token, const char *runtime_dir,
                     const struct mr_identity *identity, char detail[MR_CUT_TEXT],
                     struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *status = NULL;
    struct mr_lun_server server = {0};
    MR_AUTO_CLOSE int fd = mr_lun_connect(runtime_dir, token, &server);

    /* In a protocol that is newer than we are, silence proves nothing: not killed. */
    if (fd >= 0 && may_ask(&server, identity) &&
        mr_lun_ask(fd, "cut", token, CUT_MS, &status, err) == -EPROTONOSUPPORT)
        return -EPROTONOSUPPORT;
    if (mr_json_get_bool(status, "cut", false))
        return mr_format(detail, MR_CUT_TEXT,
                         "mooring-lun dropped the session without logout: the device "
                         "fails from now on");
    if (identity->lun_pid > 0)
        server = recorded(identity);
    pid_t pid = server.pid;
    int r = mr_lun_kill(&server, KILLED_MS, err);
    if (r == 0)
        return mr_format(detail, MR_CUT_TEXT,
                         "mooring-lun has ended before: the device fails already");
    return r < 0 ? r
                 : mr_format(detail, MR_CUT_TEXT,
                             "mooring-lun %d did not answer and was killed: the device "
                             "fails from now on",
                             pid);
}

static int iscsi_finished(const char *token, const char *runtime_dir,
                          const struct mr_identity *identity, int64_t wait_ms,
                          struct json_object *evidence)
{
    struct mr_lun_server server = recorded(identity);

    if (server.pid <= 0) {
        /* Not recorded: the listener of the socket, if there is one, is it. */
        MR_AUTO_CLOSE int fd = mr_lun_connect(runtime_dir, token, &server);
    }
    if (server.pid > 0 && !mr_lun_await_end(&server, wait_ms)) {
        mr_json_set_string(evidence, "lun_server", "running");
        return 0;
    }
    bool clean = mr_lun_logged_out(runtime_dir, token);
    mr_json_set_string(evidence, "lun_server", "exited");
    mr_json_set_string(evidence, "session", clean ? "logged-out" : "not-logged-out");
    return 1;
}

const struct mr_driver mr_driver_iscsi = {
    .name = "iscsi",
    .unmap_kind = MR_UNMAP_DEFERRED,
    .map = iscsi_map,
    .find = iscsi_find,
    .unmap = iscsi_unmap,
    .keep = mr_loop_keep,
    .cut = iscsi_cut,
    .finished = iscsi_finished,
};
