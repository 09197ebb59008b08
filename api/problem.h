/* SPDX-License-Identifier: Apache-2.0
 *
 * Errors as RFC 9457 problem documents: the one table from code to HTTP status.
 */
#ifndef MR_API_PROBLEM_H
#define MR_API_PROBLEM_H

#include <json-c/json.h>
#include <stdbool.h>

#include "storage/base/err.h"

/* What the error object does not know. All borrowed, all may be NULL. */
struct mr_problem_context {
    const char *volume;    /* of the request; err->volume, another one, comes first */
    const char *operation; /* the failed operation, or the one in the way */
    struct json_object *holders;  /* array */
    struct json_object *progress; /* object */
    bool residue;                 /* say the residue even when it is not known */
};

unsigned mr_problem_status(enum mr_code code);
/* May the same request succeed later, without anybody changing it? */
bool mr_problem_retryable(enum mr_code code);
/* Retry-After in seconds, 0: no such field. */
unsigned mr_problem_retry_after_s(enum mr_code code);

/* New reference, NULL when out of memory. */
struct json_object *mr_problem_document(const struct mr_err *err,
                                        const struct mr_problem_context *context);

#endif
