/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/plan.h"

#include <stddef.h>
#include <string.h>

/* A fresh token: there is nothing to find. */
static const enum mr_step attach[] = {
    MR_STEP_MAP,    MR_STEP_IDENTIFY, MR_STEP_CHECK,
    MR_STEP_FORMAT, MR_STEP_MOUNT,    MR_STEP_NONE,
};

/* Something of it is there, or was: look first, and do only what is missing. */
static const enum mr_step mend[] = {
    MR_STEP_INSPECT, MR_STEP_MAP,   MR_STEP_IDENTIFY, MR_STEP_CHECK,
    MR_STEP_FORMAT,  MR_STEP_MOUNT, MR_STEP_NONE,
};

static const enum mr_step detach[] = {
    MR_STEP_INSPECT, MR_STEP_UNMOUNT, MR_STEP_DRAIN,
    MR_STEP_CLAIM,   MR_STEP_UNMAP,   MR_STEP_NONE,
};

/* Nothing of it can exist in this boot. */
static const enum mr_step nothing[] = {
    MR_STEP_NONE,
};

/* A missing cell is NULL: not a legal move. ATTACHING and DETACHING are not restarted
 * towards ATTACHED: the running operation is joined or waited for. */
static const enum mr_step *const plans[MR_GOAL_COUNT][MR_STATE_COUNT] = {
    [MR_GOAL_ATTACHED] =
        {
            [MR_STATE_ABSENT] = attach,
            [MR_STATE_FAILED] = mend,
            [MR_STATE_LOST_BY_REBOOT] = attach,
            [MR_STATE_ATTACHED] = mend,
        },
    [MR_GOAL_ABSENT] =
        {
            [MR_STATE_ATTACHING] = detach, /* undo after a crash */
            [MR_STATE_ATTACHED] = detach,
            [MR_STATE_DETACHING] = detach, /* continue after a crash */
            [MR_STATE_FAILED] = detach,
            [MR_STATE_FENCED] = detach,
            [MR_STATE_ORPHAN] = detach,
            [MR_STATE_LOST_BY_REBOOT] = nothing,
        },
};

static const char *const state_names[MR_STATE_COUNT] = {
    [MR_STATE_ABSENT] = "absent",
    [MR_STATE_ATTACHING] = "attaching",
    [MR_STATE_ATTACHED] = "attached",
    [MR_STATE_DETACHING] = "detaching",
    [MR_STATE_FAILED] = "failed",
    [MR_STATE_WEDGED] = "wedged",
    [MR_STATE_LOST_BY_REBOOT] = "lost_by_reboot",
    [MR_STATE_FENCED] = "fenced",
    [MR_STATE_ORPHAN] = "orphan",
};

static const char *const step_names[MR_STEP_COUNT] = {
    [MR_STEP_MAP] = "map",     [MR_STEP_IDENTIFY] = "identify",
    [MR_STEP_CHECK] = "check", [MR_STEP_FORMAT] = "format",
    [MR_STEP_MOUNT] = "mount", [MR_STEP_UNMOUNT] = "unmount",
    [MR_STEP_DRAIN] = "drain", [MR_STEP_CLAIM] = "claim",
    [MR_STEP_UNMAP] = "unmap",
};

const enum mr_step *mr_plan(enum mr_state state, enum mr_goal goal)
{
    if ((unsigned)state >= MR_STATE_COUNT || (unsigned)goal >= MR_GOAL_COUNT)
        return NULL;
    return plans[goal][state];
}

const char *mr_state_name(enum mr_state state)
{
    return (unsigned)state < MR_STATE_COUNT ? state_names[state] : "unknown";
}

enum mr_state mr_state_from_name(const char *name)
{
    for (unsigned i = 0; name && i < MR_STATE_COUNT; i++)
        if (strcmp(name, state_names[i]) == 0)
            return (enum mr_state)i;
    return MR_STATE_COUNT;
}

const char *mr_step_name(enum mr_step step)
{
    return (unsigned)step < MR_STEP_COUNT ? step_names[step] : NULL;
}
