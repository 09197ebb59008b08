/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/journal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/json.h"
#include "storage/journal_schema.h"

MR_DEFINE_CLEANUP(stmt, sqlite3_stmt *, (void)sqlite3_finalize);

enum text {
    TEXT_ID,
    TEXT_STATE,
    TEXT_VOLUME,
    TEXT_OPERATION_ID,
    TEXT_OPERATION,
    TEXT_EVENT,
    TEXT_DETAIL,
    TEXT_COUNT,
};

/* One record on its way. The thread owns it from the queue until it counts it as
 * completed. */
struct entry {
    struct entry *next_queued;  /* journal.lock; then the thread's */
    struct entry *next_pending; /* core */
    mr_journal_fn fn;           /* core */
    void *ctx;                  /* core */
    int64_t number;
    int64_t at_ms;
    char *text[TEXT_COUNT];
    int rc;
    struct mr_err err;
};

struct mr_journal {
    sqlite3 *db; /* the thread's, once something was appended */
    sqlite3_stmt *put_volume;
    sqlite3_stmt *put_operation;
    sqlite3_stmt *add_history;

    /* Core: every record whose callback is still due, in the order of the calls. */
    struct entry *pending;
    struct entry **pending_tail;
    int64_t last_number;
    struct mr_io *io;

    pthread_t thread;
    bool running;
    int event_fd; /* completed > 0 */
    pthread_cond_t wake;
    pthread_mutex_t lock; /* guards all below; no call is made under it */
    struct entry *queue;
    struct entry **queue_tail;
    size_t completed; /* how many of the first pending ones are done */
    bool stop;
};

/* --- the thread: writes records --- */

static bool bind_text(sqlite3_stmt *stmt, int at, const char *text)
{
    return sqlite3_bind_text(stmt, at, text, -1, SQLITE_STATIC) == SQLITE_OK;
}

static bool bind_int(sqlite3_stmt *stmt, int at, int64_t value)
{
    return sqlite3_bind_int64(stmt, at, value) == SQLITE_OK;
}

static bool finish(sqlite3_stmt *stmt)
{
    bool done = sqlite3_step(stmt) == SQLITE_DONE;
    (void)sqlite3_reset(stmt); /* repeats the error of step */
    return done;
}

static bool write_entry(struct mr_journal *j, const struct entry *e)
{
    sqlite3_stmt *v = j->put_volume;
    sqlite3_stmt *o = j->put_operation;
    sqlite3_stmt *h = j->add_history;

    if (!bind_int(v, 1, e->number) || !bind_text(v, 2, e->text[TEXT_ID]) ||
        !bind_text(v, 3, e->text[TEXT_STATE]) || !bind_text(v, 4, e->text[TEXT_VOLUME]) ||
        !bind_int(v, 5, e->at_ms) || !finish(v))
        return false;
    if (e->text[TEXT_OPERATION_ID] &&
        (!bind_text(o, 1, e->text[TEXT_OPERATION_ID]) || !bind_int(o, 2, e->number) ||
         !bind_text(o, 3, e->text[TEXT_OPERATION]) || !bind_int(o, 4, e->at_ms) ||
         !finish(o)))
        return false;
    return bind_int(h, 1, e->number) && bind_text(h, 2, e->text[TEXT_OPERATION_ID]) &&
           bind_int(h, 3, e->at_ms) && bind_text(h, 4, e->text[TEXT_EVENT]) &&
           bind_text(h, 5, e->text[TEXT_DETAIL]) && finish(h);
}

/* Writes the entries from first up to (not including) end in one transaction: all or
 * none. */
static int write_range(struct mr_journal *j, const struct entry *first,
                       const struct entry *end, struct mr_err *err)
{
    bool ok = sqlite3_exec(j->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK;
    for (const struct entry *e = first; ok && e != end; e = e->next_queued)
        ok = e->rc < 0 || write_entry(j, e);
    if (ok)
        ok = sqlite3_exec(j->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK;
    if (ok)
        return 0;
    int r = mr_journal_schema_fail(j->db, err, "write journal");
    if (!sqlite3_get_autocommit(j->db))
        (void)sqlite3_exec(j->db, "ROLLBACK", NULL, NULL, NULL);
    return r;
}

/* Group commit. If it fails every record is tried once more alone, so that a bad one
 * fails only itself. Returns how many there were. */
static size_t write_batch(struct mr_journal *j, struct entry *batch)
{
    size_t count = 0;
    struct mr_err err;
    int r = write_range(j, batch, NULL, &err);

    for (struct entry *e = batch; e; e = e->next_queued, count++) {
        if (r == 0 || e->rc < 0)
            continue;
        e->rc = r;
        e->err = err;
        if (batch->next_queued) {
            e->rc = 0;
            e->rc = write_range(j, e, e->next_queued, &e->err);
        }
    }
    return count;
}

static void *journal_thread(void *arg)
{
    struct mr_journal *j = arg;

    (void)pthread_mutex_lock(&j->lock);
    for (;;) {
        while (!j->queue && !j->stop)
            (void)pthread_cond_wait(&j->wake, &j->lock);
        struct entry *batch = j->queue;
        if (!batch)
            break;
        j->queue = NULL;
        j->queue_tail = &j->queue;
        (void)pthread_mutex_unlock(&j->lock);

        size_t count = write_batch(j, batch);

        (void)pthread_mutex_lock(&j->lock);
        j->completed += count;
        (void)pthread_mutex_unlock(&j->lock);
        (void)eventfd_write(j->event_fd, 1); /* never full: read to zero each time */
        (void)pthread_mutex_lock(&j->lock);
    }
    (void)pthread_mutex_unlock(&j->lock);
    return NULL;
}

/* --- the core's side --- */

static void free_entry(struct entry *e)
{
    for (size_t i = 0; i < TEXT_COUNT; i++)
        free(e->text[i]);
    free(e);
}

static struct entry *pop_pending(struct mr_journal *j)
{
    struct entry *e = j->pending;
    j->pending = e->next_pending;
    if (!j->pending)
        j->pending_tail = &j->pending;
    return e;
}

static void on_completed(void *ctx, uint32_t events)
{
    struct mr_journal *j = ctx;
    eventfd_t unused;

    (void)events;
    (void)eventfd_read(j->event_fd, &unused);
    (void)pthread_mutex_lock(&j->lock);
    size_t count = j->completed;
    j->completed = 0;
    (void)pthread_mutex_unlock(&j->lock);

    for (; count > 0; count--) {
        struct entry *e = pop_pending(j);
        if (e->fn)
            e->fn(e->ctx, e->rc, &e->err);
        free_entry(e);
    }
}

static bool copy_text(char **dst, const char *src)
{
    *dst = src ? strdup(src) : NULL;
    return *dst || !src;
}

static bool copy_json(char **dst, struct json_object *json)
{
    const char *text =
        json ? json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN) : "{}";
    return text && copy_text(dst, text);
}

static bool fill_entry(struct entry *e, const struct mr_record *record)
{
    return copy_text(&e->text[TEXT_ID], record->volume_id) &&
           copy_text(&e->text[TEXT_STATE], record->state) &&
           copy_json(&e->text[TEXT_VOLUME], record->volume) &&
           copy_text(&e->text[TEXT_OPERATION_ID], record->operation_id) &&
           copy_json(&e->text[TEXT_OPERATION], record->operation) &&
           copy_text(&e->text[TEXT_EVENT], record->event) &&
           (!record->detail || copy_json(&e->text[TEXT_DETAIL], record->detail));
}

void mr_journal_append(struct mr_journal *j, const struct mr_record *record,
                       mr_journal_fn fn, void *ctx)
{
    struct entry *e = calloc(1, sizeof(*e));
    if (!e)
        abort(); /* a lost callback would be a lost operation; the journal is made for
                    restarts */
    e->fn = fn;
    e->ctx = ctx;
    e->number = record->volume_number;
    e->at_ms = mr_wall_ms();
    if (!fill_entry(e, record))
        e->rc = mr_fail(&e->err, MR_E_JOURNAL_UNAVAILABLE, ENOMEM,
                        "write '%s' of volume '%s'", record->event, record->volume_id);
    *j->pending_tail = e;
    j->pending_tail = &e->next_pending;

    (void)pthread_mutex_lock(&j->lock);
    *j->queue_tail = e;
    j->queue_tail = &e->next_queued;
    (void)pthread_mutex_unlock(&j->lock);
    (void)pthread_cond_signal(&j->wake);
}

void mr_journal_forget(struct mr_journal *j, const void *ctx)
{
    for (struct entry *e = j->pending; e; e = e->next_pending)
        if (e->ctx == ctx)
            e->fn = NULL;
}

int64_t mr_journal_number(struct mr_journal *j)
{
    return ++j->last_number;
}

/* --- opening and closing --- */

static int prepare(struct mr_journal *j, struct mr_err *err)
{
    static const char put_volume[] =
        "INSERT INTO volume(number, id, state, doc, updated_at) VALUES(?1, ?2, ?3, ?4, "
        "?5)"
        " ON CONFLICT(number) DO UPDATE SET state = ?3, doc = ?4, updated_at = ?5";
    static const char put_operation[] =
        "INSERT INTO operation(id, volume, doc, updated_at) VALUES(?1, ?2, ?3, ?4)"
        " ON CONFLICT(id) DO UPDATE SET doc = ?3, updated_at = ?4";
    static const char add_history[] = "INSERT INTO history(volume, operation, at, event, "
                                      "detail) VALUES(?1, ?2, ?3, ?4, ?5)";
    MR_CLEANUP(stmt) sqlite3_stmt *max = NULL;

    if (sqlite3_prepare_v2(j->db, put_volume, -1, &j->put_volume, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(j->db, put_operation, -1, &j->put_operation, NULL) !=
            SQLITE_OK ||
        sqlite3_prepare_v2(j->db, add_history, -1, &j->add_history, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(j->db, "SELECT max(number) FROM volume", -1, &max, NULL) !=
            SQLITE_OK ||
        sqlite3_step(max) != SQLITE_ROW)
        return mr_journal_schema_fail(j->db, err, "read journal");
    j->last_number = sqlite3_column_int64(max, 0); /* NULL, no rows: 0 */
    return 0;
}

static int start_thread(struct mr_journal *j, struct mr_err *err)
{
    sigset_t all;
    sigset_t old;
    (void)sigfillset(&all); /* signals belong to the core */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&j->thread, NULL, journal_thread, j);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, rc, "start the journal thread");
    (void)pthread_setname_np(j->thread, "mr-journal");
    j->running = true;
    return 0;
}

int mr_journal_open(struct mr_loop *loop, const char *dir, struct mr_journal **ret,
                    struct mr_err *err)
{
    struct mr_journal *j = calloc(1, sizeof(*j));
    if (!j)
        return mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, ENOMEM, "open journal in '%s'",
                       dir);
    j->pending_tail = &j->pending;
    j->queue_tail = &j->queue;
    (void)pthread_mutex_init(&j->lock, NULL);
    (void)pthread_cond_init(&j->wake, NULL);
    j->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    int r = 0;
    if (j->event_fd < 0)
        r = mr_fail(err, MR_E_JOURNAL_UNAVAILABLE, errno, "open journal in '%s'", dir);
    if (r == 0)
        r = mr_journal_schema_open(dir, &j->db, err);
    if (r == 0)
        r = prepare(j, err);
    if (r == 0)
        r = mr_loop_add(loop, j->event_fd, EPOLLIN, on_completed, j, &j->io, err);
    if (r == 0)
        r = start_thread(j, err);
    if (r < 0) {
        mr_journal_close(j);
        return r;
    }
    *ret = j;
    return 0;
}

void mr_journal_close(struct mr_journal *j)
{
    if (!j)
        return;
    if (j->running) {
        (void)pthread_mutex_lock(&j->lock);
        j->stop = true;
        (void)pthread_mutex_unlock(&j->lock);
        (void)pthread_cond_signal(&j->wake);
        (void)pthread_join(j->thread, NULL);
    }
    mr_io_remove(j->io);
    mr_close(&j->event_fd);
    while (j->pending)
        free_entry(pop_pending(j));
    (void)sqlite3_finalize(j->put_volume);
    (void)sqlite3_finalize(j->put_operation);
    (void)sqlite3_finalize(j->add_history);
    (void)sqlite3_close(j->db); /* the last connection: checkpoints */
    (void)pthread_cond_destroy(&j->wake);
    (void)pthread_mutex_destroy(&j->lock);
    free(j);
}

int mr_journal_load(struct mr_journal *j, mr_journal_volume_fn volume_fn,
                    mr_journal_operation_fn operation_fn, unsigned limit, void *ctx,
                    struct mr_err *err)
{
    return mr_journal_schema_load(j->db, volume_fn, operation_fn, limit, ctx, err);
}
