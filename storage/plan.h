/* SPDX-License-Identifier: Apache-2.0
 *
 * The plan of an operation as data: (state, goal) -> steps. Pure; tested without running
 * anything.
 */
#ifndef MR_STORAGE_PLAN_H
#define MR_STORAGE_PLAN_H

/* States of a volume as the API names them. ABSENT is not shown: the volume is a
 * tombstone. */
enum mr_state {
    MR_STATE_ABSENT = 0,
    MR_STATE_ATTACHING,
    MR_STATE_ATTACHED,
    MR_STATE_DETACHING,
    MR_STATE_FAILED,
    MR_STATE_WEDGED,
    MR_STATE_LOST_BY_REBOOT,
    MR_STATE_FENCED,
    MR_STATE_ORPHAN, /* its detach was given up: still mapped, nobody waits */
    MR_STATE_COUNT,
};

enum mr_goal {
    MR_GOAL_ABSENT = 0,
    MR_GOAL_ATTACHED,
    MR_GOAL_COUNT,
};

enum mr_step {
    MR_STEP_NONE = 0,
    MR_STEP_INSPECT, /* read back what is there; never shown */
    MR_STEP_MAP,
    MR_STEP_IDENTIFY,
    MR_STEP_CHECK,
    MR_STEP_FORMAT,
    MR_STEP_MOUNT,
    MR_STEP_UNMOUNT,
    MR_STEP_DRAIN,
    MR_STEP_CLAIM,
    MR_STEP_UNMAP,
    MR_STEP_COUNT,
};

/* Steps in order, ended by MR_STEP_NONE. NULL: not a legal move, to be answered before
 * anything is touched. */
const enum mr_step *mr_plan(enum mr_state state, enum mr_goal goal);

/* "attached", "lost_by_reboot", ...; never NULL. */
const char *mr_state_name(enum mr_state state);
/* MR_STATE_COUNT when there is none. */
enum mr_state mr_state_from_name(const char *name);
/* "map", "drain", ...; NULL for MR_STEP_NONE and MR_STEP_INSPECT (JSON null in the API).
 */
const char *mr_step_name(enum mr_step step);

#endif
