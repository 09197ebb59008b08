/* SPDX-License-Identifier: Apache-2.0
 *
 * Percent-decoding, one path segment or query component at a time, so that an escaped
 * slash or NUL can never change what a path means. Pure functions.
 */
#ifndef MR_API_URI_H
#define MR_API_URI_H

#include <stdbool.h>
#include <stddef.h>

/* Decodes src[0..bytes) into dst, which holds bytes + 1. plus_is_space for query
 * components (application/x-www-form-urlencoded). Returns 0, or -EINVAL for a bad escape
 * or an escaped NUL. */
int mr_uri_decode(const char *src, size_t bytes, bool plus_is_space, char *dst);

/* Only what a request target may hold in origin form (RFC 9112 section 3.2.1): a leading
 * slash, then visible ASCII without '#'. */
bool mr_uri_origin_form(const char *target);

#endif
