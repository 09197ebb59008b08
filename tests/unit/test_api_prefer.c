/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "api/prefer.h"
#include "storage/base/clock.h"

static int64_t seconds(const char *field)
{
    struct mr_prefer prefer = {0};
    mr_prefer_parse(&prefer, field);
    return mr_prefer_wait_ns(&prefer, 77) / MR_NS_PER_S;
}

static void test_wait_is_taken(void **state)
{
    (void)state;
    assert_int_equal(seconds("wait=5"), 5);
    assert_int_equal(seconds("WAIT = 5"), 5);
    assert_int_equal(seconds("wait=\"5\""), 5);
    assert_int_equal(seconds("wait=0"), 0);
    assert_int_equal(seconds("handling=lenient, wait=5; x=1"), 5);
    assert_int_equal(seconds("foo=\"a, wait=1\", wait=5"), 5);
    assert_int_equal(seconds("foo=\"\\\", wait=1\", wait=5"), 5);
}

static void test_wait_is_clamped(void **state)
{
    (void)state;
    assert_int_equal(seconds("wait=600"), 600);
    assert_int_equal(seconds("wait=601"), 600);
    assert_int_equal(seconds("wait=99999999999999999999999999"), 600);
}

static void test_malformed_wait_is_ignored(void **state)
{
    (void)state;
    static const char *const bad[] = {"",         "wait",    "wait=",    "wait=-1",
                                      "wait=1.5", "wait=1s", "wait=\"1", "wait=abc",
                                      "waits=1",  "xwait=1", "=1",       "wait==1",
                                      ",,;",      "wait 1",  "\"wait=1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(seconds(bad[i]), 77);
}

static void test_respond_async_does_not_wait(void **state)
{
    (void)state;
    assert_int_equal(seconds("respond-async"), 0);
    assert_int_equal(seconds("Respond-Async; a=b"), 0);
    assert_int_equal(seconds("respond-async, wait=3"), 3);
    assert_int_equal(seconds("respond-asynchronous"), 77);
}

static void test_first_wait_counts_across_fields(void **state)
{
    (void)state;
    struct mr_prefer prefer = {0};
    mr_prefer_parse(&prefer, "wait=2, wait=3");
    mr_prefer_parse(&prefer, "wait=4, respond-async");
    assert_int_equal(prefer.wait_s, 2);
    assert_true(prefer.respond_async);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wait_is_taken),
        cmocka_unit_test(test_wait_is_clamped),
        cmocka_unit_test(test_malformed_wait_is_ignored),
        cmocka_unit_test(test_respond_async_does_not_wait),
        cmocka_unit_test(test_first_wait_counts_across_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
