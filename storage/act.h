/* SPDX-License-Identifier: Apache-2.0
 *
 * One action on the holders of a volume, shared by action_request.c, which decides,
 * actions.c, which runs it, and act_rows.c, which knows whom it is about. Core thread
 * only.
 */
#ifndef MR_STORAGE_ACT_H
#define MR_STORAGE_ACT_H

#include "storage/engine_internal.h"

struct mr_act {
    struct mr_act *next; /* of those left behind */
    struct mr_engine *engine;
    struct mr_volume *volume;
    char token[MR_TOKEN_TEXT]; /* of the attachment that it is about */
    char operation[MR_OPERATION_ID_TEXT];
    enum mr_action action;
    struct json_object *request; /* what the journal has: action, holders, caller, ... */
    struct json_object *gone;    /* results of those who did not hold any more */
    struct json_object *results;
    int64_t started_at_ms;
    int64_t ended_at_ms;
    bool was_accepted; /* the loss of data, before this action */
    bool was_forced;
    struct mr_pending *pending; /* NULL: the client went away */
    struct mr_worker *worker;
    struct mr_scan_request *scan;
};

/* Everything was checked and act is the volume's: writes it to the journal, then acts. */
void mr_act_start(struct mr_act *act);
/* act_rows.c: who was listed may have let go since, and nothing is done to who does not
 * hold. The rows of the others, new reference; act->gone gets the results of those. seen:
 * by a new scan. */
struct json_object *mr_act_keep_holding(struct mr_act *act, struct json_object *seen,
                                        bool complete);
/* The command `act` (protocol.h) on these rows. New reference. */
struct json_object *mr_act_command(const struct mr_act *act,
                                   const struct mr_operation *op,
                                   struct json_object *rows);
/* What is at work (takes the reference; NULL: nothing), for a start after a crash. */
void mr_act_set_acting(struct mr_volume *volume, struct json_object *request);

#endif
