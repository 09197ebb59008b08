/* SPDX-License-Identifier: Apache-2.0
 *
 * The way to the target: which session the requests have, and what becomes of them while
 * there is none. A lost session is followed by logins, again and again, portal after
 * portal. Before a request is sent again the LUN must prove that it is the same one and
 * that we were not fenced off; a proof to the contrary is final. Requests wait for a
 * session as long as the replacement timeout says, then they fail, and so do new ones;
 * the logins go on. The state and its reason are in the page.
 *
 * A session that takes the place of a lost one resets the LUN before anything is sent
 * again, if commands were at the target: one of them that is still carried out there
 * could otherwise undo what is written after it. So does the first session of an
 * attachment when the one before it on this node has not ended cleanly (unclean.h), see
 * link_login.h.
 *
 * One thread. mr_link_step() waits in nested turns of the server's loop; mr_link_check()
 * belongs to every turn, nested or not.
 */
#ifndef MR_STORAGE_LUN_LINK_H
#define MR_STORAGE_LUN_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/lun/io.h"
#include "storage/lun/page.h"
#include "storage/lun/session.h"
#include "storage/lun/start.h"

struct mr_link {
    const struct mr_lun_start *start; /* secrets are needed for every login */
    struct mr_page *page;
    struct mr_io *io;
    int news_fd; /* eventfd(2): the page has changed */
    int lock_fd; /* of the source, see unclean.h; -1: none */
    struct mr_session session;
    struct mr_page_fence fence;
    int64_t outage_ns; /* since when requests may have been waiting; 0: they do not */
    bool restarted;    /* the outage began with the end of an earlier server */
    int64_t down_ns;   /* when the last session was lost */
    int64_t up_ns;     /* when this one was let in */
    int64_t tried_ns;  /* start of the last round of logins */
    int64_t next_ns;   /* start of the next one, not before */
    bool unsettled;    /* commands were at the target when a session was lost */
    bool cut;          /* on request: at the next step */
    bool fail;         /* the same; only requests that are there or come before a login */
    bool resize;       /* capacity to be read again */
    bool look;         /* keys and reservation to be read again */
};

/* The first login, all of it before deadline_ns: resolves the portals, logs in,
 * identifies the LUN, acquires its reservation if that is asked for, and writes all that
 * into the page, page->known at last. watch_fd as in mr_session_open(). Errors: those of
 * session.h, identify.h, mr_io_geometry() and fence.h; the session is then over. */
int mr_link_start(struct mr_link *link, int watch_fd, int64_t deadline_ns,
                  struct mr_err *err);
/* The session has passed everything: requests go out. After mr_link_start() and
 * mr_io_serve(), and after every further login. */
void mr_link_run(struct mr_link *link);
/* Of a further server, after mr_io_serve(): the page knows the LUN, there is no session.
 * A final state stays. */
void mr_link_adopt(struct mr_link *link);

/* By the clock: liveness, the replacement timeout. Returns the next such time, or that of
 * the next step. */
int64_t mr_link_check(struct mr_link *link);
/* Whatever is due: the end of a lost session, a round of logins, what was ordered. */
void mr_link_step(struct mr_link *link);

enum mr_link_state mr_link_state(const struct mr_link *link);
/* No session will ever come again. */
bool mr_link_is_final(const struct mr_link *link);

/* Orders. They may come in a nested turn; mr_link_cut() ends waits by losing the session,
 * and leaves a final state as it is.
 */
void mr_link_cut(struct mr_link *link);
/* All requests that wait get EIO, and so do new ones until the next login: at once
 * without a session; one that is up, however alive, ends at the next step. What was at
 * the target may still be carried out there, so that login resets the LUN first. */
void mr_link_fail_now(struct mr_link *link);
void mr_link_resize(struct mr_link *link);
/* Without a session that is not done, and not put off either, since the next login checks
 * both anyway: page.looked says so at once. */
void mr_link_look(struct mr_link *link);
void mr_link_new_timeouts(struct mr_link *link);

/* The end of the server: logs out if there is a session, before deadline_ns; leave: and
 * for good, so our reservation and key go first. True when the target confirmed it all;
 * with nothing under way that was the clean end of the attachment.
 */
bool mr_link_end(struct mr_link *link, bool leave, int64_t deadline_ns);

#endif
