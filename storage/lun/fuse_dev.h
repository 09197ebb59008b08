/* SPDX-License-Identifier: Apache-2.0
 *
 * The FUSE connection: /dev/fuse and a mount that is attached nowhere. fuse(4),
 * fsopen(2), fsmount(2).
 */
#ifndef MR_STORAGE_LUN_FUSE_DEV_H
#define MR_STORAGE_LUN_FUSE_DEV_H

#include <stddef.h>
#include <stdint.h>

#include "storage/base/err.h"

/* /dev/fuse, non-blocking. -ENOENT, -ENODEV, ... with MR_E_INTERNAL. */
int mr_fuse_open(int *ret_fd, struct mr_err *err);

/* A detached mount whose root is one regular file served by fuse_fd; source is what mount
 * tables show for it, should it ever be in one. The caller closes *ret_mount_fd; the
 * connection lives as long as that fd or a file opened through it. */
int mr_fuse_mount(int fuse_fd, const char *source, uint32_t max_read, int *ret_mount_fd,
                  struct mr_err *err);

/* Answers a request: error 0 or a negative errno, body may be NULL. An answer nobody
 * waits for any more
 * (-ENOENT, the connection was aborted) is no error. Returns 0 or a negative errno. */
int mr_fuse_reply(int fuse_fd, uint64_t unique, int error, void *body, size_t len);

#endif
