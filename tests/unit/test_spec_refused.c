/* SPDX-License-Identifier: Apache-2.0
 *
 * What the spec codec refuses, and how it says so.
 */
#include "tests/unit/test_spec_env.h"

#include <errno.h>

#define SOURCE(text) "{'source': " text ", 'filesystem': {'type': 'xfs'}}"
#define FS(text) "{'source': " FILE_SOURCE ", 'filesystem': " text "}"
#define PLUS(text) "{'source': " FILE_SOURCE ", 'filesystem': {'type': 'xfs'}, " text "}"
#define FILE_PATH(text) SOURCE("{'driver': 'file', 'path': " text "}")
#define PORTALS(text)                                                                    \
    SOURCE("{'driver': 'iscsi', 'target': 'iqn.2026-11.a', 'lun': 0, 'portals': " text   \
           "}")
#define TARGET(text)                                                                     \
    SOURCE("{'driver': 'iscsi', 'portals': ['a'], 'lun': 0, 'target': " text "}")
#define LUN(text)                                                                        \
    SOURCE(                                                                              \
        "{'driver': 'iscsi', 'portals': ['a'], 'target': 'iqn.2026-11.a', 'lun': " text  \
        "}")
#define CHAP_IS(text)                                                                    \
    SOURCE("{'driver': 'iscsi', 'portals': ['a'], 'target': 'iqn.2026-11.a', 'lun': 0,"  \
           " 'chap': " text "}")
#define MUTUAL_IS(text)                                                                  \
    CHAP_IS("{'username': 'u', 'password': '" PASSWORD "', 'mutual': " text "}")
#define LUN_WITH(text) LUN("1, " text)

static void decode_refused(const char *text, enum mr_code code, const char *pointer,
                           struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *json = parse_json(text);
    struct mr_spec *spec = NULL;
    if (mr_spec_decode(json, "vol1", ROOT, &spec, err) != -EINVAL)
        fail_msg("accepted: %s", text);
    assert_null(spec);
    if (err->code != code || (pointer && strcmp(err->pointer, pointer) != 0))
        fail_msg("%s: got %s at '%s': %s", text, mr_code_slug(err->code), err->pointer,
                 err->message);
    assert_true(err->message[0]);
}

static void test_bad_fields_are_refused_with_a_pointer(void **state)
{
    (void)state;
    static const struct {
        const char *pointer;
        const char *text;
    } bad[] = {
        {"", "[]"},
        {"", "null"},
        {"", "'text'"},
        {"/source", "{'filesystem': {'type': 'xfs'}}"},
        {"/source", "{'source': null, 'filesystem': {'type': 'xfs'}}"},
        {"/source", SOURCE("[]")},
        {"/source/driver", SOURCE("{}")},
        {"/source/driver", SOURCE("{'driver': 'floppy'}")},
        {"/source/driver", SOURCE("{'driver': 1, 'path': '/a'}")},
        {"/source/driver", SOURCE("{'driver': 'file\\u0000', 'path': '/a'}")},
        {"/source/path", SOURCE("{'driver': 'file'}")},
        {"/source/path", FILE_PATH("'a.img'")},
        {"/source/path", FILE_PATH("''")},
        {"/source/path", FILE_PATH("'/'")},
        {"/source/path", FILE_PATH("'/a/../b'")},
        {"/source/path", FILE_PATH("'/..'")},
        {"/source/path", FILE_PATH("'/a/.'")},
        {"/source/path", FILE_PATH("'/a//b'")},
        {"/source/path", FILE_PATH("'/a/'")},
        {"/source/path", FILE_PATH("'/a\\u0000b'")},
        {"/source/path", FILE_PATH("'/a\\nb'")},
        {"/source/path", FILE_PATH("'/a\xff'")},
        {"/source/path", FILE_PATH("'/a\xed\xa0\x80'")}, /* a surrogate */
        {"/source/path", FILE_PATH("['/a']")},
        {"/source/portals",
         SOURCE("{'driver': 'iscsi', 'target': 'iqn.2026-11.a', 'lun': 0}")},
        {"/source/portals", PORTALS("'127.0.0.1'")},
        {"/source/portals", PORTALS("[]")},
        {"/source/portals", PORTALS("['1','2','3','4','5','6','7','8','9']")},
        {"/source/portals/0", PORTALS("[null]")},
        {"/source/portals/0", PORTALS("['']")},
        {"/source/portals/0", PORTALS("[':3260']")},
        {"/source/portals/0", PORTALS("['a:']")},
        {"/source/portals/0", PORTALS("['a:0']")},
        {"/source/portals/0", PORTALS("['a:65536']")},
        {"/source/portals/0", PORTALS("['a:+1']")},
        {"/source/portals/0", PORTALS("['a:1:2']")},
        {"/source/portals/0", PORTALS("['::1']")},
        {"/source/portals/0", PORTALS("['[::1']")},
        {"/source/portals/0", PORTALS("['[]']")},
        {"/source/portals/0", PORTALS("['[zz]']")},
        {"/source/portals/0", PORTALS("['[::1]x']")},
        {"/source/portals/0", PORTALS("['a,1']")},
        {"/source/portals/0", PORTALS("['a/b']")},
        {"/source/portals/0", PORTALS("['-a']")},
        {"/source/portals/0", PORTALS("['u@a']")},
        {"/source/portals/1", PORTALS("['a', 'a:3260']")},
        {"/source/target", TARGET("'iqn'")},
        {"/source/target", TARGET("'iqn.'")},
        {"/source/target", TARGET("'iqn.2026-11.'")},
        {"/source/target", TARGET("'iqn.2026-1.example'")},
        {"/source/target", TARGET("'iqn.2026-11.a b'")},
        {"/source/target", TARGET("'iqn.2026-11.a/b'")},
        {"/source/target", TARGET("'iqn.2026-11.a_b'")},
        {"/source/target", TARGET("'eui.0123'")},
        {"/source/target", TARGET("'naa.012345678901234z'")},
        {"/source/target", TARGET("7")},
        {"/source/lun", LUN("'0'")},
        {"/source/lun", LUN("0.0")},
        {"/source/lun", LUN("-1")},
        {"/source/lun", LUN("65536")},
        {"/source/lun", LUN("99999999999999999999999999")},
        {"/source/lun", LUN("true")},
        {"/source/chap", CHAP_IS("null")},
        {"/source/chap", CHAP_IS("'u:p'")},
        {"/source/chap/username", CHAP_IS("{'password': 'p'}")},
        {"/source/chap/password", CHAP_IS("{'username': 'u'}")},
        {"/source/chap/password", CHAP_IS("{'username': 'u', 'password': ''}")},
        {"/source/chap/password", CHAP_IS("{'username': 'u', 'password': null}")},
        {"/source/chap/username", CHAP_IS("{'username': 'u\\t', 'password': 'p'}")},
        {"/source/chap/mutual", MUTUAL_IS("null")},
        {"/source/chap/mutual/username", MUTUAL_IS("{'password': 'p'}")},
        {"/source/chap/mutual/password", MUTUAL_IS("{'username': 't'}")},
        {"/source/chap/mutual/password",
         MUTUAL_IS("{'username': 't', 'password': '" PASSWORD "'}")},
        {"/source/header_digest", LUN_WITH("'header_digest': 'CRC32C'")},
        {"/source/header_digest", LUN_WITH("'header_digest': null")},
        {"/source/replacement_timeout_s", LUN_WITH("'replacement_timeout_s': -2")},
        {"/source/replacement_timeout_s", LUN_WITH("'replacement_timeout_s': 86401")},
        {"/source/replacement_timeout_s", LUN_WITH("'replacement_timeout_s': 0.5")},
        {"/source/replacement_timeout_s", LUN_WITH("'replacement_timeout_s': '120'")},
        {"/source/fencing", LUN_WITH("'fencing': true")},
        {"/source/fencing", LUN_WITH("'fencing': 'on'")},
        {"/source/preempt", LUN_WITH("'preempt': '0x1'")},
        {"/source/preempt", LUN_WITH("'preempt': '0x1', 'fencing': 'off'")},
        {"/source/preempt", LUN_WITH("'fencing': 'reserve', 'preempt': 1")},
        {"/source/preempt", LUN_WITH("'fencing': 'reserve', 'preempt': '1f'")},
        {"/source/preempt", LUN_WITH("'fencing': 'reserve', 'preempt': '0x'")},
        {"/source/preempt", LUN_WITH("'fencing': 'reserve', 'preempt': '0x000'")},
        {"/source/preempt", LUN_WITH("'fencing': 'reserve', 'preempt': '0xfg'")},
        {"/source/preempt", LUN_WITH("'fencing': 'reserve',"
                                     " 'preempt': '0x12345678901234567'")},
        {"/filesystem", "{'source': " FILE_SOURCE "}"},
        {"/filesystem", FS("'xfs'")},
        {"/filesystem/type", FS("{}")},
        {"/filesystem/type", FS("{'type': null}")},
        {"/filesystem/format", FS("{'type': 'xfs', 'format': true}")},
        {"/filesystem/format", FS("{'type': 'xfs', 'format': 'always'}")},
        {"/filesystem/options", FS("{'type': 'xfs', 'options': 'noatime'}")},
        {"/filesystem/options", FS("{'type': 'xfs', 'options': {}}")},
        {"/filesystem/options/0", FS("{'type': 'xfs', 'options': ['commit=5']}")},
        {"/filesystem/options/0", FS("{'type': 'xfs', 'options': ['logdev=/dev/sda']}")},
        {"/filesystem/options/0", FS("{'type': 'xfs', 'options': ['noatime,suid']}")},
        {"/filesystem/options/1",
         FS("{'type': 'xfs', 'options': ['noatime', 'noatime']}")},
        {"/filesystem/options/2",
         FS("{'type': 'xfs', 'options': ['suid', 'dev', 'nosuid']}")},
        {"/filesystem/format", "{'source': " FILE_SOURCE
                               ", 'filesystem': {'type': 'xfs', 'format': 'if-blank'},"
                               " 'read_only': true}"},
        {"/mount_path", PLUS("'mount_path': 'a'")},
        {"/mount_path", PLUS("'mount_path': '/'")},
        {"/mount_path", PLUS("'mount_path': '/a/'")},
        {"/mount_path", PLUS("'mount_path': null")},
        {"/read_only", PLUS("'read_only': 0")},
        {"/read_only", PLUS("'read_only': 'false'")},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct mr_err err;
        decode_refused(bad[i].text, MR_E_INVALID_SPEC, bad[i].pointer, &err);
    }
}

static void test_a_message_says_what_is_expected(void **state)
{
    (void)state;
    struct mr_err err;
    decode_refused(LUN("'0'"), MR_E_INVALID_SPEC, "/source/lun", &err);
    assert_string_equal(err.message,
                        "/source/lun: expected an integer from 0 to 65535, got string");
    decode_refused(SOURCE("{'driver': 'x'}"), MR_E_INVALID_SPEC, "/source/driver", &err);
    assert_string_equal(err.message, "/source/driver: expected one of: file, iscsi");
}

static void test_an_unsupported_file_system_has_its_own_code(void **state)
{
    (void)state;
    struct mr_err err;
    decode_refused(FS("{'type': 'btrfs'}"), MR_E_FILESYSTEM_UNSUPPORTED,
                   "/filesystem/type", &err);
}

static void test_unknown_fields_are_named_with_a_pointer(void **state)
{
    (void)state;
    static const struct {
        const char *pointer;
        const char *text;
    } bad[] = {
        {"/size", PLUS("'size': 1")},
        {"/a~1b~0c", PLUS("'a/b~c': 1")},
        {"/", PLUS("'': 1")},
        {"/f\xc3\xa9?", PLUS("'f\xc3\xa9\\n': 1")},
        {"/??", PLUS("'\xc3\xff': 1")},
        {"/source/size", SOURCE("{'driver': 'file', 'path': '/a', 'size': 1}")},
        {"/source/lun", SOURCE("{'driver': 'file', 'path': '/a', 'lun': 1}")},
        {"/source/chap/user", CHAP_IS("{'user': 'u', 'password': 'p'}")},
        {"/filesystem/label", FS("{'type': 'xfs', 'label': 'x'}")},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct mr_err err;
        decode_refused(bad[i].text, MR_E_UNKNOWN_FIELD, bad[i].pointer, &err);
        assert_non_null(strstr(err.message, bad[i].pointer));
        assert_non_null(strstr(err.remedy, "known fields here: "));
    }
}

/* Keys come from outside: whatever they are, the pointer is NUL-terminated and not cut
 * inside a character. */
static void test_long_keys_are_cut_between_characters(void **state)
{
    (void)state;
    static const char *const units[] = {"a", "\xc3\xa9", "\xe2\x82\xac",
                                        "\xf0\x9f\x92\xa9", "~"};
    for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++)
        for (size_t shift = 0; shift < 8; shift++) {
            char key[4096] = "";
            memset(key, 'k', shift);
            while (strlen(key) < 1000)
                strcat(key, units[u]);
            MR_AUTO_JSON struct json_object *json = json_object_new_object();
            mr_json_set_int(json, key, 1);
            struct mr_spec *spec = NULL;
            struct mr_err err;
            assert_int_equal(mr_spec_decode(json, "v", ROOT, &spec, &err), -EINVAL);
            assert_int_equal(err.code, MR_E_UNKNOWN_FIELD);
            size_t len = strlen(err.pointer);
            assert_in_range(len, 100, sizeof(err.pointer) - 1);
            assert_string_equal(err.pointer + len - 3, "...");
            const char *unit = units[u][0] == '~' ? "~0" : units[u];
            assert_int_equal((len - 1 - shift - 3) % strlen(unit), 0);
        }
}

static void test_long_values_are_refused(void **state)
{
    (void)state;
    static const char *const where[] = {"path", "target", "username", "password",
                                        "portal"};
    for (size_t i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
        MR_AUTO_JSON struct json_object *json = parse_json(i == 0 ? MINIMAL : ISCSI);
        struct json_object *source = mr_json_get(json, "source");
        char text[5001];
        memset(text, 'a', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        if (i == 0) {
            for (size_t c = 0; c < sizeof(text) - 1; c += 100)
                text[c] = '/';
            mr_json_set_string(source, "path", text);
        } else if (i == 1) {
            memcpy(text, "iqn.2026-11.", 12);
            text[224] = '\0';
            mr_json_set_string(source, "target", text);
        } else if (i < 4) {
            text[256] = '\0';
            mr_json_set_string(mr_json_get(source, "chap"), where[i], text);
        } else {
            text[250] = '\0';
            (void)json_object_array_put_idx(mr_json_get(source, "portals"), 0,
                                            json_object_new_string(text));
        }
        struct mr_spec *spec = NULL;
        struct mr_err err;
        assert_int_equal(mr_spec_decode(json, "v", ROOT, &spec, &err), -EINVAL);
        assert_int_equal(err.code, MR_E_INVALID_SPEC);
        assert_non_null(strstr(err.pointer, where[i]));
    }
}

static void test_no_message_repeats_a_secret(void **state)
{
    (void)state;
    static const char *const bad[] = {
        CHAP_IS("'" PASSWORD "'"),
        CHAP_IS("['" PASSWORD "']"),
        CHAP_IS("{'username': 'u', 'password': ['" PASSWORD "']}"),
        CHAP_IS("{'username': 'u', 'password': {'x': '" PASSWORD "'}}"),
        CHAP_IS("{'username': 'u', 'password': '" PASSWORD "\\u0000'}"),
        CHAP_IS("{'username': 'u', 'password': '" PASSWORD "\\n'}"),
        CHAP_IS("{'username': 'u', 'passwort': '" PASSWORD "'}"),
        CHAP_IS("{'username': 7, 'password': '" PASSWORD "'}"),
        CHAP_IS("{'username': 'u', 'password': '" PASSWORD "', 'x': 1}"),
        MUTUAL_IS("'" PASSWORD "'"),
        MUTUAL_IS("{'username': 't', 'password': '" PASSWORD "'}"),
        MUTUAL_IS("{'username': 't', 'passwort': '" PASSWORD "'}"),
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        MR_AUTO_JSON struct json_object *json = parse_json(bad[i]);
        struct mr_spec *spec = NULL;
        struct mr_err err;
        assert_int_equal(mr_spec_decode(json, "v", ROOT, &spec, &err), -EINVAL);
        assert_null(strstr(err.message, PASSWORD));
        assert_null(strstr(err.pointer, PASSWORD));
        assert_null(strstr(err.remedy, PASSWORD));
    }
}

static void test_valid_portals_and_targets_are_accepted(void **state)
{
    (void)state;
    static const char *const good[] = {
        PORTALS("['a.b-c:1']"),
        PORTALS("['10.0.0.1:65535', '[2001:db8::1]:3260']"),
        TARGET("'iqn.2001-04.com.example'"),
        TARGET("'iqn.2001-04.com.example:storage:diskarrays-sn-a8675309'"),
        TARGET("'eui.02004567A425678D'"),
        TARGET("'naa.52004567BA64678D'"),
        TARGET("'naa.62004567BA64678D0123456789ABCDEF'"),
        LUN("65535"),
        FILE_PATH("'/a/...'"),
        FILE_PATH("'/a/.b/c..'"),
        FILE_PATH("'/bild \xc3\xa9'"),
        MUTUAL_IS("{'username': 't', 'password': '" THEIR_PASSWORD "'}"),
        LUN_WITH("'replacement_timeout_s': 86400, 'header_digest': 'none'"),
        LUN_WITH("'fencing': 'reserve', 'preempt': '0xABCDEF0123456789'"),
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        mr_spec_free(decode_ok(good[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_fields_are_refused_with_a_pointer),
        cmocka_unit_test(test_a_message_says_what_is_expected),
        cmocka_unit_test(test_an_unsupported_file_system_has_its_own_code),
        cmocka_unit_test(test_unknown_fields_are_named_with_a_pointer),
        cmocka_unit_test(test_long_keys_are_cut_between_characters),
        cmocka_unit_test(test_long_values_are_refused),
        cmocka_unit_test(test_no_message_repeats_a_secret),
        cmocka_unit_test(test_valid_portals_and_targets_are_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
