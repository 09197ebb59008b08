/* SPDX-License-Identifier: Apache-2.0
 *
 * Starts a mooring-lun (its keeper) for an attachment, and hears whether it serves. What
 * it needs goes over the socket at its fd 3 only: there are secrets in it.
 */
#ifndef MR_STORAGE_WORKER_LUN_START_H
#define MR_STORAGE_WORKER_LUN_START_H

#include <json-c/json.h>
#include <sys/types.h>

#include "storage/base/err.h"
#include "storage/worker/driver.h"

/* One that we started and that did not yet prove itself. */
struct mr_lun_child {
    pid_t pid;
    int pidfd;
    int channel;
    int mount_fd; /* the file that it serves is the root of this mount */
};

/* The start message (lun/start.h) for this attachment, with secrets. New reference, NULL
 * when out of memory. */
struct json_object *mr_lun_start_message(const struct mr_map_request *request);

/* It inherits lock_fd, and gets a memory group of its own where that can be had. On
 * failure the child may run: mr_lun_reap(). */
int mr_lun_spawn(const struct mr_map_request *request, int lock_fd,
                 struct mr_lun_child *server, struct mr_err *err);
/* Waits for its answer, in *ret (new reference): its status document. Its refusal becomes
 * err. */
int mr_lun_answer(const struct mr_map_request *request, struct mr_lun_child *server,
                  struct json_object **ret, struct mr_err *err);
/* After a failed map nothing of it is in use and it ends by itself; if not, it is ended.
 * Waits for that. */
void mr_lun_reap(struct mr_lun_child *server);
/* Channel and mount. */
void mr_lun_child_close(struct mr_lun_child *server);

#endif
