/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/journal.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fault.h"
#include "storage/base/json.h"
#include "storage/journal_batch.h"
#include "storage/journal_file.h"
#include "storage/journal_prune.h"
#include "storage/journal_rows.h"
#include "storage/journal_schema.h"

struct mr_journal {
    /* The thread's, once something was queued. */
    struct mr_journal_sink sink;
    struct mr_journal_pruner pruner;

    /* Core: every entry whose callback is still due, in the order of the calls. */
    struct mr_journal_entry *pending;
    struct mr_journal_entry **pending_tail;
    int64_t last_number;
    struct mr_io *io;

    pthread_t thread;
    bool running;
    int event_fd; /* completed > 0 */
    pthread_cond_t wake;
    pthread_mutex_t lock; /* guards all below; no call is made under it */
    struct mr_journal_entry *queue;
    struct mr_journal_entry **queue_tail;
    size_t completed; /* how many of the first pending ones are done */
    struct mr_journal_retention keep;
    bool keep_is_new; /* the pruner does not know it yet */
    bool stop;
};

/* --- the thread: writes records, reads history --- */

static bool is_read(const struct mr_journal_entry *e)
{
    return e->limit > 0;
}

/* One read, or all records up to the next read. Returns what comes after them. */
static struct mr_journal_entry *work_off(struct mr_journal *j,
                                         struct mr_journal_entry *first)
{
    struct mr_journal_entry *end = first->next_queued;
    size_t count = 1;

    if (is_read(first)) {
        first->rc = mr_journal_read_history(j->sink.db, first->row.number, first->after,
                                            first->limit, &first->rows, &first->more,
                                            &first->err);
    } else {
        for (; end && !is_read(end); end = end->next_queued)
            count++;
        mr_journal_write_batch(&j->sink, first, end);
    }
    mr_journal_pruner_count(&j->pruner, is_read(first) ? 0 : count);
    (void)pthread_mutex_lock(&j->lock);
    j->completed += count; /* from now on they are the core's */
    (void)pthread_mutex_unlock(&j->lock);
    (void)eventfd_write(j->event_fd, 1); /* never full: read to zero each time */
    return end;
}

/* Under the lock: waits until there is something to do. Returns what was queued. */
static struct mr_journal_entry *take_queue(struct mr_journal *j)
{
    while (!j->queue && !j->stop && !j->keep_is_new &&
           !mr_journal_pruner_busy(&j->pruner))
        (void)pthread_cond_wait(&j->wake, &j->lock);
    if (j->keep_is_new)
        mr_journal_pruner_retain(&j->pruner, &j->keep);
    j->keep_is_new = false;
    struct mr_journal_entry *batch = j->queue;
    j->queue = NULL;
    j->queue_tail = &j->queue;
    return batch;
}

static void *journal_thread(void *arg)
{
    struct mr_journal *j = arg;
    bool stop = false;

    while (!stop) {
        (void)pthread_mutex_lock(&j->lock);
        struct mr_journal_entry *batch = take_queue(j);
        stop = j->stop;
        (void)pthread_mutex_unlock(&j->lock);

        while (batch)
            batch = work_off(j, batch);
        if (!stop)
            mr_journal_pruner_step(&j->pruner);
    }
    return NULL;
}

/* --- the core's side --- */

static void free_entry(struct mr_journal_entry *e)
{
    mr_journal_row_done(&e->row);
    (void)json_object_put(e->rows);
    free(e);
}

static struct mr_journal_entry *pop_pending(struct mr_journal *j)
{
    struct mr_journal_entry *e = j->pending;
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
        struct mr_journal_entry *e = pop_pending(j);
        if (e->fn)
            e->fn(e->ctx, e->rc, &e->err);
        else if (e->rows_fn)
            e->rows_fn(e->ctx, e->rows, e->more, e->rows ? NULL : &e->err);
        free_entry(e);
    }
}

static struct mr_journal_entry *new_entry(int64_t number, void *ctx)
{
    struct mr_journal_entry *e = calloc(1, sizeof(*e));
    if (!e)
        abort(); /* a lost callback would be a lost operation; the journal is made for
                    restarts */
    e->ctx = ctx;
    e->row.number = number;
    return e;
}

static void enqueue(struct mr_journal *j, struct mr_journal_entry *e)
{
    *j->pending_tail = e;
    j->pending_tail = &e->next_pending;

    (void)pthread_mutex_lock(&j->lock);
    *j->queue_tail = e;
    j->queue_tail = &e->next_queued;
    (void)pthread_mutex_unlock(&j->lock);
    (void)pthread_cond_signal(&j->wake);
}

void mr_journal_append(struct mr_journal *j, const struct mr_record *record,
                       mr_journal_fn fn, void *ctx)
{
    struct mr_journal_entry *e = new_entry(record->volume_number, ctx);

    e->fn = fn;
    e->row.at_ms = mr_wall_ms();
    if (!mr_journal_row_fill(&e->row, record))
        e->rc = mr_fail(&e->err, MR_E_JOURNAL_UNAVAILABLE, ENOMEM,
                        "write '%s' of volume '%s'", record->event, record->volume_id);
    enqueue(j, e);
}

static void enqueue_write(struct mr_journal *j, enum mr_journal_kind kind, int64_t number,
                          mr_journal_fn fn, void *ctx)
{
    struct mr_journal_entry *e = new_entry(number, ctx);

    e->fn = fn;
    e->row.kind = kind;
    enqueue(j, e);
}

void mr_journal_drop(struct mr_journal *j, int64_t volume_number, mr_journal_fn fn,
                     void *ctx)
{
    enqueue_write(j, MR_JOURNAL_DROP, volume_number, fn, ctx);
}

void mr_journal_probe(struct mr_journal *j, mr_journal_fn fn, void *ctx)
{
    enqueue_write(j, MR_JOURNAL_PROBE, 0, fn, ctx);
}

void mr_journal_history(struct mr_journal *j, int64_t volume_number, int64_t after,
                        unsigned limit, mr_journal_rows_fn fn, void *ctx)
{
    struct mr_journal_entry *e = new_entry(volume_number, ctx);

    assert(limit > 0);
    e->rows_fn = fn;
    e->after = after;
    e->limit = limit;
    enqueue(j, e);
}

void mr_journal_retain(struct mr_journal *j, const struct mr_journal_retention *retention)
{
    (void)pthread_mutex_lock(&j->lock);
    j->keep = *retention;
    j->keep_is_new = true;
    (void)pthread_mutex_unlock(&j->lock);
    (void)pthread_cond_signal(&j->wake);
}

void mr_journal_forget(struct mr_journal *j, const void *ctx)
{
    for (struct mr_journal_entry *e = j->pending; e; e = e->next_pending) {
        if (e->ctx != ctx)
            continue;
        e->fn = NULL;
        e->rows_fn = NULL;
    }
}

int64_t mr_journal_number(struct mr_journal *j)
{
    return ++j->last_number;
}

/* --- opening and closing --- */

static int start_thread(struct mr_journal *j, struct mr_err *err)
{
    mr_journal_pruner_init(&j->pruner, &j->sink.writer);
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
        r = mr_journal_schema_open(dir, &j->sink.db, err);
    if (r == 0)
        r = mr_journal_file_note(&j->sink.file, j->sink.db, err);
    if (r == 0)
        r = mr_journal_writer_init(&j->sink.writer, j->sink.db, &j->last_number, err);
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
    mr_journal_writer_done(&j->sink.writer);
    (void)sqlite3_close(j->sink.db); /* the last connection: checkpoints */
    (void)pthread_cond_destroy(&j->wake);
    (void)pthread_mutex_destroy(&j->lock);
    free(j);
}

int mr_journal_load(struct mr_journal *j, mr_journal_volume_fn volume_fn,
                    mr_journal_operation_fn operation_fn, unsigned limit, void *ctx,
                    struct mr_err *err)
{
    return mr_journal_schema_load(j->sink.db, volume_fn, operation_fn, limit, ctx, err);
}
