/* SPDX-License-Identifier: Apache-2.0
 *
 * mooring-lun serve: one iSCSI LUN as a FUSE file for a loop device. Started by the
 * worker's iscsi driver with a socket at fd 3: one message in (start.h), one out with the
 * mount's fd. It ends when the kernel has released the file, never because somebody says
 * so.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/log.h"
#include "storage/base/msg.h"
#include "storage/lun/fuse_dev.h"
#include "storage/lun/identify.h"
#include "storage/lun/process.h"
#include "storage/lun/serve.h"

#define START_MS 10000

/* sysexits(3) */
#define EXIT_USAGE 64
#define EXIT_UNAVAILABLE 69
#define EXIT_SYSTEM 71
#define EXIT_NOPERM 77

static int exit_code(enum mr_code code)
{
    if (code == MR_E_CHAP_REFUSED)
        return EXIT_NOPERM;
    if (code == MR_E_INVALID_REQUEST || code == MR_E_INVALID_SPEC)
        return EXIT_USAGE;
    return code == MR_E_INTERNAL ? EXIT_SYSTEM : EXIT_UNAVAILABLE;
}

static int receive_start(struct mr_lun_start *ret, struct mr_err *err)
{
    struct pollfd channel = {.fd = MR_LUN_CHANNEL_FD, .events = POLLIN};
    MR_AUTO_JSON struct json_object *json = NULL;

    if (poll(&channel, 1, START_MS) <= 0 ||
        mr_msg_recv(MR_LUN_CHANNEL_FD, &json, NULL, MSG_DONTWAIT, err) <= 0)
        return mr_fail(err, MR_E_INVALID_REQUEST, EINVAL, "no start message at fd %d",
                       MR_LUN_CHANNEL_FD);
    return mr_lun_start_decode(json, ret, err);
}

/* Best effort: with the worker gone the mount's fd dies in the socket, and we end by
 * that. */
static void send_answer(struct json_object *json, int mount_fd)
{
    struct mr_err err;

    if (json && mr_msg_send(MR_LUN_CHANNEL_FD, json, mount_fd, MSG_DONTWAIT, &err) < 0)
        mr_log(MR_LOG_WARNING, "no answer to the worker: %s", err.message);
    (void)close(MR_LUN_CHANNEL_FD);
}

static int fail_start(const struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *json = json_object_new_object();

    mr_log(MR_LOG_ERR, "code=%s %s", mr_code_slug(err->code), err->message);
    if (json) {
        mr_json_set_bool(json, "ok", false);
        mr_json_set(json, "error", mr_err_to_json(err));
    }
    send_answer(json, -1);
    return exit_code(err->code);
}

/* Session, buffers, mount, control socket: in an order in which what comes later needs no
 * undoing. */
static int set_up(struct mr_server *server, int *ret_fuse_fd, int *ret_mount_fd,
                  struct mr_err *err)
{
    const int64_t deadline_ns = mr_now_ns() + server->start.timeout_ms * MR_NS_PER_MS;
    struct mr_fuse_geometry geometry;
    char mark[MR_MARK_TEXT];
    int r = mr_fuse_open(ret_fuse_fd, err);

    if (r == 0)
        r = mr_session_open(&server->session, &server->start, MR_LUN_CHANNEL_FD,
                            deadline_ns, err);
    if (r == 0)
        r = mr_lun_identify(&server->session, server->start.target, deadline_ns,
                            &server->facts, err);
    if (r == 0)
        r = mr_io_geometry(&server->facts, server->start.read_only, &geometry, err);
    if (r == 0)
        r = mr_io_init(&server->io, *ret_fuse_fd, &server->session, &server->facts,
                       &geometry, err);
    if (r == 0) {
        mr_process_lock();
        mr_mark(mark, server->start.token, server->start.runtime_dir);
        r = mr_fuse_mount(*ret_fuse_fd, mark, geometry.max_bytes, ret_mount_fd, err);
    }
    if (r == 0)
        r = mr_control_open(&server->control, server->start.runtime_dir,
                            server->start.token, err);
    return r;
}

static int serve(void)
{
    static struct mr_server server; /* too large for a stack frame */
    MR_AUTO_CLOSE int fuse_fd = -1;
    MR_AUTO_CLOSE int mount_fd = -1;
    struct mr_err err = {0};
    int r = receive_start(&server.start, &err);

    if (r == 0)
        r = set_up(&server, &fuse_fd, &mount_fd, &err);
    explicit_bzero(server.start.password, sizeof(server.start.password));
    if (r < 0) {
        r = fail_start(&err);
        (void)mr_session_logout(&server.session, mr_now_ns() + MR_NS_PER_S);
        mr_session_close(&server.session);
        mr_io_done(&server.io);
        return r;
    }
    mr_log(MR_LOG_INFO, "serving target=%s lun=%u portal=%s size_bytes=%llu",
           server.start.target, server.start.lun, server.session.portal,
           (unsigned long long)server.facts.size_bytes);
    {
        MR_AUTO_JSON struct json_object *json = mr_server_status(&server);

        send_answer(json, mount_fd);
    }
    mr_close(&mount_fd);
    mr_process_quiet();
    if (mr_server_run(&server))
        mr_control_unlink(&server.control);
    mr_control_close(&server.control);
    mr_io_done(&server.io);
    return 0;
}

int main(int argc, char **argv)
{
    mr_log_init("mooring-lun");
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        (void)printf("mooring-lun %s\n", MR_VERSION);
        return 0;
    }
    if (argc != 2 || strcmp(argv[1], "serve") != 0) {
        (void)fprintf(stderr, "usage: mooring-lun serve (started by mooring-worker)\n");
        return EXIT_USAGE;
    }
    mr_process_isolate();
    return serve();
}
