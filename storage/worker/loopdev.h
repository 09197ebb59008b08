/* SPDX-License-Identifier: Apache-2.0
 *
 * Loop devices (loop(4), drivers/block/loop.c): the block front end of the drivers file
 * and iscsi.
 */
#ifndef MR_STORAGE_WORKER_LOOPDEV_H
#define MR_STORAGE_WORKER_LOOPDEV_H

#include <linux/loop.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/identity.h"

struct mr_loop_setup {
    int backing_fd;    /* stays the caller's; the device keeps its own reference */
    const char *token; /* becomes lo_file_name, see mr_mark() */
    const char *runtime_dir;
    bool read_only;
    bool direct_io;      /* ask for it */
    bool require_direct; /* fail when it is not there after reading the flags back */
    uint32_t block_size; /* 0: kernel's default */
};

/* LOOP_CTL_GET_FREE + LOOP_CONFIGURE (retried on EBUSY), flags, direct I/O and block size
 * read back, and node, major, minor, diskseq, size_bytes and block_size put into *ret.
 * AUTOCLEAR is off. Undone on failure. */
int mr_loop_attach(const struct mr_loop_setup *setup, struct mr_identity *ret,
                   struct mr_err *err);

/* What a device of ours is backed by. LOOP_GET_STATUS64 asks the backing file for its
 * attributes (drivers/block/loop.c loop_get_status), so a device of the other kind, on a
 * mute FUSE server say, is never asked: one volume's trouble stays its own. mooring-lun's
 * attributes are cached by the kernel. */
enum mr_loop_backing {
    MR_LOOP_ON_FILE,
    MR_LOOP_ON_LUN, /* mooring-lun's file, which is mounted nowhere */
};

/* The loop device whose lo_file_name is the mark of this token and agent: 1 and *ret, 0
 * none (every bound one of the kind was read), negative when one could not be read. */
int mr_loop_find(const char *token, const char *runtime_dir, enum mr_loop_backing backing,
                 struct mr_identity *ret, struct mr_err *err);

/* Calls fn with the name ("loop3") of every bound loop device, until it answers false.
 * Reads sysfs alone. 0 or a negative errno. */
typedef bool (*mr_loop_fn)(void *ctx, const char *name);
int mr_loop_each(mr_loop_fn fn, void *ctx, struct mr_err *err);

/* The node ("/dev/loop3") of a device with this backing file, "" when there is none. By
 * the text in sysfs alone. */
void mr_loop_of_path(const char *path, char ret_node[32]);

/* What a bound device says of itself. */
struct mr_loop_answer {
    char file_name[LO_NAME_SIZE + 1]; /* lo_file_name, whatever bytes are there */
    dev_t file_dev;                   /* of the backing file */
    uint64_t file_inode;
    struct mr_identity identity; /* as from mr_loop_attach() */
};

/* Opens the device of this name for asking. An fd, -ENXIO when it is not bound any more,
 * or another negative errno. */
int mr_loop_open(const char *name, struct mr_err *err);
/* Asks it, which may wait for the backing file's server. 1, 0 when it is not bound, or a
 * negative errno. */
int mr_loop_ask(int fd, const char *name, struct mr_loop_answer *ret, struct mr_err *err);

/* LOOP_CLR_FD on the claim, then close it (always). The kernel defers it while others use
 * the device. */
int mr_loop_clear(int claim_fd, struct mr_err *err);

/* Takes back what mr_loop_clear() asked for and the kernel has put off (AUTOCLEAR): the
 * device stays bound when its last user goes. Needs no claim. 1 it stays, 0 it is gone,
 * negative: cannot tell. */
int mr_loop_keep(const struct mr_identity *identity, struct mr_err *err);

/* Takes a device down that was set up a moment ago and not given to anybody: by the same
 * rule, under an exclusive open. If a prober is in the way it stays, to be found by its
 * token. */
void mr_loop_undo(const char *node);

#endif
