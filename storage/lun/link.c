/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/lun/fence.h"
#include "storage/lun/identify.h"
#include "storage/lun/link_login.h"
#include "storage/lun/policy.h"
#include "storage/lun/unclean.h"

enum mr_link_state mr_link_state(const struct mr_link *link)
{
    return (enum mr_link_state)atomic_load_explicit(&link->page->state,
                                                    memory_order_relaxed);
}

bool mr_link_is_final(const struct mr_link *link)
{
    const enum mr_link_state state = mr_link_state(link);

    return state == MR_LINK_CUT || state == MR_LINK_MISMATCH || state == MR_LINK_FENCED;
}

void mr_link_news(struct mr_link *link)
{
    const uint64_t one = 1;
    ssize_t n = write(link->news_fd, &one, sizeof(one));

    (void)n; /* EAGAIN: more news than the keeper cares to count */
}

static void set_state(struct mr_link *link, enum mr_link_state state, const char *reason)
{
    if (reason)
        mr_page_write_text(&link->page->reason, reason);
    if (mr_link_state(link) != state) {
        atomic_store(&link->page->state_wall_ms, mr_wall_ms());
        atomic_store(&link->page->state_ns, mr_now_ns());
        atomic_store(&link->page->state, (unsigned)state);
    }
    mr_link_news(link);
}

static void end_session(struct mr_link *link)
{
    mr_session_close(&link->session);
    mr_io_hold(link->io);
}

void mr_link_give_up(struct mr_link *link, enum mr_link_state state, const char *reason)
{
    end_session(link);
    mr_io_refuse(link->io);
    set_state(link, state, reason);
}

void mr_link_stop(struct mr_link *link, enum mr_link_state state, const char *reason)
{
    /* The logout waits in the loop, and what libiscsi has still to send, for want of room
     * in the target's window, goes out with it: then the connection is closed instead. */
    mr_io_pause(link->io);
    atomic_store(&link->page->logged_out,
                 mr_session_sent_all(&link->session) &&
                     mr_session_logout(&link->session, mr_now_ns() + MR_NS_PER_S));
    mr_link_give_up(link, state, reason);
}

static bool take(bool *flag)
{
    const bool was = *flag;

    *flag = false;
    return was;
}

/* Somebody waits for that. */
static void say_failed(struct mr_link *link)
{
    atomic_fetch_add(&link->page->failed, 1);
    mr_link_news(link);
}

static void fail_requests(struct mr_link *link)
{
    mr_io_refuse(link->io);
    set_state(link, MR_LINK_FAILED, NULL);
    say_failed(link);
}

/* The session that was there is gone. */
static void go_down(struct mr_link *link, const char *reason)
{
    struct mr_page_counters *counters = &link->page->counters;
    const int64_t now_ns = mr_now_ns();

    atomic_fetch_add_explicit(&counters->lost_sessions, 1, memory_order_relaxed);
    link->unsettled = link->unsettled || mr_io_in_flight(link->io) > 0;
    end_session(link);
    link->down_ns = now_ns;
    if (!link->outage_ns)
        link->outage_ns = now_ns;
    link->next_ns = link->tried_ns + mr_policy_pause(0, false, mr_link_random());
    mr_page_write_text(&link->page->reason, reason);
    if (take(&link->fail))
        fail_requests(link);
    else
        set_state(link, MR_LINK_DOWN, NULL);
}

void mr_link_run(struct mr_link *link)
{
    link->up_ns = mr_now_ns();
    /* Before the first request, of the reset of the LUN for one. */
    link->session.resets = 0;
    link->session.attention &= ~(unsigned)(MR_ATTENTION_RESET | MR_ATTENTION_ABORTED);
    link->io->attention = 0; /* of the session before */
    link->unsettled = false;
    link->restarted = false;
    mr_io_run(link->io, &link->session);
    set_state(link, MR_LINK_UP, NULL);
}

void mr_link_adopt(struct mr_link *link)
{
    const int64_t now_ns = mr_now_ns();

    /* The file may be released before the first login. */
    mr_link_prepare(link);
    if (!mr_page_read_fence(link->page, &link->fence))
        /* Its writer died in the middle of it. Ours was acquired, or the LUN were not
         * known; with nothing else remembered the next check is only stricter. */
        link->fence = (struct mr_page_fence){
            .reserve = link->start->reserve,
            .registered = link->start->reserve,
            .key = mr_fence_key(link->start->initiator_name, link->start->token),
        };
    if (mr_link_is_final(link)) {
        mr_io_refuse(link->io);
        return;
    }
    link->down_ns = now_ns;
    /* An earlier server may have been without a session, too. */
    link->outage_ns =
        mr_link_state(link) == MR_LINK_DOWN ? atomic_load(&link->page->state_ns) : now_ns;
    link->unsettled = !atomic_exchange(&link->page->logged_out, false);
    link->restarted = true;
    if (mr_link_state(link) == MR_LINK_FAILED)
        mr_io_refuse(link->io);
    else if (mr_link_state(link) != MR_LINK_DOWN)
        set_state(link, MR_LINK_DOWN, "the server was started anew");
}

static int64_t check_patience(struct mr_link *link, int64_t now_ns)
{
    const int64_t replacement_ms = atomic_load(&link->page->replacement_ms);
    const int64_t end_ns =
        link->restarted
            ? mr_policy_patience_restarted(link->outage_ns, replacement_ms,
                                           atomic_load(&link->page->timeout_ms))
            : mr_policy_patience(link->outage_ns, replacement_ms);

    if (now_ns < end_ns)
        return end_ns;
    mr_io_refuse(link->io);
    set_state(link, MR_LINK_FAILED, NULL);
    return INT64_MAX;
}

/* The target said that something has changed, in an answer to a request or to a question
 * of ours, after which the loop may have nothing else to wake up for. */
static bool has_news(const struct mr_link *link)
{
    return !link->session.lost && (link->io->attention || link->session.attention);
}

int64_t mr_link_check(struct mr_link *link)
{
    const int64_t now_ns = link->io->now_ns;
    const enum mr_link_state state = mr_link_state(link);
    int64_t next_ns = INT64_MAX;
    int64_t oldest_ns = 0;
    int64_t at_ns;

    if (!link->session.waiting && (link->cut || link->resize || link->look))
        return now_ns;
    if (!link->session.waiting && state == MR_LINK_UP && has_news(link))
        return now_ns;
    if (state == MR_LINK_UP)
        oldest_ns = mr_io_oldest(link->io);
    if (state == MR_LINK_UP && link->outage_ns &&
        mr_policy_outage_over(oldest_ns, link->up_ns, now_ns, link->session.timeout_ns))
        link->outage_ns = 0;
    if (state == MR_LINK_DOWN)
        next_ns = check_patience(link, now_ns);
    if (!link->session.up && !link->session.waiting && !mr_link_is_final(link) &&
        link->next_ns < next_ns)
        next_ns = link->next_ns;
    at_ns = mr_session_check(&link->session, oldest_ns, now_ns);
    return at_ns < next_ns ? at_ns : next_ns;
}

/* --- a session that is up --- */

/* Somebody may wait for that. error: 0 or a negative errno. */
static void say_looked(struct mr_link *link, int error)
{
    atomic_store(&link->page->look_error, -error);
    atomic_fetch_add(&link->page->looked, 1);
    mr_link_news(link);
}

static void carry_out_look(struct mr_link *link, bool conflict)
{
    const struct mr_asker asker = {&link->session, link->start->target,
                                   mr_link_deadline(link)};
    struct mr_err err = {0};
    int r = mr_fence_look(&asker, &link->fence, &err);

    mr_page_write_fence(link->page, &link->fence);
    if (r == -ESTALE)
        mr_link_stop(link, MR_LINK_FENCED, err.message);
    else if (r < 0)
        mr_session_lose(&link->session, "%s", err.message);
    else if (conflict)
        mr_session_lose(&link->session,
                        "the target takes our registration for another's");
    say_looked(link, r == -ESTALE ? 0 : r);
}

void mr_link_grow(struct mr_link *link, uint64_t size_bytes)
{
    int r = mr_io_resized(link->io, size_bytes);

    if (r == 0)
        link->page->facts.size_bytes = size_bytes;
    atomic_store(&link->page->resize_error, -r);
}

static void carry_out_resize(struct mr_link *link)
{
    struct mr_lun_facts facts = link->page->facts;
    char why[MR_PAGE_REASON];
    struct mr_err err = {0};
    enum mr_same_lun same;
    int r = mr_lun_capacity(&link->session, link->start->target, mr_link_deadline(link),
                            &facts, &err);

    atomic_store(&link->page->resize_error, r < 0 ? -r : 0);
    if (r < 0) {
        mr_session_lose(&link->session, "%s", err.message);
        return;
    }
    if (link->session.attention & MR_ATTENTION_IDENTITY) {
        mr_link_prove(link); /* whose capacity was it? */
        return;
    }
    same = mr_policy_compare(&link->page->facts, &facts, why, sizeof(why));
    if (same == MR_LUN_LARGER)
        mr_link_grow(link, facts.size_bytes);
    else if (same != MR_LUN_SAME)
        mr_link_give_up(link, MR_LINK_MISMATCH, why);
}

static bool is_usable(const struct mr_link *link)
{
    return mr_link_state(link) == MR_LINK_UP && !link->session.lost;
}

/* An attention that a question of ours has met is told to no request. */
static unsigned take_attention(struct mr_link *link)
{
    struct mr_session *s = &link->session;
    const unsigned attention = link->io->attention | s->attention;

    atomic_fetch_add(&link->page->counters.power_on_resets, s->resets);
    s->resets = 0;
    s->attention = 0;
    link->io->attention = 0;
    return attention;
}

static void carry_out(struct mr_link *link)
{
    const bool conflict = link->io->attention & MR_ATTENTION_RESERVATION;
    const unsigned attention = take_attention(link);
    const bool ordered = take(&link->look);
    const bool look = ordered || (attention & MR_ATTENTION_RESERVATION);

    if (attention & MR_ATTENTION_ABORTED)
        mr_io_doubt(link->io);
    /* First: the other questions are asked in turns in which requests are sent. */
    if (attention & MR_ATTENTION_IDENTITY)
        mr_link_prove(link);
    else if ((attention & MR_ATTENTION_CAPACITY) && !link->resize)
        carry_out_resize(link);
    if (look && link->start->reserve && is_usable(link))
        carry_out_look(link, conflict);
    else if (ordered)
        say_looked(link, -ENOTCONN); /* what came first has ended the session */
}

/* Somebody waits for the answer to this one, whatever it is. */
static void answer_resize(struct mr_link *link)
{
    if (!take(&link->resize))
        return;
    if (is_usable(link))
        carry_out_resize(link);
    if (!is_usable(link)) /* also when that has ended it */
        atomic_store(&link->page->resize_error, ENOTCONN);
    atomic_fetch_add(&link->page->resized, 1);
    mr_link_news(link);
}

void mr_link_step(struct mr_link *link)
{
    /* What fails for good already has a reason that people must not lose sight of. */
    if (take(&link->cut) && !mr_link_is_final(link))
        mr_link_give_up(link, MR_LINK_CUT, "it was cut off on request");
    if (is_usable(link))
        carry_out(link);
    answer_resize(link);
    if (mr_link_state(link) == MR_LINK_UP && link->session.lost)
        go_down(link, link->session.down_reason);
    if (take(&link->fail))
        say_failed(link); /* it has come to a final state meanwhile */
    if (mr_link_state(link) != MR_LINK_UP && take(&link->look))
        say_looked(link, -ENOTCONN);
    if (!mr_link_is_final(link) && mr_link_state(link) != MR_LINK_UP &&
        link->io->now_ns >= link->next_ns)
        mr_link_try(link);
}

/* --- orders --- */

void mr_link_cut(struct mr_link *link)
{
    link->cut = true;
    mr_session_lose(&link->session, "it was cut off on request");
}

void mr_link_fail_now(struct mr_link *link)
{
    const enum mr_link_state state = mr_link_state(link);

    if (state == MR_LINK_UP) {
        link->fail = true;
        mr_session_lose(&link->session, "all requests were failed on request");
    } else if (state == MR_LINK_DOWN) {
        fail_requests(link);
    } else { /* they fail already, or there are none */
        say_failed(link);
    }
}

void mr_link_resize(struct mr_link *link)
{
    link->resize = true;
}

void mr_link_look(struct mr_link *link)
{
    if (mr_link_state(link) == MR_LINK_UP)
        link->look = true;
    else
        say_looked(link, -ENOTCONN);
}

void mr_link_new_timeouts(struct mr_link *link)
{
    mr_session_set_timeout(&link->session, atomic_load(&link->page->timeout_ms));
}

/* Our key must not stay behind because the target was away for a moment: one more login.
 */
bool mr_link_leave(struct mr_link *link, int64_t deadline_ns)
{
    struct mr_session *s = &link->session;
    const struct mr_asker asker = {s, link->start->target, deadline_ns};
    const unsigned portal = atomic_load(&link->page->portal);
    struct mr_page_portals portals;
    struct mr_err err;
    int r = 0;

    if (s->lost)
        end_session(link);
    if (!s->up) {
        (void)mr_page_read_portals(link->page, portal / MR_LUN_PORTALS_MAX, &portals);
        r = mr_session_open_portal(
            s, link->start, portals.at[portal % MR_LUN_PORTALS_MAX], deadline_ns, &err);
        if (r == 0)
            r = mr_lun_ready(s, asker.target, deadline_ns, &err);
    }
    if (r == 0)
        r = mr_fence_release(&asker, &link->fence, &err);
    mr_page_write_fence(link->page, &link->fence);
    return r == 0;
}

bool mr_link_end(struct mr_link *link, bool leave, int64_t deadline_ns)
{
    const bool idle = mr_io_in_flight(link->io) == 0;
    bool left = true;
    bool out;

    if (mr_link_is_final(link))
        return atomic_load(&link->page->logged_out);
    if (leave) {
        set_state(link, MR_LINK_STOPPING, NULL);
        if (link->fence.registered)
            left = mr_link_leave(link, deadline_ns);
    } else if (mr_link_state(link) == MR_LINK_UP) {
        set_state(link, MR_LINK_DOWN, "it was handed over");
    }
    out = mr_session_logout(&link->session, deadline_ns);
    end_session(link);
    if (leave && idle && out && !link->unsettled)
        mr_unclean_write(link->lock_fd, false);
    return out && left;
}
