/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "api/route.h"

static char scratch[512];
static struct mr_match match;
static struct mr_err err;

static int find(const char *method, const char *target)
{
    assert_true(strlen(target) + 2 <= sizeof(scratch));
    memset(scratch, 'x', sizeof(scratch));
    return mr_route_find(method, target, scratch, &match, &err);
}

static void refused(const char *method, const char *target, enum mr_code code)
{
    assert_true(find(method, target) < 0);
    assert_int_equal(err.code, code);
}

static void test_routes_are_found_with_and_without_prefix(void **state)
{
    (void)state;
    assert_int_equal(find("PUT", "/volumes/pg.data-1"), 0);
    assert_ptr_equal(match.route->handler, mr_handle_volume_put);
    assert_string_equal(match.param, "pg.data-1");
    assert_string_equal(match.prefix, "");
    assert_int_equal(find("GET", "/v1/volumes/a/holders"), 0);
    assert_ptr_equal(match.route->handler, mr_handle_holders_get);
    assert_string_equal(match.param, "a");
    assert_string_equal(match.prefix, "/v1");
    assert_int_equal(find("POST", "/v1/volumes/a/holders/actions"), 0);
    assert_ptr_equal(match.route->handler, mr_handle_action_post);
    assert_int_equal(match.route->body, MR_BODY_REQUIRED);
    assert_string_equal(match.param, "a");
    assert_int_equal(find("POST", "/volumes/b/forget"), 0);
    assert_int_equal(match.route->body, MR_BODY_OPTIONAL);
    assert_int_equal(find("DELETE", "/orphans/c?accept_data_loss=true"), 0);
    assert_ptr_equal(match.route->handler, mr_handle_orphan_delete);
    assert_string_equal(match.param, "c");
    assert_string_equal(match.query[MR_DELETE_ACCEPT_DATA_LOSS], "true");
    assert_int_equal(find("POST", "/v1/reconcile"), 0);
    assert_ptr_equal(match.route->handler, mr_handle_reconcile_post);
    assert_int_equal(match.route->body, MR_BODY_OPTIONAL);
    assert_int_equal(find("HEAD", "/v1/volumes"), 0);
    assert_string_equal(match.param, "");
    assert_int_equal(find("GET", "/%76olumes/%61"), 0);
    assert_string_equal(match.param, "a");
}

static void test_other_paths_are_not_found(void **state)
{
    (void)state;
    static const char *const bad[] = {"/",
                                      "/v1",
                                      "/v1/",
                                      "//volumes",
                                      "/volumes/a/",
                                      "/volumes/a/b",
                                      "/v2/volumes",
                                      "/v1/v1/volumes",
                                      "/Volumes",
                                      "/volumesx",
                                      "/volume",
                                      "/volumes/../livez",
                                      "/a/b/c/d/e/f/g/h/i/j/k",
                                      "/volumes%2Fa"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        refused("GET", bad[i], MR_E_NOT_FOUND);
    /* An empty id is an id, and not a valid one. */
    assert_int_equal(find("GET", "/volumes/"), 0);
    assert_string_equal(match.param, "");
}

static void test_escaped_slash_stays_in_its_segment(void **state)
{
    (void)state;
    assert_int_equal(find("GET", "/volumes/a%2Fholders"), 0);
    assert_ptr_equal(match.route->handler, mr_handle_volume_get);
    assert_string_equal(match.param, "a/holders");
    refused("GET", "/volumes/a%00", MR_E_INVALID_REQUEST);
    refused("GET", "/volumes/a%2", MR_E_INVALID_REQUEST);
    refused("GET", "/volumes/a%2?limit=1", MR_E_INVALID_REQUEST);
}

static void test_wrong_method_names_the_right_ones(void **state)
{
    (void)state;
    refused("POST", "/volumes/a", MR_E_METHOD_NOT_ALLOWED);
    assert_string_equal(match.allow, "GET, HEAD, PUT, DELETE");
    refused("GET", "/volumes/a/holders/actions", MR_E_METHOD_NOT_ALLOWED);
    assert_string_equal(match.allow, "POST");
    refused("DELETE", "/livez", MR_E_METHOD_NOT_ALLOWED);
    assert_string_equal(match.allow, "GET, HEAD");
    refused("get", "/livez", MR_E_METHOD_NOT_ALLOWED);
}

static void test_query_is_decoded(void **state)
{
    (void)state;
    assert_int_equal(find("DELETE", "/volumes/a?mount_path=%2Fx+y&accept_data_loss=true"),
                     0);
    assert_string_equal(match.query[MR_DELETE_MOUNT_PATH], "/x y");
    assert_string_equal(match.query[MR_DELETE_ACCEPT_DATA_LOSS], "true");
    assert_string_equal(match.param, "a");
    assert_int_equal(find("DELETE", "/volumes/a?"), 0);
    assert_null(match.query[MR_DELETE_MOUNT_PATH]);
    assert_int_equal(find("DELETE", "/volumes/a?mount_path="), 0);
    assert_string_equal(match.query[MR_DELETE_MOUNT_PATH], "");
    assert_int_equal(find("DELETE", "/volumes/a?mount_path=/a=b"), 0);
    assert_string_equal(match.query[MR_DELETE_MOUNT_PATH], "/a=b");
}

static void test_wrong_query_is_refused_by_name(void **state)
{
    (void)state;
    refused("DELETE", "/volumes/a?force=1", MR_E_INVALID_REQUEST);
    assert_non_null(strstr(err.message, "'force'"));
    refused("DELETE", "/volumes/a?mount_path=/x&mount_path=/x", MR_E_INVALID_REQUEST);
    assert_non_null(strstr(err.message, "'mount_path' is repeated"));
    refused("DELETE", "/volumes/a?mount_path", MR_E_INVALID_REQUEST);
    refused("DELETE", "/volumes/a?mount_path=%zz", MR_E_INVALID_REQUEST);
    refused("DELETE", "/volumes/a?mount_path=%00", MR_E_INVALID_REQUEST);
    refused("DELETE", "/volumes/a?&", MR_E_INVALID_REQUEST);
    refused("DELETE", "/volumes/a?mount_pat=1", MR_E_INVALID_REQUEST);
    refused("DELETE", "/volumes/a?mount_path%3d=1", MR_E_INVALID_REQUEST);
    refused("GET", "/volumes/a?limit=1", MR_E_INVALID_REQUEST);
    refused("GET", "/livez?verbose=1", MR_E_INVALID_REQUEST);
    refused("DELETE", "/orphans/a?mount_path=/x", MR_E_INVALID_REQUEST);
    refused("DELETE", "/orphans/a?=/x", MR_E_INVALID_REQUEST);
    refused("POST", "/volumes/a/forget?reason=x", MR_E_INVALID_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes_are_found_with_and_without_prefix),
        cmocka_unit_test(test_other_paths_are_not_found),
        cmocka_unit_test(test_escaped_slash_stays_in_its_segment),
        cmocka_unit_test(test_wrong_method_names_the_right_ones),
        cmocka_unit_test(test_query_is_decoded),
        cmocka_unit_test(test_wrong_query_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
