/* SPDX-License-Identifier: Apache-2.0
 *
 * The first message to mooring-lun: everything it needs for one attachment. It comes over
 * the inherited socket only, because it holds secrets. Written by the worker's iscsi
 * driver.
 */
#ifndef MR_STORAGE_LUN_START_H
#define MR_STORAGE_LUN_START_H

#include <json-c/json.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/identity.h"

#define MR_LUN_CHANNEL_FD 3
#define MR_LUN_LOCK_FD 4 /* the lock of the source: kept open until the end */
#define MR_LUN_PORTALS_MAX 8
#define MR_ISCSI_NAME 224 /* RFC 7143 section 4.2.7: at most 223 bytes */
#define MR_LUN_TIMEOUT_MIN_MS 1000
#define MR_LUN_TIMEOUT_MAX_MS 600000

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
    int64_t timeout_ms; /* a target silent for so long is dead */
    bool read_only;
};

/* {token, runtime_dir, portals, target, lun, initiator_name, timeout_ms, read_only,
 * chap?: {username, password}}. Returns 0, or -EINVAL with MR_E_INVALID_REQUEST. Values
 * of secrets never get into err. */
int mr_lun_start_decode(struct json_object *json, struct mr_lun_start *ret,
                        struct mr_err *err);

/* 24 and 16 bits for an ISID of the type "random" (RFC 7143 section 11.12.5), fixed by
 * the token. */
void mr_lun_isid(const char *token, uint32_t *ret_random, uint32_t *ret_qualifier);

#endif
