/* SPDX-License-Identifier: Apache-2.0
 *
 * What the self test runs in: a mount namespace and a directory of its own, an event
 * loop, an engine with the installed workers. Main thread only.
 */
#ifndef MR_AGENT_SELFTEST_RIG_H
#define MR_AGENT_SELFTEST_RIG_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/base/loop.h"
#include "storage/config.h"
#include "storage/engine.h"

#define MR_STEP_LIMIT_MS 10000 /* for every single thing that is waited for */

struct mr_rig {
    char program[PATH_MAX]; /* ourselves; the workers are beside it */
    char dir[PATH_MAX / 2]; /* "": not made yet */
    char mount_root[PATH_MAX];
    char file_root[PATH_MAX];
    struct mr_config config;
    struct mr_loop *loop;
    struct mr_engine *engine;
    int signal_fd;
    struct mr_io *signal_io;
    int signal;   /* that asked us to end, 0 = none */
    bool patient; /* waits go on in spite of it */

    /* --- the wait at hand --- */
    struct mr_timer tick;
    bool (*until)(void *ctx);
    void *ctx;
    int64_t give_up_ns;
    int waited; /* its result */
};

/* Zeroed rig. Says in err what this machine lacks. mr_rig_stop() in every case. */
int mr_rig_start(struct mr_rig *rig, struct mr_err *err);
/* Ends the engine, then takes away whatever is still mapped, mounted or there: for a rig
 * that failed half-way, and for an engine that lied. left: what stays nevertheless, ""
 * for nothing. */
void mr_rig_stop(struct mr_rig *rig, char *left, size_t size);

/* Runs the loop until the condition holds. Returns 0, -ETIMEDOUT, or -EINTR after a
 * signal (unless patient: to tidy up by the same means). */
int mr_rig_wait(struct mr_rig *rig, bool (*until)(void *ctx), void *ctx,
                int64_t limit_ms);

/* A sparse image file below the file root. */
int mr_rig_new_image(struct mr_rig *rig, const char *name, int64_t bytes,
                     char ret_path[PATH_MAX], struct mr_err *err);

#endif
