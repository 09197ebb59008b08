/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine whose journal fails when a test says so: all records, or those of one event.
 */
#ifndef MR_TESTS_UNIT_ENGINE_FAULTS_ENV_H
#define MR_TESTS_UNIT_ENGINE_FAULTS_ENV_H

#include "tests/unit/engine_sql_env.h"

#include <errno.h>
#include <signal.h>

/* Another device, for "w". */
#define MAP_W                                                                            \
    "[{'identity':{'node':'/dev/loop8','major':7,'minor':8,'diskseq':43,"                \
    "'source_key':'file:9:9:9'}}]"

/* The last record whose event begins with "fail:" says which events fail: the test turns
 * faults on and off by records, for the agent has the file for itself. */
static const char trigger[] =
    "CREATE TRIGGER faults BEFORE INSERT ON history WHEN new.event NOT LIKE 'fail:%'"
    " AND (SELECT event FROM history WHERE event LIKE 'fail:%' ORDER BY seq DESC LIMIT 1)"
    " IN ('fail:all', 'fail:' || new.event)"
    " BEGIN SELECT raise(ABORT, 'disk is full'); END;";

static inline int setup_faults(void **state)
{
    (void)setup_attached(state);
    struct env *env = *state;
    env_stop(env);
    run_sql(env, trigger);
    env_start(env);
    run_until(env, recovered);
    (void)asked(env);
    return 0;
}

/* "all", an event, or "none". */
static inline void fail_records(struct env *env, const char *what)
{
    char event[64];
    (void)snprintf(event, sizeof(event), "fail:%s", what);
    mr_volume_record(v(env), event, NULL, NULL, NULL);
}

static inline void on_nothing(void *ctx, int rc, const struct mr_err *err)
{
    (void)ctx;
    (void)err;
    assert_int_equal(rc, 0);
}

/* Faults are over, but the agent is not told so by the end of a write. */
static inline void mend_quietly(struct env *env)
{
    mr_volume_record(v(env), "fail:none", NULL, on_nothing, NULL);
}

static inline bool waiting(struct env *env)
{
    return v(env)->op && v(env)->op->unwritten;
}

static inline bool all_is_well(struct env *env)
{
    return !mr_engine_journal_error(env->engine) &&
           env->engine->unsaved.heap_index == 0 && !v(env)->unsaved;
}

static inline bool journal_is_bad(struct env *env)
{
    return mr_engine_journal_error(env->engine) != NULL;
}

#endif
