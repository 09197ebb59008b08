/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "storage/lun/fence_judge.h"

#define OURS 0xaaaaaaaa00000001ULL
#define OURS_OLD 0xaaaaaaaa00000002ULL /* our node, another attachment */
#define THEIRS 0xbbbbbbbb00000001ULL
#define THIRD 0xcccccccc00000001ULL

/* What a target may say, one column each. */
static const size_t own_counts[] = {0, 1, 2};
static const uint64_t foreign_sets[][2] = {{0}, {THEIRS}, {THEIRS, THIRD}, {OURS_OLD}};
static const uint64_t holders[] = {0, OURS, THEIRS, OURS_OLD};
static const uint32_t types[] = {0, 1, 3, 5, 6, 7, 8, 15};
static const uint32_t generations[] = {0, 6, 7, 8, UINT32_MAX};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

struct combination {
    bool known, registered, has_key, held;
    size_t own, foreign, holder, type, generation;
};

static void build(const struct combination *c, struct mr_reservation *seen,
                  struct mr_page_fence *remembered)
{
    *seen = (struct mr_reservation){
        .known = c->known,
        .generation = generations[c->generation],
        .held = c->held,
        .holder = c->held ? holders[c->holder] : 0,
        .type = c->held ? types[c->type] : 0,
    };
    for (size_t i = 0; i < COUNT(foreign_sets[0]); i++)
        if (foreign_sets[c->foreign][i])
            seen->keys[seen->key_count++] = foreign_sets[c->foreign][i];
    for (size_t i = 0; i < own_counts[c->own]; i++)
        seen->keys[seen->key_count++] = OURS;
    *remembered = (struct mr_page_fence){
        .registered = c->registered, .key = c->has_key ? OURS : 0, .generation = 7};
}

/* Written from the rules, not from the code: first what is safe, then which word. */
static enum mr_fence_verdict expected(const struct combination *c)
{
    bool listed = own_counts[c->own] > 0;
    bool foreign = foreign_sets[c->foreign][0] != 0;
    bool held_by_us = c->held && holders[c->holder] == OURS && types[c->type] == 5;
    bool moved = generations[c->generation] != 7;

    if (!c->known || !c->registered || !c->has_key)
        return MR_FENCE_UNKNOWN;
    if (listed && held_by_us && !(foreign && moved))
        return MR_FENCE_OURS;
    if (listed && held_by_us)
        return MR_FENCE_JOINED;
    if (listed)
        return c->held ? MR_FENCE_TAKEN : MR_FENCE_RELEASED;
    return foreign || c->held ? MR_FENCE_PREEMPTED : MR_FENCE_FORGOTTEN;
}

static void judge_flags(struct combination *c, unsigned *counts)
{
    for (unsigned flags = 0; flags < 16; flags++) {
        struct mr_reservation seen;
        struct mr_page_fence remembered;
        enum mr_fence_verdict verdict;

        c->known = flags & 1;
        c->registered = flags & 2;
        c->has_key = flags & 4;
        c->held = flags & 8;
        build(c, &seen, &remembered);
        verdict = mr_fence_judge(&seen, &remembered);
        if (verdict != expected(c))
            fail_msg("flags %x own %zu foreign %zu holder %zu type %zu generation %zu: "
                     "%d, not %d",
                     flags, c->own, c->foreign, c->holder, c->type, c->generation,
                     verdict, expected(c));
        assert_int_equal(mr_fence_verdict_fenced(verdict),
                         verdict != MR_FENCE_UNKNOWN && verdict != MR_FENCE_OURS);
        counts[verdict]++;
    }
}

static void test_every_combination_is_judged_by_the_table(void **state)
{
    unsigned counts[MR_FENCE_TAKEN + 1] = {0};
    struct combination c = {.known = false};

    (void)state;
    for (c.own = 0; c.own < COUNT(own_counts); c.own++)
        for (c.foreign = 0; c.foreign < COUNT(foreign_sets); c.foreign++)
            for (c.holder = 0; c.holder < COUNT(holders); c.holder++)
                for (c.type = 0; c.type < COUNT(types); c.type++)
                    for (c.generation = 0; c.generation < COUNT(generations);
                         c.generation++)
                        judge_flags(&c, counts);
    for (size_t i = 0; i < COUNT(counts); i++)
        assert_true(counts[i] > 0); /* each verdict can be reached */
}

static void test_nothing_known_is_never_ours(void **state)
{
    const struct mr_reservation nothing = {.known = false};
    const struct mr_page_fence unwritten = {.reserve = false};
    struct mr_reservation empty = {.known = true};

    (void)state;
    assert_int_equal(mr_fence_judge(&nothing, &unwritten), MR_FENCE_UNKNOWN);
    assert_int_equal(mr_fence_judge(&empty, &unwritten), MR_FENCE_UNKNOWN);
    assert_int_equal((enum mr_fence_verdict)0, MR_FENCE_UNKNOWN);
    assert_false(
        mr_fence_verdict_fenced(MR_FENCE_UNKNOWN)); /* asked again, not given up */
}

static void test_our_own_registrations_moved_the_generation(void **state)
{
    /* A server was killed between registering again and writing it down. */
    const struct mr_reservation seen = {.known = true,
                                        .generation = 9,
                                        .key_count = 2,
                                        .keys = {OURS, OURS},
                                        .held = true,
                                        .holder = OURS,
                                        .type = MR_FENCE_TYPE};
    const struct mr_page_fence remembered = {
        .registered = true, .key = OURS, .generation = 7};

    (void)state;
    assert_int_equal(mr_fence_judge(&seen, &remembered), MR_FENCE_OURS);
}

static void test_every_verdict_has_words(void **state)
{
    (void)state;
    for (int v = 0; v <= MR_FENCE_TAKEN; v++)
        for (int w = 0; w < v; w++)
            assert_string_not_equal(mr_fence_verdict_text((enum mr_fence_verdict)v),
                                    mr_fence_verdict_text((enum mr_fence_verdict)w));
}

static void test_keys_tell_node_and_attachment(void **state)
{
    static const char token_a[] = "0123456789abcdef0123456789abcdef";
    static const char token_b[] = "0123456789abcdef0123456789abcdee";
    uint64_t a = mr_fence_key("iqn.2026-11.example:node1", token_a);
    uint64_t again = mr_fence_key("iqn.2026-11.example:node1", token_b);
    uint64_t other = mr_fence_key("iqn.2026-11.example:node2", token_a);

    (void)state;
    assert_true(a == mr_fence_key("iqn.2026-11.example:node1", token_a));
    assert_int_equal(a >> 32, again >> 32);
    assert_int_not_equal((uint32_t)a, (uint32_t)again);
    assert_int_not_equal(a >> 32, other >> 32);
    assert_int_equal((uint32_t)a, (uint32_t)other);
}

static void test_nodes_of_a_series_have_keys_of_their_own(void **state)
{
    enum {
        NODES = 1000
    };
    static uint64_t keys[NODES];
    char name[64];

    (void)state;
    for (size_t i = 0; i < NODES; i++) {
        (void)snprintf(name, sizeof(name), "iqn.2026-11.example:node%zu", i);
        keys[i] = mr_fence_key(name, "00000000000000000000000000000000");
        assert_true(keys[i] >> 32 != 0 && (uint32_t)keys[i] != 0);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(keys[j] >> 32, keys[i] >> 32);
    }
}

static struct mr_reservation table(uint64_t holder, uint64_t a, uint64_t b, uint64_t c)
{
    struct mr_reservation seen = {
        .known = true, .held = holder != 0, .holder = holder, .type = MR_FENCE_TYPE};
    const uint64_t keys[] = {a, b, c};

    for (size_t i = 0; i < COUNT(keys); i++)
        if (keys[i])
            seen.keys[seen.key_count++] = keys[i];
    return seen;
}

static void check_take(const struct mr_reservation *seen, uint64_t preempt,
                       uint64_t obstacle, uint64_t superseded)
{
    assert_true(mr_fence_obstacle(seen, OURS, preempt) == obstacle);
    assert_true(mr_fence_superseded(seen, OURS, preempt) == superseded);
}

static void test_who_is_in_the_way_is_named(void **state)
{
    struct mr_reservation seen = table(0, 0, 0, 0);

    (void)state;
    check_take(&seen, 0, 0, 0);
    seen = table(THEIRS, THIRD, THEIRS, 0); /* the holder first */
    check_take(&seen, 0, THEIRS, 0);
    seen = table(0, THEIRS, 0, 0); /* any registrant may write */
    check_take(&seen, 0, THEIRS, 0);
    seen = table(OURS_OLD, OURS_OLD, THIRD, 0);
    check_take(&seen, 0, THIRD, OURS_OLD);
    seen = table(THEIRS, 0, 0, 0); /* contradicts itself: in the way */
    check_take(&seen, 0, THEIRS, 0);
}

static void test_only_the_named_key_is_preempted(void **state)
{
    struct mr_reservation seen = table(THEIRS, THEIRS, 0, 0);

    (void)state;
    check_take(&seen, THEIRS, 0, THEIRS);
    check_take(&seen, THIRD, THEIRS, 0);
    seen = table(THEIRS, THEIRS, THIRD, 0);
    check_take(&seen, THEIRS, THIRD, THEIRS); /* a bystander stays in the way */
    check_take(&seen, THIRD, THEIRS, THIRD);
}

static void test_what_is_left_of_our_node_is_taken_over(void **state)
{
    struct mr_reservation seen = table(OURS_OLD, OURS_OLD, 0, 0);

    (void)state;
    check_take(&seen, 0, 0, OURS_OLD);
    seen = table(OURS_OLD, OURS, OURS_OLD, 0);
    check_take(&seen, 0, 0, OURS_OLD);
    seen = table(OURS, OURS, OURS, 0); /* of an older session */
    check_take(&seen, 0, 0, OURS);
    seen = table(OURS, OURS, 0, 0);
    check_take(&seen, 0, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_combination_is_judged_by_the_table),
        cmocka_unit_test(test_nothing_known_is_never_ours),
        cmocka_unit_test(test_our_own_registrations_moved_the_generation),
        cmocka_unit_test(test_every_verdict_has_words),
        cmocka_unit_test(test_keys_tell_node_and_attachment),
        cmocka_unit_test(test_nodes_of_a_series_have_keys_of_their_own),
        cmocka_unit_test(test_who_is_in_the_way_is_named),
        cmocka_unit_test(test_only_the_named_key_is_preempted),
        cmocka_unit_test(test_what_is_left_of_our_node_is_taken_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
