/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel's own word on a loop device, asked without the engine; and the end of
 * whatever is left below a directory.
 */
#ifndef MR_AGENT_SELFTEST_SWEEP_H
#define MR_AGENT_SELFTEST_SWEEP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A loop device as sysfs shows it. */
struct mr_device {
    char node[32];
    char backing[PATH_MAX];
    uint64_t diskseq;
};

/* Returns 0, or a negative errno: not bound. */
int mr_device_look(const char *node, struct mr_device *ret);
/* Is it still this very device, bound to the same file? */
bool mr_device_mapped(const struct mr_device *device);
/* Does a file system live on it? */
bool mr_device_alive(const struct mr_device *device);

/* Thaws, unmounts and unbinds everything that has to do with dir, then removes it; tries
 * again for two seconds. left: what is there in spite of it, to be read by a person; ""
 * for nothing. Blocks. */
void mr_sweep(const char *dir, char *left, size_t size);

#endif
