/* SPDX-License-Identifier: Apache-2.0
 *
 * The FUSE connection: /dev/fuse and a mount that is attached nowhere. fuse(4),
 * fsopen(2), fsmount(2).
 */
#ifndef MR_STORAGE_LUN_FUSE_DEV_H
#define MR_STORAGE_LUN_FUSE_DEV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "storage/base/err.h"

/* /dev/fuse, non-blocking. -ENOENT, -ENODEV, ... with MR_E_INTERNAL. */
int mr_fuse_open(int *ret_fd, struct mr_err *err);

/* A detached mount whose root is one regular file served by fuse_fd; source is what mount
 * tables show for it, should it ever be in one. The caller closes *ret_mount_fd; the
 * connection lives as long as that fd or a file opened through it. */
int mr_fuse_mount(int fuse_fd, const char *source, uint32_t max_read, int *ret_mount_fd,
                  struct mr_err *err);

/* Answers a request: error 0 or a negative errno; count pieces of body, at most
 * MR_FUSE_PIECES, none with an error. Returns 0, -ENOENT when nobody waits for the answer
 * any more (interrupted, or the connection was aborted), or another negative errno. */
#define MR_FUSE_PIECES 2
int mr_fuse_reply(int fuse_fd, uint64_t unique, int error, const struct iovec *body,
                  int count);

/* Linux 6.9: every request that was read from this connection and not answered yet can be
 * read again, with MR_FUSE_UNIQUE_RESEND in its id. For a process that took the
 * connection over, before it reads. Returns 0 or a negative errno: -EINVAL on older
 * kernels. */
int mr_fuse_resend(int fuse_fd);

/* The file has grown to that size (not 0): the kernel takes it, and asks for the other
 * attributes again. Returns 0, also when it has not got the file, or a negative errno. */
int mr_fuse_grow(int fuse_fd, uint64_t size_bytes);

#endif
