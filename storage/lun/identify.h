/* SPDX-License-Identifier: Apache-2.0
 *
 * Asks a LUN what it is, right after the login. Blocks, bounded by the deadline.
 */
#ifndef MR_STORAGE_LUN_IDENTIFY_H
#define MR_STORAGE_LUN_IDENTIFY_H

#include <stdint.h>

#include "storage/base/err.h"
#include "storage/lun/inquiry.h"
#include "storage/lun/session.h"

/* Waits until the LUN is ready (unit attentions and "becoming ready" are retried within a
 * budget), then reads identity, capacity, limits and cache mode. Pages that a target
 * lacks leave their facts unknown. All facts are of the same time: a LUN that says that
 * it has changed meanwhile is read anew. Errors: LUN_NOT_FOUND, TARGET_TIMEOUT,
 * DEVICE_ERROR; the session can then only be closed. */
int mr_lun_identify(struct mr_session *s, const char *target, int64_t deadline_ns,
                    struct mr_lun_facts *ret, struct mr_err *err);

/* The first part of it alone: waits until the LUN is ready, takes its unit attentions. */
int mr_lun_ready(struct mr_session *s, const char *target, int64_t deadline_ns,
                 struct mr_err *err);
/* The capacity alone, for a LUN that is in use: changes size, block size and thin in
 * *facts. */
int mr_lun_capacity(struct mr_session *s, const char *target, int64_t deadline_ns,
                    struct mr_lun_facts *facts, struct mr_err *err);

#endif
