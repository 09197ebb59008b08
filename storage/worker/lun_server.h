/* SPDX-License-Identifier: Apache-2.0
 *
 * A running mooring-lun, seen from outside: its control socket RUNTIME/lun/TOKEN.sock,
 * and its process. Nothing here waits for it longer than it was told to.
 */
#ifndef MR_STORAGE_WORKER_LUN_SERVER_H
#define MR_STORAGE_WORKER_LUN_SERVER_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "storage/base/err.h"
#include "storage/base/mountid.h"

struct mr_lun_server {
    pid_t pid; /* 0: not known */
    uint64_t start_time;
};

/* Connects to the control socket without waiting; *ret is who listens there. The fd or a
 * negative errno. */
int mr_lun_connect(const char *runtime_dir, const char *token, struct mr_lun_server *ret);

/* Did it end? Absent: it did, or another process has its number. Waits for nothing. */
enum mr_presence mr_lun_presence(const struct mr_lun_server *server);

/* A question to the server of a token, over a connection to it. */
struct mr_lun_question {
    int fd;
    const char *token;
    const char *cmd;
    int64_t version; /* of the protocol that it is asked in, see lun/control.h */
};

/* Asks in the newest version that we speak. 0 or a negative errno. Does not wait. */
int mr_lun_send(struct mr_lun_question *question);
/* What it said: 1 and its status document after it did the command (new reference), 0
 * when there is nothing yet (it may have been asked again, in the newest version that
 * both speak), or a negative errno: -EPROTONOSUPPORT when there is no such version
 * (nothing of what it says is looked at then). Does not wait. */
int mr_lun_receive(struct mr_lun_question *question, struct json_object **ret,
                   struct mr_err *err);
/* Both, and waits for it: 0, -ETIMEDOUT when it does not answer in time (it may be
 * stopped), or as above. */
int mr_lun_ask(int fd, const char *cmd, const char *token, int limit_ms,
               struct json_object **ret, struct mr_err *err);

/* Has this process ended (or never was)? Waits at most wait_ms for it. */
bool mr_lun_await_end(const struct mr_lun_server *server, int64_t wait_ms);

/* SIGKILL, and waits at most wait_ms for the end: it makes the kernel fail all requests
 * to the served file (fs/fuse/dev.c fuse_dev_release()). Never another process that got
 * the number. 1, 0 when it had ended before, or a negative errno. */
int mr_lun_kill(const struct mr_lun_server *server, int64_t wait_ms, struct mr_err *err);

/* Did the server that has ended log out of its session? It removes its socket when, and
 * only when, the target confirmed that; a socket that is left is removed here. */
bool mr_lun_logged_out(const char *runtime_dir, const char *token);

#endif
