/* SPDX-License-Identifier: Apache-2.0
 *
 * mooring-lun: one iSCSI LUN as a FUSE file for a loop device. `serve` is the keeper,
 * started by the worker's iscsi driver, and `io` the server that the keeper starts; both
 * get a socket at fd 3 (start.h); `resolve` is its helper (resolve.h). `discover` and
 * `preflight` ask a target something and end (oneshot.h). `control` talks to a keeper.
 */
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "storage/base/log.h"
#include "storage/lun/control_client.h"
#include "storage/lun/exits.h"
#include "storage/lun/keeper.h"
#include "storage/lun/oneshot.h"
#include "storage/lun/process.h"
#include "storage/lun/resolve.h"
#include "storage/lun/serve.h"

static int keep(int argc, char *const *argv)
{
    (void)argc;
    (void)argv;
    mr_process_isolate();
    mr_process_hold_mounts();
    return mr_keeper_main();
}

static int serve(int argc, char *const *argv)
{
    (void)argc;
    (void)argv;
    mr_process_isolate();
    mr_process_hold_mounts();
    (void)prctl(PR_SET_NAME, "mooring-lun-io", 0, 0, 0); /* for ps(1) */
    return mr_process_follow(MR_LUN_CHANNEL_FD) ? mr_server_main() : MR_EXIT_SYSTEM;
}

static int discover(int argc, char *const *argv)
{
    (void)argc;
    (void)argv;
    return mr_oneshot_main(mr_discover);
}

static int preflight(int argc, char *const *argv)
{
    (void)argc;
    (void)argv;
    return mr_oneshot_main(mr_preflight);
}

static const struct {
    const char *name;
    int arguments; /* -1: any */
    int (*fn)(int argc, char *const *argv);
} modes[] = {
    {"serve", 0, keep},
    {"io", 0, serve},
    {"discover", 0, discover},
    {"preflight", 0, preflight},
    {"resolve", -1, mr_resolve_main},
    {"control", -1, mr_control_client_main},
};

int main(int argc, char **argv)
{
    mr_log_init("mooring-lun");
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        (void)printf("mooring-lun %s\n", MR_VERSION);
        return 0;
    }
    for (size_t i = 0; argc >= 2 && i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(argv[1], modes[i].name) == 0 &&
            (modes[i].arguments < 0 || argc - 2 == modes[i].arguments))
            return modes[i].fn(argc - 2, argv + 2);
    }
    (void)fprintf(
        stderr, "usage: mooring-lun control SOCKET VERB [KEY=VALUE...]\n"
                "the other modes are started by mooring-worker and mooring-lun serve\n");
    return MR_EXIT_USAGE;
}
