/* SPDX-License-Identifier: Apache-2.0
 *
 * Do portals take a TCP connection? All are tried at the same time; nothing is sent.
 */
#ifndef MR_STORAGE_LUN_REACH_H
#define MR_STORAGE_LUN_REACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/lun/portal.h"

struct mr_reach {
    char portal[MR_PORTAL_TEXT]; /* numeric, the address that was reached; else "" */
    bool reachable;
    int64_t connect_ms; /* when reachable */
    struct mr_err err;  /* else: PORTAL_UNREACHABLE, TARGET_TIMEOUT or INVALID_SPEC */
};

/* A name stands for all its addresses, at most MR_LUN_PORTALS_MAX altogether. Blocks
 * until each has answered, or until deadline_ns, or until enough_ns has passed and one is
 * reachable; name resolution may take longer. texts: count portals as given. */
void mr_reach(const char (*texts)[256], size_t count, int64_t enough_ns,
              int64_t deadline_ns, struct mr_reach *ret);

#endif
