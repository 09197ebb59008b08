/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/json.h"
#include "storage/lun/start.h"

#define GOOD                                                                             \
    "{\"token\":\"00112233445566778899aabbccddeeff\",\"runtime_dir\":\"/run/mooring\","  \
    "\"portals\":[\"127.0.0.1:3260\",\"[::1]\"],\"target\":\"iqn.2026-11.example:a\","   \
    "\"lun\":1,\"initiator_name\":\"iqn.2026-11.example:n\",\"timeout_ms\":10000,"       \
    "\"read_only\":true,\"chap\":{\"username\":\"u\",\"password\":\"topsecret\"}}"

static void test_a_full_message_is_decoded(void **state)
{
    (void)state;
    MR_AUTO_JSON struct json_object *json = json_tokener_parse(GOOD);
    struct mr_lun_start start;
    struct mr_err err;

    assert_int_equal(mr_lun_start_decode(json, &start, &err), 0);
    assert_int_equal(start.portal_count, 2);
    assert_string_equal(start.portals[1], "[::1]");
    assert_int_equal(start.lun, 1);
    assert_true(start.chap);
    assert_string_equal(start.password, "topsecret");
    assert_true(start.read_only);
}

/* Replaces one member by a JSON text (NULL: removes it) and expects a refusal. */
static void refuse(const char *key, const char *value)
{
    MR_AUTO_JSON struct json_object *json = json_tokener_parse(GOOD);
    struct mr_lun_start start;
    struct mr_err err = {0};

    if (value)
        json_object_object_add(json, key, json_tokener_parse(value));
    else
        json_object_object_del(json, key);
    if (mr_lun_start_decode(json, &start, &err) != -EINVAL)
        fail_msg("%s = %s was accepted", key, value ? value : "nothing");
    assert_int_equal(err.code, MR_E_INVALID_REQUEST);
    assert_null(strstr(err.message, "topsecret"));
}

static void test_bad_members_are_refused(void **state)
{
    (void)state;
    static const char *const required[] = {"token",     "runtime_dir", "portals",
                                           "target",    "lun",         "initiator_name",
                                           "timeout_ms"};

    for (size_t i = 0; i < sizeof(required) / sizeof(required[0]); i++) {
        refuse(required[i], NULL);
        refuse(required[i], "{}");
        refuse(required[i], "\"\"");
    }
    refuse("token", "\"../../../../etc/passwd-0000000000\"");
    refuse("token", "\"00112233445566778899AABBCCDDEEFF\"");
    refuse("token", "\"0011\"");
    refuse("portals", "[]");
    refuse("portals", "[1]");
    refuse("portals", "[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\"]");
    refuse("lun", "-1");
    refuse("lun", "65536");
    refuse("timeout_ms", "0");
    refuse("timeout_ms", "9223372036854775807");
    refuse("chap", "{\"username\":\"u\"}");
    refuse("chap", "{\"password\":\"topsecret\"}");
    refuse("chap", "\"topsecret\"");
}

static void test_a_message_that_is_no_object_is_refused(void **state)
{
    (void)state;
    MR_AUTO_JSON struct json_object *json = json_tokener_parse("[1]");
    struct mr_lun_start start;
    struct mr_err err;

    assert_int_equal(mr_lun_start_decode(json, &start, &err), -EINVAL);
    assert_int_equal(mr_lun_start_decode(NULL, &start, &err), -EINVAL);
}

static void test_the_isid_follows_from_hex_digits(void **state)
{
    (void)state;
    uint32_t random;
    uint32_t qualifier;

    mr_lun_isid("00112233445566778899aabbccddeeff", &random, &qualifier);
    assert_int_equal(random, 0x001122);
    assert_int_equal(qualifier, 0x3344);
    mr_lun_isid("ffffffffffffffffffffffffffffffff", &random, &qualifier);
    assert_int_equal(random, 0xffffff);
    assert_int_equal(qualifier, 0xffff);
}

/* GOOD with the members of a JSON object. */
static int decode_with(const char *more, struct mr_lun_start *ret)
{
    MR_AUTO_JSON struct json_object *json = json_tokener_parse(GOOD);
    MR_AUTO_JSON struct json_object *members = parse_json(more);
    struct mr_err err;

    json_object_object_foreach(members, key, value)
    {
        json_object_object_add(json, key, json_object_get(value));
    }
    return mr_lun_start_decode(json, ret, &err);
}

static void test_what_is_left_out_has_a_default(void **state)
{
    struct mr_lun_start start;

    (void)state;
    assert_int_equal(decode_with("{}", &start), 0);
    assert_int_equal(start.replacement_ms, 120000);
    assert_false(start.mutual || start.header_digest || start.reserve);
    assert_true(start.preempt == 0);
    assert_memory_equal(start.isid, start.token, MR_ISID_DIGITS);
    assert_string_equal(start.cgroup, "");
    assert_int_equal(decode_with("{'isid': '0123456789'}", &start), 0);
    assert_string_equal(start.isid, "0123456789");
}

static void test_options_are_decoded(void **state)
{
    struct mr_lun_start start;

    (void)state;
    assert_int_equal(
        decode_with("{'header_digest': 'crc32c', 'replacement_ms': -1,"
                    " 'fencing': 'reserve', 'preempt': '0xAb', 'cgroup': '/c',"
                    " 'chap': {'username': 'u', 'password': 'p',"
                    "          'mutual': {'username': 'v', 'password': 'q'}}}",
                    &start),
        0);
    assert_true(start.chap && start.mutual && start.header_digest && start.reserve);
    assert_string_equal(start.mutual_username, "v");
    assert_string_equal(start.mutual_password, "q");
    assert_int_equal(start.replacement_ms, -1);
    assert_true(start.preempt == 0xab);
    assert_string_equal(start.cgroup, "/c");
}

/* It holds the path of a unit's group. */
static void test_a_long_reason_is_no_missing_one(void **state)
{
    struct mr_lun_start start;
    char option[600];
    char reason[500];

    (void)state;
    memset(reason, 'r', sizeof(reason) - 1);
    reason[sizeof(reason) - 1] = '\0';
    (void)snprintf(option, sizeof(option), "{'cgroup_problem': '%s'}", reason);
    assert_int_equal(decode_with(option, &start), 0);
    assert_string_equal(start.cgroup_problem, reason);
}

static void test_bad_options_are_refused(void **state)
{
    static const char *const bad[] = {
        "{'isid': '012345678'}",
        "{'isid': '01234567890'}",
        "{'isid': '012345678g'}",
        "{'header_digest': 'md5'}",
        "{'header_digest': true}",
        "{'replacement_ms': -2}",
        "{'replacement_ms': 86400001}",
        "{'fencing': 'on'}",
        "{'preempt': '0x1'}",
        "{'fencing': 'reserve', 'preempt': '1'}",
        "{'fencing': 'reserve', 'preempt': '0x'}",
        "{'fencing': 'reserve', 'preempt': '0x0'}",
        "{'fencing': 'reserve', 'preempt': '0x11112222333344445'}",
        "{'fencing': 'reserve', 'preempt': '0x1 '}",
        "{'fencing': 'reserve', 'preempt': 1}",
        "{'chap': {'username': 'u', 'password': 'p', 'mutual': {'username': 'v'}}}",
        "{'chap': {'username': 'u', 'password': 'p', 'mutual': 1}}",
    };
    struct mr_lun_start start;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (decode_with(bad[i], &start) != -EINVAL)
            fail_msg("%s was accepted", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_full_message_is_decoded),
        cmocka_unit_test(test_bad_members_are_refused),
        cmocka_unit_test(test_a_message_that_is_no_object_is_refused),
        cmocka_unit_test(test_the_isid_follows_from_hex_digits),
        cmocka_unit_test(test_what_is_left_out_has_a_default),
        cmocka_unit_test(test_options_are_decoded),
        cmocka_unit_test(test_a_long_reason_is_no_missing_one),
        cmocka_unit_test(test_bad_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
