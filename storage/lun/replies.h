/* SPDX-License-Identifier: Apache-2.0
 *
 * The replies to requests, gathered and sent in one system call: io_uring_enter(2) with
 * one write to /dev/fuse each. The kernel ends a block request in a soft interrupt, and a
 * system call of its own per reply means a switch to ksoftirqd and back for each
 * (block/blk-mq.c, blk_mq_raise_softirq()). Where io_uring is not to be had each reply
 * is a writev(2). One thread.
 */
#ifndef MR_STORAGE_LUN_REPLIES_H
#define MR_STORAGE_LUN_REPLIES_H

#include <liburing.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "storage/lun/fuse_dev.h"

#define MR_REPLIES 64 /* gathered at most */

struct mr_waiting_reply {
    struct fuse_out_header head;
    struct fuse_write_out written;
    struct iovec iov[1 + MR_FUSE_PIECES];
    int pieces; /* behind the header */
};

struct mr_replies {
    int fuse_fd;
    bool batched; /* there is a ring */
    struct io_uring ring;
    unsigned count;
    struct mr_waiting_reply replies[MR_REPLIES];
};

/* Best effort: the ring, and the kernel's memory for as many replies. */
void mr_replies_init(struct mr_replies *replies, int fuse_fd);
void mr_replies_done(struct mr_replies *replies);

/* error: 0 or a negative errno. */
void mr_replies_add(struct mr_replies *replies, uint64_t unique, int error);
/* To a WRITE. */
void mr_replies_add_written(struct mr_replies *replies, uint64_t unique, uint32_t bytes);
/* To a READ: at most MR_FUSE_PIECES; their memory stays as it is until they are sent. */
void mr_replies_add_data(struct mr_replies *replies, uint64_t unique,
                         const struct iovec *pieces, int count);

/* Sends what was gathered. A reply that the kernel does not take becomes EIO: somebody
 * waits for it. */
void mr_replies_send(struct mr_replies *replies);

/* Sends one that is not gathered. Returns 0, or -ENOENT when nobody waits for it. */
int mr_replies_send_one(const struct mr_replies *replies, uint64_t unique, int error,
                        const struct iovec *body, int count);

#endif
