/* SPDX-License-Identifier: Apache-2.0
 *
 * A mooring-lun that asks a portal or a target something and ends (lun/oneshot.h). Its
 * life is bounded: by its own timer, by ours, and by the channel, which ends with us.
 */
#ifndef MR_STORAGE_WORKER_LUN_ONESHOT_H
#define MR_STORAGE_WORKER_LUN_ONESHOT_H

#include <json-c/json.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/worker/driver.h"

/* Runs `mooring-lun MODE`, which gets message (borrowed; deadline_ms is added). Blocks,
 * little longer than deadline_ms. *ret is the answer (new reference), also when it is a
 * no: then err is what it says. ret_fd: see mr_msg_recv(). */
int mr_lun_oneshot(const char *libexec_dir, const char *mode, struct json_object *message,
                   int64_t deadline_ms, struct json_object **ret, int *ret_fd,
                   struct mr_err *err);

/* The driver's preflight. */
int mr_lun_preflight(const struct mr_map_request *request, struct json_object *reply,
                     int *ret_fd, struct mr_err *err);

#endif
