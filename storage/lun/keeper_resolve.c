/* SPDX-License-Identifier: Apache-2.0
 *
 * The keeper's other child: while the target is away, names are resolved again. */
#include "storage/lun/keeper.h"

#include <poll.h>
#include <sys/wait.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/spawn.h"
#include "storage/lun/portal.h"

/* A target that is back at once is found without. */
#define FIRST_NS (2 * MR_NS_PER_S)
#define AGAIN_NS (10 * MR_NS_PER_S)

static bool has_names(const struct mr_keeper *k)
{
    for (size_t i = 0; i < k->start.portal_count; i++) {
        if (mr_portal_is_name(k->start.portals[i]))
            return true;
    }
    return false;
}

static void start(struct mr_keeper *k)
{
    const char *argv[MR_LUN_PORTALS_MAX + 3] = {"mooring-lun", "resolve"};
    const struct mr_spawn_fd page = {.from = k->page_fd, .to = MR_LUN_PAGE_FD};
    const struct mr_spawn spawn = {
        .argv = argv,
        .program_fd = k->program_fd,
        .fds = &page,
        .fd_count = 1,
        .stdout_fd = -1,
        .stderr_fd = -1,
    };
    struct mr_err err;

    for (size_t i = 0; i < k->start.portal_count; i++)
        argv[2 + i] = k->start.portals[i];
    if (mr_spawn_start(&spawn, &k->resolver.pid, &k->resolver.pidfd, &err) < 0)
        k->resolver.pid = 0; /* the next time, perhaps */
}

static void reap(struct mr_keeper *k)
{
    struct pollfd end = {.fd = k->resolver.pidfd, .events = POLLIN};
    siginfo_t info;

    if (k->resolver.pid == 0 || poll(&end, 1, 0) <= 0)
        return;
    (void)waitid(P_PIDFD, (id_t)k->resolver.pidfd, &info, WEXITED | WNOHANG);
    mr_close(&k->resolver.pidfd);
    k->resolver.pid = 0;
}

int64_t mr_keeper_check_resolver(struct mr_keeper *k)
{
    const enum mr_link_state state = (enum mr_link_state)atomic_load(&k->page->state);
    const bool is_away = state == MR_LINK_DOWN || state == MR_LINK_FAILED;
    const int64_t now_ns = mr_now_ns();

    reap(k);
    if (!k->serving || !is_away || !has_names(k)) {
        k->resolver.due_ns = 0;
        return INT64_MAX;
    }
    if (k->resolver.due_ns == 0)
        k->resolver.due_ns = now_ns + FIRST_NS;
    if (k->resolver.pid != 0)
        return INT64_MAX; /* its end is an event */
    if (now_ns >= k->resolver.due_ns) {
        start(k);
        k->resolver.due_ns = now_ns + AGAIN_NS;
    }
    return k->resolver.due_ns;
}
