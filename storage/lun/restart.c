/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/restart.h"

#include "storage/base/clock.h"

#define STEP_NS (100 * MR_NS_PER_MS)

int64_t mr_restart_after(struct mr_restart *restart, int64_t now_ns, bool served)
{
    const int64_t since_ns = now_ns - MR_RESTART_WINDOW_S * MR_NS_PER_S;
    unsigned crashes = 0;
    unsigned idle_ones = 0;

    for (unsigned i = 0; i < MR_RESTART_MAX; i++) {
        bool recent =
            restart->crashes[i].at_ns != 0 && restart->crashes[i].at_ns > since_ns;

        crashes += recent;
        idle_ones += recent && restart->crashes[i].idle;
    }
    restart->crashes[restart->next].at_ns = now_ns;
    restart->crashes[restart->next].idle = !served;
    restart->next = (restart->next + 1) % MR_RESTART_MAX;
    if (crashes >= MR_RESTART_MAX || idle_ones + !served > MR_RESTART_IDLE_MAX)
        return -1;
    return served ? 0 : idle_ones * STEP_NS;
}
