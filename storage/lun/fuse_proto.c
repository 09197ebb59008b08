/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/fuse_proto.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_BACKGROUND 256
#define CONGESTION_THRESHOLD 192
#define PAGE_BYTES 4096
/* Attributes never change, and the kernel must not need us to look at them: loop(4) asks
 * for them in LOOP_GET_STATUS64, also when this process is stopped. */
#define ATTR_VALID_SECONDS (10ull * 365 * 24 * 3600)

static void answer(struct mr_fuse_request *ret, int error)
{
    ret->kind = MR_FUSE_ANSWER;
    ret->error = error;
}

/* Copies the fixed argument of an opcode; false when the message is too short. */
static bool argument(const void *message, size_t len, void *dst, size_t size)
{
    if (len < sizeof(struct fuse_in_header) + size)
        return false;
    memcpy(dst, (const char *)message + sizeof(struct fuse_in_header), size);
    return true;
}

static bool aligned(const struct mr_fuse_geometry *geo, uint64_t offset, uint64_t length)
{
    return ((offset | length) & (geo->block_size - 1)) == 0;
}

static bool in_range(const struct mr_fuse_geometry *geo, uint64_t offset, uint64_t length)
{
    return offset <= geo->size_bytes && length <= geo->size_bytes - offset;
}

static void decode_read(const void *message, size_t len,
                        const struct mr_fuse_geometry *geo, struct mr_fuse_request *ret)
{
    struct fuse_read_in in;

    if (!argument(message, len, &in, sizeof(in)) || in.size > geo->max_bytes ||
        !aligned(geo, in.offset, in.size)) {
        answer(ret, -EINVAL);
        return;
    }
    ret->kind = MR_FUSE_READ;
    ret->offset = in.offset;
    if (in.offset >= geo->size_bytes)
        ret->length = 0;
    else if (in.size > geo->size_bytes - in.offset)
        ret->length = geo->size_bytes - in.offset;
    else
        ret->length = in.size;
}

static void decode_write(const void *message, size_t len,
                         const struct mr_fuse_geometry *geo, struct mr_fuse_request *ret)
{
    struct fuse_write_in in;

    if (!argument(message, len, &in, sizeof(in)) || in.size == 0 ||
        in.size > geo->max_bytes || len != MR_FUSE_WRITE_HEAD + in.size ||
        !aligned(geo, in.offset, in.size)) {
        answer(ret, -EINVAL);
    } else if (!geo->writable) {
        answer(ret, -EROFS);
    } else if (!in_range(geo, in.offset, in.size)) {
        answer(ret, -EIO);
    } else {
        ret->kind = MR_FUSE_WRITE;
        ret->offset = in.offset;
        ret->length = in.size;
    }
}

static void decode_fallocate(const void *message, size_t len,
                             const struct mr_fuse_geometry *geo,
                             struct mr_fuse_request *ret)
{
    struct fuse_fallocate_in in = {0};

    if (!argument(message, len, &in, sizeof(in)) || in.length == 0 ||
        !aligned(geo, in.offset, in.length)) {
        answer(ret, -EINVAL);
    } else if (!geo->writable) {
        answer(ret, -EROFS);
    } else if (!in_range(geo, in.offset, in.length)) {
        answer(ret, -EIO);
    } else if (in.mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)) {
        ret->kind = MR_FUSE_PUNCH;
    } else if (in.mode == (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)) {
        ret->kind = MR_FUSE_ZERO;
    } else {
        answer(ret, -EOPNOTSUPP);
    }
    ret->offset = in.offset;
    ret->length = in.length;
}

static void decode_setattr(const void *message, size_t len, struct mr_fuse_request *ret)
{
    struct fuse_setattr_in in;

    if (!argument(message, len, &in, sizeof(in)))
        answer(ret, -EINVAL);
    else if (in.valid & FATTR_SIZE)
        answer(ret, -EPERM); /* the LUN has the size it has */
    else
        ret->kind = MR_FUSE_ATTR; /* times and owner: kept by nobody, missed by nobody */
}

static void decode_open(const void *message, size_t len,
                        const struct mr_fuse_geometry *geo, struct mr_fuse_request *ret)
{
    struct fuse_open_in in;

    if (!argument(message, len, &in, sizeof(in)))
        answer(ret, -EINVAL);
    else if (!geo->writable && (in.flags & O_ACCMODE) != O_RDONLY)
        answer(ret, -EROFS);
    else
        ret->kind = MR_FUSE_OPEN;
}

static void decode_init(const void *message, size_t len, struct mr_fuse_request *ret)
{
    const size_t fixed = sizeof(struct fuse_in_header);

    /* Older kernels send less of it. */
    if (len < fixed + 16) {
        answer(ret, -EPROTO);
        return;
    }
    memcpy(&ret->init, (const char *)message + fixed,
           len - fixed < sizeof(ret->init) ? len - fixed : sizeof(ret->init));
    if (ret->init.major == FUSE_KERNEL_VERSION)
        ret->kind = MR_FUSE_INIT;
    else
        answer(ret, -EPROTO);
}

int mr_fuse_decode(const void *message, size_t len,
                   const struct mr_fuse_geometry *geometry, struct mr_fuse_request *ret)
{
    struct fuse_in_header head;

    *ret = (struct mr_fuse_request){.kind = MR_FUSE_NO_REPLY};
    if (len < sizeof(head))
        return -EPROTO;
    memcpy(&head, message, sizeof(head));
    if (head.len != len)
        return -EPROTO;
    ret->opcode = head.opcode;
    ret->unique = head.unique;
    switch (head.opcode) {
    case FUSE_READ:
        decode_read(message, len, geometry, ret);
        break;
    case FUSE_WRITE:
        decode_write(message, len, geometry, ret);
        break;
    case FUSE_FSYNC:
        ret->kind = MR_FUSE_SYNC;
        break;
    case FUSE_FALLOCATE:
        decode_fallocate(message, len, geometry, ret);
        break;
    case FUSE_INIT:
        decode_init(message, len, ret);
        break;
    case FUSE_GETATTR:
        ret->kind = MR_FUSE_ATTR;
        break;
    case FUSE_SETATTR:
        decode_setattr(message, len, ret);
        break;
    case FUSE_OPEN:
        decode_open(message, len, geometry, ret);
        break;
    case FUSE_STATFS:
        ret->kind = MR_FUSE_STATFS;
        break;
    case FUSE_RELEASE:
        ret->kind = MR_FUSE_RELEASE;
        break;
    case FUSE_FLUSH:
    case FUSE_ACCESS:
    case FUSE_DESTROY:
        answer(ret, 0);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break;
    default:
        answer(ret, -ENOSYS);
        break;
    }
    return 0;
}

bool mr_fuse_can_resend(const struct mr_fuse_request *request)
{
    /* Without FUSE_INIT_EXT flags2 was not sent. */
    return (request->init.flags & FUSE_INIT_EXT) &&
           (request->init.flags2 & (uint32_t)(MR_FUSE_HAS_RESEND >> 32));
}

void mr_fuse_init_out(const struct mr_fuse_request *request,
                      const struct mr_fuse_geometry *geometry, struct fuse_init_out *ret)
{
    const uint32_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO |
                            FUSE_MAX_PAGES | FUSE_INIT_EXT;

    *ret = (struct fuse_init_out){
        .major = FUSE_KERNEL_VERSION,
        .minor = FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = request->init.max_readahead,
        .flags = request->init.flags & wanted,
        .flags2 = mr_fuse_can_resend(request) ? MR_FUSE_HAS_RESEND >> 32 : 0,
        .max_background = MAX_BACKGROUND,
        .congestion_threshold = CONGESTION_THRESHOLD,
        .max_write = geometry->max_bytes,
        .time_gran = 1,
        .max_pages = (uint16_t)(geometry->max_bytes / PAGE_BYTES),
    };
}

void mr_fuse_attr_out(const struct mr_fuse_geometry *geometry, struct fuse_attr_out *ret)
{
    *ret = (struct fuse_attr_out){
        .attr_valid = ATTR_VALID_SECONDS,
        .attr =
            {
                .ino = FUSE_ROOT_ID,
                .size = geometry->size_bytes,
                .blocks = geometry->size_bytes / 512,
                .mode = S_IFREG | 0600,
                .nlink = 1,
                .blksize = geometry->block_size,
            },
    };
}

void mr_fuse_open_out(struct fuse_open_out *ret)
{
    /* No page cache on this file even if loop falls back to buffered I/O. */
    *ret = (struct fuse_open_out){
        .open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | FOPEN_NOFLUSH,
    };
}

void mr_fuse_statfs_out(const struct mr_fuse_geometry *geometry,
                        struct fuse_statfs_out *ret)
{
    /* loop(4) takes its discard granularity from f_bsize. */
    *ret = (struct fuse_statfs_out){
        .st =
            {
                .blocks = geometry->size_bytes / geometry->granularity_bytes,
                .bsize = geometry->granularity_bytes,
                .frsize = geometry->granularity_bytes,
                .namelen = 255,
            },
    };
}
