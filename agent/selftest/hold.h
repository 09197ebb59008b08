/* SPDX-License-Identifier: Apache-2.0
 *
 * Ways to hold a volume, each a short function in a table: what the self test and the
 * integration tests are made of. A holder is a process of its own that lets go when its
 * stdin closes, so that it cannot outlive whoever started it, and when it is asked to end
 * (SIGTERM, SIGINT, SIGHUP). Uses storage/base only.
 */
#ifndef MR_AGENT_SELFTEST_HOLD_H
#define MR_AGENT_SELFTEST_HOLD_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "storage/base/err.h"

/* Where it holds. */
struct mr_hold_site {
    const char *mount_path; /* of the mounted volume, xfs or ext4 */
    const char *node;       /* its block device */
    const char *dir;        /* scratch directory outside of the volume */
};

/* What it does to a detach. */
enum mr_hold_effect {
    MR_HOLD_DRAIN = 0, /* umount(2) returns 0, and the device stays held */
    MR_HOLD_UNMOUNT,   /* umount(2) says EBUSY */
    MR_HOLD_PASSING,   /* EBUSY until the kernel itself ends it, soon */
    MR_HOLD_NOTHING,   /* looks like a holder, and is none */
};

struct mr_hold_kind {
    const char *name; /* "open-file": an argument of `mooring-selftest hold` */
    const char *what; /* "an open file" */
    enum mr_hold_effect effect;
    const char *names[2]; /* kinds of rows that name it (storage/holder_kind.h); none:
                           * nothing shows it */
    /* Builds it, calls mr_hold_wait(), undoes it. Returns 0, or a negative errno with err
     * when it cannot be built here. */
    int (*run)(const struct mr_hold_site *site, struct mr_err *err);
};

struct mr_hold_family {
    const char *title;
    const struct mr_hold_kind *kinds;
    size_t count;
};

extern const struct mr_hold_family mr_hold_namespaces;
extern const struct mr_hold_family mr_hold_mounts;
extern const struct mr_hold_family mr_hold_files;
extern const struct mr_hold_family mr_hold_kernel;
extern const struct mr_hold_family mr_hold_raw;

/* All of them in the order in which they are shown; NULL past the end. */
const struct mr_hold_family *mr_hold_family(size_t index);
/* NULL, said on stderr, when there is none of this name. */
const struct mr_hold_kind *mr_hold_find(const char *name);

/* The job `hold KIND MOUNT_PATH NODE DIR`. Says "ready", facts and a line feed on stdout
 * when it holds, or "cannot: REASON" and a line feed. Returns the exit status; after a
 * signal that it obeyed 128+signal, as the shell says. */
int mr_hold_main(int argc, char **argv);
/* The job `idle`: says that it is ready, and waits. */
int mr_hold_idle(void);

/* --- what the holders share --- */

/* It holds: says so, with facts ("tid=12", "" for none), and returns when stdin is
 * closed, or a signal asks for the end. */
void mr_hold_wait(const char *facts);
/* A new file of 64 KiB on the volume, open for reading and writing. */
int mr_hold_new_file(const struct mr_hold_site *site, const char *name, int *ret_fd,
                     struct mr_err *err);
/* dst = DIR/NAME, a directory. */
int mr_hold_make_dir(const char *dir, const char *name, char dst[PATH_MAX],
                     struct mr_err *err);
/* Runs enter in a thread that stays while we wait. */
int mr_hold_in_thread(int (*enter)(const struct mr_hold_site *, struct mr_err *),
                      const struct mr_hold_site *site, struct mr_err *err);
/* Sends fd into a socket (SCM_RIGHTS). */
int mr_hold_send_fd(int socket_fd, int fd, struct mr_err *err);
/* Sends *fd into a socket that nobody reads, closes it here, and holds. */
int mr_hold_in_flight(int *fd, struct mr_err *err);
/* One more mount of the live file system on node, in an fd and nowhere else. */
int mr_hold_join(const char *node, const char *fs_type, int *ret_fd, struct mr_err *err);
/* "xfs", "ext4", or NULL when it is neither. */
const char *mr_hold_fs_type(const char *path);
/* Unmounts path; no mount there is fine. Tries again while it is busy. */
int mr_hold_unmount(const char *path, struct mr_err *err);
/* Thaws the file system on node when it is alive and frozen; else does nothing. */
int mr_hold_thaw(const char *node, struct mr_err *err);
/* Binds a free loop device to fd (taken). It ends with *ret_fd and what uses it. node
 * gets "/dev/loopN". */
int mr_hold_bind_loop(int *fd, bool read_only, char node[32], int *ret_fd,
                      struct mr_err *err);

#endif
