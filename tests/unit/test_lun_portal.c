/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <string.h>

#include "storage/lun/portal.h"

static void check(const char *text, const char *host, unsigned port)
{
    struct mr_portal portal;

    assert_int_equal(mr_portal_parse(text, &portal), 0);
    assert_string_equal(portal.host, host);
    assert_int_equal(portal.port, port);
}

static void test_portals_are_split(void **state)
{
    (void)state;
    check("127.0.0.1:3261", "127.0.0.1", 3261);
    check("127.0.0.1", "127.0.0.1", 3260);
    check("[::1]:65535", "::1", 65535);
    check("[fe80::1%eth0]", "fe80::1%eth0", 3260);
    check("storage.example:1", "storage.example", 1);
}

static void test_malformed_portals_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        ":3260",
        "h:",
        "h:0",
        "h:65536",
        "h:99999999999",
        "h:-1",
        "h:+1",
        "h:0x10",
        "h:1 ",
        "h: 1",
        "::1",
        "[::1",
        "[]",
        "[]:1",
        "[::1]x",
        "[::1]3260",
        "[::1]:",
        "h,1:3260",
        "h:3260,1",
        "a b:1",
        "a/b",
        "h]:1",
        "[[::1]]:1",
        "127.0.0.1:3260:1",
    };
    struct mr_portal portal;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (mr_portal_parse(bad[i], &portal) != -EINVAL)
            fail_msg("'%s' was accepted", bad[i]);
    }
}

static void test_a_host_longer_than_the_buffer_is_refused(void **state)
{
    (void)state;
    char text[MR_PORTAL_HOST + 8];
    struct mr_portal portal;

    memset(text, 'a', sizeof(text));
    text[MR_PORTAL_HOST] = '\0';
    assert_int_equal(mr_portal_parse(text, &portal), -EINVAL);
    text[MR_PORTAL_HOST - 1] = '\0';
    assert_int_equal(mr_portal_parse(text, &portal), 0);
    assert_int_equal(strlen(portal.host), MR_PORTAL_HOST - 1);
}

static void test_resolving_gives_numeric_text(void **state)
{
    (void)state;
    char text[MR_PORTAL_TEXT];
    struct mr_err err;

    assert_int_equal(mr_portal_resolve("127.0.0.1", text, &err), 0);
    assert_string_equal(text, "127.0.0.1:3260");
    assert_int_equal(mr_portal_resolve("[::1]:7", text, &err), 0);
    assert_string_equal(text, "[::1]:7");
    assert_int_equal(mr_portal_resolve("nowhere:0", text, &err), -EINVAL);
    assert_int_equal(err.code, MR_E_INVALID_SPEC);
}

static void test_names_are_told_from_addresses(void **state)
{
    (void)state;
    assert_true(mr_portal_is_name("target.example.test"));
    assert_true(mr_portal_is_name("target:3260"));
    assert_true(mr_portal_is_name("10.0.0.1.example.test:3260"));
    assert_false(mr_portal_is_name("10.0.0.1"));
    assert_false(mr_portal_is_name("10.0.0.1:3260"));
    assert_false(mr_portal_is_name("[::1]:3260"));
    assert_false(mr_portal_is_name("[fe80::1%eth0]"));
    assert_false(mr_portal_is_name("not a portal:0"));
}

static void test_a_list_has_what_can_be_resolved(void **state)
{
    (void)state;
    const char *const texts[] = {"nowhere:0", "127.0.0.1", "127.0.0.2:2", "127.0.0.3:3"};
    char found[4][MR_PORTAL_TEXT];
    struct mr_err err;
    bool all;

    assert_int_equal(mr_portal_resolve_list(texts, 3, found, 4, &all, &err), 2);
    assert_false(all);
    assert_string_equal(found[1], "127.0.0.2:2");
    assert_int_equal(mr_portal_resolve_list(texts + 1, 3, found, 2, &all, &err), 2);
    assert_true(all);
    assert_int_equal(mr_portal_resolve_list(texts, 1, found, 4, &all, &err), -EINVAL);
    assert_int_equal(err.code, MR_E_INVALID_SPEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_portals_are_split),
        cmocka_unit_test(test_malformed_portals_are_refused),
        cmocka_unit_test(test_a_host_longer_than_the_buffer_is_refused),
        cmocka_unit_test(test_resolving_gives_numeric_text),
        cmocka_unit_test(test_names_are_told_from_addresses),
        cmocka_unit_test(test_a_list_has_what_can_be_resolved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
