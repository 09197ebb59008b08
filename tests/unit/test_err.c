/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>

#include "storage/base/err.h"
#include "storage/base/json.h"

static void test_slugs_are_unique_and_found_again(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MR_CODE_COUNT; i++) {
        const char *slug = mr_code_slug((enum mr_code)i);
        assert_int_equal(mr_code_from_slug(slug), i);
        assert_int_equal(strspn(slug, "abcdefghijklmnopqrstuvwxyz-"), strlen(slug));
        assert_true(mr_code_title((enum mr_code)i)[0]);
    }
    assert_string_equal(mr_code_slug(MR_E_SOURCE_IN_USE), "source-in-use");
}

static void test_unknown_codes_are_internal(void **state)
{
    (void)state;
    assert_int_equal(mr_code_from_slug("no-such-code"), MR_E_INTERNAL);
    assert_int_equal(mr_code_from_slug(NULL), MR_E_INTERNAL);
    assert_string_equal(mr_code_slug(MR_CODE_COUNT), "internal");
    assert_string_equal(mr_code_title((enum mr_code) - 1), mr_code_title(MR_E_INTERNAL));
    assert_string_equal(mr_residue_name((enum mr_residue)9), "unknown");
}

static void test_fail_fills_from_scratch_and_keeps_errno(void **state)
{
    (void)state;
    struct mr_err err;
    memset(&err, 0xff, sizeof(err));
    errno = ENOTTY;
    assert_int_equal(mr_fail(&err, MR_E_DEVICE_ERROR, ENOENT, "open '%s'", "/x"),
                     -ENOENT);
    assert_int_equal(errno, ENOTTY);
    assert_int_equal(err.code, MR_E_DEVICE_ERROR);
    assert_int_equal(err.errnum, ENOENT);
    assert_int_equal(err.residue, MR_RESIDUE_UNKNOWN);
    assert_string_equal(err.message, "open '/x': No such file or directory");
    assert_string_equal(err.remedy, "");
    assert_string_equal(err.pointer, "");
    assert_string_equal(err.volume, "");
    assert_string_equal(err.step, "");
}

static void test_fail_without_errno_or_object(void **state)
{
    (void)state;
    struct mr_err err;
    assert_int_equal(mr_fail(&err, MR_E_WEDGED, 0, "stuck"), -EIO);
    assert_string_equal(err.message, "stuck");
    assert_int_equal(mr_fail(NULL, MR_E_WEDGED, EBUSY, "stuck"), -EBUSY);
    assert_int_equal(mr_fail_at(NULL, MR_E_INVALID_SPEC, "/a", "bad"), -EINVAL);
    assert_int_equal(mr_err_context(NULL, -5, "x"), -5);
    assert_int_equal(mr_err_remedy(NULL, -5, "x"), -5);
}

static void test_context_and_remedy_keep_the_code(void **state)
{
    (void)state;
    struct mr_err err;
    int r = mr_fail_at(&err, MR_E_INVALID_SPEC, "/source/lun", "too large");
    assert_int_equal(r, -EINVAL);
    assert_int_equal(mr_err_context(&err, r, "volume '%s'", "a"), -EINVAL);
    assert_int_equal(mr_err_remedy(&err, r, "use %d", 1), -EINVAL);
    assert_int_equal(err.code, MR_E_INVALID_SPEC);
    assert_string_equal(err.message, "volume 'a': too large");
    assert_string_equal(err.remedy, "use 1");
    assert_string_equal(err.pointer, "/source/lun");
}

static void test_long_texts_are_cut(void **state)
{
    (void)state;
    struct mr_err err;
    char text[2000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    (void)mr_fail(&err, MR_E_INTERNAL, EIO, "%s", text);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
    (void)mr_err_context(&err, 0, "%s", text);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
    (void)mr_err_remedy(&err, 0, "%s", text);
    assert_int_equal(strlen(err.remedy), sizeof(err.remedy) - 1);
    (void)mr_fail_at(&err, MR_E_INTERNAL, text, "%s", text);
    assert_int_equal(strlen(err.pointer), sizeof(err.pointer) - 1);
}

static void test_an_error_survives_json(void **state)
{
    (void)state;
    struct mr_err err;
    struct mr_err back;
    (void)mr_fail(&err, MR_E_SOURCE_IN_USE, EBUSY, "in use");
    (void)mr_err_remedy(&err, 0, "detach '%s' first", "b");
    err.residue = MR_RESIDUE_NONE;
    strcpy(err.step, "map");
    strcpy(err.volume, "b");
    strcpy(err.pointer, "/source");
    MR_AUTO_JSON struct json_object *json = mr_err_to_json(&err);
    mr_err_from_json(&back, json);
    assert_memory_equal(&back, &err, sizeof(err));
}

static void test_a_hostile_error_document_gives_zero_values(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "null",
        "[]",
        "{}",
        "{'code': 7, 'errno': 'x', 'message': ['a'], 'residue': 3, 'step': 'a step name "
        "that is"
        " far too long', 'volume': {}}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        static const struct mr_err zero;
        struct mr_err err;
        MR_AUTO_JSON struct json_object *json = parse_json(bad[i]);
        memset(&err, 0xff, sizeof(err));
        mr_err_from_json(&err, json);
        assert_memory_equal(&err, &zero, sizeof(zero));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slugs_are_unique_and_found_again),
        cmocka_unit_test(test_unknown_codes_are_internal),
        cmocka_unit_test(test_fail_fills_from_scratch_and_keeps_errno),
        cmocka_unit_test(test_fail_without_errno_or_object),
        cmocka_unit_test(test_context_and_remedy_keep_the_code),
        cmocka_unit_test(test_long_texts_are_cut),
        cmocka_unit_test(test_an_error_survives_json),
        cmocka_unit_test(test_a_hostile_error_document_gives_zero_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
