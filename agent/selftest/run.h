/* SPDX-License-Identifier: Apache-2.0
 *
 * The job `run`: the real engine with real workers, a small volume, one holder after the
 * other.
 */
#ifndef MR_AGENT_SELFTEST_RUN_H
#define MR_AGENT_SELFTEST_RUN_H

#include <stddef.h>

/* argv: names of holders, none for all. Returns the exit status: 0 the promise holds on
 * this kernel, 1 it does not, MR_EXIT_SYSTEM it cannot be tested here, MR_EXIT_USAGE, 128
 * + signal when interrupted. Leaves nothing behind. */
int mr_selftest_run(int argc, char **argv);

#endif
