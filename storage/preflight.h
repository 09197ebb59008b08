/* SPDX-License-Identifier: Apache-2.0
 *
 * What a PUT would do: decided from what the engine knows and from what a probe
 * (protocol.h: `preflight`) has seen, in the order in which an attach would come to it.
 * Core thread only; changes nothing.
 */
#ifndef MR_STORAGE_PREFLIGHT_H
#define MR_STORAGE_PREFLIGHT_H

#include "storage/engine_internal.h"

struct mr_preflight {
    char id[MR_VOLUME_ID_MAX + 1];
    struct mr_spec *spec;
    bool mapped;       /* something of the volume is there already, */
    bool stands;       /* it is attached: a PUT looks, and needs no target for that */
    bool afresh;       /* it gives errors only: a PUT detaches it, then begins anew */
    bool refused;      /* before anything was looked at, */
    struct mr_err why; /* that is why */
};

/* What mr_engine_attach() would say at once, without doing anything: fills mapped,
 * refused and why. ret_place is where it would be mounted. 0, or a negative errno when
 * refused. */
int mr_preflight_would_attach(struct mr_engine *engine, struct mr_preflight *asked,
                              struct mr_mount_record *ret_place);

/* What would be answered with 422 is wrong with the request, whatever is there. */
bool mr_preflight_is_about_request(enum mr_code code);

/* The preflight document (discovery.h), new reference. message: the reply of the probe,
 * failure: its error, NULL when there was none. NULL and err: no document can be made of
 * it, INTERNAL or about the request. */
struct json_object *mr_preflight_document(struct mr_engine *engine,
                                          const struct mr_preflight *asked,
                                          struct json_object *message,
                                          const struct mr_err *failure,
                                          struct mr_err *err);

#endif
