/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test_spec_env.h"

#include <errno.h>

#include "storage/identity.h"

static void test_defaults_are_filled_in(void **state)
{
    (void)state;
    struct mr_spec *spec = decode_ok(MINIMAL);
    assert_string_equal(spec->driver, "file");
    assert_string_equal(mr_json_get_string(spec->source, "path"), "/srv/a.img");
    assert_string_equal(spec->fs_type, "ext4");
    assert_false(spec->format_if_blank);
    assert_int_equal(json_object_array_length(spec->options), 0);
    assert_string_equal(spec->mount_path, ROOT "/vol1");
    assert_false(spec->read_only);
    mr_spec_free(spec);
}

static void test_the_full_form_is_read(void **state)
{
    (void)state;
    struct mr_spec *spec = decode_ok(ISCSI);
    struct json_object *portals = mr_json_get(spec->source, "portals");
    static const char *const normal[] = {"127.0.0.1:3260", "[::1]:3260",
                                         "san.example:3260"};
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(json_object_get_string(json_object_array_get_idx(portals, i)),
                            normal[i]);
    assert_string_equal(spec->driver, "iscsi");
    assert_string_equal(mr_json_get_string(spec->source, "target"),
                        "iqn.2026-11.example:Disk1");
    assert_int_equal(mr_json_get_int(spec->source, "lun", -1), 1);
    struct json_object *chap = mr_json_get(spec->source, "chap");
    assert_string_equal(mr_json_get_string(chap, "username"), "u");
    assert_string_equal(mr_json_get_string(chap, "password"), PASSWORD);
    struct json_object *mutual = mr_json_get(chap, "mutual");
    assert_string_equal(mr_json_get_string(mutual, "username"), "t");
    assert_string_equal(mr_json_get_string(mutual, "password"), THEIR_PASSWORD);
    assert_string_equal(mr_json_get_string(spec->source, "header_digest"), "crc32c");
    assert_int_equal(mr_json_get_int(spec->source, "replacement_timeout_s", 0), -1);
    assert_string_equal(mr_json_get_string(spec->source, "fencing"), "reserve");
    assert_string_equal(mr_json_get_string(spec->source, "preempt"), "0x1F");
    assert_true(spec->format_if_blank);
    assert_int_equal(json_object_array_length(spec->options), 1);
    assert_string_equal(spec->mount_path, "/srv/pg data");
    mr_spec_free(spec);
}

#define LUN_OF_OLD                                                                       \
    "{'source': {'driver': 'iscsi', 'portals': ['10.0.0.1:3260'], 'target':"             \
    " 'iqn.2026-11.example:a', 'lun': 1}, 'filesystem': {'type': 'xfs', 'format':"       \
    " 'never', 'options': []}, 'mount_path': '" ROOT "/vol1', 'read_only': false}"

static void test_defaults_of_a_lun_are_filled_in(void **state)
{
    (void)state;
    struct mr_spec *spec = decode_ok(LUN_OF_OLD);
    assert_null(mr_json_get(spec->source, "chap"));
    assert_string_equal(mr_json_get_string(spec->source, "header_digest"), "none");
    assert_int_equal(mr_json_get_int(spec->source, "replacement_timeout_s", 0), 120);
    assert_string_equal(mr_json_get_string(spec->source, "fencing"), "off");
    assert_null(mr_json_get(spec->source, "preempt"));
    mr_spec_free(spec);
}

static void test_a_row_of_an_older_version_is_the_same_spec(void **state)
{
    (void)state;
    MR_AUTO_JSON struct json_object *row = parse_json(LUN_OF_OLD);
    struct mr_spec *old = NULL;
    struct mr_spec *now = decode_ok(LUN_OF_OLD);
    assert_int_equal(mr_spec_decode_public(row, &old, NULL), 0);
    assert_true(mr_spec_equal(old, now));
    mr_spec_free(now);
    now = decode_ok("{'source': {'driver': 'iscsi', 'portals': ['10.0.0.1'], 'target':"
                    " 'iqn.2026-11.example:a', 'lun': 1, 'fencing': 'off',"
                    " 'header_digest': 'none', 'replacement_timeout_s': 120},"
                    " 'filesystem': {'type': 'xfs'}}");
    assert_true(mr_spec_equal(old, now));
    mr_spec_free(old);
    mr_spec_free(now);
}

static void test_the_normalised_form_decodes_to_itself(void **state)
{
    (void)state;
    static const char *const texts[] = {MINIMAL, ISCSI};
    for (size_t i = 0; i < 2; i++) {
        struct mr_spec *spec = decode_ok(texts[i]);
        struct mr_spec *again = NULL;
        assert_int_equal(mr_spec_decode(spec->full, NULL, NULL, &again, NULL), 0);
        assert_true(json_object_equal(spec->full, again->full));
        assert_true(mr_spec_equal(spec, again));
        mr_spec_free(spec);
        mr_spec_free(again);
    }
}

static void test_the_public_form_has_no_secret_and_decodes_back(void **state)
{
    (void)state;
    struct mr_spec *spec = decode_ok(ISCSI);
    struct mr_spec *again = NULL;
    struct mr_err err;
    MR_AUTO_JSON struct json_object *public = mr_spec_public(spec);
    assert_null(strstr(json_object_to_json_string(public), PASSWORD));
    assert_null(strstr(json_object_to_json_string(public), THEIR_PASSWORD));
    assert_null(mr_json_get(mr_json_get(public, "source"), "preempt"));
    assert_non_null(mr_json_get(mr_json_get(public, "source"), "fencing"));
    assert_non_null(strstr(json_object_to_json_string(public), "username"));
    assert_string_equal(mr_json_get_string(mr_json_get(spec->source, "chap"), "password"),
                        PASSWORD);

    assert_int_equal(mr_spec_decode(public, "vol1", ROOT, &again, &err), -EINVAL);
    assert_string_equal(err.pointer, "/source/chap/password");
    assert_int_equal(mr_spec_decode_public(public, &again, &err), 0);
    assert_true(mr_spec_equal(spec, again));
    MR_AUTO_JSON struct json_object *public_again = mr_spec_public(again);
    assert_true(json_object_equal(public, public_again));
    mr_spec_free(spec);
    mr_spec_free(again);
}

static void test_the_public_decoder_tolerates_only_missing_secrets(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{'source': {'driver': 'iscsi', 'portals': ['a'], 'target': 'iqn.2026-11.a', "
        "'lun': 0,"
        " 'chap': {}}, 'filesystem': {'type': 'xfs'}, 'mount_path': '/a'}",
        "{'source': {'driver': 'iscsi', 'portals': ['a'], 'target': 'iqn.2026-11.a', "
        "'lun': 0,"
        " 'chap': {'username': 'u', 'password': 1}}, 'filesystem': {'type': 'xfs'},"
        " 'mount_path': '/a'}",
        MINIMAL, /* no mount_path */
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        MR_AUTO_JSON struct json_object *json = parse_json(bad[i]);
        struct mr_spec *spec = NULL;
        assert_int_equal(mr_spec_decode_public(json, &spec, NULL), -EINVAL);
    }
}

static bool same(const char *a, const char *b)
{
    struct mr_spec *x = decode_ok(a);
    struct mr_spec *y = decode_ok(b);
    bool equal = mr_spec_equal(x, y);
    assert_int_equal(equal, mr_spec_equal(y, x));
    mr_spec_free(x);
    mr_spec_free(y);
    return equal;
}

#define CHAP(user, password)                                                             \
    "{'filesystem': {'type': 'xfs'}, 'source': {'lun': 1, 'driver': 'iscsi',"            \
    " 'target': 'iqn.2026-11.example:a', 'portals': ['10.0.0.1'],"                       \
    " 'chap': {'username': '" user "', 'password': '" password "'}}}"

static void test_same_spec_ignores_secrets_key_order_and_defaults(void **state)
{
    (void)state;
    assert_true(same(CHAP("u", "one"), CHAP("u", "two")));
    assert_true(same(MINIMAL,
                     "{'read_only': false, 'mount_path': '" ROOT "/vol1',"
                     " 'filesystem': {'options': [], 'format': 'never', 'type': 'ext4'},"
                     " 'source': {'path': '/srv/a.img', 'driver': 'file'}}"));
    assert_true(same(CHAP("u", "p"),
                     "{'source': {'driver': 'iscsi', 'portals':"
                     " ['10.0.0.1:3260'], 'target': 'iqn.2026-11.example:a',"
                     " 'lun': 1, 'chap': {'password': 'x', 'username': 'u'}},"
                     " 'filesystem': {'type': 'xfs'}}"));
}

#define LUN_WITH(more)                                                                   \
    "{'filesystem': {'type': 'xfs'}, 'source': {'lun': 1, 'driver': 'iscsi',"            \
    " 'target': 'iqn.2026-11.example:a', 'portals': ['10.0.0.1'], " more "}}"
#define MUTUAL(user, password)                                                           \
    LUN_WITH("'chap': {'username': 'u', 'password': 'p', 'mutual': {'username': '" user  \
             "', 'password': '" password "'}}")
#define RESERVE "'fencing': 'reserve'"

static void test_same_spec_ignores_what_is_asked_for_once(void **state)
{
    (void)state;
    assert_true(same(LUN_WITH(RESERVE), LUN_WITH(RESERVE ", 'preempt': '0x1'")));
    assert_true(same(LUN_WITH(RESERVE ", 'preempt': '0x2'"),
                     LUN_WITH(RESERVE ", 'preempt': '0x1'")));
    assert_true(same(MUTUAL("t", "one"), MUTUAL("t", "two")));
}

static void test_same_spec_sees_how_a_lun_is_reached(void **state)
{
    (void)state;
    static const char *const different[] = {
        LUN_WITH("'lun': 1"),
        LUN_WITH(RESERVE),
        LUN_WITH("'header_digest': 'crc32c'"),
        LUN_WITH("'replacement_timeout_s': 0"),
        LUN_WITH("'replacement_timeout_s': -1"),
        CHAP("u", "p"),
        MUTUAL("t", "s"),
        MUTUAL("other", "s"),
    };
    size_t count = sizeof(different) / sizeof(different[0]);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++)
            assert_false(same(different[i], different[j]));
}

static void test_same_spec_sees_every_other_difference(void **state)
{
    (void)state;
    assert_false(same(CHAP("u", "p"), CHAP("v", "p")));
    assert_false(same(CHAP("u", "p"),
                      "{'source': {'driver': 'iscsi', 'portals': ['10.0.0.1'],"
                      " 'target': 'iqn.2026-11.example:a', 'lun': 1},"
                      " 'filesystem': {'type': 'xfs'}}"));
    assert_false(same(MINIMAL, CHAP("u", "p")));
    assert_false(
        same(MINIMAL, "{'source': " FILE_SOURCE ", 'filesystem': {'type': 'xfs'}}"));
    assert_false(same(MINIMAL,
                      "{'source': " FILE_SOURCE ", 'filesystem': {'type': 'ext4',"
                      " 'options': ['noatime']}}"));
    assert_false(same(MINIMAL,
                      "{'source': " FILE_SOURCE ", 'filesystem': {'type': 'ext4'},"
                      " 'read_only': true}"));
    assert_false(same(MINIMAL,
                      "{'source': " FILE_SOURCE ", 'filesystem': {'type': 'ext4'},"
                      " 'mount_path': '/mnt'}"));
}

static void test_source_keys_name_the_source_not_its_spelling(void **state)
{
    (void)state;
    char key[MR_KEY_TEXT];
    struct mr_spec *spec = decode_ok(MINIMAL);
    assert_int_equal(mr_spec_source_key(spec, key, sizeof(key)), 0);
    assert_string_equal(key, "path:/srv/a.img");
    assert_int_equal(mr_spec_source_key(spec, key, 5), -ENAMETOOLONG);
    mr_spec_free(spec);
    spec = decode_ok(ISCSI);
    assert_int_equal(mr_spec_source_key(spec, key, sizeof(key)), 0);
    assert_string_equal(key, "iscsi:iqn.2026-11.example:disk1:1");
    mr_spec_free(spec);
}

static void test_volume_ids(void **state)
{
    (void)state;
    char longest[130];
    memset(longest, 'a', 129);
    longest[129] = '\0';
    assert_false(mr_volume_id_valid(longest));
    longest[128] = '\0';
    assert_true(mr_volume_id_valid(longest));
    static const char *const good[] = {"a", "0", "pgdata-1", "A.b_c-D", "a.."};
    static const char *const bad[] = {"",    ".",   "..",  "-a",       "_a",
                                      "a b", "a/b", "a\n", "\xc3\xa9", "a~"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(mr_volume_id_valid(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(mr_volume_id_valid(bad[i]));
    assert_false(mr_volume_id_valid(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_filled_in),
        cmocka_unit_test(test_the_full_form_is_read),
        cmocka_unit_test(test_defaults_of_a_lun_are_filled_in),
        cmocka_unit_test(test_a_row_of_an_older_version_is_the_same_spec),
        cmocka_unit_test(test_the_normalised_form_decodes_to_itself),
        cmocka_unit_test(test_the_public_form_has_no_secret_and_decodes_back),
        cmocka_unit_test(test_the_public_decoder_tolerates_only_missing_secrets),
        cmocka_unit_test(test_same_spec_ignores_secrets_key_order_and_defaults),
        cmocka_unit_test(test_same_spec_ignores_what_is_asked_for_once),
        cmocka_unit_test(test_same_spec_sees_how_a_lun_is_reached),
        cmocka_unit_test(test_same_spec_sees_every_other_difference),
        cmocka_unit_test(test_source_keys_name_the_source_not_its_spelling),
        cmocka_unit_test(test_volume_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
