/* SPDX-License-Identifier: Apache-2.0
 *
 * mooring-selftest: becomes one holder of a volume (`hold`), or shows that Mooring sees
 * every one of them (`run`, what `mooringd --selftest` starts).
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/options.h"
#include "agent/selftest/hold.h"
#include "agent/selftest/run.h"

static const char usage[] =
    "Usage: mooring-selftest run [HOLDER]...\n"
    "           attach and detach a small volume under each holder (default: all)\n"
    "       mooring-selftest list\n"
    "           name the holders\n"
    "       mooring-selftest hold HOLDER MOUNT_PATH NODE DIR\n"
    "           be that holder of a mounted volume until stdin closes\n\n"
    "Exit status of run: 0 the promise holds, 1 it does not, 71 cannot run here.\n";

static int list(void)
{
    static const char *const effects[] = {
        [MR_HOLD_DRAIN] = "drain",
        [MR_HOLD_UNMOUNT] = "unmount",
        [MR_HOLD_PASSING] = "passing",
        [MR_HOLD_NOTHING] = "nothing",
    };
    const struct mr_hold_family *family;

    for (size_t f = 0; (family = mr_hold_family(f)); f++)
        for (size_t i = 0; i < family->count; i++)
            (void)printf("%s\t%s\t%s\n", family->kinds[i].name,
                         effects[family->kinds[i].effect], family->kinds[i].what);
    return MR_EXIT_OK;
}

int main(int argc, char **argv)
{
    const char *job = argc > 1 ? argv[1] : "";
    int code = MR_EXIT_USAGE;

    (void)umask(077);
    if (strcmp(job, "hold") == 0)
        code = mr_hold_main(argc - 2, argv + 2);
    else if (strcmp(job, "idle") == 0)
        code = mr_hold_idle();
    else if (strcmp(job, "list") == 0)
        code = list();
    else if (strcmp(job, "run") == 0)
        code = mr_selftest_run(argc - 2, argv + 2);
    if (code == MR_EXIT_USAGE)
        (void)fputs(usage, stderr);
    return code;
}
