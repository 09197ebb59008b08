/* SPDX-License-Identifier: Apache-2.0
 *
 * Children, always by argv array, never by a shell. Children get a clean signal mask and
 * default dispositions, and only the fds they are given.
 */
#ifndef MR_STORAGE_BASE_SPAWN_H
#define MR_STORAGE_BASE_SPAWN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "storage/base/err.h"

/* One fd for the child: `from` here becomes `to` there (3 or above), without
 * close-on-exec. */
struct mr_spawn_fd {
    int from;
    int to;
};

struct mr_spawn {
    const char *const *argv; /* NULL-terminated, argv[0] is the path to execute */
    int program_fd;          /* executed instead when it is not 0, may be O_PATH */
    const char *const *envp; /* NULL: PATH, LANG=C and MOORING_LOG only */
    const struct mr_spawn_fd *fds;
    size_t fd_count;
    int stdin_fd;     /* 0: /dev/null */
    int stdout_fd;    /* -1: /dev/null */
    int stderr_fd;    /* -1: ours */
    bool new_session; /* setsid(2): signals to our group do not reach it */
};

/* Starts it; the child is ours to reap. *ret_pidfd (may be NULL) is close-on-exec. Does
 * not block beyond the exec. Returns 0, or a negative errno with MR_E_INTERNAL. */
int mr_spawn_start(const struct mr_spawn *spawn, pid_t *ret_pid, int *ret_pidfd,
                   struct mr_err *err);

/* Runs a tool to its end (workers only: blocks). stdout and stderr are captured together,
 * cut at size-1 bytes. keep_fds are inherited at their own numbers (the lock fd: mkfs
 * outlives a killed worker). Past the deadline it gets SIGKILL and is reaped as soon as
 * that works. Returns the exit status 0..255, 128+signal, or a negative errno
 * (-ETIMEDOUT). */
int mr_spawn_run(const char *const *argv, const int *keep_fds, size_t keep_count,
                 int64_t deadline_ns, char *output, size_t size, struct mr_err *err);

#endif
