/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "storage/base/clock.h"

static void test_times_are_rfc_3339_utc_with_milliseconds(void **state)
{
    (void)state;
    static const struct {
        int64_t wall_ms;
        const char *text;
    } times[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1, "1970-01-01T00:00:00.001Z"},
        {951782399999, "2000-02-28T23:59:59.999Z"},
        {1795342272345, "2026-11-22T10:11:12.345Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
    };
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        char text[MR_TIME_TEXT];
        assert_string_equal(mr_time_text(times[i].wall_ms, text), times[i].text);
    }
}

static void test_times_come_back_from_their_text(void **state)
{
    (void)state;
    char text[MR_TIME_TEXT];
    assert_int_equal(mr_time_ms(mr_time_text(1795342272345, text)), 1795342272345);
    assert_int_equal(mr_time_ms("2026-11-22T10:11:12.005Z"), 1795342272005);
    assert_int_equal(mr_time_ms("2026-11-22T10:11:12Z"), 0);
    assert_int_equal(mr_time_ms("2026-11-22T10:11:12.12aZ"), 0);
    assert_int_equal(mr_time_ms(""), 0);
    assert_int_equal(mr_time_ms(NULL), 0);
}

static void test_absurd_times_stay_within_the_buffer(void **state)
{
    (void)state;
    static const int64_t times[] = {-1, INT64_MIN, INT64_MAX, 253402300800000};
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        char text[MR_TIME_TEXT];
        assert_int_equal(strlen(mr_time_text(times[i], text)), MR_TIME_TEXT - 1);
    }
}

static void test_sleep_is_not_short(void **state)
{
    (void)state;
    int64_t start = mr_now_ns();
    mr_sleep_ns(5 * MR_NS_PER_MS);
    assert_true(mr_now_ns() - start >= 5 * MR_NS_PER_MS);
    mr_sleep_ns(0);
    mr_sleep_ns(-1);
}

static void test_the_boot_id_is_a_uuid(void **state)
{
    (void)state;
    char a[37];
    char b[37];
    assert_int_equal(mr_boot_id(a), 0);
    assert_int_equal(mr_boot_id(b), 0);
    assert_int_equal(strlen(a), 36);
    assert_int_equal(strspn(a, "0123456789abcdef-"), 36);
    assert_string_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times_are_rfc_3339_utc_with_milliseconds),
        cmocka_unit_test(test_times_come_back_from_their_text),
        cmocka_unit_test(test_absurd_times_stay_within_the_buffer),
        cmocka_unit_test(test_sleep_is_not_short),
        cmocka_unit_test(test_the_boot_id_is_a_uuid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
