/* SPDX-License-Identifier: Apache-2.0
 *
 * The core's side of mooring-worker (protocol.h): start, one command at a time, deadline,
 * end. A worker past its deadline is only reported: the core goes on, and hears of it
 * when it answers or ends after all.
 */
#ifndef MR_STORAGE_WORKERS_H
#define MR_STORAGE_WORKERS_H

#include <json-c/json.h>
#include <stdint.h>
#include <sys/types.h>

#include "storage/base/err.h"
#include "storage/base/loop.h"

struct mr_workers;
struct mr_worker;

struct mr_worker_events {
    void (*ready)(void *ctx);                              /* it has the volume's lock */
    void (*event)(void *ctx, struct json_object *message); /* {"event": ...}, borrowed */
    /* The answer to the command at hand: ok, or err (then message may hold more). Both
     * borrowed. */
    void (*reply)(void *ctx, bool ok, struct json_object *message,
                  const struct mr_err *err);
    void (*overdue)(void *ctx); /* the lock or the answer did not come by the deadline */
    void (*died)(
        void *ctx,
        const struct mr_err *err); /* ended without being asked; freed after this */
};

/* libexec_dir is borrowed. inotify_fd is what workers inherit as MR_WORKER_INOTIFY_FD. */
int mr_workers_new(struct mr_loop *loop, const char *libexec_dir, int inotify_fd,
                   struct mr_workers **ret, struct mr_err *err);
/* Closes all channels: each worker finishes the command at hand and exits. No callbacks
 * any more. */
void mr_workers_free(struct mr_workers *workers);

/* A mooring-worker as a process: ours to reap, and it ends when the channel closes. */
struct mr_worker_process {
    pid_t pid;
    int pidfd;   /* -1: none */
    int channel; /* -1: none */
};

/* Starts `mooring-worker MODE [ARGUMENT]` (protocol.h). inotify_fd is inherited, or -1.
 * On failure what was opened is in *ret all the same, for the caller to close. */
int mr_worker_launch(const char *libexec_dir, const char *mode, const char *argument,
                     int inotify_fd, struct mr_worker_process *ret, struct mr_err *err);

/* Starts a worker. "volume" with a lock file takes that and then says ready; "action",
 * "probe" (one command) and "survey" (without argument) take no lock, do not say ready,
 * and get their command at once. events and ctx are borrowed until mr_worker_end() or
 * died(). deadline_ns is for `ready`. */
int mr_worker_start(struct mr_workers *workers, const char *mode, const char *lock_path,
                    int64_t deadline_ns, const struct mr_worker_events *events, void *ctx,
                    struct mr_worker **ret, struct mr_err *err);
/* Sends a command (takes the reference). Only when ready and no other is running. A
 * failure to send is reported by died() from the loop. */
void mr_worker_command(struct mr_worker *worker, struct json_object *command,
                       int64_t deadline_ns);
/* Where it hangs, in words: "process 123 hangs in the kernel at a <- b <- c", from
 * proc_pid_stack(5); without that, from its wchan. Returns text. Reads procfs files of
 * our own child: does not block. */
const char *mr_worker_stack(const struct mr_worker *worker, char text[256]);
/* For logs and tests. */
pid_t mr_worker_pid(const struct mr_worker *worker);
/* SIGKILL: for what must not go on, and may be cut off anywhere. died() tells its end. */
void mr_worker_kill(const struct mr_worker *worker);
/* No more commands, no more callbacks; the process ends by itself and is reaped. NULL is
 * fine. */
void mr_worker_end(struct mr_worker *worker);

#endif
