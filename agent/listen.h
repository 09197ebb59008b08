/* SPDX-License-Identifier: Apache-2.0
 *
 * Listening sockets: unix, loopback TCP, or given by the service manager. A unix socket
 * that somebody answers on is never taken away.
 */
#ifndef MR_AGENT_LISTEN_H
#define MR_AGENT_LISTEN_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "agent/options.h"
#include "storage/base/err.h"

/* An open listening socket. path is set for unix sockets that we made: removed by
 * mr_listen_unlink(). */
struct mr_listen {
    int fd; /* -1: taken */
    char path[108];
    dev_t dev;
    ino_t ino;
};

struct mr_listens {
    struct mr_listen socket[2 * MR_LISTEN_MAX];
    size_t count;
};

/* Opens what the options and the service manager (sd_listen_fds(3)) say, the default
 * unix:RUNTIME_DIR/agent.sock without either. Logs each bound address. On failure
 * *ret_exit is the exit code: USAGE (bad syntax), CONFIG (not allowed) or SYSTEM. In
 * every case mr_listen_done() closes. */
int mr_listen_open(const struct mr_options *options, struct mr_listens *ret,
                   enum mr_exit *ret_exit, struct mr_err *err);

/* The same checks of syntax and permission, nothing is opened. */
int mr_listen_check(const struct mr_options *options, enum mr_exit *ret_exit,
                    struct mr_err *err);

/* Removes the socket files, if they are still ours, and closes what was not taken. */
void mr_listen_done(struct mr_listens *listens);

#endif
