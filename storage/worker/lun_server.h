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

struct mr_lun_server {
    pid_t pid; /* 0: not known */
    uint64_t start_time;
};

/* Connects to the control socket without waiting; *ret is who listens there. The fd or a
 * negative errno. */
int mr_lun_connect(const char *runtime_dir, const char *token, struct mr_lun_server *ret);

/* The status document of the server, after it did `cmd`: new reference. NULL when it does
 * not answer in time (it may be stopped), or is another one's. */
struct json_object *mr_lun_ask(int fd, const char *cmd, const char *token, int limit_ms);

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
