/* SPDX-License-Identifier: Apache-2.0
 *
 * A model of a target's persistent reservations (SPC-4 section 5.12) behind the functions
 * of storage/lun/pr.h, which it shadows. Between any two commands another node may act,
 * and the connection may break at any command, before or after the target has done it.
 */
#ifndef MR_TESTS_UNIT_PR_MODEL_H
#define MR_TESTS_UNIT_PR_MODEL_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "storage/lun/fence_judge.h"
#include "storage/lun/pr.h"

#define OURS 0xaaaaaaaa00000001ULL
#define THEIRS 0xbbbbbbbb00000001ULL
#define THEIR_NEXUS 1000
#define REGS_MAX 8
#define ACTS_MAX 4
#define NEVER 99

enum act {
    NOTHING,
    REGISTER,
    PREEMPT, /* our key */
    RESERVE,
    RELEASE,
    UNREGISTER,
    CLEAR,
    FORGET, /* the target restarts and has kept nothing */
};

/* What the other node does, in this order. */
static const enum act plots[][ACTS_MAX] = {
    {NOTHING},
    {REGISTER},
    {REGISTER, UNREGISTER},
    {REGISTER, RESERVE},
    {REGISTER, PREEMPT},
    {REGISTER, PREEMPT, RELEASE, UNREGISTER},
    {REGISTER, PREEMPT, FORGET},
    {REGISTER, CLEAR},
    {REGISTER, CLEAR, REGISTER, RESERVE},
    {FORGET},
};
#define PLOTS (sizeof(plots) / sizeof(plots[0]))

struct registration {
    int nexus; /* 0: none */
    uint64_t key;
};

/* The one target. A registration belongs to a session (by_session, as tgtd has it), or to
 * the initiator and outlives its sessions. */
static struct {
    bool by_session;
    struct registration regs[REGS_MAX];
    int holder; /* nexus */
    uint32_t generation;
    bool was_ours; /* our reservation is there; broken follows when it ends */
    bool broken;
    bool deaf; /* says yes to a removal and does nothing */
    /* The plot, and at which of our commands its acts come. */
    const enum act *plot;
    unsigned at[ACTS_MAX];
    unsigned next;
    unsigned commands;
    unsigned lose_at; /* the connection breaks at this command */
    bool lose_after;  /* after the target has done it */
} t;

static int session_count;

static struct registration *find(int nexus)
{
    for (size_t i = 0; i < REGS_MAX; i++)
        if (t.regs[i].nexus == nexus)
            return &t.regs[i];
    return NULL;
}

static uint64_t holder_key(void)
{
    const struct registration *reg = t.holder ? find(t.holder) : NULL;

    return reg ? reg->key : 0;
}

static void note(void)
{
    if (t.was_ours && holder_key() != OURS)
        t.broken = true;
}

static void set_registration(int nexus, uint64_t key)
{
    struct registration *reg = find(nexus);

    t.generation++;
    if (!reg && key)
        reg = find(0);
    if (!reg)
        return;
    *reg = (struct registration){key ? nexus : 0, key};
    if (!key && t.holder == nexus)
        t.holder = 0;
}

static int preempt(int nexus, uint64_t other)
{
    int r = -EBADE;

    if (!find(nexus))
        return r;
    if (holder_key() == other)
        t.holder = nexus;
    for (size_t i = 0; i < REGS_MAX; i++) {
        if (t.regs[i].nexus == 0 || t.regs[i].key != other)
            continue;
        r = 0;
        if (t.regs[i].nexus != nexus)
            t.regs[i] = (struct registration){0};
    }
    t.generation += r == 0;
    return r;
}

static int reserve(int nexus)
{
    if (!find(nexus) || (t.holder && t.holder != nexus))
        return -EBADE;
    t.holder = nexus;
    return 0;
}

static int release(int nexus)
{
    if (!find(nexus))
        return -EBADE;
    if (t.holder == nexus)
        t.holder = 0;
    return 0;
}

static void clear(void)
{
    memset(t.regs, 0, sizeof(t.regs));
    t.holder = 0;
    t.generation++;
}

static void act(enum act what)
{
    switch (what) {
    case NOTHING:
        break;
    case REGISTER:
        set_registration(THEIR_NEXUS, THEIRS);
        break;
    case PREEMPT:
        (void)preempt(THEIR_NEXUS, OURS);
        break;
    case RESERVE:
        (void)reserve(THEIR_NEXUS);
        break;
    case RELEASE:
        (void)release(THEIR_NEXUS);
        break;
    case UNREGISTER:
        set_registration(THEIR_NEXUS, 0);
        break;
    case CLEAR:
        clear();
        break;
    case FORGET:
        clear();
        t.generation = 0;
        break;
    }
    note();
}

static void others_act(void)
{
    while (t.next < ACTS_MAX && t.at[t.next] <= t.commands)
        act(t.plot[t.next++]);
    t.commands++;
}

/* --- what fence.c sends its commands by; the session's LUN number is its nexus --- */

static bool lost(bool after)
{
    return t.commands == t.lose_at + 1 && t.lose_after == after;
}

#define ANSWER(expression)                                                               \
    do {                                                                                 \
        int answer;                                                                      \
        others_act();                                                                    \
        if (lost(false))                                                                 \
            return -ECONNRESET;                                                          \
        answer = (expression);                                                           \
        note();                                                                          \
        return lost(true) ? -ECONNRESET : answer;                                        \
    } while (0)

static int read_table(struct mr_reservation *ret)
{
    *ret = (struct mr_reservation){.known = true,
                                   .generation = t.generation,
                                   .held = t.holder != 0,
                                   .holder = holder_key(),
                                   .type = t.holder ? MR_FENCE_TYPE : 0};
    for (size_t i = 0; i < REGS_MAX; i++)
        if (t.regs[i].nexus)
            ret->keys[ret->key_count++] = t.regs[i].key;
    return 0;
}

int mr_pr_look(const struct mr_asker *a, struct mr_reservation *ret, struct mr_err *err)
{
    (void)a;
    (void)err;
    ret->known = false;
    ANSWER(read_table(ret));
}

int mr_pr_keeps_over_power_loss(const struct mr_asker *a, bool *ret, struct mr_err *err)
{
    (void)a;
    (void)err;
    *ret = false;
    ANSWER(0);
}

int mr_pr_register(const struct mr_asker *a, uint64_t key, bool ptpl, struct mr_err *err)
{
    (void)err;
    (void)ptpl;
    ANSWER((set_registration(a->s->lun, key), 0));
}

int mr_pr_reserve(const struct mr_asker *a, uint64_t key, struct mr_err *err)
{
    (void)err;
    (void)key;
    ANSWER(reserve(a->s->lun));
}

int mr_pr_release(const struct mr_asker *a, uint64_t key, struct mr_err *err)
{
    (void)err;
    (void)key;
    ANSWER(release(a->s->lun));
}

int mr_pr_remove(const struct mr_asker *a, uint64_t key, uint64_t other,
                 struct mr_err *err)
{
    (void)err;
    (void)key;
    ANSWER(t.deaf ? 0 : preempt(a->s->lun, other));
}

int mr_pr_fail(const struct mr_asker *a, const char *what, struct mr_err *err)
{
    (void)a;
    return mr_fail(err, MR_E_DEVICE_ERROR, 0, "%s", what);
}

#endif
