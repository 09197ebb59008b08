/* SPDX-License-Identifier: Apache-2.0
 *
 * What a target's answer means: done, ask again, or which errno the block layer shall
 * see. Pure. SPC-4 sections 4.5 (sense data) and 5.3 (status codes), RFC 7143
 * section 11.13.5 (login status).
 */
#ifndef MR_STORAGE_LUN_SENSE_H
#define MR_STORAGE_LUN_SENSE_H

#include <stdbool.h>
#include <stdint.h>

/* Sense keys and codes (ASC in the high byte, ASCQ in the low one) that we act on. */
#define MR_SENSE_NOT_READY 0x2
#define MR_SENSE_ILLEGAL_REQUEST 0x5
#define MR_SENSE_UNIT_ATTENTION 0x6
#define MR_ASC_BECOMING_READY 0x0401
#define MR_ASC_ALUA_TRANSITION 0x040a
#define MR_ASC_LUN_NOT_SUPPORTED 0x2500
#define MR_ASC_SPACE_ALLOCATION_FAILED 0x2707
#define MR_ASC_RESERVATIONS_PREEMPTED 0x2a03
#define MR_ASC_RESERVATIONS_RELEASED 0x2a04
#define MR_ASC_REGISTRATIONS_PREEMPTED 0x2a05
#define MR_ASC_CAPACITY_CHANGED 0x2a09
#define MR_ASC_INQUIRY_CHANGED 0x3f03
#define MR_ASC_IDENTIFIER_CHANGED 0x3f05
#define MR_ASC_LUNS_CHANGED 0x3f0e

/* iSCSI login status: class and detail. */
#define MR_LOGIN_AUTHENTICATION 0x0201
#define MR_LOGIN_AUTHORIZATION 0x0202
#define MR_LOGIN_TARGET_NOT_FOUND 0x0203

enum mr_answer_kind {
    MR_ANSWER_FAILED = 0, /* final: see errnum */
    MR_ANSWER_GOOD,
    MR_ANSWER_RETRY,       /* at once, within a budget (unit attention) */
    MR_ANSWER_RETRY_LATER, /* after a pause, within a budget (busy) */
};

struct mr_answer {
    enum mr_answer_kind kind;
    int errnum; /* positive; for a retry: what to report when the budget is used up */
};

/* status is one of libiscsi's enum scsi_status; key and asc count only for CHECK
 * CONDITION. ILLEGAL REQUEST gives EREMOTEIO, for callers that have a fallback;
 * everything unknown gives EIO. */
struct mr_answer mr_answer_classify(int status, unsigned key, unsigned asc);

/* Is the sense data (its response code) about an earlier command? The one that it came
 * with was not carried out then, whatever the key says. SPC-4 section 4.5.7. */
bool mr_sense_is_deferred(unsigned response_code);

/* What an answer tells beside the fate of its command: bits. */
enum mr_attention {
    MR_ATTENTION_RESERVATION = 1, /* reservations or registrations changed, or conflict */
    MR_ATTENTION_CAPACITY = 2,    /* the LUN has another size */
    MR_ATTENTION_RESET = 4, /* power on or reset (29/xx): a volatile cache may be lost */
    MR_ATTENTION_IDENTITY = 8, /* another LUN, or none, may be behind the number */
    MR_ATTENTION_ABORTED = 16, /* commands may have been ended unsaid (29/xx, 2F/xx) */
};
unsigned mr_answer_attention(int status, unsigned key, unsigned asc);

/* The login status at the end of libiscsi's error text ("... Status: Authentication
 * failure(513)"), its only place in libiscsi 1.19; 0 when there is none. */
unsigned mr_login_status(const char *text);

#endif
