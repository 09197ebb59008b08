/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine in memory behind storage/engine.h, for the tests of the API: nothing is
 * mapped or mounted. What happens is chosen by the volume's id: "slow*" operations and
 * answers last 10 s ("slowdisk*" are in the journal after half a second), "fail*" attach
 * fails with device-error after 20 ms, all others take 20 ms; a detach of "held*" lasts
 * 10 s, an action on "held-long*" half a second; answers for "broken*" fail with
 * journal-unavailable; any call for "pending*" is refused.
 */
#ifndef MR_TESTS_UNIT_FAKE_ENGINE_H
#define MR_TESTS_UNIT_FAKE_ENGINE_H

#include <stdbool.h>

#include "storage/engine.h"

void fake_engine_set_recovering(struct mr_engine *engine, bool recovering);

/* --- what fake_engine.c (volumes, operations) and fake_pending.c (answers) share --- */

#define VOLUMES_MAX 64

struct mr_operation {
    struct mr_operation *next;
    struct mr_volume *volume;
    char id[24];
    enum mr_goal goal;
    int ended;
    struct mr_err err;
    struct json_object *proof;
    struct mr_timer timer;
    struct mr_timer accept;
    bool accepted;
    struct mr_watch *watches;
};

struct mr_volume {
    struct mr_engine *engine;
    char id[MR_VOLUME_ID_MAX + 1];
    struct mr_spec *spec;
    uint64_t generation;
    const char *state;
    struct mr_operation *running;
    struct json_object *proof; /* of the last detach */
    int actions_done;
    char reason[300]; /* why it was given up, and by whom */
    struct json_object *caller;
};

struct mr_engine {
    struct mr_loop *loop;
    bool recovering;
    unsigned operations;
    struct mr_volume volumes[VOLUMES_MAX]; /* sorted by id, "" at the end */
    struct mr_operation *ops;
    struct mr_pending *pending;
};

bool fake_starts(const char *text, const char *prefix);
void fake_operation_end(struct mr_operation *op, int ended);
void fake_pending_free(struct mr_engine *engine);

#endif
