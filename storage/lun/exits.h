/* SPDX-License-Identifier: Apache-2.0
 *
 * How mooring-lun ends: exit statuses as in sysexits(3).
 */
#ifndef MR_STORAGE_LUN_EXITS_H
#define MR_STORAGE_LUN_EXITS_H

#include "storage/base/err.h"

enum {
    MR_EXIT_USAGE = 64,
    MR_EXIT_UNAVAILABLE = 69, /* the target */
    MR_EXIT_CRASHED = 70,     /* the connection was aborted */
    MR_EXIT_SYSTEM = 71,
    MR_EXIT_NOPERM = 77, /* the target refused us */
};

/* Of a start that failed. */
static inline int mr_exit_code(enum mr_code code)
{
    if (code == MR_E_CHAP_REFUSED)
        return MR_EXIT_NOPERM;
    if (code == MR_E_INVALID_REQUEST || code == MR_E_INVALID_SPEC)
        return MR_EXIT_USAGE;
    return code == MR_E_INTERNAL ? MR_EXIT_SYSTEM : MR_EXIT_UNAVAILABLE;
}

#endif
