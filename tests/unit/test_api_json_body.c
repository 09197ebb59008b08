/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "api/internal.h"
#include "storage/base/json.h"

static void refused(const char *body, size_t bytes, enum mr_code code)
{
    struct mr_err err;
    assert_null(mr_json_body(body, bytes, &err));
    assert_int_equal(err.code, code);
}

static void test_objects_are_taken(void **state)
{
    (void)state;
    static const char body[] =
        " {\"a\": [1, {\"b\": \"\\\\u0000 \\u00e9\"}], \"a\": 2}\r\n\t ";
    struct mr_err err;
    MR_AUTO_JSON struct json_object *json = mr_json_body(body, strlen(body), &err);
    assert_non_null(json);
    assert_int_equal(mr_json_get_int(json, "a", 0), 2);
}

static void test_malformed_bodies_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "{\"a\"",
        "{\"a\":1",
        "{} x",
        "{}{}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1,}",
        "[1,]",
        "nul",
        "{\"a\":01}",
        "{\"a\":NaN}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\xc3\"}",
        "/*c*/{}",
        "{\"a\\u0000b\":1}",
        "{\"a\":\"\\u0000\"}",
        "{\"a\":\"\\\\\\u0000\"}",
        "12",
        "\"a",
        "{\"a\":tRUE}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        refused(bad[i], strlen(bad[i]), MR_E_INVALID_REQUEST);
    refused("{}\0{}", 5, MR_E_INVALID_REQUEST);
    refused("{\"a\":\"\0\"}", 9, MR_E_INVALID_REQUEST);
}

static void test_depth_is_bounded(void **state)
{
    (void)state;
    char deep[4096];
    memset(deep, '[', 2048);
    memset(deep + 2048, ']', 2048);
    refused(deep, sizeof(deep), MR_E_INVALID_REQUEST);
}

static void test_other_types_are_no_spec(void **state)
{
    (void)state;
    static const char *const other[] = {"[]", "\"a\"", "[{}]"};
    for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++)
        refused(other[i], strlen(other[i]), MR_E_INVALID_SPEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects_are_taken),
        cmocka_unit_test(test_malformed_bodies_are_refused),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_other_types_are_no_spec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
