/* SPDX-License-Identifier: Apache-2.0
 *
 * Who is registered at a LUN and who holds its reservation, read from the raw bytes of
 * PERSISTENT RESERVE IN (SPC-4 section 6.16). Every byte is hostile: lengths are checked
 * against what arrived, and what does not fit together is refused, never guessed. Pure.
 */
#ifndef MR_STORAGE_LUN_RESERVATION_H
#define MR_STORAGE_LUN_RESERVATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MR_RESERVATION_KEYS_MAX 256

struct mr_reservation {
    /* Both answers came, whole, and of one generation. The caller sets it; while it is
     * false nothing else here means anything. */
    bool known;
    uint32_t generation; /* PRgeneration: counts registrations and preemptions */
    size_t key_count;
    uint64_t keys[MR_RESERVATION_KEYS_MAX]; /* a key comes once per registered nexus */
    bool held;
    uint64_t holder; /* 0 with the all-registrants types */
    uint32_t type;   /* SPC-4 table 52 */
};

/* Each returns 0, or -EBADMSG when the answer is cut, too long for us or makes no
 * sense. */

/* READ KEYS: generation, key_count, keys. */
int mr_parse_pr_keys(const uint8_t *data, size_t len, struct mr_reservation *ret);
/* READ RESERVATION: held, holder, type. *ret_generation is that of this answer. */
int mr_parse_pr_reservation(const uint8_t *data, size_t len, struct mr_reservation *ret,
                            uint32_t *ret_generation);
/* REPORT CAPABILITIES: can registrations survive a loss of power (PTPL_C)? */
int mr_parse_pr_capabilities(const uint8_t *data, size_t len, bool *ret_ptpl);

/* How often a key is registered. */
size_t mr_reservation_count(const struct mr_reservation *seen, uint64_t key);

#endif
