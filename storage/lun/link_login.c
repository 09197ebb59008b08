/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/link_login.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/clock.h"
#include "storage/lun/fence.h"
#include "storage/lun/identify.h"
#include "storage/lun/policy.h"
#include "storage/lun/unclean.h"

#define LOGIN_NS (5 * MR_NS_PER_S)

/* For jitter only. */
uint32_t mr_link_random(void)
{
    return (uint32_t)random();
}

int64_t mr_link_deadline(const struct mr_link *link)
{
    return mr_now_ns() + atomic_load(&link->page->timeout_ms) * MR_NS_PER_MS;
}

/* --- the first one --- */

/* Names are known from here on as numbers. Those that are not known are left out as long
 * as there is one that is. */
static int resolve(struct mr_link *link, struct mr_page_portals *ret, struct mr_err *err)
{
    const char *texts[MR_LUN_PORTALS_MAX];
    bool all;
    int n;

    for (size_t i = 0; i < link->start->portal_count; i++)
        texts[i] = link->start->portals[i];
    n = mr_portal_resolve_list(texts, link->start->portal_count, ret->at,
                               MR_LUN_PORTALS_MAX, &all, err);
    if (n < 0)
        return n;
    ret->count = (uint32_t)n;
    mr_page_write_portals(link->page, ret);
    return 0;
}

/* Which one works is remembered with its set: there may be another one meanwhile. */
static void remember_portal(struct mr_link *link, unsigned set, size_t index)
{
    atomic_store(&link->page->portal, set * MR_LUN_PORTALS_MAX + (unsigned)index);
}

/* Of several portals' failures the one that says most is reported. */
static int weight(enum mr_code code)
{
    if (code == MR_E_PORTAL_UNREACHABLE)
        return 1;
    return code == MR_E_TARGET_TIMEOUT ? 2 : 3;
}

static int first_login(struct mr_link *link, const struct mr_page_portals *portals,
                       int64_t deadline_ns, struct mr_err *err)
{
    const uint32_t count = portals->count;
    int result = -EHOSTUNREACH;
    int best = 0;

    for (uint32_t i = 0; i < count; i++) {
        const int64_t now_ns = mr_now_ns();
        struct mr_err why = {0};
        int r =
            mr_session_open_portal(&link->session, link->start, portals->at[i],
                                   now_ns + (deadline_ns - now_ns) / (count - i), &why);

        if (r == 0) {
            remember_portal(link, atomic_load(&link->page->portal_set), i);
            return 0;
        }
        if (weight(why.code) > best) {
            best = weight(why.code);
            result = r;
            *err = why;
        }
        /* More tries with wrong credentials may lock the account. */
        if (r == -ECANCELED || why.code == MR_E_CHAP_REFUSED)
            break;
    }
    return result;
}

static int acquire(struct mr_link *link, const struct mr_asker *asker, struct mr_err *err)
{
    const struct mr_fence_ask ask = {
        .key = mr_fence_key(link->start->initiator_name, link->start->token),
        .preempt = link->start->preempt != 0,
        .preempt_key = link->start->preempt,
    };
    int r;

    link->fence = (struct mr_page_fence){.reserve = true, .key = ask.key};
    r = mr_fence_acquire(asker, &ask, &link->fence, err);
    mr_page_write_fence(link->page, &link->fence);
    /* While an old key of ours held the LUN, a target may have refused to tell all. */
    return r < 0 ? r
                 : mr_lun_identify(asker->s, asker->target, asker->deadline_ns,
                                   &link->page->facts, err);
}

/* Nothing of an earlier session is carried out any more; the LUN's word about the reset
 * is taken here, so that it does not look like a power failure. */
static int settle(struct mr_link *link, const struct mr_asker *asker, struct mr_err *err)
{
    int r;

    if (!link->unsettled)
        return 0;
    r = mr_session_reset_lun(asker->s, asker->deadline_ns);
    if (r < 0)
        return mr_fail(err, MR_E_TARGET_TIMEOUT, -r,
                       "portal %s, target '%s', LUN %d: LOGICAL UNIT RESET",
                       asker->s->portal, asker->target, asker->s->lun);
    return mr_lun_ready(asker->s, asker->target, asker->deadline_ns, err);
}

/* What all further sessions are held to. */
static int first_facts(struct mr_link *link, int64_t deadline_ns, struct mr_err *err)
{
    const struct mr_asker asker = {&link->session, link->start->target, deadline_ns};
    struct mr_page *page = link->page;
    int r = mr_lun_identify(&link->session, link->start->target, deadline_ns,
                            &page->facts, err);

    if (r == 0 && link->start->reserve)
        r = acquire(link, &asker, err);
    else if (r == 0 && !link->start->read_only)
        r = mr_fence_in_the_way(&asker, err);
    if (r == 0)
        r = settle(link, &asker, err);
    if (r == 0)
        r = mr_io_geometry(&page->facts, link->start->read_only, &page->geometry, err);
    if (r < 0)
        return r;
    mr_unclean_write(link->lock_fd, page->geometry.writable);
    atomic_store(&page->size_bytes, page->geometry.size_bytes);
    atomic_store(&page->known, true);
    return 0;
}

/* Nothing of ours stays at the target, also when nobody wants the LUN any more: then the
 * channel has hung up, and a question is still open in the session. */
static void undo_start(struct mr_link *link, int r)
{
    struct mr_session *s = &link->session;

    s->watch_fd = -1;
    if (r == -ECANCELED || r == -ETIMEDOUT)
        mr_session_close(s);
    if (link->fence.key != 0)
        (void)mr_link_leave(link, mr_now_ns() + MR_NS_PER_S);
    (void)mr_session_logout(s, mr_now_ns() + MR_NS_PER_S);
    mr_session_close(s);
}

int mr_link_start(struct mr_link *link, int watch_fd, int64_t deadline_ns,
                  struct mr_err *err)
{
    struct mr_page_portals portals = {0};
    int r;

    mr_link_prepare(link);
    link->session.watch_fd = watch_fd;
    link->unsettled = mr_unclean_read(link->lock_fd);
    link->tried_ns = mr_now_ns();
    r = resolve(link, &portals, err);
    if (r == 0)
        r = first_login(link, &portals, deadline_ns, err);
    if (r < 0)
        return r;
    atomic_fetch_add(&link->page->counters.logins, 1);
    r = first_facts(link, deadline_ns, err);
    if (r < 0)
        undo_start(link, r);
    link->session.watch_fd = -1;
    return r;
}

/* --- the further ones --- */

static int stop(struct mr_link *link, enum mr_link_state state, const char *why)
{
    mr_link_stop(link, state, why);
    return -ESTALE;
}

/* -ESTALE: a final state was reached. Other errors: try again. */
static int prove_lun(struct mr_link *link, const struct mr_asker *asker,
                     uint64_t *ret_size, struct mr_err *err)
{
    struct mr_lun_facts facts;
    char why[MR_PAGE_REASON];
    int r = mr_lun_identify(asker->s, asker->target, asker->deadline_ns, &facts, err);

    if (r < 0)
        return r;
    switch (mr_policy_compare(&link->page->facts, &facts, why, sizeof(why))) {
    case MR_LUN_OTHER:
        return stop(link, MR_LINK_MISMATCH, why);
    case MR_LUN_UNPROVEN:
        return mr_fail(err, MR_E_DEVICE_ERROR, EAGAIN, "%s", why);
    case MR_LUN_SAME:
    case MR_LUN_LARGER:
        break;
    }
    *ret_size = facts.size_bytes;
    return 0;
}

static int prove_fence(struct mr_link *link, const struct mr_asker *asker,
                       struct mr_err *err)
{
    int r;

    if (!link->start->reserve)
        return 0;
    r = mr_fence_check(asker, &link->fence, err);
    mr_page_write_fence(link->page, &link->fence);
    return r == -ESTALE ? stop(link, MR_LINK_FENCED, err->message) : r;
}

static int try_portal(struct mr_link *link, const struct mr_page_portals *portals,
                      unsigned set, size_t portal, struct mr_err *err)
{
    struct mr_session *s = &link->session;
    const int64_t bound_ns = s->timeout_ns < LOGIN_NS ? s->timeout_ns : LOGIN_NS;
    struct mr_asker asker = {.s = s, .target = link->start->target};
    uint64_t size_bytes = 0;
    int r = mr_session_open_portal(s, link->start, portals->at[portal],
                                   mr_now_ns() + bound_ns, err);

    if (r < 0)
        return r;
    asker.deadline_ns = mr_link_deadline(link);
    r = prove_lun(link, &asker, &size_bytes, err);
    atomic_fetch_add(&link->page->counters.power_on_resets, s->resets);
    if (r == 0)
        r = prove_fence(link, &asker, err);
    if (r == 0)
        r = settle(link, &asker, err);
    if (r == 0 && s->lost)
        r = mr_fail(err, MR_E_DEVICE_ERROR, ECONNRESET, "%s", s->down_reason);
    if (r < 0) {
        mr_session_close(s);
        return r;
    }
    remember_portal(link, set, portal);
    atomic_fetch_add(&link->page->counters.logins, 1);
    mr_link_run(link);
    if (size_bytes > link->page->facts.size_bytes)
        mr_link_grow(link, size_bytes);
    return 0;
}

void mr_link_prove(struct mr_link *link)
{
    const struct mr_asker asker = {&link->session, link->start->target,
                                   mr_link_deadline(link)};
    uint64_t size_bytes = 0;
    struct mr_err err = {0};
    int r;

    mr_io_pause(link->io);
    r = prove_lun(link, &asker, &size_bytes, &err);
    if (r == -ESTALE)
        return;
    if (r < 0)
        mr_session_lose(&link->session, "%s", err.message);
    mr_io_resume(link->io);
    if (size_bytes > link->page->facts.size_bytes)
        mr_link_grow(link, size_bytes);
}

void mr_link_prepare(struct mr_link *link)
{
    link->session.lun = link->start->lun;
    link->session.watch_fd = -1;
    link->session.timeout_ns = atomic_load(&link->page->timeout_ms) * MR_NS_PER_MS;
}

void mr_link_try(struct mr_link *link)
{
    const unsigned set = atomic_load(&link->page->portal_set);
    const unsigned last = atomic_load(&link->page->portal);
    /* Addresses that are news: none of them was good. */
    const size_t good = last / MR_LUN_PORTALS_MAX == set ? last % MR_LUN_PORTALS_MAX : 0;
    struct mr_page_portals portals;
    struct mr_err err = {0};
    bool refused = false;

    mr_link_prepare(link);
    link->tried_ns = mr_now_ns();
    (void)mr_page_read_portals(link->page, set, &portals);
    for (size_t n = 0; n < portals.count && !refused; n++) {
        int r = try_portal(link, &portals, set, mr_policy_portal(good, n, portals.count),
                           &err);

        if (r == 0 || mr_link_is_final(link) || link->cut || link->io->gone)
            return;
        refused = err.code == MR_E_CHAP_REFUSED;
        if (r == -ECANCELED)
            break;
        mr_page_write_text(&link->page->reason, err.message);
    }
    link->next_ns = link->tried_ns + mr_policy_pause(link->tried_ns - link->down_ns,
                                                     refused, mr_link_random());
}
