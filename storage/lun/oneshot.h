/* SPDX-License-Identifier: Apache-2.0
 *
 * The modes of mooring-lun that ask something and end: one message in at fd 3, one out.
 * Never longer than the message says, whatever a target or a name server does: a timer
 * ends the process soon after its deadline, and it ends with the worker that asked.
 */
#ifndef MR_STORAGE_LUN_ONESHOT_H
#define MR_STORAGE_LUN_ONESHOT_H

#include <json-c/json.h>
#include <stdint.h>

#include "storage/base/err.h"

#define MR_ONESHOT_MIN_MS 100
#define MR_ONESHOT_MAX_MS 1200000

/* Puts its members into answer (borrowed). *ret_fd, if not -1, goes along with the answer
 * and is closed then. 0, or a negative errno with err: the answer says why, and keeps
 * these members. */
typedef int (*mr_oneshot_fn)(struct json_object *request, int64_t deadline_ns,
                             struct json_object *answer, int *ret_fd, struct mr_err *err);

/* Request: {"deadline_ms": from now on, ...}. Answer: {"ok": true, ...}, or {"ok": false,
 * "error": mr_err_to_json(), ...}. Returns the exit status. */
int mr_oneshot_main(mr_oneshot_fn fn);

/* discover.c: {portal, initiator_name, deadline_ms} -> {complete, targets: [{name,
 * portals, complete, luns: [{lun, size_bytes, block_size, serial, wwn, thin,
 * write_protected, vendor, product, error?}], error?}]}. */
int mr_discover(struct json_object *request, int64_t deadline_ns,
                struct json_object *answer, int *ret_fd, struct mr_err *err);

/* preflight.c: a start message (start.h) and deadline_ms -> {portals: [{portal,
 * reachable, connect_ms, login_ms, error?}], credentials, size_bytes, block_size, serial,
 * wwn, thin, write_protected, read_error?}, as far as it came; and what was read of the
 * LUN as a sparse file of its size. */
int mr_preflight(struct json_object *request, int64_t deadline_ns,
                 struct json_object *answer, int *ret_fd, struct mr_err *err);

#endif
