/* SPDX-License-Identifier: Apache-2.0
 *
 * A PUT that names a key to preempt asks for a deed at the target, which only the login
 * of a new session does. The PUT is never answered as if it had been done: either its
 * `map` is told, or nobody with that key is there, or it is refused and to be repeated.
 * Core thread only.
 */
#ifndef MR_STORAGE_PREEMPT_H
#define MR_STORAGE_PREEMPT_H

#include <stdint.h>

#include "storage/base/err.h"
#include "storage/spec.h"

struct mr_operation;
struct mr_volume;

/* 0: it names none. */
uint64_t mr_preempt_key(const struct mr_spec *spec);

/* May this PUT join the attach that runs? 0: as it is; 1: if it takes over spec, for
 * which there is time still; or a negative errno with OPERATION_PENDING. */
int mr_preempt_may_join(const struct mr_volume *volume, const struct mr_spec *spec,
                        struct mr_err *err);
/* Joins it, if it may. Takes spec in every case. */
int mr_preempt_join(struct mr_volume *volume, struct mr_spec *spec,
                    struct mr_operation **ret_op, struct mr_err *err);
/* May it take back, or follow, the detach or undo that runs? 0, or as above. */
int mr_preempt_may_follow(const struct mr_volume *volume, const struct mr_spec *spec,
                          struct mr_err *err);
/* The source is mapped, and stays so: is that all that was asked for? 0, or a negative
 * errno with SOURCE_IN_USE (somebody has that key), or OPERATION_PENDING (not known). */
int mr_preempt_check_mapped(const struct mr_volume *volume, const struct mr_spec *spec,
                            struct mr_err *err);

/* What `from`, which was accepted, has asked for is asked for by `to` as well, unless
 * that names a key itself. from may be NULL. */
void mr_preempt_keep(const struct mr_spec *from, struct mr_spec *to);

#endif
