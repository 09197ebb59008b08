/* SPDX-License-Identifier: Apache-2.0
 *
 * The running server: one loop over FUSE, session, control socket and clock, and what it
 * says about itself.
 */
#ifndef MR_STORAGE_LUN_SERVE_H
#define MR_STORAGE_LUN_SERVE_H

#include <json-c/json.h>

#include "storage/lun/control.h"
#include "storage/lun/inquiry.h"
#include "storage/lun/io.h"
#include "storage/lun/session.h"
#include "storage/lun/start.h"

enum mr_server_state {
    MR_SERVER_UP = 0,
    MR_SERVER_FAILED, /* the session is lost: every request gets EIO until the kernel lets
                         go */
    MR_SERVER_STOPPING, /* the kernel let go: logging out */
};

struct mr_server {
    struct mr_lun_start start;
    struct mr_lun_facts facts;
    struct mr_session session;
    struct mr_io io;
    struct mr_control control;
    enum mr_server_state state;
    bool cut; /* on request: see mr_server_status() */
};

/* Serves until the kernel has released the file, then logs out (bounded). Returns true
 * when the target confirmed the logout. */
bool mr_server_run(struct mr_server *server);

/* {version, oldest, program_version, ok, token, pid, start_time, state, target, lun,
 * portal, size_bytes, block_size, serial, wwn, writable, in_flight, cut, counters,
 * down_reason?}. The answer to both commands of the control socket: "status", and "cut",
 * after which the session is dropped without logout and every request, those that wait
 * included, is answered with EIO. What the target was told already it may still do. New
 * reference, NULL when out of memory. */
struct json_object *mr_server_status(const struct mr_server *server);

#endif
