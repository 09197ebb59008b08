/* SPDX-License-Identifier: Apache-2.0
 *
 * What is on a device, and making a file system on a blank one. The superblock is hostile
 * input: libblkid reads it in this disposable process. Unknown is never blank.
 */
#ifndef MR_STORAGE_WORKER_FILESYSTEM_H
#define MR_STORAGE_WORKER_FILESYSTEM_H

#include <stdbool.h>
#include <stddef.h>

#include "storage/base/err.h"
#include "storage/identity.h"

enum mr_content {
    MR_CONTENT_UNKNOWN = 0,
    MR_CONTENT_BLANK,
    MR_CONTENT_FORMATTED,
};

/* "unknown", "blank" or "formatted". */
const char *mr_content_name(enum mr_content content);

struct mr_probe {
    enum mr_content content;
    char type[32]; /* libblkid's TYPE or PTTYPE, "" when none */
    char uuid[40];
    char label[64];
    char detail[200]; /* in words: what was found where */
    int read_errno;   /* positive: unknown because the device could not be read */
};

/* Opens the recorded device read-only, checks its diskseq, and looks. Blank: readable at
 * full length, libblkid finds nothing (superblock, partition table, LVM, LUKS, md), the
 * first and the last 2 MiB are all zero. */
int mr_filesystem_probe(const struct mr_identity *identity, struct mr_probe *ret,
                        struct mr_err *err);

/* The same for a regular file that a device of this block size shall be made of, or that
 * holds the parts of one that are looked at. */
int mr_filesystem_probe_file(int fd, uint32_t block_size, struct mr_probe *ret,
                             struct mr_err *err);

/* The short look before mounting what a probe has seen: does libblkid find this type with
 * this UUID? Reads the superblock only. *ret false: another type or UUID, or none. */
int mr_filesystem_is(const struct mr_identity *identity, const char *type,
                     const char *uuid, bool *ret, struct mr_err *err);

/* mkfs with this UUID under the claim, then fsync. keep_fd (the lock file) is inherited
 * by mkfs. */
int mr_filesystem_format(const struct mr_identity *identity, const char *type,
                         const char *uuid, int keep_fd, int64_t deadline_ns,
                         struct mr_err *err);

/* After mounting xfs: fail_at_unmount of /sys/fs/xfs/DEV/error must be 1, set if not,
 * verified (Documentation/admin-guide/xfs.rst). Other types: nothing to do. */
int mr_filesystem_harden(const struct mr_identity *identity, const char *type,
                         struct mr_err *err);

#endif
