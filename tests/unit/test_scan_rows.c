/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows of the Holders document: identity, limits, and text that nobody can trust.
 */
#include "storage/worker/holder.h"

#include <errno.h>
#include <stdio.h>

#include "storage/base/cleanup.h"
#include "storage/base/json.h"
#include "storage/protocol.h"
#include "tests/unit/unit.h"

static char path_a[] = "/mnt/v/a";
static char path_b[] = "/mnt/v/b";

static const struct mr_holder open_file = {
    .kind = MR_HOLDER_OPEN_FILE, .pid = 42, .start_time = 7, .path = path_a};
static const struct mr_holder copy = {
    .kind = MR_HOLDER_MOUNT_COPY, .mount_ns = 4026532000, .mount_id = 99, .path = path_a};

static void test_id_tells_holders_apart(void **state)
{
    struct mr_holder other = open_file;

    (void)state;
    uint64_t id = mr_holder_id(&open_file);
    assert_true(mr_holder_id(&other) == id);
    other.start_time = 8; /* the pid was used again */
    assert_true(mr_holder_id(&other) != id);
    other = open_file;
    other.path = path_b;
    assert_true(mr_holder_id(&other) != id);
    other = open_file;
    other.kind = MR_HOLDER_CWD;
    assert_true(mr_holder_id(&other) != id);
    other = open_file;
    other.path = NULL;
    other.device = path_a; /* the same text in another place */
    assert_true(mr_holder_id(&other) != id);
}

static void test_mount_keeps_its_id_under_another_process_and_path(void **state)
{
    struct mr_holder later = copy;

    (void)state;
    later.pid = 77;
    later.start_time = 1;
    later.path = path_b; /* a directory above was renamed */
    assert_true(mr_holder_id(&later) == mr_holder_id(&copy));
    later.mount_id = 100;
    assert_true(mr_holder_id(&later) != mr_holder_id(&copy));
}

static void test_same_holder_is_listed_once(void **state)
{
    struct mr_holders list = {0};
    struct mr_holder seen_elsewhere = copy;

    (void)state;
    seen_elsewhere.path = path_b; /* the same mount, from below another root */
    assert_int_equal(mr_holders_add(&list, &open_file), 0);
    assert_int_equal(mr_holders_add(&list, &open_file), 0);
    assert_int_equal(mr_holders_add(&list, &copy), 0);
    assert_int_equal(mr_holders_add(&list, &seen_elsewhere), 0);
    assert_int_equal(list.count, 2);
    mr_holders_clear(&list);
    assert_int_equal(list.count, 0);
}

static void test_row_becomes_json_with_null_for_unknown(void **state)
{
    struct mr_holders list = {0};
    bool complete = true;

    (void)state;
    assert_int_equal(mr_holders_add(&list, &open_file), 0);
    MR_AUTO_JSON struct json_object *rows = mr_holders_to_json(&list, 10000, &complete);
    mr_holders_clear(&list);
    struct json_object *row = json_object_array_get_idx(rows, 0);
    assert_true(complete);
    assert_int_equal(strlen(mr_json_get_string(row, "id")), 16);
    assert_string_equal(mr_json_get_string(row, "kind"), "open-file");
    assert_int_equal(mr_json_get_int(row, "pid", 0), 42);
    assert_string_equal(mr_json_get_string(row, "path"), "/mnt/v/a");
    assert_true(mr_json_get_bool(row, "certain", false));
    assert_string_equal(mr_json_get_string(row, "remedy"),
                        mr_holder_remedy(MR_HOLDER_OPEN_FILE));
    static const char *const nulls[] = {"tid",      "comm",      "uid",     "user",
                                        "cgroup",   "container", "runtime", "unit",
                                        "mount_ns", "mount_id",  "device"};
    for (size_t i = 0; i < sizeof(nulls) / sizeof(nulls[0]); i++) {
        assert_true(json_object_object_get_ex(row, nulls[i], NULL));
        assert_null(mr_json_get(row, nulls[i]));
    }
}

static void test_row_tells_who_and_what_can_be_done(void **state)
{
    char user[] = "ro\not";
    char unit[] = "cron.service";
    char runtime[] = "podman";
    struct mr_holder row = copy;
    struct mr_holders list = {0};
    bool complete = true;

    (void)state;
    row.candidate = true;
    row.pid = 42;
    row.has_uid = true; /* 0 is somebody */
    row.user = user;
    row.unit = unit;
    row.runtime = runtime;
    assert_int_equal(mr_holders_add(&list, &row), 0);
    MR_AUTO_JSON struct json_object *rows = mr_holders_to_json(&list, 10000, &complete);
    mr_holders_clear(&list);
    struct json_object *json = json_object_array_get_idx(rows, 0);
    assert_false(mr_json_get_bool(json, "certain", true));
    assert_int_equal(mr_json_get_int(json, "uid", -1), 0);
    assert_string_equal(mr_json_get_string(json, "user"), "ro?ot");
    assert_string_equal(mr_json_get_string(json, "unit"), "cron.service");
    assert_string_equal(mr_json_get_string(json, "runtime"), "podman");
    assert_int_equal(mr_json_get_int(json, "mount_id", 0), 99);
    assert_string_equal(json_object_to_json_string_ext(mr_json_get(json, "actions"),
                                                       JSON_C_TO_STRING_PLAIN),
                        "[\"unmount-copies\",\"signal\"]");
}

static void test_nobody_can_be_signalled_without_a_pid(void **state)
{
    struct mr_holders list = {0};
    bool complete = true;

    (void)state;
    assert_int_equal(mr_holders_add(&list, &copy), 0);
    MR_AUTO_JSON struct json_object *rows = mr_holders_to_json(&list, 10000, &complete);
    mr_holders_clear(&list);
    struct json_object *actions =
        mr_json_get(json_object_array_get_idx(rows, 0), "actions");
    assert_string_equal(json_object_to_json_string_ext(actions, JSON_C_TO_STRING_PLAIN),
                        "[\"unmount-copies\"]");
}

static void test_rows_end_at_the_limit(void **state)
{
    struct mr_holders list = {0};
    struct mr_holder row = open_file;

    (void)state;
    for (pid_t pid = 1; pid <= MR_SCAN_HOLDERS_MAX; pid++) {
        row.pid = pid;
        assert_int_equal(mr_holders_add(&list, &row), 0);
    }
    row.pid = MR_SCAN_HOLDERS_MAX + 1;
    assert_int_equal(mr_holders_add(&list, &row), -ENOSPC);
    row.pid = 1; /* known: nothing is lost */
    assert_int_equal(mr_holders_add(&list, &row), 0);
    assert_int_equal(list.count, MR_SCAN_HOLDERS_MAX);
    mr_holders_clear(&list);
}

static void test_document_that_is_too_long_is_incomplete(void **state)
{
    struct mr_holders list = {0};
    struct mr_holder row = open_file;
    bool complete = true;

    (void)state;
    for (row.pid = 1; row.pid <= 100; row.pid++)
        assert_int_equal(mr_holders_add(&list, &row), 0);
    MR_AUTO_JSON struct json_object *rows = mr_holders_to_json(&list, 2000, &complete);
    mr_holders_clear(&list);
    assert_false(complete);
    assert_in_range(json_object_array_length(rows), 5, 99);
    assert_true(strlen(json_object_to_json_string_ext(rows, JSON_C_TO_STRING_PLAIN)) <=
                2000);
}

static void test_foreign_text_is_made_printable(void **state)
{
    static const char *const cases[][2] = {
        {"plain /path with spaces", "plain /path with spaces"},
        {"a\nb\x1b[31m\x7f", "a?b?[31m?"},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\xff\xc3", "??"},                          /* no start byte; cut off */
        {"\xc0\xaf\xe0\x80\xaf", "?????"},           /* overlong */
        {"\xed\xa0\x80\xf4\x90\x80\x80", "???????"}, /* surrogate; beyond U+10FFFF */
        {"\xc2\x9b", "??"},                          /* C1: CSI */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        MR_AUTO_FREE char *text = mr_holder_text(cases[i][0]);
        assert_string_equal(text, cases[i][1]);
    }
    assert_null(mr_holder_text(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_id_tells_holders_apart),
        cmocka_unit_test(test_mount_keeps_its_id_under_another_process_and_path),
        cmocka_unit_test(test_same_holder_is_listed_once),
        cmocka_unit_test(test_row_becomes_json_with_null_for_unknown),
        cmocka_unit_test(test_row_tells_who_and_what_can_be_done),
        cmocka_unit_test(test_nobody_can_be_signalled_without_a_pid),
        cmocka_unit_test(test_rows_end_at_the_limit),
        cmocka_unit_test(test_document_that_is_too_long_is_incomplete),
        cmocka_unit_test(test_foreign_text_is_made_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
