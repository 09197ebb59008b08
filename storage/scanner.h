/* SPDX-License-Identifier: Apache-2.0
 *
 * Joins wishes for a holder scan: one `mooring-worker scan` at a time serves all volumes
 * and callers that asked before it started; who asks later gets the next one, so every
 * answer is fresher than its question. A scan past its deadline is abandoned and
 * replaced. Core thread only.
 */
#ifndef MR_STORAGE_SCANNER_H
#define MR_STORAGE_SCANNER_H

#include <json-c/json.h>

#include "storage/base/err.h"
#include "storage/base/loop.h"

struct mr_scanner;
struct mr_scan_request;

/* holders: array of rows, borrowed; NULL with err when the scan failed. The request is
 * freed before the call. */
typedef void (*mr_scan_fn)(void *ctx, struct json_object *holders, bool complete,
                           const struct mr_err *err);

/* libexec_dir is borrowed. fanotify_fd (or -1) is what scans inherit to mark namespaces
 * with copies. */
int mr_scanner_new(struct mr_loop *loop, const char *libexec_dir, int fanotify_fd,
                   struct mr_scanner **ret, struct mr_err *err);
/* Requests that are still open are dropped without a call. */
void mr_scanner_free(struct mr_scanner *scanner);

/* target (takes the reference): one element of `targets` in protocol.h; its `volume` is
 * the key of the answer. NULL when out of memory. */
struct mr_scan_request *mr_scanner_request(struct mr_scanner *scanner,
                                           struct json_object *target, mr_scan_fn fn,
                                           void *ctx);
void mr_scanner_cancel(struct mr_scan_request *request);

#endif
