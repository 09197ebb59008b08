/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/journal_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "storage/base/cleanup.h"
#include "storage/base/lock_owner.h"

static const char *path_of(sqlite3 *db)
{
    const char *path = sqlite3_db_filename(db, "main");
    return path ? path : "?";
}

/* --- errors --- */

/* Of the last write to the log that failed: sqlite3_system_errno() does not know about
 * those of a commit. */
static int errno_of_log(sqlite3 *db)
{
    sqlite3_file *log = NULL;
    int cause = 0;

    if (sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log) ==
            SQLITE_OK &&
        log && log->pMethods)
        (void)log->pMethods->xFileControl(log, SQLITE_FCNTL_LAST_ERRNO, &cause);
    return cause > 0 ? cause : EIO;
}

static int errno_of_io(sqlite3 *db)
{
    switch (sqlite3_extended_errcode(db)) {
    case SQLITE_IOERR_WRITE:
    case SQLITE_IOERR_FSYNC:
    case SQLITE_IOERR_TRUNCATE:
        return errno_of_log(db);
    case SQLITE_IOERR_NOMEM:
        return ENOMEM;
    default:
        return EIO;
    }
}

static int errno_of(sqlite3 *db)
{
    switch (sqlite3_errcode(db) & 0xff) {
    case SQLITE_FULL:
        return ENOSPC;
    case SQLITE_NOMEM:
        return ENOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return EUCLEAN;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return EBUSY;
    case SQLITE_READONLY:
        return EROFS;
    case SQLITE_CONSTRAINT:
        return EINVAL;
    case SQLITE_CANTOPEN:
        return sqlite3_system_errno(db) > 0 ? sqlite3_system_errno(db) : EIO;
    default:
        return errno_of_io(db);
    }
}

static const char *remedy_of(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
        return "free space on the file system that the journal is on";
    case EROFS:
        return "make the file system that the journal is on writable again; the kernel's "
               "log says why it is not";
    case EIO:
        return "look for errors of the journal's disk in the kernel's log";
    case EFBIG:
        return "raise the limit on the size of files (LimitFSIZE= of the service)";
    case EUCLEAN:
        return "stop mooringd and restore a copy of the journal, or move it and its -wal "
               "away: GET /orphans then names what is still mapped, DELETE /orphans/ID "
               "takes it down";
    default:
        return "";
    }
}

int mr_journal_file_remedy(struct mr_err *err, int rc)
{
    return mr_err_remedy(err, rc, "%s", remedy_of(-rc));
}

int mr_journal_file_fail(sqlite3 *db, struct mr_err *err, const char *what)
{
    int r = mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, errno_of(db), "%s '%s': %s", what,
                    path_of(db), sqlite3_errmsg(db));
    return mr_journal_file_remedy(err, r);
}

int mr_journal_file_locked(const char *path, struct mr_err *err)
{
    char comm[MR_COMM_TEXT];
    pid_t pid = 0;
    /* O_PATH: closing any other fd of a file ends our locks on it, fcntl_locking(2). */
    MR_AUTO_CLOSE int fd = open(path, O_PATH | O_CLOEXEC);

    if (fd < 0 || mr_lock_owner(fd, &pid, comm) < 0) {
        int r =
            mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, EBUSY, "journal '%s' is locked", path);
        return mr_err_remedy(err, r, "another process has it open: stop that one first");
    }
    int r = mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, EBUSY,
                    "journal '%s' is locked by process %d (%s)", path, (int)pid, comm);
    return mr_err_remedy(
        err, r, "stop process %d first, or choose another state directory", (int)pid);
}

/* --- still the same files? --- */

static const char *path_at(sqlite3 *db, size_t which)
{
    const char *path = path_of(db);
    return which == 0 ? path : sqlite3_filename_wal(path);
}

int mr_journal_file_note(struct mr_journal_file *file, sqlite3 *db, struct mr_err *err)
{
    for (size_t i = 0; i < MR_JOURNAL_FILES; i++) {
        struct stat st;
        if (stat(path_at(db, i), &st) != 0)
            return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, errno, "open journal '%s'",
                           path_at(db, i));
        file->dev[i] = st.st_dev;
        file->ino[i] = st.st_ino;
    }
    return 0;
}

int mr_journal_file_check(const struct mr_journal_file *file, sqlite3 *db,
                          struct mr_err *err)
{
    for (size_t i = 0; i < MR_JOURNAL_FILES; i++) {
        const char *path = path_at(db, i);
        struct stat st;
        bool found = stat(path, &st) == 0;
        if (found && st.st_dev == file->dev[i] && st.st_ino == file->ino[i])
            continue;
        int r = 0;
        if (!found && errno != ENOENT && errno != ENOTDIR) {
            r = mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, errno, "look at journal '%s'",
                        path);
            return mr_journal_file_remedy(err, r);
        }
        r = mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, ESTALE,
                    "journal '%s' was moved, deleted or replaced", path);
        return mr_err_remedy(
            err, r, "put it back, or restart mooringd to go on with what is there");
    }
    return 0;
}
