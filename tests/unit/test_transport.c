/* SPDX-License-Identifier: Apache-2.0
 *
 * What a mooring-lun says is read as from a stranger: known fields of known form.
 */
#include "tests/unit/unit.h"

#include <errno.h>

#include "storage/base/json.h"
#include "storage/transport.h"

#define SINCE "2026-11-22T10:11:12.345Z"
#define UP                                                                               \
    "{'state': 'up', 'since': '" SINCE "', 'portal': '127.0.0.1:3260',"                  \
    " 'timeout_ms': 10000, 'replacement_ms': -1, 'header_digest': 'crc32c'}"
#define RESERVED                                                                         \
    "{'mode': 'reserve', 'key': '0x1122334455667788', 'registered': true,"               \
    " 'holder': '0xabc', 'type': 5, 'generation': 4294967295,"                           \
    " 'keys': ['0xabc', '0x1122334455667788'], 'checked_at': '" SINCE "'}"

static int read_text(const char *text, struct mr_transport_report *ret)
{
    MR_AUTO_JSON struct json_object *status = parse_json(text);
    struct mr_err err = {0};
    int rc = mr_transport_read(status, ret, &err);

    assert_int_equal(rc < 0, err.message[0] != '\0');
    return rc;
}

static void test_all_of_it_is_read(void **state)
{
    (void)state;
    struct mr_transport_report report;
    assert_int_equal(read_text("{'transport': " UP ", 'fencing': " RESERVED "}", &report),
                     0);
    assert_int_equal(report.state, MR_TRANSPORT_UP);
    MR_AUTO_JSON struct json_object *transport = parse_json(UP);
    MR_AUTO_JSON struct json_object *fencing = parse_json(RESERVED);
    mr_json_set(transport, "reason", NULL);
    assert_true(json_object_equal(report.transport, transport));
    assert_true(json_object_equal(report.fencing, fencing));
    mr_transport_report_done(&report);
}

static void test_every_state_has_a_name(void **state)
{
    (void)state;
    static const char *const names[] = {"connecting", "up",          "down",   "failed",
                                        "cut",        "mismatch",    "fenced", "stopping",
                                        "restarting", "unresponsive"};
    assert_int_equal(sizeof(names) / sizeof(names[0]), MR_TRANSPORT_COUNT - 1);
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(mr_transport_from_name(names[i]), i + 1);
        assert_string_equal(mr_transport_name((enum mr_transport)(i + 1)), names[i]);
    }
    assert_int_equal(mr_transport_from_name("unknown"), MR_TRANSPORT_UNKNOWN);
    assert_int_equal(mr_transport_from_name("UP"), MR_TRANSPORT_UNKNOWN);
    assert_int_equal(mr_transport_from_name(NULL), MR_TRANSPORT_UNKNOWN);
    assert_string_equal(mr_transport_name((enum mr_transport)99), "unknown");
}

static void test_only_what_never_comes_back_is_final(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MR_TRANSPORT_COUNT; i++) {
        const char *name = mr_transport_name((enum mr_transport)i);
        bool final = strcmp(name, "cut") == 0 || strcmp(name, "mismatch") == 0 ||
                     strcmp(name, "fenced") == 0;
        assert_int_equal(mr_transport_is_final((enum mr_transport)i), final);
    }
}

static void test_what_has_no_known_state_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{}",
        "{'transport': null}",
        "{'transport': []}",
        "{'transport': 'up'}",
        "{'transport': {}}",
        "{'transport': {'state': 1}}",
        "{'transport': {'state': 'sideways'}}",
        "{'transport': {'state': 'unknown'}}",
        "{'transport': {'state': 'up\\u0000'}}",
        "{'state': 'up'}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct mr_transport_report report;
        assert_int_equal(read_text(bad[i], &report), -EBADMSG);
        assert_null(report.transport);
        assert_null(report.fencing);
    }
}

static void test_fields_of_another_form_are_null(void **state)
{
    (void)state;
    struct mr_transport_report report;
    assert_int_equal(
        read_text("{'transport': {'state': 'down', 'since': 'yesterday', 'reason': 7,"
                  " 'portal': {}, 'timeout_ms': -5, 'replacement_ms': -2, 'more': 1,"
                  " 'header_digest': []}, 'fencing': {'mode': 'reserve', 'key': '12',"
                  " 'registered': 'yes', 'holder': '0xg', 'type': 'all',"
                  " 'generation': -1, 'keys': ['0x', '0x11112222333344445', 7, '0x7',"
                  " '0x7\\u0000<b>'],"
                  " 'checked_at': 0}}",
                  &report),
        0);
    MR_AUTO_JSON struct json_object *transport =
        parse_json("{'state': 'down', 'since': null, 'reason': null, 'portal': null,"
                   " 'timeout_ms': null, 'replacement_ms': null, 'header_digest': null}");
    MR_AUTO_JSON struct json_object *fencing =
        parse_json("{'mode': 'reserve', 'key': null, 'registered': false, 'holder': null,"
                   " 'type': null, 'generation': null, 'keys': ['0x7'],"
                   " 'checked_at': null}");
    assert_true(json_object_equal(report.transport, transport));
    assert_true(json_object_equal(report.fencing, fencing));
    mr_transport_report_done(&report);
}

static void test_without_a_reservation_there_is_nothing_to_say(void **state)
{
    (void)state;
    static const char *const off[] = {
        "{'transport': " UP "}",
        "{'transport': " UP ", 'fencing': null}",
        "{'transport': " UP ", 'fencing': {'mode': 'off', 'key': '0x1'}}",
        "{'transport': " UP ", 'fencing': 'reserve'}",
    };
    for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
        struct mr_transport_report report;
        assert_int_equal(read_text(off[i], &report), 0);
        assert_null(report.fencing);
        mr_transport_report_done(&report);
    }
}

static void test_length_is_bounded_and_text_is_harmless(void **state)
{
    (void)state;
    MR_AUTO_JSON struct json_object *status =
        parse_json("{'transport': " UP ", 'fencing': " RESERVED "}");
    struct json_object *keys = json_object_new_array();
    struct mr_transport_report report;
    char text[5000];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    memcpy(text, "a\nb\x1b\xff", 5);
    mr_json_set_string(mr_json_get(status, "transport"), "reason", text);
    for (int i = 0; i < 1000; i++)
        (void)json_object_array_add(keys, json_object_new_string("0x1"));
    mr_json_set(mr_json_get(status, "fencing"), "keys", keys);
    assert_int_equal(mr_transport_read(status, &report, NULL), 0);
    const char *reason = mr_json_get_string(report.transport, "reason");
    assert_int_equal(strncmp(reason, "a?b??xxx", 8), 0);
    assert_in_range(strlen(reason), 100, 255);
    assert_int_equal(mr_json_count(report.fencing, "keys"), 32);
    mr_transport_report_done(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_of_it_is_read),
        cmocka_unit_test(test_every_state_has_a_name),
        cmocka_unit_test(test_only_what_never_comes_back_is_final),
        cmocka_unit_test(test_what_has_no_known_state_is_refused),
        cmocka_unit_test(test_fields_of_another_form_are_null),
        cmocka_unit_test(test_without_a_reservation_there_is_nothing_to_say),
        cmocka_unit_test(test_length_is_bounded_and_text_is_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
