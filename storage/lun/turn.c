/* SPDX-License-Identifier: Apache-2.0
 *
 * What a turn of the loop does for io.h: reads requests, sends what was queued, looks at
 * the clock. */
#include "storage/lun/io.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "storage/base/clock.h"
#include "storage/lun/abort.h"
#include "storage/lun/command.h"
#include "storage/lun/fuse_dev.h"

/* Before the file is mounted /dev/fuse belongs to no connection. */
#define MOUNT_PAUSE_NS (10 * MR_NS_PER_MS)

/* mr_io_rest_ns(): with so many requests under way, a part of what a command takes. */
#define REST_DEPTH 8
#define REST_PART 8
#define REST_MIN_NS 20000 /* less is less than what a sleep costs */
#define REST_MAX_NS 100000

static void count(struct mr_io *io, const struct mr_fuse_request *request)
{
    struct mr_page_counters *counters = &io->page->counters;

    mr_io_add(&counters->reads, request->kind == MR_FUSE_READ);
    mr_io_add(&counters->writes, request->kind == MR_FUSE_WRITE);
    mr_io_add(&counters->flushes, request->kind == MR_FUSE_SYNC);
    mr_io_add(&counters->discards, request->kind == MR_FUSE_PUNCH);
    mr_io_add(&counters->zeroes, request->kind == MR_FUSE_ZERO);
}

/* A request for the target. */
static void start(struct mr_slot *slot)
{
    struct mr_io *io = slot->io;
    const struct mr_fuse_request *request = &slot->request;
    const bool data = request->kind == MR_FUSE_READ || request->kind == MR_FUSE_WRITE;

    count(io, request);
    mr_pool_take(&io->pool, slot, data ? request->length : 0);
    slot->state = MR_SLOT_HELD;
    slot->arrived_ns = io->now_ns;
    slot->sent = false;
    slot->started_ns = 0;
    slot->done_bytes = 0;
    slot->strikes = 0;
    TAILQ_INSERT_TAIL(&io->order, slot, order);
    io->in_flight++;
    mr_io_begin(slot);
}

/* The count is never too low, whenever this process dies: opens are counted before the
 * answer, releases after it. */
static void open_file(struct mr_io *io, uint64_t unique)
{
    struct fuse_open_out out;
    const struct iovec body = {&out, sizeof(out)};

    mr_fuse_open_out(&out);
    atomic_fetch_add(&io->page->opens, 1);
    if (mr_io_reply(io, unique, 0, &body, 1) == -ENOENT)
        atomic_fetch_sub(&io->page->opens, 1); /* interrupted: no RELEASE will come */
}

static void release_file(struct mr_io *io, uint64_t unique)
{
    (void)mr_io_reply(io, unique, 0, NULL, 0);
    if (atomic_load(&io->page->opens) > 0)
        atomic_fetch_sub(&io->page->opens, 1);
}

static void initialise(struct mr_io *io, const struct mr_fuse_request *request)
{
    struct fuse_init_out out;
    const struct iovec body = {&out, sizeof(out)};

    mr_fuse_init_out(request, &io->geometry, &out);
    atomic_store(&io->page->can_resend, mr_fuse_can_resend(request));
    atomic_store(&io->page->initialised, true);
    (void)mr_io_reply(io, request->unique, 0, &body, 1);
}

static void dispatch(struct mr_slot *slot)
{
    struct mr_io *io = slot->io;
    const struct mr_fuse_request *request = &slot->request;
    union {
        struct fuse_attr_out attr;
        struct fuse_statfs_out statfs;
    } out;
    const struct iovec attr = {&out.attr, sizeof(out.attr)};
    const struct iovec statfs = {&out.statfs, sizeof(out.statfs)};

    switch (request->kind) {
    case MR_FUSE_NO_REPLY:
        break;
    case MR_FUSE_ANSWER:
        (void)mr_io_reply(io, request->unique, request->error, NULL, 0);
        break;
    case MR_FUSE_INIT:
        initialise(io, request);
        break;
    case MR_FUSE_ATTR:
        mr_fuse_attr_out(&io->geometry, &out.attr);
        (void)mr_io_reply(io, request->unique, 0, &attr, 1);
        break;
    case MR_FUSE_OPEN:
        open_file(io, request->unique);
        break;
    case MR_FUSE_RELEASE:
        release_file(io, request->unique);
        break;
    case MR_FUSE_STATFS:
        mr_fuse_statfs_out(&io->geometry, &out.statfs);
        (void)mr_io_reply(io, request->unique, 0, &statfs, 1);
        break;
    case MR_FUSE_READ:
    case MR_FUSE_WRITE:
    case MR_FUSE_SYNC:
    case MR_FUSE_PUNCH:
    case MR_FUSE_ZERO:
        start(slot);
        break;
    }
}

bool mr_io_ready(const struct mr_io *io)
{
    return io->serving && !io->gone && !io->drain && io->now_ns >= io->mount_ns &&
           mr_pool_ready(&io->pool);
}

struct pollfd mr_io_poll(const struct mr_io *io)
{
    const bool closed = io->gone || !io->serving || io->now_ns < io->mount_ns;

    return (struct pollfd){
        .fd = closed ? -1 : io->fuse_fd,
        .events = mr_io_ready(io) ? POLLIN : 0,
    };
}

/* Takes no request from the kernel: is there still one to take them from? */
static void look(struct mr_io *io)
{
    struct pollfd fuse = {.fd = io->fuse_fd};

    if (poll(&fuse, 1, 0) > 0 && (fuse.revents & (POLLERR | POLLHUP)))
        io->gone = true;
}

/* No request was read. True: try again. */
static bool read_nothing(struct mr_io *io, int error)
{
    if (error == EINTR || error == ENOENT)
        return true; /* ENOENT: the request was interrupted before we got it */
    if (error == EPERM)
        io->mount_ns = io->now_ns + MOUNT_PAUSE_NS;
    else if (error == ENODEV || error == ECONNABORTED)
        io->gone = true; /* the super block is gone, or the connection was aborted */
    else if (error != EAGAIN)
        abort(); /* not "released": another server takes over what we had */
    return false;
}

void mr_io_receive(struct mr_io *io)
{
    mr_replies_send(&io->replies); /* slots that are used again below hold their data */
    if (!mr_io_ready(io) && mr_io_poll(io).fd >= 0)
        look(io);
    /* Bounded: what is answered here at once may be asked again at once. */
    for (unsigned i = 0; i < MR_POOL_SLOTS && mr_io_ready(io); i++) {
        struct iovec iov[2];
        struct mr_slot *slot = mr_pool_next(&io->pool, MR_FUSE_WRITE_HEAD, iov);
        ssize_t n = readv(io->fuse_fd, iov, 2);

        if (n <= 0 && !read_nothing(io, n < 0 ? errno : ENODEV))
            return;
        if (n <= 0 ||
            mr_fuse_decode(iov[0].iov_base, (size_t)n, &io->geometry, &slot->request) < 0)
            continue;
        if (slot->request.unique & MR_FUSE_UNIQUE_RESEND)
            mr_io_add(&io->page->counters.resent, 1);
        dispatch(slot);
    }
}

/* tcp(7) */
static void set_cork(const struct mr_io *io, int on)
{
    (void)setsockopt(mr_session_fd(io->session), IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
}

/* What was queued goes out in as few segments as possible: each of libiscsi's writes
 * would be one of its own, headers apart from data. */
static void flush(struct mr_io *io)
{
    bool cork;

    if (!(mr_session_events(io->session) & POLLOUT))
        return;
    cork = !io->lone || iscsi_out_queue_length(io->session->iscsi) > 1;
    if (cork)
        set_cork(io, 1);
    mr_session_flush(io->session, io->now_ns);
    if (cork)
        set_cork(io, 0); /* sends at once what is not yet sent */
    io->lone = false;
}

static void send_due(struct mr_io *io)
{
    struct mr_slot *slot;
    struct mr_slot *next;

    for (slot = TAILQ_FIRST(&io->work); slot && mr_io_usable(io); slot = next) {
        next = TAILQ_NEXT(slot, work);
        if (slot->state == MR_SLOT_DUE && slot->due_ns <= io->now_ns) {
            TAILQ_REMOVE(&io->work, slot, work);
            mr_command_send(slot);
        }
    }
}

/* A target may answer before it took all the data that it asked for: what libiscsi has
 * still to send then points at the task and at the data. It does not say which commands
 * that concerns, so all wait until nothing is left. */
static void free_settled(struct mr_io *io)
{
    struct mr_slot *slot;
    struct mr_slot *next;

    if (TAILQ_EMPTY(&io->work) || !mr_session_sent_all(io->session))
        return;
    for (slot = TAILQ_FIRST(&io->work); slot; slot = next) {
        next = TAILQ_NEXT(slot, work);
        if (slot->state != MR_SLOT_SETTLING)
            continue;
        mr_command_forget(slot);
        if (slot->again) {
            slot->state = MR_SLOT_DUE;
            continue;
        }
        TAILQ_REMOVE(&io->work, slot, work);
        slot->state = MR_SLOT_FREE;
        mr_pool_give(&io->pool, slot);
    }
}

void mr_io_step(struct mr_io *io)
{
    if (mr_io_usable(io))
        mr_abort_step(io); /* which may answer a request */
    mr_replies_send(&io->replies);
    if (mr_io_usable(io)) {
        send_due(io);
        flush(io);
        free_settled(io);
    }
    atomic_store_explicit(&io->page->in_flight, io->in_flight, memory_order_relaxed);
}

int64_t mr_io_rest_ns(const struct mr_io *io)
{
    const int64_t rest_ns = io->latency_ns / REST_PART;

    if (!mr_io_usable(io) || io->in_flight < REST_DEPTH ||
        io->pool.block_count < MR_POOL_BLOCKS || rest_ns < REST_MIN_NS)
        return 0;
    return rest_ns < REST_MAX_NS ? rest_ns : REST_MAX_NS;
}

/* Since when the slot's memory is with libiscsi; 0: it is not. */
static int64_t busy_since(const struct mr_slot *slot)
{
    return slot->state == MR_SLOT_AT_TARGET || slot->state == MR_SLOT_SETTLING
               ? slot->issued_ns
               : 0;
}

static int64_t min_ns(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t check_age(struct mr_io *io, struct mr_slot *slot)
{
    const int64_t limit_ns = MR_COMMAND_TIMEOUTS * io->session->timeout_ns;
    const int64_t since_ns = busy_since(slot);

    if (!since_ns)
        return INT64_MAX;
    if (io->now_ns >= since_ns + limit_ns) {
        slot->strikes++;
        mr_session_lose(io->session, "a command got no answer for %lld ms",
                        (long long)(limit_ns / MR_NS_PER_MS));
    }
    return since_ns + limit_ns;
}

/* All of them, but only when one may be too old. */
static void check_ages(struct mr_io *io)
{
    struct mr_slot *slot;

    io->age_check_ns = INT64_MAX;
    TAILQ_FOREACH(slot, &io->order, order)
    {
        io->age_check_ns = min_ns(io->age_check_ns, check_age(io, slot));
        io->age_check_ns = min_ns(io->age_check_ns, mr_abort_check(slot));
    }
    TAILQ_FOREACH(slot, &io->work, work) /* and the answered ones */
    {
        if (!slot->again)
            io->age_check_ns = min_ns(io->age_check_ns, check_age(io, slot));
    }
}

int64_t mr_io_check(struct mr_io *io)
{
    int64_t next = io->now_ns < io->mount_ns ? io->mount_ns : INT64_MAX;
    const struct mr_slot *slot;

    if (!mr_io_usable(io))
        return next;
    if (io->now_ns >= io->age_check_ns)
        check_ages(io);
    if (io->age_check_ns < next)
        next = io->age_check_ns;
    TAILQ_FOREACH(slot, &io->work, work)
    {
        if (slot->state == MR_SLOT_DUE && slot->due_ns < next)
            next = slot->due_ns;
    }
    return next;
}
