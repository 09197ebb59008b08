/* SPDX-License-Identifier: Apache-2.0
 *
 * Portal addresses: "HOST", "HOST:PORT", "[IPV6]", "[IPV6]:PORT". Names are resolved
 * before the I/O loop starts, and afterwards by a process of its own (resolve.c): nothing
 * in the loop may wait for a name server.
 */
#ifndef MR_STORAGE_LUN_PORTAL_H
#define MR_STORAGE_LUN_PORTAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/base/err.h"

#define MR_PORTAL_PORT 3260 /* RFC 7143 section 14 */
#define MR_PORTAL_TEXT 80   /* numeric form: "[IPv6%scope]:65535" */
#define MR_PORTAL_HOST 256

struct mr_portal {
    char host[MR_PORTAL_HOST]; /* without brackets */
    uint16_t port;
};

/* Splits the text. Returns 0, or -EINVAL when it is no portal. Pure. */
int mr_portal_parse(const char *text, struct mr_portal *ret);

/* The first address of the portal as "1.2.3.4:3260" or "[::1]:3260" in dst
 * (MR_PORTAL_TEXT bytes). May wait for a name server unless the host is numeric. -EINVAL
 * or -EHOSTUNREACH with PORTAL_UNREACHABLE. */
int mr_portal_resolve(const char *text, char dst[MR_PORTAL_TEXT], struct mr_err *err);
/* The same with all its addresses, at most max, in the order of getaddrinfo(3). Returns
 * their number, at least 1. */
int mr_portal_resolve_all(const char *text, char (*dst)[MR_PORTAL_TEXT], size_t max,
                          struct mr_err *err);

/* Is it a host's name, so that its addresses may change? Pure. */
bool mr_portal_is_name(const char *text);

/* All addresses of several portals, at most max. Those that cannot be resolved now are
 * left out; *ret_all says whether there were none. Returns the number of addresses, or
 * the error of the first portal when there are none. */
int mr_portal_resolve_list(const char *const *texts, size_t count,
                           char (*dst)[MR_PORTAL_TEXT], size_t max, bool *ret_all,
                           struct mr_err *err);

#endif
