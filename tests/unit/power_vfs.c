/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/power_vfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/power_record.h"

/* SQLite's own file follows. */
struct file {
    sqlite3_file base;
    size_t number;
    bool recorded;
    bool lies;
    bool syncs_dir; /* at its first sync */
    sqlite3_file real[];
};

static sqlite3_vfs *unix_vfs;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct power_record *current;

/* --- the record --- */

static void add(struct power_record *r, struct entry entry)
{
    if (r->length == r->room) {
        r->room = r->room ? 2 * r->room : 1024;
        r->entries = realloc(r->entries, r->room * sizeof(*r->entries));
        MUST(r->entries);
    }
    r->entries[r->length++] = entry;
}

static void record(struct entry entry)
{
    (void)pthread_mutex_lock(&lock);
    if (current)
        add(current, entry);
    (void)pthread_mutex_unlock(&lock);
}

/* The name below the directory, or NULL. */
static const char *name_in(const struct power_record *r, const char *path)
{
    size_t n = r ? strlen(r->dir) : 0;
    return r && path && strncmp(path, r->dir, n) == 0 && path[n] == '/' ? path + n + 1
                                                                        : NULL;
}

static bool find(const struct power_record *r, const char *name, size_t *ret)
{
    for (size_t i = r->files; i-- > 0;) {
        if (r->removed[i] || strcmp(r->names[i], name) != 0)
            continue;
        *ret = i;
        return true;
    }
    return false;
}

static size_t add_file(struct power_record *r, const char *name)
{
    MUST(r->files < FILES_MAX && strlen(name) < sizeof(r->names[0]));
    (void)snprintf(r->names[r->files], sizeof(r->names[0]), "%s", name);
    return r->files++;
}

static void read_before(struct power_record *r, const char *name)
{
    char path[512];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%s", r->dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    MUST(fd >= 0 && fstat(fd, &st) == 0);
    size_t number = add_file(r, name);
    r->there_before[number] = true;
    resize(&r->before[number], (size_t)st.st_size);
    MUST(st.st_size == 0 ||
         read(fd, r->before[number].data, (size_t)st.st_size) == st.st_size);
    (void)close(fd);
}

struct power_record *power_vfs_start(const char *dir, enum power_lie lie)
{
    struct power_record *r = calloc(1, sizeof(*r));
    DIR *stream = opendir(dir);
    MUST(r && stream && !current);
    (void)snprintf(r->dir, sizeof(r->dir), "%s", dir);
    r->lie = lie;
    for (struct dirent *d = readdir(stream); d; d = readdir(stream))
        if (d->d_name[0] != '.')
            read_before(r, d->d_name);
    (void)closedir(stream);
    (void)pthread_mutex_lock(&lock);
    current = r;
    (void)pthread_mutex_unlock(&lock);
    return r;
}

void power_vfs_note(int note)
{
    record((struct entry){.kind = NOTE, .note = note});
}

void power_vfs_stop(struct power_record *r)
{
    (void)pthread_mutex_lock(&lock);
    MUST(current == r);
    current = NULL;
    (void)pthread_mutex_unlock(&lock);
}

void power_record_free(struct power_record *r)
{
    for (size_t i = 0; i < r->length; i++)
        free(r->entries[i].data);
    for (size_t i = 0; i < r->files; i++)
        free(r->before[i].data);
    free(r->entries);
    free(r);
}

size_t power_record_length(const struct power_record *r)
{
    return r->length;
}

int power_record_note(const struct power_record *r, size_t at, int *ret_note)
{
    if (r->entries[at].kind != NOTE)
        return 0;
    *ret_note = r->entries[at].note;
    return 1;
}

size_t power_record_syncs(const struct power_record *r, const char *name)
{
    size_t count = 0;
    for (size_t i = 0; i < r->length; i++)
        count +=
            r->entries[i].kind == SYNC && strcmp(r->names[r->entries[i].file], name) == 0;
    return count;
}

/* --- the VFS: sqlite3_vfs(3), sqlite3_io_methods of version 1 (no shared memory, no
 * mmap) --- */

static struct file *of(sqlite3_file *file)
{
    return (struct file *)(void *)file;
}

static int on_close(sqlite3_file *file)
{
    sqlite3_file *real = of(file)->real;
    return real->pMethods->xClose(real);
}

static int on_read(sqlite3_file *file, void *to, int size, sqlite3_int64 offset)
{
    sqlite3_file *real = of(file)->real;
    return real->pMethods->xRead(real, to, size, offset);
}

static int on_write(sqlite3_file *file, const void *from, int size, sqlite3_int64 offset)
{
    struct file *f = of(file);
    if (f->recorded) {
        struct entry entry = {.kind = WRITE,
                              .file = f->number,
                              .offset = (size_t)offset,
                              .size = (size_t)size,
                              .data = malloc((size_t)size)};
        MUST(entry.data);
        memcpy(entry.data, from, (size_t)size);
        record(entry);
    }
    return f->real->pMethods->xWrite(f->real, from, size, offset);
}

static int on_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct file *f = of(file);
    if (f->recorded)
        record(
            (struct entry){.kind = TRUNCATE, .file = f->number, .offset = (size_t)size});
    return f->real->pMethods->xTruncate(f->real, size);
}

/* The first sync of a new journal or log syncs its directory, too (SQLite's
 * os_unix.c, UNIXFILE_DIRSYNC). */
static int on_sync(sqlite3_file *file, int flags)
{
    struct file *f = of(file);
    int rc = f->real->pMethods->xSync(f->real, flags);
    if (rc != SQLITE_OK || !f->recorded || f->lies)
        return rc;
    record((struct entry){.kind = SYNC, .file = f->number});
    if (f->syncs_dir)
        record((struct entry){.kind = SYNC_DIR});
    f->syncs_dir = false;
    return rc;
}

static int on_size(sqlite3_file *file, sqlite3_int64 *size)
{
    sqlite3_file *real = of(file)->real;
    return real->pMethods->xFileSize(real, size);
}

static int on_lock(sqlite3_file *file, int level)
{
    sqlite3_file *real = of(file)->real;
    return real->pMethods->xLock(real, level);
}

static int on_unlock(sqlite3_file *file, int level)
{
    sqlite3_file *real = of(file)->real;
    return real->pMethods->xUnlock(real, level);
}

static int on_reserved(sqlite3_file *file, int *ret)
{
    sqlite3_file *real = of(file)->real;
    return real->pMethods->xCheckReservedLock(real, ret);
}

static int on_control(sqlite3_file *file, int op, void *arg)
{
    sqlite3_file *real = of(file)->real;
    if (op == SQLITE_FCNTL_SIZE_HINT || op == SQLITE_FCNTL_CHUNK_SIZE)
        return SQLITE_OK; /* would change the size unseen */
    return real->pMethods->xFileControl(real, op, arg);
}

static int on_sector_size(sqlite3_file *file)
{
    sqlite3_file *real = of(file)->real;
    return real->pMethods->xSectorSize(real);
}

static int on_characteristics(sqlite3_file *file)
{
    sqlite3_file *real = of(file)->real;
    return real->pMethods->xDeviceCharacteristics(real) & ~SQLITE_IOCAP_BATCH_ATOMIC;
}

static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = on_close,
    .xRead = on_read,
    .xWrite = on_write,
    .xTruncate = on_truncate,
    .xSync = on_sync,
    .xFileSize = on_size,
    .xLock = on_lock,
    .xUnlock = on_unlock,
    .xCheckReservedLock = on_reserved,
    .xFileControl = on_control,
    .xSectorSize = on_sector_size,
    .xDeviceCharacteristics = on_characteristics,
};

/* A file that we do not know but that is there was made with its name synced
 * (storage/journal_schema.c): it is as if it had been there from the start. */
static void note_opened(struct file *f, const char *path, bool was_there, int flags)
{
    const int journals = SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL;

    (void)pthread_mutex_lock(&lock);
    const char *name = name_in(current, path);
    f->recorded = name != NULL;
    if (name && !find(current, name, &f->number)) {
        f->number = add_file(current, name);
        current->there_before[f->number] = was_there;
        if (!was_there)
            add(current, (struct entry){.kind = CREATE, .file = f->number});
    }
    if (name) {
        f->syncs_dir = !was_there && (flags & (journals | SQLITE_OPEN_WAL)) != 0;
        f->lies =
            (current->lie == POWER_LOG_UNSYNCED && (flags & SQLITE_OPEN_WAL)) ||
            (current->lie == POWER_DATABASE_UNSYNCED && (flags & SQLITE_OPEN_MAIN_DB));
    }
    (void)pthread_mutex_unlock(&lock);
}

static int on_open(sqlite3_vfs *vfs, sqlite3_filename path, sqlite3_file *file, int flags,
                   int *out_flags)
{
    struct file *f = of(file);
    bool was_there = path && access(path, F_OK) == 0;

    (void)vfs;
    memset(f, 0, sizeof(*f));
    int rc = unix_vfs->xOpen(unix_vfs, path, f->real, flags, out_flags);
    if (rc != SQLITE_OK)
        return rc;
    f->base.pMethods = &methods;
    note_opened(f, path, was_there, flags);
    return rc;
}

static int on_delete(sqlite3_vfs *vfs, const char *path, int sync_dir)
{
    size_t number = 0;

    (void)vfs;
    int rc = unix_vfs->xDelete(unix_vfs, path, sync_dir);
    (void)pthread_mutex_lock(&lock);
    const char *name = name_in(current, path);
    if (rc == SQLITE_OK && name && find(current, name, &number)) {
        current->removed[number] = true;
        add(current, (struct entry){.kind = REMOVE, .file = number});
        if (sync_dir)
            add(current, (struct entry){.kind = SYNC_DIR});
    }
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

void power_vfs_register(void)
{
    static sqlite3_vfs vfs;

    unix_vfs = sqlite3_vfs_find(NULL);
    MUST(unix_vfs && unix_vfs != &vfs);
    vfs = *unix_vfs; /* the functions that take no file work with any sqlite3_vfs */
    vfs.iVersion = 2;
    vfs.pNext = NULL;
    vfs.zName = "power";
    vfs.szOsFile = (int)sizeof(struct file) + unix_vfs->szOsFile;
    vfs.xOpen = on_open;
    vfs.xDelete = on_delete;
    MUST(sqlite3_vfs_register(&vfs, 1) == SQLITE_OK);
}
