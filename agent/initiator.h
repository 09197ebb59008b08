/* SPDX-License-Identifier: Apache-2.0
 *
 * Our iSCSI initiator name when the configuration does not give one. Targets keep access
 * lists by it, so it must be the same at each start and another one on each node.
 */
#ifndef MR_AGENT_INITIATOR_H
#define MR_AGENT_INITIATOR_H

#include <stdbool.h>
#include <stddef.h>

#include "storage/base/err.h"

/* iqn., eui. or naa., then letters, digits and "-.:", at most 223 bytes (RFC 7143 section
 * 4.2.7; upper case is left alone, targets that compare bytes have it). */
bool mr_initiator_name_valid(const char *name);

/* InitiatorName= of the text of open-iscsi's initiatorname.iscsi into dst. Returns 0,
 * -ENOENT when there is none, or -EINVAL when it is not a valid name. */
int mr_initiator_from_text(const char *text, char *dst, size_t size);

/* The name of /etc/iscsi/initiatorname.iscsi, else one derived from the machine id
 * (hashed: machine-id(5) asks not to publish it), else a random one kept in
 * STATE_DIR/initiator_name. create: the latter may be made. Returns 0 or a negative
 * errno. */
int mr_initiator_find(const char *state_dir, bool create, char *dst, size_t size,
                      struct mr_err *err);

#endif
