/* SPDX-License-Identifier: Apache-2.0
 *
 * mooring-worker: one volume operation, one holder scan, one action on holders, a survey,
 * or one look at what is not mapped, in a process that may hang in the kernel without
 * hurting anybody else. Started by the agent only (storage/protocol.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/base/json.h"
#include "storage/base/log.h"
#include "storage/base/msg.h"
#include "storage/protocol.h"
#include "storage/worker/commands.h"
#include "storage/worker/lock.h"
#include "storage/worker/scan.h"

#define EXIT_USAGE 64
#define EXIT_SYSTEM 71

/* The agent passes these fds without close-on-exec; no child of ours may get them. */
static int take_inherited(int fd)
{
    int flags = fcntl(fd, F_GETFD);

    return flags < 0 ? -errno : fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
}

static int say_ready(int channel_fd, struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *event = json_object_new_object();

    mr_json_set_string(event, "event", "ready");
    return mr_msg_send(channel_fd, event, -1, 0, err);
}

static int run_action(struct mr_err *err)
{
    struct mr_worker worker = {
        .channel_fd = MR_WORKER_CHANNEL_FD,
        .inotify_fd = MR_WORKER_INOTIFY_FD,
        .lock_fd = -1,
        .claim_fd = -1,
        .mode = MR_WORKER_ACTION,
    };

    if (take_inherited(MR_WORKER_INOTIFY_FD) < 0)
        return mr_fail(err, MR_E_INTERNAL, EBADF, "no inotify at fd %d",
                       MR_WORKER_INOTIFY_FD);
    return mr_worker_run(&worker, err);
}

static int run_survey(struct mr_err *err)
{
    struct mr_worker worker = {
        .channel_fd = MR_WORKER_CHANNEL_FD,
        .inotify_fd = -1,
        .lock_fd = -1,
        .claim_fd = -1,
        .mode = MR_WORKER_SURVEY,
    };

    return mr_worker_run(&worker, err);
}

static int run_probe(struct mr_err *err)
{
    struct mr_worker worker = {
        .channel_fd = MR_WORKER_CHANNEL_FD,
        .inotify_fd = -1,
        .lock_fd = -1,
        .claim_fd = -1,
        .mode = MR_WORKER_PROBE,
    };

    (void)take_inherited(MR_WORKER_INOTIFY_FD); /* of no use here, nor to a child */
    return mr_worker_run(&worker, err);
}

static int run_volume(const char *lock_path, struct mr_err *err)
{
    struct mr_worker worker = {
        .channel_fd = MR_WORKER_CHANNEL_FD,
        .inotify_fd = MR_WORKER_INOTIFY_FD,
        .lock_fd = -1,
        .claim_fd = -1,
    };

    if (take_inherited(MR_WORKER_INOTIFY_FD) < 0)
        return mr_fail(err, MR_E_INTERNAL, EBADF, "no inotify at fd %d",
                       MR_WORKER_INOTIFY_FD);
    int r = mr_lock_take(lock_path, MR_WORKER_CHANNEL_FD, &worker.lock_fd, err);
    if (r == 0)
        r = say_ready(MR_WORKER_CHANNEL_FD, err);
    if (r == 0)
        r = mr_worker_run(&worker, err);
    mr_close(&worker.claim_fd);
    mr_close(&worker.lock_fd);
    /* The agent died: not our failure. */
    return r == -ECANCELED || r == -EPIPE ? 0 : r;
}

static int run_scan(void)
{
    bool marks = take_inherited(MR_SCAN_FANOTIFY_FD) == 0; /* not on every kernel */

    return mr_scan_main(MR_WORKER_CHANNEL_FD, marks ? MR_SCAN_FANOTIFY_FD : -1);
}

int main(int argc, char **argv)
{
    struct mr_err err = {0};
    bool volume = argc == 3 && strcmp(argv[1], "volume") == 0;
    bool scan = argc == 2 && strcmp(argv[1], "scan") == 0;
    bool action = argc == 2 && strcmp(argv[1], "action") == 0;
    bool survey = argc == 2 && strcmp(argv[1], "survey") == 0;
    bool probe = argc == 2 && strcmp(argv[1], "probe") == 0;

    mr_log_init("mooring-worker");
    if (!volume && !scan && !action && !survey && !probe) {
        (void)fprintf(
            stderr,
            "usage: mooring-worker volume LOCKFILE | scan | action | survey | probe\n"
            "Started by mooringd, not by hand.\n");
        return EXIT_USAGE;
    }
    (void)umask(077);
    if (chdir("/") < 0 || take_inherited(MR_WORKER_CHANNEL_FD) < 0) {
        mr_log(MR_LOG_ERR, "msg=\"no channel at fd %d\"", MR_WORKER_CHANNEL_FD);
        return EXIT_SYSTEM;
    }
    if (scan)
        return run_scan();
    int r = action   ? run_action(&err)
            : survey ? run_survey(&err)
            : probe  ? run_probe(&err)
                     : run_volume(argv[2], &err);
    if (r < 0) {
        mr_log(MR_LOG_ERR, "msg=\"worker ends\" error=\"%s\"", err.message);
        return EXIT_SYSTEM;
    }
    return 0;
}
