/* SPDX-License-Identifier: Apache-2.0
 *
 * Between link.c and link_login.c: logins, and what a new session has to prove before it
 * is used.
 *
 * A login with the ISID of an earlier session takes its place, but a target (tgtd does)
 * may let the new one in while it still carries out commands of the old one; LOGICAL UNIT
 * RESET returns when all have ended. It ends those of other initiators, too, so it is
 * kept for when there can be such commands: after a session that was lost with some under
 * way, and at the first login after an attachment by this node that did not end cleanly.
 * The target itself tells nothing of an earlier session. A first login does it only when
 * nothing else is in the way of the attachment, such as another node's reservation. What
 * was under way at a reboot, or on another node, is not known here: the first had the
 * time of a boot to end, against the second there is fencing.
 */
#ifndef MR_STORAGE_LUN_LINK_LOGIN_H
#define MR_STORAGE_LUN_LINK_LOGIN_H

#include <stdint.h>

#include "storage/lun/link.h"

/* --- link_login.c --- */

/* What every further login takes from start message and page. */
void mr_link_prepare(struct mr_link *link);
/* One round of logins, to each portal in turn until one is good. */
void mr_link_try(struct mr_link *link);
/* In a session that is up: the LUN must prove again that it is the same one. Nothing is
 * sent before it has; one that cannot costs the session, another one is final. */
void mr_link_prove(struct mr_link *link);
/* Until when a question in a session that is up must be answered. */
int64_t mr_link_deadline(const struct mr_link *link);
uint32_t mr_link_random(void);

/* --- link.c --- */

/* A final state: the session, if there is one, ends without a logout. */
void mr_link_give_up(struct mr_link *link, enum mr_link_state state, const char *reason);
/* The same after a logout, for a session in which nothing can be sent that does harm. */
void mr_link_stop(struct mr_link *link, enum mr_link_state state, const char *reason);
/* Takes our registrations and reservation back, before deadline_ns. False: not proven. */
bool mr_link_leave(struct mr_link *link, int64_t deadline_ns);
/* The LUN has grown; requests run. */
void mr_link_grow(struct mr_link *link, uint64_t size_bytes);
void mr_link_news(struct mr_link *link);

#endif
