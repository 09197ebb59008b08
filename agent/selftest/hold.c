/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/selftest/hold.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "agent/options.h"
#include "storage/base/cleanup.h"

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
    (void)fprintf(stderr,
                  "mooring-selftest: there is no holder '%s'; "
                  "`mooring-selftest list` names them\n",
                  name);
    return NULL;
}

/* --- the end on request --- */

static void fill_end_signals(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGINT);
    (void)sigaddset(set, SIGTERM);
    (void)sigaddset(set, SIGHUP);
}

/* From here on they wait: what is half built is built, then let go in order. */
static void hold_back_signals(void)
{
    sigset_t set;

    fill_end_signals(&set);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* nobody listens: no reason to leave the hold */
}

/* The exit status of a holder that let go. mr_hold_wait() leaves the signal pending. */
static int status_of_end(void)
{
    const struct timespec now = {0};
    sigset_t set;

    fill_end_signals(&set);
    int number = sigtimedwait(&set, NULL, &now);
    return number > 0 ? 128 + number : MR_EXIT_OK;
}

void mr_hold_wait(const char *facts)
{
    sigset_t set;

    fill_end_signals(&set);
    MR_AUTO_CLOSE int signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    struct pollfd ends[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                            {.fd = signal_fd, .events = POLLIN}};
    (void)printf("ready%s%s\n", facts[0] ? " " : "", facts);
    (void)fflush(stdout);
    while (poll(ends, sizeof(ends) / sizeof(ends[0]), -1) < 0 && errno == EINTR)
        continue;
}

int mr_hold_idle(void)
{
    hold_back_signals();
    (void)prctl(PR_SET_NAME, "exe");
    mr_hold_wait("");
    return status_of_end();
}

int mr_hold_main(int argc, char **argv)
{
    const struct mr_hold_kind *kind = argc > 0 ? mr_hold_find(argv[0]) : NULL;
    struct mr_err err;

    if (!kind || argc != 4)
        return MR_EXIT_USAGE;
    const struct mr_hold_site site = {
        .mount_path = argv[1], .node = argv[2], .dir = argv[3]};
    hold_back_signals();
    /* The name that a scan finds: each holder has its own. */
    (void)prctl(PR_SET_NAME, kind->name);
    if (kind->run(&site, &err) == 0)
        return status_of_end();
    (void)printf("cannot: %s\n", err.message);
    (void)fflush(stdout);
    return 1;
}
