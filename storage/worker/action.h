/* SPDX-License-Identifier: Apache-2.0
 *
 * The action worker: one explicit act of an operator on holders of one device, or one
 * look at its super block. Nothing that the command says about a holder is trusted: it is
 * asked of the kernel again right before the act. What can sleep in the kernel for ever
 * runs in a child that is given up after its limit, so that there is always an answer;
 * only examine may keep the worker itself. Single-threaded.
 */
#ifndef MR_STORAGE_WORKER_ACTION_H
#define MR_STORAGE_WORKER_ACTION_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "storage/base/err.h"
#include "storage/holder_kind.h"
#include "storage/identity.h"
#include "storage/worker/driver.h"

#define MR_OUTCOME_TEXT 200

/* What became of one row, or of the volume. */
struct mr_outcome {
    bool done; /* what was asked for is so now */
    char detail[MR_OUTCOME_TEXT];
};

/* Sets both; the text is cut where it does not fit. */
void mr_outcome(struct mr_outcome *ret, bool done, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* A row of the last scan, as far as the actions need it. Text is borrowed. */
struct mr_target_row {
    const char *id;
    enum mr_holder_kind kind;
    pid_t pid; /* 0: none */
    pid_t tid;
    uint64_t start_time;
    uint64_t mount_ns;
    uint64_t mount_id;
    const char *path; /* may be NULL */
};

struct mr_act {
    int channel_fd;
    int inotify_fd;
    struct mr_identity identity;
    int device_fd; /* the verified device, held open: its number is not bound again */
    const char *fs_type; /* "": none that we know */
    bool read_only;
    const struct mr_driver *driver;
    const char *token;
    const char *runtime_dir;
    bool has_mount;
    struct mr_mount_record mount;
    const char *mount_path;     /* where it is or was mounted, by text; may be NULL */
    struct mr_mount_id *spares; /* mounts of our other volumes */
    size_t spare_count;
    int signal;
    int64_t deadline_ns; /* no further row is begun after it */
};

/* Runs fn in a child for at most limit_ms: what it leaves in *ret is the answer. False
 * when the child hangs (it was killed, and ends when the kernel lets it) or died without
 * an answer; *ret then says so. The child has no fd of the channel, and that of
 * the device for as long as it does not close it. */
typedef void (*mr_child_fn)(void *ctx, struct mr_outcome *ret);
bool mr_act_in_child(const struct mr_act *act, mr_child_fn fn, void *ctx,
                     int64_t limit_ms, struct mr_outcome *ret);

/* Takes one mount down in its mount namespace by umount2(UMOUNT_NOFOLLOW), never lazily,
 * never by force, never our own or that of another volume, neither itself nor by shared
 * propagation. mount-copy, nested-mount, covering-mount, overlay. */
void mr_act_unmount(const struct mr_act *act, const struct mr_target_row *row,
                    struct mr_outcome *ret);

/* Signals the processes of all rows, each once, then waits for their ends together (at
 * most 2 s). results has count elements. */
void mr_act_signal(const struct mr_act *act, const struct mr_target_row *rows,
                   size_t count, struct mr_outcome *results);

/* FITHAW, through our own mount or a detached one that joins the live super block. */
void mr_act_thaw(const struct mr_act *act, struct mr_outcome *ret);
/* syncfs for at most 5 s, then FS_IOC_SHUTDOWN without a flush of the log. */
void mr_act_shutdown(const struct mr_act *act, struct mr_outcome *ret);
/* Sends the armed event, fills `frozen` and `detail` of reply. 0, or a negative errno
 * when the channel broke. May block for as long as the device does. */
int mr_act_examine(const struct mr_act *act, struct json_object *reply,
                   struct mr_err *err);

/* Makes the device fail from now on. ACTION_UNSUPPORTED when the driver cannot. */
int mr_act_cut(const struct mr_act *act, struct mr_outcome *ret, struct mr_err *err);

#endif
