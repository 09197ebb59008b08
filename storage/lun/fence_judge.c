/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/fence_judge.h"

#include <string.h>

#include "storage/identity.h"

static bool has_foreign(const struct mr_reservation *seen, uint64_t key)
{
    return mr_reservation_count(seen, key) != seen->key_count;
}

enum mr_fence_verdict mr_fence_judge(const struct mr_reservation *seen,
                                     const struct mr_page_fence *remembered)
{
    if (!seen->known || !remembered->registered || remembered->key == 0)
        return MR_FENCE_UNKNOWN;
    if (mr_reservation_count(seen, remembered->key) == 0)
        return seen->key_count > 0 || seen->held ? MR_FENCE_PREEMPTED
                                                 : MR_FENCE_FORGOTTEN;
    if (!seen->held)
        return MR_FENCE_RELEASED;
    if (seen->holder != remembered->key || seen->type != MR_FENCE_TYPE)
        return MR_FENCE_TAKEN;
    if (has_foreign(seen, remembered->key) && seen->generation != remembered->generation)
        return MR_FENCE_JOINED;
    return MR_FENCE_OURS;
}

bool mr_fence_verdict_fenced(enum mr_fence_verdict verdict)
{
    return verdict != MR_FENCE_UNKNOWN && verdict != MR_FENCE_OURS;
}

const char *mr_fence_verdict_text(enum mr_fence_verdict verdict)
{
    switch (verdict) {
    case MR_FENCE_UNKNOWN:
        return "it is not known whose it is";
    case MR_FENCE_OURS:
        return "it is ours";
    case MR_FENCE_JOINED:
        return "another node has registered to write";
    case MR_FENCE_PREEMPTED:
        return "our key was removed by another node";
    case MR_FENCE_FORGOTTEN:
        return "the target has no registrations any more";
    case MR_FENCE_RELEASED:
        return "our reservation was ended by another node";
    case MR_FENCE_TAKEN:
        return "another reservation has replaced ours";
    }
    return "";
}

/* Names differ in few bytes; every bit of the hash must depend on them. The finaliser of
 * MurmurHash3. */
static uint32_t half_of(const char *text)
{
    uint64_t hash = mr_text_hash(text, strlen(text));

    hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdULL;
    hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53ULL;
    hash ^= hash >> 33;
    return (uint32_t)hash ? (uint32_t)hash : 1;
}

uint64_t mr_fence_key(const char *initiator_name, const char *token)
{
    return (uint64_t)half_of(initiator_name) << 32 | half_of(token);
}

static bool same_node(uint64_t a, uint64_t b)
{
    return a >> 32 == b >> 32;
}

uint64_t mr_fence_obstacle(const struct mr_reservation *seen, uint64_t key,
                           uint64_t preempt)
{
    if (seen->held && seen->holder != 0 && seen->holder != preempt &&
        !same_node(seen->holder, key))
        return seen->holder;
    for (size_t i = 0; i < seen->key_count; i++)
        if (seen->keys[i] != preempt && !same_node(seen->keys[i], key))
            return seen->keys[i];
    return 0;
}

uint64_t mr_fence_superseded(const struct mr_reservation *seen, uint64_t key,
                             uint64_t preempt)
{
    for (size_t i = 0; i < seen->key_count; i++) {
        uint64_t other = seen->keys[i];

        if (other != key && (other == preempt || same_node(other, key)))
            return other;
    }
    return mr_reservation_count(seen, key) > 1 ? key : 0;
}
