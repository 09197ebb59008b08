/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine whose journal is read and changed by SQL while the agent is down.
 */
#ifndef MR_TESTS_UNIT_ENGINE_SQL_ENV_H
#define MR_TESTS_UNIT_ENGINE_SQL_ENV_H

#include "tests/unit/engine_env.h"

#include <sqlite3.h>

#define STATE_OF_V "SELECT state FROM volume WHERE id = 'v'"

static inline void journal_path(const struct env *env, char path[PATH_MAX])
{
    (void)snprintf(path, PATH_MAX, "%s/state/journal.db", env->dir);
}

static inline void run_sql(const struct env *env, const char *sql)
{
    char path[PATH_MAX];
    sqlite3 *db = NULL;

    journal_path(env, path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    (void)sqlite3_close(db);
}

/* The first column of the first row, "" when there is none; the agent must be down. */
static inline const char *ask_sql(const struct env *env, const char *sql)
{
    static char text[256];
    char path[PATH_MAX];
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;

    journal_path(env, path);
    text[0] = '\0';
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    if (sqlite3_step(stmt) == SQLITE_ROW)
        (void)snprintf(text, sizeof(text), "%s",
                       (const char *)sqlite3_column_text(stmt, 0));
    (void)sqlite3_finalize(stmt);
    (void)sqlite3_close(db);
    return text;
}

/* of: a table, and which of its rows. */
static inline int count_rows(const struct env *env, const char *of)
{
    char sql[256];

    (void)snprintf(sql, sizeof(sql), "SELECT count(*) FROM %s", of);
    return atoi(ask_sql(env, sql));
}

static inline int history_count(const struct env *env, const char *event)
{
    char of[128];

    (void)snprintf(of, sizeof(of), "history WHERE event = '%s'", event);
    return count_rows(env, of);
}

static inline bool recovered(struct env *env)
{
    return !mr_engine_recovering(env->engine);
}

#endif
