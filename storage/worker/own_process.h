/* SPDX-License-Identifier: Apache-2.0
 *
 * Which processes are the agent's own: what they hold, they hold for a volume. Never
 * named as holders, never signalled. Others may run our programs to hide behind them:
 * only root's count.
 */
#ifndef MR_STORAGE_WORKER_OWN_PROCESS_H
#define MR_STORAGE_WORKER_OWN_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/* dir is /proc/PID of that process (O_PATH is enough). We ourselves, the agent that
 * started us, whoever runs our very program; in our own mount namespace also who runs one
 * of our programs from our directory, even when an upgrade has replaced it. True when we
 * cannot tell what our own program is. Single-threaded. */
bool mr_is_own_process(pid_t pid, int dir);

#endif
