/* SPDX-License-Identifier: Apache-2.0
 *
 * What could be attached, and what an attach would meet: GET /discovery and PUT with
 * dry_run. Each is a `mooring-worker probe` of its own that ends with its deadline; no
 * more than a few at the same time, those that hang in the kernel included. Nothing is
 * attached, nothing is journalled. Core thread only.
 */
#ifndef MR_STORAGE_DISCOVERY_H
#define MR_STORAGE_DISCOVERY_H

#include <stdint.h>

#include "storage/engine.h"

#define MR_DISCOVERIES_MAX 4 /* at the same time */
#define MR_DISCOVERY_TIMEOUT_MIN_S 1
#define MR_DISCOVERY_TIMEOUT_MAX_S 60
#define MR_DISCOVERY_TIMEOUT_DEFAULT_S 10

/* "HOST", "HOST:PORT", "[IPv6]" or "[IPv6]:PORT", as in a spec? Pure. */
bool mr_discovery_portal_valid(const char *portal);

/* GET /discovery. The answer: {driver: "iscsi", portal, complete, targets: [{name,
 * portals, complete, luns: [{lun, size_bytes, block_size, serial, wwn, thin,
 * write_protected, vendor, product, error}], error}]}, or PORTAL_UNREACHABLE,
 * TARGET_TIMEOUT (within timeout_ms), CHAP_REFUSED, DEVICE_ERROR. portal is valid. NULL
 * and err: TOO_MANY_REQUESTS, INTERNAL. */
struct mr_pending *mr_engine_discover(struct mr_engine *engine, const char *portal,
                                      int64_t timeout_ms, mr_answer_fn fn, void *ctx,
                                      struct mr_err *err);

/* PUT /volumes/{id}?dry_run=true: the preflight document {volume, would: "attach",
 * "format", "verify" or "refused", problem, portals, credentials, identity {serial, wwn},
 * size_bytes, block_size, write_protected, thin, content, found {fs_type, fs_uuid, label,
 * detail}, mount_path}. Takes spec in every case. NULL and err: RECOVERING, what is wrong
 * with the request itself (PATH_NOT_ALLOWED, INVALID_SPEC), TOO_MANY_REQUESTS, INTERNAL;
 * such an answer may also come later. */
struct mr_pending *mr_engine_preflight(struct mr_engine *engine, const char *id,
                                       struct mr_spec *spec, mr_answer_fn fn, void *ctx,
                                       struct mr_err *err);

/* Nobody waits for it any more: its process is ended. NULL is fine. */
struct mr_discovery;
void mr_discovery_cancel(struct mr_discovery *discovery);
/* The agent stops; after mr_pending_stop(), before the workers. */
void mr_discovery_stop(struct mr_engine *engine);

#endif
