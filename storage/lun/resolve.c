/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/resolve.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "storage/lun/exits.h"
#include "storage/lun/portal.h"
#include "storage/lun/process.h"

#define LIMIT_S 10

static bool contains(const struct mr_page_portals *portals, const char *portal)
{
    for (size_t i = 0; i < portals->count; i++) {
        if (strcmp(portals->at[i], portal) == 0)
            return true;
    }
    return false;
}

static bool contains_all(const struct mr_page_portals *portals,
                         const struct mr_page_portals *others)
{
    for (size_t i = 0; i < others->count; i++) {
        if (!contains(portals, others->at[i]))
            return false;
    }
    return true;
}

/* In whatever order: name servers turn their lists. Both ways, because two names may
 * have the same address. */
static bool is_same(const struct mr_page_portals *a, const struct mr_page_portals *b)
{
    return contains_all(a, b) && contains_all(b, a);
}

bool mr_resolve_merge(const struct mr_page_portals *before, bool all,
                      struct mr_page_portals *found)
{
    for (size_t i = 0; !all && i < before->count; i++) {
        if (found->count < MR_LUN_PORTALS_MAX && !contains(found, before->at[i]))
            memcpy(found->at[found->count++], before->at[i], MR_PORTAL_TEXT);
    }
    return !is_same(before, found);
}

int mr_resolve_main(int argc, char *const *argv)
{
    struct mr_page_portals before;
    struct mr_page_portals found = {0};
    struct mr_page *page;
    struct mr_err err;
    bool all;
    int n;

    mr_process_isolate();
    (void)prctl(PR_SET_NAME, "mooring-lun-dns", 0, 0, 0); /* for ps(1) */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    (void)alarm(LIMIT_S); /* by its default it ends us: no name server can be hurried */
    if (argc > MR_LUN_PORTALS_MAX || mr_page_map(MR_LUN_PAGE_FD, &page, &err) < 0)
        return MR_EXIT_SYSTEM;
    n = mr_portal_resolve_list((const char *const *)argv, (size_t)argc, found.at,
                               MR_LUN_PORTALS_MAX, &all, &err);
    if (n <= 0)
        return MR_EXIT_UNAVAILABLE;
    found.count = (uint32_t)n;
    (void)mr_page_read_portals(page, atomic_load(&page->portal_set), &before);
    if (mr_resolve_merge(&before, all, &found))
        mr_page_write_portals(page, &found);
    return all ? 0 : MR_EXIT_UNAVAILABLE;
}
