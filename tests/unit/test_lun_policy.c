/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "storage/base/clock.h"
#include "storage/lun/policy.h"

static const struct mr_lun_facts known = {
    .size_bytes = 1 << 20,
    .block_size = 512,
    .serial = "serial",
    .wwn = "naa.6001",
};

static void test_pauses_grow_with_the_outage_up_to_a_bound(void **state)
{
    (void)state;
    const int64_t short_ns = 500 * MR_NS_PER_MS;
    const int64_t long_ns = 3 * MR_NS_PER_S;
    int64_t least = INT64_MAX;
    int64_t most = 0;

    for (uint32_t random = 0; random < 5000; random++) {
        int64_t first = mr_policy_pause(0, false, random);
        int64_t late = mr_policy_pause(3600 * MR_NS_PER_S, false, random);

        assert_in_range(first, short_ns * 8 / 10, short_ns * 12 / 10);
        assert_in_range(late, long_ns * 8 / 10, long_ns * 12 / 10);
        least = first < least ? first : least;
        most = first > most ? first : most;
    }
    assert_true(most - least > short_ns / 4); /* not all at the same time */
    assert_int_equal(mr_policy_pause(30 * MR_NS_PER_S, false, 200), short_ns);
    assert_int_equal(mr_policy_pause(60 * MR_NS_PER_S, false, 200), MR_NS_PER_S);
    assert_int_equal(mr_policy_pause(180 * MR_NS_PER_S, false, 200), long_ns);
}

static void test_refused_credentials_are_tried_slowly(void **state)
{
    (void)state;
    assert_int_equal(mr_policy_pause(0, true, 0), 5 * MR_NS_PER_S);
    assert_int_equal(mr_policy_pause(3600 * MR_NS_PER_S, true, 400), 5 * MR_NS_PER_S);
}

static void test_patience_is_a_setting(void **state)
{
    (void)state;
    assert_int_equal(mr_policy_patience(7, 0), 7);
    assert_int_equal(mr_policy_patience(7, 120000), 7 + 120 * MR_NS_PER_S);
    assert_int_equal(mr_policy_patience(7, -1), INT64_MAX);
}

static void test_a_restart_of_the_server_is_no_outage_of_the_target(void **state)
{
    (void)state;
    assert_int_equal(mr_policy_patience_restarted(7, 0, 15000), 7 + 15 * MR_NS_PER_S);
    assert_int_equal(mr_policy_patience_restarted(7, 120000, 15000),
                     7 + 120 * MR_NS_PER_S);
    assert_int_equal(mr_policy_patience_restarted(7, -1, 15000), INT64_MAX);
}

static void test_a_round_visits_each_portal_once_the_good_one_first(void **state)
{
    (void)state;
    for (size_t count = 1; count <= 8; count++) {
        for (size_t good = 0; good < count; good++) {
            unsigned seen = 0;

            assert_int_equal(mr_policy_portal(good, 0, count), good);
            for (size_t n = 0; n < count; n++)
                seen |= 1u << mr_policy_portal(good, n, count);
            assert_int_equal(seen, (1u << count) - 1);
        }
    }
}

static void test_an_outage_is_over_when_all_that_waited_is_answered(void **state)
{
    (void)state;
    const int64_t timeout = 100;
    const int64_t up = 1000;

    assert_true(mr_policy_outage_over(0, up, up, timeout));
    assert_true(mr_policy_outage_over(up + 1, up, up + 2, timeout));
    assert_false(mr_policy_outage_over(up - 1, up, up + 2, timeout));
    assert_false(mr_policy_outage_over(up - 1, up, up + timeout - 1, timeout));
    assert_true(mr_policy_outage_over(up - 1, up, up + timeout, timeout));
}

static void expect(const struct mr_lun_facts *was, const struct mr_lun_facts *is,
                   enum mr_same_lun same, const char *word)
{
    char why[256] = "?";

    assert_int_equal(mr_policy_compare(was, is, why, sizeof(why)), same);
    if (word)
        assert_non_null(strstr(why, word));
    else
        assert_string_equal(why, "");
}

static void test_only_the_same_lun_or_a_grown_one_is_accepted(void **state)
{
    (void)state;
    struct mr_lun_facts is = known;

    expect(&known, &is, MR_LUN_SAME, NULL);
    is.size_bytes = known.size_bytes + 512;
    expect(&known, &is, MR_LUN_LARGER, NULL);
    is.size_bytes = known.size_bytes - 512;
    expect(&known, &is, MR_LUN_OTHER, "bytes");
    is = known;
    is.block_size = 4096;
    expect(&known, &is, MR_LUN_OTHER, "blocks");
    is = known;
    strcpy(is.serial, "serial2");
    expect(&known, &is, MR_LUN_OTHER, "serial2");
    is = known;
    strcpy(is.wwn, "naa.6002");
    expect(&known, &is, MR_LUN_OTHER, "naa.6002");
    is.size_bytes *= 2; /* a larger one, but not the same */
    expect(&known, &is, MR_LUN_OTHER, "naa.6002");
}

static void test_a_missing_identity_is_not_accepted_and_not_final(void **state)
{
    (void)state;
    struct mr_lun_facts is = known;

    is.serial[0] = '\0';
    expect(&known, &is, MR_LUN_UNPROVEN, "serial");
    is = known;
    is.wwn[0] = '\0';
    expect(&known, &is, MR_LUN_UNPROVEN, "WWN");
    strcpy(is.serial, "serial2"); /* what is there says enough */
    expect(&known, &is, MR_LUN_OTHER, "serial2");
    is = known;
    is.serial[0] = '\0';
    strcpy(is.wwn, "naa.6002");
    expect(&known, &is, MR_LUN_OTHER, "naa.6002");
}

static void test_an_identity_that_was_never_known_proves_nothing(void **state)
{
    (void)state;
    struct mr_lun_facts was = known;

    was.serial[0] = was.wwn[0] = '\0';
    expect(&was, &known, MR_LUN_SAME, NULL);
    expect(&was, &was, MR_LUN_SAME, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pauses_grow_with_the_outage_up_to_a_bound),
        cmocka_unit_test(test_refused_credentials_are_tried_slowly),
        cmocka_unit_test(test_patience_is_a_setting),
        cmocka_unit_test(test_a_restart_of_the_server_is_no_outage_of_the_target),
        cmocka_unit_test(test_a_round_visits_each_portal_once_the_good_one_first),
        cmocka_unit_test(test_an_outage_is_over_when_all_that_waited_is_answered),
        cmocka_unit_test(test_only_the_same_lun_or_a_grown_one_is_accepted),
        cmocka_unit_test(test_a_missing_identity_is_not_accepted_and_not_final),
        cmocka_unit_test(test_an_identity_that_was_never_known_proves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
