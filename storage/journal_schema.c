/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/journal_schema.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/journal_file.h"

MR_DEFINE_CLEANUP(sqlite, sqlite3 *, (void)sqlite3_close);
MR_DEFINE_CLEANUP(stmt, sqlite3_stmt *, (void)sqlite3_finalize);

/* steps[N] takes a journal from schema N to N + 1. Never change one that was released:
 * add another. */
static const char *const steps[] = {
    "CREATE TABLE volume("
    " number INTEGER PRIMARY KEY,"
    " id TEXT UNIQUE NOT NULL,"
    " state TEXT NOT NULL,"
    " doc TEXT NOT NULL,"
    " updated_at INTEGER NOT NULL);" /* ms since 1970, UTC */
    "CREATE TABLE operation("
    " id TEXT PRIMARY KEY NOT NULL,"
    " volume INTEGER NOT NULL REFERENCES volume(number),"
    " doc TEXT NOT NULL,"
    " updated_at INTEGER NOT NULL);"
    "CREATE TABLE history("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    " volume INTEGER NOT NULL REFERENCES volume(number),"
    " operation TEXT,"
    " at INTEGER NOT NULL,"
    " event TEXT NOT NULL,"
    " detail TEXT);"
    "CREATE INDEX history_volume ON history(volume, seq);",

    /* Numbers of volumes that were dropped are not used again. */
    "CREATE TABLE number(last INTEGER NOT NULL);"
    "INSERT INTO number SELECT ifnull(max(number), 0) FROM volume;"
    "CREATE TRIGGER volume_dropped AFTER DELETE ON volume BEGIN"
    " UPDATE number SET last = max(last, OLD.number);"
    "END;"
    "CREATE INDEX operation_volume ON operation(volume);",
};

#define SCHEMA_VERSION ((int)(sizeof(steps) / sizeof(steps[0])))

#define AUTO_VACUUM_INCREMENTAL 2 /* as PRAGMA auto_vacuum says it */
#define VACUUM_MAX_BYTES ((int64_t)32 * 1024 * 1024)

static int refuse_damaged(const char *path, const char *finding, struct mr_err *err)
{
    int r = mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, EUCLEAN, "journal '%s' is damaged: %s",
                    path, finding);
    return mr_err_remedy(
        err, r,
        "it was left as it is: restore a copy of it, or move it away and clean "
        "up by hand what is still mapped and mounted");
}

/* One value of one row: PRAGMAs. */
static int query_int(sqlite3 *db, const char *sql, int *ret)
{
    MR_CLEANUP(stmt) sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW)
        return -EIO;
    *ret = sqlite3_column_int(stmt, 0);
    return 0;
}

static int query_text(sqlite3 *db, const char *sql, char *dst, size_t size)
{
    MR_CLEANUP(stmt) sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW)
        return -EIO;
    const unsigned char *text = sqlite3_column_text(stmt, 0);
    (void)snprintf(dst, size, "%s", text ? (const char *)text : "");
    return 0;
}

/* SQLite would create the file with the umask's mode, follow a symlink, and accept a
 * FIFO. */
static int prepare_file(const char *dir, const char *path, struct mr_err *err)
{
    struct stat st;
    MR_AUTO_CLOSE int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, errno, "open '%s'", dir);
    MR_AUTO_CLOSE int fd =
        open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (fd < 0 || fstat(fd, &st) != 0)
        return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, errno, "open journal '%s'", path);
    if (!S_ISREG(st.st_mode))
        return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, EINVAL, "'%s' is no regular file",
                       path);
    if ((st.st_mode & 07777) != 0600 && fchmod(fd, 0600) != 0)
        return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, errno, "chmod '%s'", path);
    if (fsync(dir_fd) != 0) /* the new name */
        return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, errno, "fsync '%s'", dir);
    return 0;
}

/* Reads only. *ret_version: 0 for a new file. */
static int check(sqlite3 *db, const char *path, int *ret_version, struct mr_err *err)
{
    char finding[200];
    int version = 0;
    int rc = query_int(db, "PRAGMA user_version", &version);
    if (rc == 0 && version > SCHEMA_VERSION) {
        int r = mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, EPROTO,
                        "journal '%s' has schema %d, this mooringd knows up to %d", path,
                        version, SCHEMA_VERSION);
        return mr_err_remedy(err, r, "run the mooringd that wrote it, or a newer one");
    }
    if (rc == 0)
        rc = query_text(db, "PRAGMA quick_check(1)", finding, sizeof(finding));
    if (rc < 0) {
        (void)snprintf(finding, sizeof(finding), "%s", sqlite3_errmsg(db));
        rc = mr_journal_file_fail(db, err, "read journal");
        if (rc == -EBUSY)
            return mr_journal_file_locked(path, err);
        return rc == -EUCLEAN ? refuse_damaged(path, finding, err) : rc;
    }
    if (strcmp(finding, "ok") != 0)
        return refuse_damaged(path, finding, err);
    *ret_version = version;
    return 0;
}

static bool set_version(sqlite3 *db, int version)
{
    char sql[48];
    (void)snprintf(sql, sizeof(sql), "PRAGMA user_version = %d", version);
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

bool mr_journal_schema_touch(sqlite3 *db)
{
    return set_version(db, SCHEMA_VERSION); /* page 1 */
}

static int migrate_one(sqlite3 *db, int version, struct mr_err *err)
{
    if (sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_exec(db, steps[version], NULL, NULL, NULL) != SQLITE_OK ||
        !set_version(db, version + 1) ||
        sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) {
        int r = mr_journal_file_fail(db, err, "migrate journal");
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
        return r;
    }
    return 0;
}

/* VACUUM keeps a whole copy in memory. */
static bool is_large(sqlite3 *db)
{
    int pages = 0;
    int free_pages = 0;
    int page_bytes = 0;

    return query_int(db, "PRAGMA page_count", &pages) < 0 ||
           query_int(db, "PRAGMA freelist_count", &free_pages) < 0 ||
           query_int(db, "PRAGMA page_size", &page_bytes) < 0 ||
           (int64_t)(pages - free_pages) * page_bytes > VACUUM_MAX_BYTES;
}

/* Makes a file that can give freed pages back. An older one is rebuilt for that, in one
 * transaction; should it fail, for want of space say, or be large still, before it was
 * pruned, the next start tries again. */
static void set_auto_vacuum(sqlite3 *db, int version)
{
    int mode = 0;
    if (query_int(db, "PRAGMA auto_vacuum", &mode) < 0 || mode == AUTO_VACUUM_INCREMENTAL)
        return;
    (void)sqlite3_exec(db, "PRAGMA auto_vacuum = INCREMENTAL", NULL, NULL, NULL);
    if (version == 0 || is_large(db))
        return;
    (void)sqlite3_exec(db, "VACUUM", NULL, NULL, NULL);
    (void)sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
}

/* WAL: a commit is one write and one fsync. FULL: that fsync is done for each commit.
 * Nothing is written elsewhere: nobody promised that there is a writable /tmp. */
static int set_modes(sqlite3 *db, const char *path, int version, struct mr_err *err)
{
    static const char modes[] = "PRAGMA synchronous = FULL;"
                                "PRAGMA journal_size_limit = 4194304;"
                                "PRAGMA wal_autocheckpoint = 1000;" /* pages: 4 MiB */
                                "PRAGMA foreign_keys = ON";
    char mode[16] = "";

    if (sqlite3_exec(db, "PRAGMA temp_store = MEMORY", NULL, NULL, NULL) != SQLITE_OK)
        return mr_journal_file_fail(db, err, "open journal");
    set_auto_vacuum(db, version);
    if (query_text(db, "PRAGMA journal_mode = WAL", mode, sizeof(mode)) < 0 ||
        sqlite3_exec(db, modes, NULL, NULL, NULL) != SQLITE_OK)
        return mr_journal_file_fail(db, err, "open journal");
    if (strcmp(mode, "wal") != 0)
        return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, 0,
                       "journal '%s' stays in mode '%s' instead of wal", path, mode);
    return 0;
}

int mr_journal_schema_open(const char *dir, sqlite3 **ret, struct mr_err *err)
{
    char path[PATH_MAX];
    int version = 0;
    MR_CLEANUP(sqlite) sqlite3 *db = NULL;

    int r = mr_format(path, sizeof(path), "%s/journal.db", dir);
    if (r < 0)
        return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, -r, "journal in '%s'", dir);
    r = prepare_file(dir, path, err);
    if (r < 0)
        return mr_journal_file_remedy(err, r);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
        return db ? mr_journal_file_fail(db, err, "open journal")
                  : mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, ENOMEM, "open journal '%s'",
                            path);

    /* Until it is known to be ours and sound, closing must not write to it either. One
     * process only: no shared memory file, and a second agent or a curious reader gets
     * "locked". */
    (void)sqlite3_extended_result_codes(db, 1);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, NULL) !=
        SQLITE_OK)
        return mr_journal_file_fail(db, err, "lock journal");
    r = check(db, path, &version, err);
    if (r == 0)
        r = set_modes(db, path, version, err);
    for (; r == 0 && version < SCHEMA_VERSION; version++)
        r = migrate_one(db, version, err);
    if (r < 0)
        return r;
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    *ret = mr_take_ptr(db);
    return 0;
}

/* The document in this column of the current row. JSON null is not one. */
static int column_json(sqlite3_stmt *stmt, int at, const char *table, const char *id,
                       struct json_object **ret, struct mr_err *err)
{
    const unsigned char *text = sqlite3_column_text(stmt, at);
    *ret = text ? json_tokener_parse((const char *)text) : NULL;
    if (!json_object_is_type(*ret, json_type_object)) {
        char finding[200];
        (void)json_object_put(mr_take_ptr(*ret));
        (void)snprintf(finding, sizeof(finding), "the document of %s '%s' cannot be read",
                       table, id);
        return refuse_damaged(sqlite3_db_filename(sqlite3_db_handle(stmt), "main"),
                              finding, err);
    }
    return 0;
}

static int load_volumes(sqlite3 *db, mr_journal_volume_fn fn, void *ctx,
                        struct mr_err *err)
{
    MR_CLEANUP(stmt) sqlite3_stmt *stmt = NULL;
    int row = sqlite3_prepare_v2(
        db,
        "SELECT number, id, state, doc FROM volume WHERE state <> '" MR_JOURNAL_DROPPED
        "' ORDER BY 1",
        -1, &stmt, NULL);
    if (row == SQLITE_OK)
        row = sqlite3_step(stmt);
    for (; row == SQLITE_ROW; row = sqlite3_step(stmt)) {
        MR_AUTO_JSON struct json_object *doc = NULL;
        const char *id = (const char *)sqlite3_column_text(stmt, 1);
        const char *state = (const char *)sqlite3_column_text(stmt, 2);
        if (!id || !state)
            return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, ENOMEM, "read journal");
        int r = column_json(stmt, 3, "volume", id, &doc, err);
        if (r == 0)
            r = fn(ctx, sqlite3_column_int64(stmt, 0), id, state, doc);
        if (r != 0)
            return r;
    }
    return row == SQLITE_DONE ? 0 : mr_journal_file_fail(db, err, "read journal");
}

static int load_operations(sqlite3 *db, mr_journal_operation_fn fn, unsigned limit,
                           void *ctx, struct mr_err *err)
{
    static const char newest[] =
        "SELECT id, doc FROM operation WHERE " MR_JOURNAL_RUNS " OR rowid IN"
        " (SELECT rowid FROM operation WHERE NOT " MR_JOURNAL_RUNS
        " ORDER BY rowid DESC LIMIT ?1) ORDER BY rowid";
    MR_CLEANUP(stmt) sqlite3_stmt *stmt = NULL;
    int row = sqlite3_prepare_v2(db, newest, -1, &stmt, NULL);
    if (row == SQLITE_OK)
        row = sqlite3_bind_int64(stmt, 1, limit);
    if (row == SQLITE_OK)
        row = sqlite3_step(stmt);
    for (; row == SQLITE_ROW; row = sqlite3_step(stmt)) {
        MR_AUTO_JSON struct json_object *doc = NULL;
        const char *id = (const char *)sqlite3_column_text(stmt, 0);
        if (!id)
            return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, ENOMEM, "read journal");
        int r = column_json(stmt, 1, "operation", id, &doc, err);
        if (r == 0)
            r = fn(ctx, id, doc);
        if (r != 0)
            return r;
    }
    return row == SQLITE_DONE ? 0 : mr_journal_file_fail(db, err, "read journal");
}

int mr_journal_schema_load(sqlite3 *db, mr_journal_volume_fn volume_fn,
                           mr_journal_operation_fn operation_fn, unsigned limit,
                           void *ctx, struct mr_err *err)
{
    int r = load_volumes(db, volume_fn, ctx, err);
    return r == 0 ? load_operations(db, operation_fn, limit, ctx, err) : r;
}
