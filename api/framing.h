/* SPDX-License-Identifier: Apache-2.0
 *
 * Refuses requests whose extent or meaning another HTTP implementation could read
 * differently (request smuggling), which libmicrohttpd 0.9.75 lets through, and collects
 * the fields we use. RFC 9112 sections 2 to 6.
 */
#ifndef MR_API_FRAMING_H
#define MR_API_FRAMING_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/prefer.h"
#include "storage/base/err.h"

/* Field values are borrowed from the connection, NULL when absent. */
struct mr_headers {
    const char *host;
    const char *content_length;
    const char *transfer_encoding;
    const char *content_type;
    const char *content_encoding;
    const char *if_none_match;
    struct mr_prefer prefer;
};

/* method and version as given to the access handler; target is our copy of the raw
 * request target and target_at the address that libmicrohttpd's URI log callback got it
 * at. The addresses are only compared, never followed: the library parses in place, so a
 * gap between two fields is a NUL or a folded line that it swallowed. tcp: Host must name
 * loopback. Fills *ret. Returns 0 or -EINVAL with MR_E_INVALID_REQUEST. */
int mr_framing_check(struct MHD_Connection *connection, const char *method,
                     const char *version, const char *target, uintptr_t target_at,
                     bool tcp, struct mr_headers *ret, struct mr_err *err);

/* True for localhost, 127.0.0.0/8 and [::1], with or without a port. */
bool mr_host_is_loopback(const char *host);

#endif
