/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/selftest/hold.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "agent/options.h"

static const struct mr_hold_family *const families[] = {
    &mr_hold_namespaces, &mr_hold_mounts, &mr_hold_files, &mr_hold_kernel, &mr_hold_raw,
};

const struct mr_hold_family *mr_hold_family(size_t index)
{
    return index < sizeof(families) / sizeof(families[0]) ? families[index] : NULL;
}

const struct mr_hold_kind *mr_hold_find(const char *name)
{
    const struct mr_hold_family *family;

    for (size_t f = 0; (family = mr_hold_family(f)); f++)
        for (size_t i = 0; i < family->count; i++)
            if (strcmp(family->kinds[i].name, name) == 0)
                return &family->kinds[i];
    return NULL;
}

void mr_hold_wait(const char *facts)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

    (void)printf("ready%s%s\n", facts[0] ? " " : "", facts);
    (void)fflush(stdout);
    while (poll(&input, 1, -1) < 0 && errno == EINTR)
        continue;
}

int mr_hold_idle(void)
{
    (void)prctl(PR_SET_NAME, "exe");
    mr_hold_wait("");
    return MR_EXIT_OK;
}

int mr_hold_main(int argc, char **argv)
{
    const struct mr_hold_kind *kind = argc == 4 ? mr_hold_find(argv[0]) : NULL;
    struct mr_err err;

    if (!kind)
        return MR_EXIT_USAGE;
    const struct mr_hold_site site = {
        .mount_path = argv[1], .node = argv[2], .dir = argv[3]};
    /* The name that a scan finds: each holder has its own. */
    (void)prctl(PR_SET_NAME, kind->name);
    if (kind->run(&site, &err) == 0)
        return MR_EXIT_OK;
    (void)printf("cannot: %s\n", err.message);
    (void)fflush(stdout);
    return 1;
}
