/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>

#include "api/uri.h"

static void test_escapes_are_decoded_once(void **state)
{
    (void)state;
    char dst[32];
    assert_int_equal(mr_uri_decode("a%62%2Fc", 8, false, dst), 0);
    assert_string_equal(dst, "ab/c");
    assert_int_equal(mr_uri_decode("%2561", 5, false, dst), 0);
    assert_string_equal(dst, "%61");
    assert_int_equal(mr_uri_decode("", 0, false, dst), 0);
    assert_string_equal(dst, "");
}

static void test_plus_is_a_blank_in_queries_only(void **state)
{
    (void)state;
    char dst[8];
    assert_int_equal(mr_uri_decode("a+%2b", 5, true, dst), 0);
    assert_string_equal(dst, "a +");
    assert_int_equal(mr_uri_decode("a+b", 3, false, dst), 0);
    assert_string_equal(dst, "a+b");
}

static void test_bad_escapes_and_nul_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"%",   "a%",    "%4",  "%zz", "%4g",
                                      "%00", "a%00b", "%-1", "% 1"};
    char dst[16];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(mr_uri_decode(bad[i], strlen(bad[i]), false, dst), -EINVAL);
    /* An escape may not reach beyond its segment. */
    assert_int_equal(mr_uri_decode("a%41", 3, false, dst), -EINVAL);
}

static void test_only_paths_are_targets(void **state)
{
    (void)state;
    static const char *const bad[] = {"",     "*",     "http://a/b", "a:1",
                                      "/a b", "/a\tb", "/a#b",       "/\xc3\xa9"};
    assert_true(mr_uri_origin_form("/"));
    assert_true(mr_uri_origin_form("/v1/volumes?limit=1&x=%20"));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(mr_uri_origin_form(bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escapes_are_decoded_once),
        cmocka_unit_test(test_plus_is_a_blank_in_queries_only),
        cmocka_unit_test(test_bad_escapes_and_nul_are_refused),
        cmocka_unit_test(test_only_paths_are_targets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
