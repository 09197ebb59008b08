/* SPDX-License-Identifier: Apache-2.0
 *
 * One FUSE request, decoded and judged against the LUN's geometry, before anything is
 * done. The file system is a single regular file, which is the root. Pure: no I/O, no
 * libiscsi. include/uapi/linux/fuse.h, fs/fuse/ in the kernel.
 */
#ifndef MR_STORAGE_LUN_FUSE_PROTO_H
#define MR_STORAGE_LUN_FUSE_PROTO_H

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* fs.fuse.max_pages_limit is 256 pages by default. */
#define MR_FUSE_DATA_MAX (1u << 20)
/* What stands before the data of a WRITE. */
#define MR_FUSE_WRITE_HEAD (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

/* Linux 6.9; not in the headers of older ones. */
#define MR_FUSE_NOTIFY_RESEND 7 /* to the kernel: give unanswered requests again */
#define MR_FUSE_HAS_RESEND (1ull << 39)    /* INIT: the kernel can do that */
#define MR_FUSE_UNIQUE_RESEND (1ull << 63) /* in a request's id: it was read before */

enum mr_fuse_kind {
    MR_FUSE_NO_REPLY = 0, /* FORGET, INTERRUPT: answering them is an error */
    MR_FUSE_ANSWER,       /* nothing to do: answer with .error */
    MR_FUSE_INIT,
    MR_FUSE_ATTR,
    MR_FUSE_OPEN,
    MR_FUSE_RELEASE,
    MR_FUSE_STATFS,
    MR_FUSE_READ, /* the rest goes to the target */
    MR_FUSE_WRITE,
    MR_FUSE_SYNC,
    MR_FUSE_PUNCH, /* give space back; reads as zeroes afterwards */
    MR_FUSE_ZERO,
};

struct mr_fuse_geometry {
    uint64_t size_bytes;
    uint32_t block_size;
    uint32_t max_bytes;         /* of one READ or WRITE */
    uint32_t granularity_bytes; /* of discards, for STATFS */
    bool writable;
};

struct mr_fuse_request {
    enum mr_fuse_kind kind;
    uint32_t opcode;
    uint64_t unique; /* the answer has it in full, MR_FUSE_UNIQUE_RESEND included */
    int error;       /* MR_FUSE_ANSWER: 0 or a negative errno */
    uint64_t offset; /* bytes; a multiple of the block size, as is length */
    uint64_t length; /* bytes; READ: cut at the end, 0 means end of file */
    struct fuse_init_in init;
};

/* Decodes len bytes as read(2) gave them; of a WRITE only the head is looked at, so the
 * data may stand elsewhere. Returns 0, or -EPROTO when not even an answer is possible. */
int mr_fuse_decode(const void *message, size_t len,
                   const struct mr_fuse_geometry *geometry, struct mr_fuse_request *ret);

/* Has the INIT request of a kernel that can give unanswered requests again? */
bool mr_fuse_can_resend(const struct mr_fuse_request *request);

/* Bodies of answers. */
void mr_fuse_init_out(const struct mr_fuse_request *request,
                      const struct mr_fuse_geometry *geometry, struct fuse_init_out *ret);
void mr_fuse_attr_out(const struct mr_fuse_geometry *geometry, struct fuse_attr_out *ret);
void mr_fuse_open_out(struct fuse_open_out *ret);
void mr_fuse_statfs_out(const struct mr_fuse_geometry *geometry,
                        struct fuse_statfs_out *ret);

#endif
