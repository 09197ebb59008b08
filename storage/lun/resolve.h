/* SPDX-License-Identifier: Apache-2.0
 *
 * mooring-lun resolve: asks the name servers again where the target is. While a server
 * has no session the keeper starts it now and then, if portals were given by name. A
 * process of its own, because getaddrinfo(3) waits and takes memory, which neither the
 * server nor the keeper may do; it has a few seconds, and what it finds gets into the
 * page, where the server's next round of logins takes it from. Until then the old
 * addresses are good.
 */
#ifndef MR_STORAGE_LUN_RESOLVE_H
#define MR_STORAGE_LUN_RESOLVE_H

#include <stdbool.h>

#include "storage/lun/page.h"

/* The arguments are the portals as they were given. The page is at MR_LUN_PAGE_FD. Exit
 * status 0 when all could be resolved. */
int mr_resolve_main(int argc, char *const *argv);

/* What shall count from now on: the addresses that were found, and as long as a portal is
 * missing among them (all is false), those of before, too. False: that is what counts
 * already. */
bool mr_resolve_merge(const struct mr_page_portals *before, bool all,
                      struct mr_page_portals *found);

#endif
