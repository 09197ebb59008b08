/* SPDX-License-Identifier: Apache-2.0
 *
 * The first message to mooring-lun: everything it needs for one attachment. It comes over
 * the inherited socket only, because it holds secrets. Written by the worker's iscsi
 * driver for the keeper, which passes it on to each of its servers; and the fds that both
 * are started with.
 */
#ifndef MR_STORAGE_LUN_START_H
#define MR_STORAGE_LUN_START_H

#include <json-c/json.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/identity.h"

/* Of both: the start message comes in, one answer goes out. The worker's end closes when
 * it has the answer; the keeper's end closes when the server may serve. */
#define MR_LUN_CHANNEL_FD 3
#define MR_LUN_LOCK_FD 4 /* the lock of the source: kept open by both until their end */
/* Of the server only. */
#define MR_LUN_FUSE_FD 5
#define MR_LUN_PAGE_FD 6  /* page.h */
#define MR_LUN_ORDER_FD 7 /* eventfd(2): look at page.orders */
#define MR_LUN_NEWS_FD 8  /* eventfd(2): something in the page has changed */

/* How a server ends once it was ready; anything else is a crash. */
#define MR_LUN_EXIT_RELEASED 0     /* the kernel has released the file */
#define MR_LUN_EXIT_HANDED_OVER 75 /* on order, with nothing left to answer */

#define MR_LUN_PORTALS_MAX 8
#define MR_ISID_DIGITS 10
#define MR_ISCSI_NAME 224 /* RFC 7143 section 4.2.7: at most 223 bytes */
#define MR_LUN_TIMEOUT_MIN_MS 1000
#define MR_LUN_TIMEOUT_MAX_MS 600000
#define MR_LUN_REPLACEMENT_MS 120000
#define MR_LUN_REPLACEMENT_MAX_MS 86400000

struct mr_lun_start {
    char token[MR_TOKEN_TEXT];
    char runtime_dir[PATH_MAX];
    char portals[MR_LUN_PORTALS_MAX][256];
    size_t portal_count;
    char target[MR_ISCSI_NAME];
    uint16_t lun; /* the 16 bits as REPORT LUNS gives them */
    char initiator_name[MR_ISCSI_NAME];
    bool chap;
    char username[256];
    char password[256]; /* secret */
    bool mutual;        /* the target must prove itself, too */
    char mutual_username[256];
    char mutual_password[256]; /* secret */
    bool header_digest;        /* CRC32C, or no session */
    int64_t timeout_ms;        /* a target silent for so long is dead */
    int64_t replacement_ms;    /* requests wait for a session so long; -1: for ever */
    bool reserve;              /* fence others off by a persistent reservation */
    uint64_t preempt;          /* the key that may be taken over; 0: none */
    bool read_only;
    /* Of all sessions: the same for every attachment of this LUN by this agent, so that a
     * new one ends what is left of an old one at the target (session reinstatement, RFC
     * 7143 section 6.3.5), with the writes that it had not yet done. */
    char isid[MR_ISID_DIGITS + 1];
    char cgroup[PATH_MAX];    /* its directory, or "" */
    char cgroup_problem[512]; /* why there is none of our own: mr_err.message; or "" */
};

/* {token, runtime_dir, portals, target, lun, initiator_name, timeout_ms, read_only,
 * chap?: {username, password, mutual?: {username, password}}, header_digest?: "none" or
 * "crc32c", replacement_ms?, fencing?: "off" or "reserve", preempt?: "0x...", isid? (hex
 * digits; else those of the token), cgroup?, cgroup_problem?}. Returns 0, or -EINVAL with
 * MR_E_INVALID_REQUEST. Values of secrets never get into err. */
int mr_lun_start_decode(struct json_object *json, struct mr_lun_start *ret,
                        struct mr_err *err);

/* "0x" and 1 to 16 hex digits, not 0: a reservation key. Returns 0 or -EINVAL. */
int mr_lun_key_parse(const char *text, uint64_t *ret);

/* 24 and 16 bits for an ISID of the type "random" (RFC 7143 section 11.12.5) from at
 * least MR_ISID_DIGITS hex digits. */
void mr_lun_isid(const char *digits, uint32_t *ret_random, uint32_t *ret_qualifier);

#endif
