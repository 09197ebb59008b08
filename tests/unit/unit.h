/* SPDX-License-Identifier: Apache-2.0
 *
 * What every unit test includes: cmocka with the headers it wants first, and JSON that is
 * readable inside C strings.
 */
#ifndef MR_TESTS_UNIT_UNIT_H
#define MR_TESTS_UNIT_UNIT_H

/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

/* Parses JSON written with ' instead of ". Fails the test if it is none. New reference.
 */
static inline struct json_object *parse_json(const char *text)
{
    enum json_tokener_error error = json_tokener_success;
    char *copy = strdup(text);
    assert_non_null(copy);
    for (char *c = copy; *c; c++)
        if (*c == '\'')
            *c = '"';
    struct json_object *json = json_tokener_parse_verbose(copy, &error);
    if (error != json_tokener_success)
        fail_msg("bad JSON in a test: %s", copy);
    free(copy);
    return json;
}

#endif
