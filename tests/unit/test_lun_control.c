/* SPDX-License-Identifier: Apache-2.0
 *
 * The versions of the control protocol, as the server sees them.
 */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "storage/base/json.h"
#include "storage/lun/control.h"

#define TOKEN "00112233445566778899aabbccddeeff"

static struct json_object *refuse(const char *text)
{
    MR_AUTO_JSON struct json_object *request = parse_json(text);

    return mr_control_refuse(request, TOKEN);
}

static void assert_fine(const char *text)
{
    MR_AUTO_JSON struct json_object *refusal = refuse(text);

    if (refusal)
        fail_msg("%s: %s", text, json_object_to_json_string(refusal));
}

static void assert_refused(const char *text)
{
    MR_AUTO_JSON struct json_object *refusal = refuse(text);
    char range[40];

    if (!refusal)
        fail_msg("%s was not refused", text);
    (void)snprintf(range, sizeof(range), "versions %d to %d", MR_CONTROL_OLDEST,
                   MR_CONTROL_VERSION);
    const char *message = mr_json_get_string(mr_json_get(refusal, "error"), "message");
    assert_non_null(message);
    assert_non_null(strstr(message, range));
    assert_false(mr_json_get_bool(refusal, "ok", true));
    assert_int_equal(mr_json_get_int(refusal, "version", 0), MR_CONTROL_VERSION);
    assert_int_equal(mr_json_get_int(refusal, "oldest", 0), MR_CONTROL_OLDEST);
    assert_string_equal(mr_json_get_string(refusal, "token"), TOKEN);
}

static void test_request_of_an_older_agent_is_understood(void **state)
{
    (void)state;
    assert_fine("{'cmd': 'status'}");
    assert_fine("{'version': 1, 'cmd': 'status'}");
}

static void test_request_in_our_version_is_understood(void **state)
{
    (void)state;
    assert_fine("{'version': 2, 'cmd': 'cut'}");
}

static void test_request_out_of_the_range_is_refused(void **state)
{
    (void)state;
    assert_refused("{'version': 3, 'cmd': 'status'}");
    assert_refused("{'version': 9223372036854775807, 'cmd': 'status'}");
    assert_refused("{'version': 0, 'cmd': 'status'}");
    assert_refused("{'version': -1, 'cmd': 'status'}");
    assert_refused("{'version': '2', 'cmd': 'status'}");
    assert_refused("{'version': {}, 'cmd': 'status'}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_of_an_older_agent_is_understood),
        cmocka_unit_test(test_request_in_our_version_is_understood),
        cmocka_unit_test(test_request_out_of_the_range_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
