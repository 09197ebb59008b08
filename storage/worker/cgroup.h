/* SPDX-License-Identifier: Apache-2.0
 *
 * A memory control group of its own for each mooring-lun: one that shares a group with
 * those who write to its volume may have to wait for memory that only it can free. It
 * stands below the group that we are in, mooring-lun-TOKEN, and has no limits. Its
 * directory is named by the symlink RUNTIME/lun/TOKEN.cgroup, made before it and removed
 * after it, so that it is found whoever made it. cgroups(7).
 */
#ifndef MR_STORAGE_WORKER_CGROUP_H
#define MR_STORAGE_WORKER_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "storage/base/err.h"

/* Where the memory group of this process is: the hierarchy of version 1 with the memory
 * controller, else that of version 2. cgroup is the text of /proc/self/cgroup, mountinfo
 * that of /proc/self/mountinfo. 0, -ENOENT when there is none in sight, or -ENAMETOOLONG.
 * Pure. */
int mr_cgroup_own(const char *cgroup, const char *mountinfo, char *dst, size_t size);

/* Makes the group and puts the process into it. On failure nothing is left behind, and
 * the process stays where it is: 0 and the directory in path, or a negative errno. */
int mr_cgroup_join(const char *runtime_dir, const char *token, pid_t pid, char *path,
                   size_t size, struct mr_err *err);

/* Removes the group of a token, if there is one; while the last process in it is still
 * ending, waits for that at most wait_ms. False when it is still there. */
bool mr_cgroup_remove(const char *runtime_dir, const char *token, int64_t wait_ms);

/* The same for a token that nobody knows: only if nobody is in the group. */
void mr_cgroup_sweep(const char *runtime_dir, const char *token);

#endif
