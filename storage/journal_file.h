/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal's files from outside: what SQLite's errors mean and what to do about them,
 * whether the files are still the ones at their paths, who has them locked. Private to
 * the journal.
 */
#ifndef MR_STORAGE_JOURNAL_FILE_H
#define MR_STORAGE_JOURNAL_FILE_H

#include <sqlite3.h>
#include <sys/types.h>

#include "storage/base/err.h"

/* Fills err with MR_E_JOURNAL_UNAVAILABLE, `what`, what SQLite says about its last call
 * on db, and a remedy. Returns a negative errno, that of the system call when one failed:
 * -ENOSPC, -EROFS, -EIO; -EUCLEAN (damaged), -EBUSY (locked) and so on. */
int mr_journal_file_fail(sqlite3 *db, struct mr_err *err, const char *what);

/* Adds what to do about the errno of rc. Returns rc. */
int mr_journal_file_remedy(struct mr_err *err, int rc);

/* For a file that another process has locked: says which. -EBUSY. */
int mr_journal_file_locked(const char *path, struct mr_err *err);

#define MR_JOURNAL_FILES 2 /* the database and its write-ahead log */

/* Which files they were when they were opened. */
struct mr_journal_file {
    dev_t dev[MR_JOURNAL_FILES];
    ino_t ino[MR_JOURNAL_FILES];
};
/* Notes which files are at the paths of db now. MR_E_JOURNAL_UNAVAILABLE. */
int mr_journal_file_note(struct mr_journal_file *file, sqlite3 *db, struct mr_err *err);
/* Are they still? Else -ESTALE: what is written goes where no start will look for it.
 * Two calls of stat(2): SQLITE_FCNTL_HAS_MOVED knows neither the log nor devices. */
int mr_journal_file_check(const struct mr_journal_file *file, sqlite3 *db,
                          struct mr_err *err);

#endif
