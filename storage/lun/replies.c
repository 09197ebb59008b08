/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/replies.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "storage/base/cleanup.h"

static bool queue(struct mr_replies *replies, int fd, unsigned index)
{
    const struct mr_waiting_reply *reply = &replies->replies[index];
    struct io_uring_sqe *sqe = io_uring_get_sqe(&replies->ring);

    if (!sqe)
        return false;
    io_uring_prep_writev(sqe, fd, reply->iov, (unsigned)(1 + reply->pieces), 0);
    sqe->user_data = index;
    return true;
}

/* How many of the first count were queued and taken by the kernel. */
static unsigned submit(struct mr_replies *replies, int fd, unsigned count)
{
    unsigned queued = 0;
    unsigned taken = 0;

    while (queued < count && queue(replies, fd, queued))
        queued++;
    while (taken < queued) {
        int n = io_uring_submit(&replies->ring);

        if (n > 0)
            taken += (unsigned)n;
        else if (n != -EINTR)
            break;
    }
    return taken;
}

/* The results of so many: 0, a negative errno, or, in ret, as it was. False: the ring
 * does not work. */
static bool reap(struct mr_replies *replies, unsigned count, int ret[MR_REPLIES])
{
    while (count > 0) {
        struct io_uring_cqe *cqe;
        int r = io_uring_wait_cqe(&replies->ring, &cqe);

        if (r == -EINTR)
            continue;
        if (r < 0)
            return false;
        ret[cqe->user_data % MR_REPLIES] = cqe->res < 0 ? cqe->res : 0;
        io_uring_cqe_seen(&replies->ring, cqe);
        count--;
    }
    return true;
}

/* Sends the first count in one call; ret: as of reap(). Without the ring nothing of what
 * was queued is left with the kernel. */
static void send_batch(struct mr_replies *replies, int fd, unsigned count,
                       int ret[MR_REPLIES])
{
    const unsigned taken = submit(replies, fd, count);
    const bool works = reap(replies, taken, ret);

    if (works && taken == count)
        return;
    io_uring_queue_exit(&replies->ring);
    replies->batched = false;
}

/* The kernel allocates what a request needs when it first sees it, and keeps it: now,
 * not when memory is short (io_uring/io_uring.c, io_uring/rw.c). */
static void warm_up(struct mr_replies *replies)
{
    MR_AUTO_CLOSE int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int results[MR_REPLIES];

    memset(replies->replies, 0, sizeof(replies->replies));
    for (unsigned i = 0; i < MR_REPLIES; i++) {
        struct mr_waiting_reply *reply = &replies->replies[i];

        reply->pieces = MR_FUSE_PIECES;
        for (int piece = 0; piece <= MR_FUSE_PIECES; piece++)
            reply->iov[piece] = (struct iovec){&reply->head, sizeof(reply->head)};
    }
    if (null >= 0)
        send_batch(replies, null, MR_REPLIES, results);
}

void mr_replies_init(struct mr_replies *replies, int fuse_fd)
{
    replies->fuse_fd = fuse_fd;
    replies->count = 0;
    replies->batched =
        io_uring_queue_init(MR_REPLIES, &replies->ring, IORING_SETUP_SUBMIT_ALL) == 0;
    if (replies->batched)
        warm_up(replies);
}

void mr_replies_done(struct mr_replies *replies)
{
    if (replies->batched)
        io_uring_queue_exit(&replies->ring);
    replies->batched = false;
}

static struct mr_waiting_reply *add(struct mr_replies *replies, uint64_t unique,
                                    int error)
{
    struct mr_waiting_reply *reply;

    if (replies->count == MR_REPLIES)
        mr_replies_send(replies);
    reply = &replies->replies[replies->count++];
    reply->head = (struct fuse_out_header){
        .len = sizeof(reply->head), .error = error, .unique = unique};
    reply->iov[0] = (struct iovec){&reply->head, sizeof(reply->head)};
    reply->pieces = 0;
    return reply;
}

static void add_piece(struct mr_waiting_reply *reply, void *data, size_t len)
{
    reply->iov[++reply->pieces] = (struct iovec){data, len};
    reply->head.len += (uint32_t)len;
}

void mr_replies_add(struct mr_replies *replies, uint64_t unique, int error)
{
    (void)add(replies, unique, error);
}

void mr_replies_add_written(struct mr_replies *replies, uint64_t unique, uint32_t bytes)
{
    struct mr_waiting_reply *reply = add(replies, unique, 0);

    reply->written = (struct fuse_write_out){.size = bytes};
    add_piece(reply, &reply->written, sizeof(reply->written));
}

void mr_replies_add_data(struct mr_replies *replies, uint64_t unique,
                         const struct iovec *pieces, int count)
{
    struct mr_waiting_reply *reply = add(replies, unique, 0);

    for (int i = 0; i < count && i < MR_FUSE_PIECES; i++)
        add_piece(reply, pieces[i].iov_base, pieces[i].iov_len);
}

int mr_replies_send_one(const struct mr_replies *replies, uint64_t unique, int error,
                        const struct iovec *body, int count)
{
    int r = mr_fuse_reply(replies->fuse_fd, unique, error, body, count);

    if (r < 0 && r != -ENOENT)
        r = mr_fuse_reply(replies->fuse_fd, unique, -EIO, NULL, 0);
    return r;
}

void mr_replies_send(struct mr_replies *replies)
{
    const unsigned count = replies->count;
    int results[MR_REPLIES];

    for (unsigned i = 0; i < count; i++)
        results[i] = -EAGAIN;
    if (count > 1 && replies->batched)
        send_batch(replies, replies->fuse_fd, count, results);
    /* What may have been sent may be sent again: the kernel knows it no more then. */
    for (unsigned i = 0; i < count; i++) {
        const struct mr_waiting_reply *reply = &replies->replies[i];

        if (results[i] < 0 && results[i] != -ENOENT)
            (void)mr_replies_send_one(replies, reply->head.unique, reply->head.error,
                                      reply->iov + 1, reply->pieces);
    }
    replies->count = 0;
}
