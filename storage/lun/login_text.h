/* SPDX-License-Identifier: Apache-2.0
 *
 * What libiscsi says about a login in words only: which keys the target answered, and
 * whose proof failed. Words that are not understood never count as a proof. Pure. RFC
 * 7143 sections 12 and 13.
 */
#ifndef MR_STORAGE_LUN_LOGIN_TEXT_H
#define MR_STORAGE_LUN_LOGIN_TEXT_H

#include <stdbool.h>

/* The target's answers in one login. */
struct mr_login_answers {
    bool wants_chap;    /* AuthMethod=CHAP */
    bool proof;         /* CHAP_R: its own answer to our challenge */
    bool header_digest; /* HeaderDigest=CRC32C, as its last word */
};

/* Takes one line of libiscsi's log (level 6); lines that are no answer change nothing. */
void mr_login_take_line(struct mr_login_answers *answers, const char *line);

/* Does this error text say that the target failed to prove itself (mutual CHAP)? */
bool mr_login_proof_failed(const char *text);

#endif
