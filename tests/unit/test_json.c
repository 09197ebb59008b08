/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "storage/base/json.h"

static void test_getters_give_the_right_type(void **state)
{
    (void)state;
    MR_AUTO_JSON struct json_object *json =
        parse_json("{'s': 'text', 'i': -5, 'b': true, 'o': {'x': 1}, 'n': null}");
    char text[8];
    assert_string_equal(mr_json_get_string(json, "s"), "text");
    assert_int_equal(mr_json_get_int(json, "i", 0), -5);
    assert_true(mr_json_get_bool(json, "b", false));
    assert_int_equal(mr_json_get_int(mr_json_get(json, "o"), "x", 0), 1);
    assert_null(mr_json_get(json, "n"));
    mr_json_copy_string(json, "s", text, sizeof(text));
    assert_string_equal(text, "text");
}

static void test_getters_refuse_other_types(void **state)
{
    (void)state;
    MR_AUTO_JSON struct json_object *json =
        parse_json("{'s': 'text', 'i': 5, 'd': 5.0, 'b': true, 'z': 'a\\u0000b'}");
    assert_null(mr_json_get_string(json, "i"));
    assert_null(mr_json_get_string(json, "z"));
    assert_null(mr_json_get_string(json, "missing"));
    assert_int_equal(mr_json_get_int(json, "s", 7), 7);
    assert_int_equal(mr_json_get_int(json, "d", 7), 7);
    assert_int_equal(mr_json_get_int(json, "b", 7), 7);
    assert_true(mr_json_get_bool(json, "i", true));
    assert_false(mr_json_get_bool(json, "s", false));
}

static void test_getters_survive_what_is_no_object(void **state)
{
    (void)state;
    static const char *const texts[] = {"null", "[1, 2]", "'text'", "5", "true"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        MR_AUTO_JSON struct json_object *json = parse_json(texts[i]);
        assert_null(mr_json_get(json, "a"));
        assert_null(mr_json_get_string(json, "a"));
        assert_int_equal(mr_json_get_int(json, "a", 7), 7);
        assert_true(mr_json_get_bool(json, "a", true));
    }
}

static void test_copy_is_all_or_nothing(void **state)
{
    (void)state;
    MR_AUTO_JSON struct json_object *json = parse_json("{'s': '1234567'}");
    char fits[8] = "x";
    char small[7] = "x";
    mr_json_copy_string(json, "s", fits, sizeof(fits));
    assert_string_equal(fits, "1234567");
    mr_json_copy_string(json, "s", small, sizeof(small));
    assert_string_equal(small, "");
}

static void test_setters_write_what_getters_read(void **state)
{
    (void)state;
    MR_AUTO_JSON struct json_object *json = json_object_new_object();
    mr_json_set_string(json, "s", "text");
    mr_json_set_string(json, "n", NULL);
    mr_json_set_int(json, "i", INT64_MIN);
    mr_json_set_bool(json, "b", true);
    mr_json_set(json, "o", parse_json("{'x': 1}"));
    assert_string_equal(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN),
                        "{\"s\":\"text\",\"n\":null,\"i\":-9223372036854775808,"
                        "\"b\":true,\"o\":{\"x\":1}}");
    assert_true(mr_json_get_int(json, "i", 0) == INT64_MIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_getters_give_the_right_type),
        cmocka_unit_test(test_getters_refuse_other_types),
        cmocka_unit_test(test_getters_survive_what_is_no_object),
        cmocka_unit_test(test_copy_is_all_or_nothing),
        cmocka_unit_test(test_setters_write_what_getters_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
