/* SPDX-License-Identifier: Apache-2.0
 *
 * What a mooring-lun says of its session with the target and of its reservation: read
 * from its status documents as from a stranger's, so that nothing but known fields of
 * known form and bounded length gets into a volume document. Pure functions, any thread.
 */
#ifndef MR_STORAGE_TRANSPORT_H
#define MR_STORAGE_TRANSPORT_H

#include <json-c/json.h>
#include <stdbool.h>

#include "storage/base/err.h"

#define MR_TRANSPORT_KEYS_MAX 32 /* shown; a target may have more */

enum mr_transport {
    MR_TRANSPORT_UNKNOWN = 0,
    MR_TRANSPORT_CONNECTING,
    MR_TRANSPORT_UP,
    MR_TRANSPORT_DOWN,       /* no session: requests wait */
    MR_TRANSPORT_FAILED,     /* for longer than the replacement timeout: requests fail */
    MR_TRANSPORT_CUT,        /* on request: requests fail for ever */
    MR_TRANSPORT_MISMATCH,   /* another or a smaller LUN answered: the same */
    MR_TRANSPORT_FENCED,     /* the reservation was taken away: the same */
    MR_TRANSPORT_STOPPING,   /* the kernel let go of the device */
    MR_TRANSPORT_RESTARTING, /* its server ended, another one starts: requests wait */
    MR_TRANSPORT_UNRESPONSIVE, /* its server does not run: the same, until it does */
    MR_TRANSPORT_COUNT
};

/* "up", ...; "unknown" for all that is none. */
const char *mr_transport_name(enum mr_transport state);
/* MR_TRANSPORT_UNKNOWN when there is none of that name (or it is NULL). */
enum mr_transport mr_transport_from_name(const char *name);
/* Nothing brings this attachment back: requests fail for ever. */
bool mr_transport_is_final(enum mr_transport state);

struct mr_transport_report {
    enum mr_transport state;
    struct json_object *transport; /* as in a volume document */
    struct json_object *fencing;   /* the same; NULL: no reservation is asked for */
};

/* Reads a status document (borrowed; lun/control.h). *ret is to be given to
 * mr_transport_report_done(). Returns 0, -EBADMSG with DEVICE_ERROR when it is none, or
 * -ENOMEM. */
int mr_transport_read(struct json_object *status, struct mr_transport_report *ret,
                      struct mr_err *err);
/* The document while nobody tells, and why. New reference. */
struct json_object *mr_transport_unknown(const char *reason);
void mr_transport_report_done(struct mr_transport_report *report);

#endif
