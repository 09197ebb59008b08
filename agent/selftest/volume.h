/* SPDX-License-Identifier: Apache-2.0
 *
 * The one volume of the self test: attached and detached by the engine, looked at
 * without it.
 */
#ifndef MR_AGENT_SELFTEST_VOLUME_H
#define MR_AGENT_SELFTEST_VOLUME_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/selftest/rig.h"
#include "agent/selftest/sweep.h"

struct mr_trial {
    struct mr_rig *rig;
    const char *fs_type;
    char id[32];
    char image[PATH_MAX];
    char mount_path[PATH_MAX];
    struct mr_device device; /* what the kernel mapped */

    /* --- the operation at hand --- */
    struct mr_watch *watch;
    bool ended;
    bool failed;
    int64_t ended_ns; /* mr_now_ns() */
    struct mr_err error;
};

/* A volume with an image of its own. number tells it from earlier ones. */
int mr_trial_init(struct mr_trial *trial, struct mr_rig *rig, const char *fs_type,
                  unsigned number, struct mr_err *err);
/* Attaches, and checks with the kernel that it is the truth. Returns 0 or a negative
 * errno. */
int mr_trial_attach(struct mr_trial *trial, struct mr_err *err);
/* Starts the detach; its end is trial->ended. */
int mr_trial_begin_detach(struct mr_trial *trial, struct mr_err *err);
/* Waits for it. */
int mr_trial_await_end(struct mr_trial *trial, struct mr_err *err);
/* "unmount", "drain", ...: what the detach waits in; "" when there is none. */
const char *mr_trial_step(struct mr_trial *trial);
/* Asks the engine who holds it. *ret: rows, a new reference. */
int mr_trial_ask(struct mr_trial *trial, struct json_object **ret, struct mr_err *err);
/* Is it neither attached nor on its way? */
bool mr_trial_is_gone(struct mr_trial *trial);
/* Forgets the watch of an operation that nobody waits for any more. */
void mr_trial_done(struct mr_trial *trial);

#endif
