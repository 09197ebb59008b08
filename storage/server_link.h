/* SPDX-License-Identifier: Apache-2.0
 *
 * The core's connection to the mooring-lun of a mapped volume, RUNTIME/lun/TOKEN.sock: it
 * asks once (`watch`, lun/control.h), and every change comes by itself. Fills in
 * mr_volume.transport and .fencing; both are NULL while nobody tells, which is said as
 * state "unknown": what was true once, or is true of most, is not said. What becomes of a
 * volume by that is servers.c's. I/O never depends on it, and no timer runs while it
 * stands. Core thread only; never blocks.
 */
#ifndef MR_STORAGE_SERVER_LINK_H
#define MR_STORAGE_SERVER_LINK_H

#include <json-c/json.h>
#include <stdbool.h>

struct mr_volume;

/* Connects to the process that the identity names. When it cannot, or the connection
 * ends, it is tried again (back-off, at most every MR_LINK_AGAIN_MAX_NS); it is given up
 * when another process listens there, or one that does not know `watch`. Harmless when
 * there is a connection already. */
void mr_server_link_start(struct mr_volume *volume);
/* Nothing of the server is known any more. Fine without a connection. */
void mr_server_link_stop(struct mr_volume *volume);

/* It was asked, and its first answer is on its way: mr_recovery_told() when that is here
 * or will not come. */
bool mr_server_link_is_asking(const struct mr_volume *volume);
/* What is known of its transport, as in a volume document; NULL when it has no server.
 * New reference. */
struct json_object *mr_server_link_transport(const struct mr_volume *volume);

#endif
