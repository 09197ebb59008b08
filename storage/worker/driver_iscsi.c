/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver `iscsi`: mooring-lun <-> FUSE file <-> loop device. Opening the file and the
 * loop ioctls belong here, not into mooring-lun, which would wait for itself.
 */
#include "storage/worker/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fault.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/worker/cgroup.h"
#include "storage/worker/loopdev.h"
#include "storage/worker/lun_oneshot.h"
#include "storage/worker/lun_server.h"
#include "storage/worker/lun_start.h"
#include "storage/worker/source_lock.h"

#define STATUS_MS 500
#define CUT_MS 2000 /* it gives its server some time for that */
#define KILLED_MS 1000
#define CGROUP_MS 500 /* what is left of it ends */
#define LOCK_MS 6000  /* one whose file was released drains and logs out in 4 s */
#define IO_KB "1024"  /* one FUSE request; the default of 1280 would be split */

/* The served file. The fstat is not only a check: it is what makes the kernel learn the
 * size. */
static int open_file(const struct mr_map_request *request,
                     const struct mr_lun_child *server, uint64_t size_bytes, int *ret_fd,
                     struct mr_err *err)
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
static int build(const struct mr_map_request *request, const struct mr_lun_child *server,
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
    struct mr_lun_child server = {.pidfd = -1, .channel = -1, .mount_fd = -1};
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
    r = mr_lun_spawn(request, lock_fd, &server, err);
    if (r == 0)
        r = mr_lun_answer(request, &server, &answer, err);
    if (r == 0)
        r = mr_fault_fail("worker", "map", "inside", err);
    if (r == 0)
        r = build(request, &server, answer, ret, err);
    if (r < 0) {
        mr_lun_reap(&server);
        (void)mr_lun_logged_out(request->runtime_dir, request->token); /* if it died */
        (void)mr_cgroup_remove(request->runtime_dir, request->token, CGROUP_MS);
        *ret = (struct mr_identity){.diskseq = 0};
        return r;
    }
    memcpy(ret->source_key, key, sizeof(key));
    /* From here on only the loop device holds the file: the server lives as long as it
     * does. */
    mr_lun_child_close(&server);
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
    if (mr_json_get_bool(status, "aborted", false))
        return mr_format(detail, MR_CUT_TEXT,
                         "the server of mooring-lun did not answer: it was killed and "
                         "its FUSE connection aborted: the device fails from now on");
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
    (void)mr_cgroup_remove(runtime_dir, token, CGROUP_MS);
    mr_json_set_string(evidence, "lun_server", "exited");
    mr_json_set_string(evidence, "session", clean ? "logged-out" : "not-logged-out");
    return 1;
}

const struct mr_driver mr_driver_iscsi = {
    .name = "iscsi",
    .unmap_kind = MR_UNMAP_DEFERRED,
    .map = iscsi_map,
    .preflight = mr_lun_preflight,
    .find = iscsi_find,
    .unmap = iscsi_unmap,
    .keep = mr_loop_keep,
    .cut = iscsi_cut,
    .finished = iscsi_finished,
};
