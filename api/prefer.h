/* SPDX-License-Identifier: Apache-2.0
 *
 * The Prefer field (RFC 7240): `wait=N` and `respond-async`; everything else and
 * everything malformed is ignored. Pure functions.
 */
#ifndef MR_API_PREFER_H
#define MR_API_PREFER_H

#include <stdbool.h>
#include <stdint.h>

#define MR_PREFER_WAIT_MAX_S 600
#define MR_PREFER_WAIT_DEFAULT_S 60

struct mr_prefer {
    bool wait; /* wait=N was given, wait_s is N, clamped */
    bool respond_async;
    unsigned wait_s;
};

/* Adds one Prefer field to *prefer; the first `wait` counts (section 2). */
void mr_prefer_parse(struct mr_prefer *prefer, const char *value);

/* How long to wait: wait=N, else 0 for respond-async, else fallback_s. */
int64_t mr_prefer_wait_ns(const struct mr_prefer *prefer, unsigned fallback_s);

#endif
