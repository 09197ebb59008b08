/* SPDX-License-Identifier: Apache-2.0
 *
 * What a keeper says about the LUN: its status document, read from the page. Asks nobody:
 * a server that is stuck or stopped cannot keep it from being said. What such a server
 * has written last is true no more, so its state is "restarting" or "unresponsive" then:
 * requests wait. But what fails for good is said as such.
 */
#ifndef MR_STORAGE_LUN_STATUS_H
#define MR_STORAGE_LUN_STATUS_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "storage/lun/page.h"
#include "storage/lun/start.h"

enum mr_lun_server {
    MR_LUN_SERVER_RUNS = 0, /* as far as the keeper was told */
    MR_LUN_SERVER_RESTARTS, /* there is none, or it is not ready */
    MR_LUN_SERVER_STOPPED,  /* by a signal */
};

struct mr_lun_status {
    const struct mr_lun_start *start;
    const struct mr_page *page;
    enum mr_lun_server server;
    int64_t server_wall_ms; /* since when it does not run */
    pid_t server_pid;       /* 0: none at the moment */
    uint64_t server_start_time;
    const char *server_end;   /* how the last one that crashed did, or "" */
    bool on_trial;            /* its program has yet to show that it works */
    uint32_t fuse_connection; /* 0: not known */
};

/* A server that is later than this is unresponsive. Its end may take it as long. */
#define MR_LUN_SERVER_LATE_MS 5000
/* For how long it has had something to do by the clock and has not done it. */
int64_t mr_lun_server_late_ms(const struct mr_page *page);

/* {version, oldest, program_version, ok, token, pid, start_time, state, target, lun,
 * portal, size_bytes, block_size, serial, wwn, writable, in_flight, cut, down_reason?,
 * server_pid, server_start_time, servers, server_end?, program_on_trial?,
 * fuse_connection, opens, transport: {state, since, reason?, portal, timeout_ms,
 * replacement_ms, header_digest}, fencing?: {mode, key, registered, holder, type,
 * generation, keys, checked_at}, memory: {locked, io_flusher, oom_protected, cgroup?},
 * counters}. New reference, NULL when out of memory.
 */
struct json_object *mr_lun_status(const struct mr_lun_status *from);

/* The counters alone, and who they are of. */
struct json_object *mr_lun_stats(const struct mr_lun_status *from);

#endif
