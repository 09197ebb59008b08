/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line of mooringd. Scripts rely on these options: they are never renamed.
 */
#ifndef MR_AGENT_OPTIONS_H
#define MR_AGENT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "storage/base/err.h"

#define MR_LISTEN_MAX 16

/* Exit codes: sysexits(3), and one of our own. */
enum mr_exit {
    MR_EXIT_OK = 0,
    MR_EXIT_BROKEN = 1, /* the self test failed */
    MR_EXIT_USAGE = 64,
    MR_EXIT_SYSTEM = 71,
    MR_EXIT_CONFIG = 78,
};

enum mr_mode {
    MR_MODE_RUN = 0,
    MR_MODE_CHECK_CONFIG,
    MR_MODE_VERSION,
    MR_MODE_HELP,
    MR_MODE_DUMP_ROUTES,
    MR_MODE_SELFTEST,
};

/* Borrowed from argv. */
struct mr_options {
    enum mr_mode mode;
    const char *config_file; /* NULL: the default, which may be absent */
    const char *state_dir;   /* absolute */
    const char *runtime_dir; /* absolute */
    const char *listen[MR_LISTEN_MAX];
    size_t listen_count; /* 0: unix:RUNTIME/agent.sock */
    bool insecure_loopback;
};

/* Returns 0, or -EINVAL and *err: exit with MR_EXIT_USAGE. */
int mr_options_parse(int argc, char **argv, struct mr_options *ret, struct mr_err *err);
void mr_options_help(FILE *out);

#endif
