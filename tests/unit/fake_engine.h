/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine in memory behind storage/engine.h, for the tests of the API: nothing is
 * mapped or mounted. What happens is chosen by the volume's id: "slow*" operations and
 * answers last 10 s ("slowdisk*" are in the journal after half a second), "fail*" attach
 * fails with device-error after 20 ms, all others take 20 ms; a detach of "held*" lasts
 * 10 s, an action on "held-long*" half a second; answers for "broken*" fail with
 * journal-unavailable; any call for "pending*" is refused.
 *
 * The kernel has unknown orphans "orphan-0", "orphan-1", "orphan-2", "orphan-a", each
 * with 31 zeros more. The detach of "orphan-0*" lasts 10 s, that of "orphan-1*" loses
 * data, the adoption of "orphan-2*" takes half a second, of "orphan-f*" 10 s; that of
 * "orphan-b*" fails with journal-unavailable, of "orphan-d*" with device-error, of
 * "orphan-e*" out of memory; all others are not there. As long as there is a volume
 * "survey-slow", surveys last 10 s, with "survey-broken" they fail, with "survey-odd"
 * they answer nonsense, with "survey-memory" there is no memory for them; with
 * "journal-full" the journal is full.
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
    bool forgotten;
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
    bool adopted[16]; /* unknown orphans, by the first digit of their token */
};

/* What was begun ends also when nobody waits for it any more: then fn is NULL. */
struct mr_pending {
    struct mr_pending *next, **link;
    struct mr_timer timer;
    struct mr_volume *volume; /* NULL: a survey */
    void (*done)(struct mr_volume *volume);
    mr_answer_fn fn;
    void *ctx;
    struct json_object *document; /* NULL: the volume's, as it is at the end */
    bool fails;
    struct mr_err err;
};

bool fake_starts(const char *text, const char *prefix);
struct mr_volume *fake_volume_slot(struct mr_engine *engine, const char *id);
void fake_operation_end(struct mr_operation *op, int ended);
/* Takes document. */
struct mr_pending *fake_pending_begin(struct mr_engine *engine, struct mr_volume *volume,
                                      struct json_object *document, int ms,
                                      mr_answer_fn fn, void *ctx);
void fake_pending_free(struct mr_engine *engine);

#endif
