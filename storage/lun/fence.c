/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/fence.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/clock.h"
#include "storage/lun/pr.h"

#define REMOVE_TRIES 32 /* registrations that are taken over */

/* The display side of the record. What is judged by is remember()'s. */
static void show(struct mr_page_fence *state, const struct mr_reservation *seen)
{
    size_t fit = sizeof(state->keys) / sizeof(state->keys[0]);

    if (seen->key_count < fit)
        fit = seen->key_count;
    memset(state->keys, 0, sizeof(state->keys));
    memcpy(state->keys, seen->keys, fit * sizeof(seen->keys[0]));
    state->key_count = (uint32_t)seen->key_count;
    state->holder = seen->holder;
    state->type = seen->type;
    state->checked_wall_ms = mr_wall_ms();
}

static void remember(struct mr_page_fence *state, uint64_t key,
                     const struct mr_reservation *seen)
{
    show(state, seen);
    state->reserve = true;
    state->registered = true;
    state->key = key;
    state->generation = seen->generation;
}

/* Ends with *seen as it is when nothing is left to remove. A preemption of the holder
 * makes us the holder, also when it was an older registration of our own. */
static int remove_superseded(const struct mr_asker *a, uint64_t key, uint64_t preempt,
                             bool own_only, struct mr_reservation *seen,
                             struct mr_err *err)
{
    for (int i = 0; i < REMOVE_TRIES; i++) {
        uint64_t other;
        int r = mr_pr_look(a, seen, err);

        if (r < 0)
            return r;
        if (own_only)
            other = mr_reservation_count(seen, key) > 1 ? key : 0;
        else
            other = mr_fence_superseded(seen, key, preempt);
        if (other == 0)
            return 0;
        r = mr_pr_remove(a, key, other, err);
        if (r < 0 && r != -EBADE) /* it went by itself: look again */
            return r;
    }
    return mr_pr_fail(a, "registrations that were taken over come back", err);
}

/* Takes this session's registration back. */
static int withdraw(const struct mr_asker *a, uint64_t key, struct mr_err *err)
{
    int r = mr_pr_release(a, key, err);

    if (r < 0 && r != -EBADE) /* not registered, so not the holder */
        return r;
    return mr_pr_register(a, 0, false, err);
}

/* Takes all of our registrations back: those of older sessions, too. For that this one
 * has to be registered. */
static int withdraw_all(const struct mr_asker *a, uint64_t key,
                        struct mr_reservation *seen, struct mr_err *err)
{
    int r = withdraw(a, key, err);

    if (r == 0)
        r = mr_pr_look(a, seen, err);
    if (r < 0 || mr_reservation_count(seen, key) == 0)
        return r;
    r = mr_pr_register(a, key, false, err);
    if (r == 0)
        r = remove_superseded(a, key, 0, true, seen, err);
    if (r == 0)
        r = withdraw(a, key, err);
    if (r == 0)
        r = mr_pr_look(a, seen, err);
    if (r == 0 && mr_reservation_count(seen, key) > 0)
        r = mr_pr_fail(a, "our key is still registered", err);
    return r;
}

static int fail_reserved(const struct mr_asker *a, const struct mr_reservation *seen,
                         uint64_t key, struct mr_err *err)
{
    int r = -EBUSY;

    (void)mr_fail(
        err, MR_E_SOURCE_IN_USE, 0, "portal %s, target '%s', LUN %d: %s by key 0x%016llx",
        a->s->portal, a->target, a->s->lun,
        seen->held && seen->holder == key ? "it is reserved" : "it is registered",
        (unsigned long long)key);
    return mr_err_remedy(err, r,
                         "detach it there; if that node is known to be dead or must be "
                         "shut out, ask with \"preempt\": \"0x%016llx\"",
                         (unsigned long long)key);
}

/* Registered; now reserve, and see that it is so. */
static int reserve(const struct mr_asker *a, const struct mr_fence_ask *ask,
                   struct mr_page_fence *state, struct mr_err *err)
{
    uint64_t preempt = ask->preempt ? ask->preempt_key : 0;
    struct mr_reservation seen;
    int r = remove_superseded(a, ask->key, preempt, false, &seen, err);

    if (r == 0)
        r = mr_pr_reserve(a, ask->key, err);
    if (r < 0 && r != -EBADE)
        return r;
    r = mr_pr_look(a, &seen, err);
    if (r < 0)
        return r;
    if (!seen.held || seen.holder != ask->key || seen.type != MR_FENCE_TYPE ||
        mr_reservation_count(&seen, ask->key) == 0) {
        uint64_t key = mr_fence_obstacle(&seen, ask->key, preempt);

        if (key != 0)
            return fail_reserved(a, &seen, key, err);
        return mr_pr_fail(a, "it did not take our reservation", err);
    }
    remember(state, ask->key, &seen);
    return 0;
}

/* A failure after which the session can still be asked: waiting in a dead one would only
 * take time. */
static bool was_answered(int r)
{
    return r == -EBUSY || r == -EIO || r == -EREMOTEIO || r == -EOPNOTSUPP;
}

int mr_fence_acquire(const struct mr_asker *a, const struct mr_fence_ask *ask,
                     struct mr_page_fence *state, struct mr_err *err)
{
    struct mr_reservation seen;
    uint64_t key;
    bool ptpl;
    int r = mr_pr_look(a, &seen, err);

    if (r < 0)
        return r;
    show(state, &seen);
    key = mr_fence_obstacle(&seen, ask->key, ask->preempt ? ask->preempt_key : 0);
    if (key != 0)
        return fail_reserved(a, &seen, key, err);
    r = mr_pr_keeps_over_power_loss(a, &ptpl, err);
    if (r == 0)
        r = mr_pr_register(a, ask->key, ptpl, err);
    if (r < 0)
        return r;
    r = reserve(a, ask, state, err);
    if (was_answered(r))
        (void)withdraw(a, ask->key, NULL);
    return r;
}

int mr_fence_would(const struct mr_asker *a, const struct mr_fence_ask *ask,
                   struct mr_err *err)
{
    struct mr_reservation seen;
    uint64_t key;
    int r = mr_pr_look(a, &seen, err);

    if (r < 0)
        return r;
    key = mr_fence_obstacle(&seen, ask->key, ask->preempt ? ask->preempt_key : 0);
    return key == 0 ? 0 : fail_reserved(a, &seen, key, err);
}

int mr_fence_in_the_way(const struct mr_asker *a, struct mr_err *err)
{
    struct mr_reservation seen;

    if (mr_pr_look(a, &seen, NULL) < 0 || !seen.held)
        return 0;
    (void)mr_fail(err, MR_E_SOURCE_IN_USE, 0,
                  "portal %s, target '%s', LUN %d: it is reserved by key 0x%016llx, no "
                  "other node can write",
                  a->s->portal, a->target, a->s->lun, (unsigned long long)seen.holder);
    return mr_err_remedy(err, -EBUSY, "detach it there, or ask for fencing: reserve");
}

static int fail_fenced(const struct mr_asker *a, const struct mr_page_fence *state,
                       enum mr_fence_verdict verdict, struct mr_err *err)
{
    char by[64] = "";

    if (state->holder != 0 && state->holder != state->key)
        (void)snprintf(by, sizeof(by), "; it is reserved by key 0x%016llx",
                       (unsigned long long)state->holder);
    (void)mr_fail(err, MR_E_FENCED, 0,
                  "portal %s, target '%s', LUN %d is fenced (our key 0x%016llx): %s%s",
                  a->s->portal, a->target, a->s->lun, (unsigned long long)state->key,
                  mr_fence_verdict_text(verdict), by);
    return mr_err_remedy(err, -ESTALE,
                         "detach the volume; what was not written is lost to this node");
}

/* UNKNOWN cannot come here: the caller has looked. */
static int judge(const struct mr_asker *a, const struct mr_reservation *seen,
                 struct mr_page_fence *state, bool joined_is_fine, struct mr_err *err)
{
    enum mr_fence_verdict verdict = mr_fence_judge(seen, state);

    show(state, seen);
    if (verdict == MR_FENCE_UNKNOWN)
        return mr_pr_fail(a, "it was never reserved by us", err);
    if (!mr_fence_verdict_fenced(verdict) ||
        (verdict == MR_FENCE_JOINED && joined_is_fine))
        return 0;
    return fail_fenced(a, state, verdict, err);
}

/* Into the new session: registered, old registrations of ours removed, seen. */
static int register_again(const struct mr_asker *a, struct mr_page_fence *state,
                          struct mr_err *err)
{
    struct mr_reservation seen;
    bool ptpl;
    int r = mr_pr_keeps_over_power_loss(a, &ptpl, err);

    if (r == 0)
        r = mr_pr_register(a, state->key, ptpl, err);
    if (r == 0)
        r = remove_superseded(a, state->key, 0, true, &seen, err);
    if (r < 0)
        return r;
    /* Somebody may have been faster than our registration. Our own steps have moved the
     * generation, so it tells nothing about others here. */
    state->generation = seen.generation;
    return judge(a, &seen, state, true, err);
}

int mr_fence_check(const struct mr_asker *a, struct mr_page_fence *state,
                   struct mr_err *err)
{
    struct mr_reservation seen;
    int r = mr_pr_look(a, &seen, err);

    if (r == 0)
        r = judge(a, &seen, state, false, err);
    if (r == 0)
        r = register_again(a, state, err);
    /* Whatever is left of us, this session's registration with it, must go. */
    if (r == -ESTALE && mr_reservation_count(&seen, state->key) > 0 &&
        withdraw_all(a, state->key, &seen, NULL) == 0)
        show(state, &seen);
    return r;
}

int mr_fence_look(const struct mr_asker *a, struct mr_page_fence *state,
                  struct mr_err *err)
{
    struct mr_reservation seen;
    int r = mr_pr_look(a, &seen, err);

    return r < 0 ? r : judge(a, &seen, state, true, err);
}

int mr_fence_release(const struct mr_asker *a, struct mr_page_fence *state,
                     struct mr_err *err)
{
    struct mr_reservation seen;
    int r = mr_pr_look(a, &seen, err);

    if (r == 0 && mr_reservation_count(&seen, state->key) > 0)
        r = withdraw_all(a, state->key, &seen, err);
    if (r == 0)
        show(state, &seen);
    return r;
}
