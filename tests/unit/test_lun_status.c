/* SPDX-License-Identifier: Apache-2.0
 *
 * The status document, from what is in the page.
 */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/base/json.h"
#include "storage/lun/status.h"

#define TOKEN "00112233445566778899aabbccddeeff"

static struct mr_page *page;
static int page_fd = -1;
static struct mr_lun_start start;
static struct mr_lun_status from;

static int before(void **state)
{
    struct mr_err err;

    (void)state;
    start = (struct mr_lun_start){
        .token = TOKEN, .target = "iqn.2026-11.example.test:t", .lun = 3};
    if (mr_page_create(&page_fd, &page, &err) < 0)
        return -1;
    from = (struct mr_lun_status){.start = &start, .page = page, .server_end = ""};
    return 0;
}

static int after(void **state)
{
    (void)state;
    mr_page_unmap(page);
    return close(page_fd);
}

static const char *text_of(struct json_object *json, const char *part, const char *key)
{
    const char *text = mr_json_get_string(part ? mr_json_get(json, part) : json, key);

    return text ? text : "(none)";
}

static void test_page_that_nobody_filled_is_no_trouble(void **state)
{
    MR_AUTO_JSON struct json_object *json = mr_lun_status(&from);

    (void)state;
    assert_true(mr_json_get_bool(json, "ok", false));
    assert_string_equal(text_of(json, NULL, "token"), TOKEN);
    assert_string_equal(text_of(json, NULL, "state"), "connecting");
    assert_string_equal(text_of(json, NULL, "portal"), "");
    assert_int_equal(mr_json_get_int(json, "pid", 0), getpid());
    assert_int_equal(mr_json_get_int(json, "size_bytes", -1), 0);
    assert_null(mr_json_get(json, "fencing"));
    assert_null(mr_json_get(json, "down_reason"));
}

static void test_server_facts_are_said_once_they_are_known(void **state)
{
    (void)state;
    struct mr_page_portals portals = {.count = 2};

    page->facts =
        (struct mr_lun_facts){.block_size = 4096, .serial = "SER\xff", .wwn = "naa.1"};
    page->geometry.writable = true;
    (void)snprintf(portals.at[1], sizeof(portals.at[1]), "127.0.0.1:3260");
    mr_page_write_portals(page, &portals);
    atomic_store(&page->portal, atomic_load(&page->portal_set) * MR_LUN_PORTALS_MAX + 1);
    atomic_store(&page->size_bytes, 1 << 20);
    atomic_store(&page->known, true);
    atomic_store(&page->state, MR_LINK_UP);
    atomic_store(&page->counters.resent, 7);
    MR_AUTO_JSON struct json_object *json = mr_lun_status(&from);
    assert_string_equal(text_of(json, NULL, "state"), "up");
    assert_string_equal(text_of(json, "transport", "portal"), "127.0.0.1:3260");
    assert_string_equal(text_of(json, NULL, "serial"), "SER?");
    assert_int_equal(mr_json_get_int(json, "size_bytes", 0), 1 << 20);
    assert_int_equal(mr_json_get_int(json, "block_size", 0), 4096);
    assert_true(mr_json_get_bool(json, "writable", false));
    assert_int_equal(mr_json_get_int(mr_json_get(json, "counters"), "resent", 0), 7);
}

/* The page is written by a process that a target may have confused. */
static void test_nonsense_in_the_page_is_not_followed(void **state)
{
    (void)state;
    atomic_store(&page->known, true);
    atomic_store(&page->portal, 4000000000U);
    page->portals[0].count = UINT32_MAX;
    atomic_store(&page->state, 77);
    page->fence.key_count = UINT32_MAX;
    start.reserve = true;
    MR_AUTO_JSON struct json_object *json = mr_lun_status(&from);
    assert_string_equal(text_of(json, NULL, "state"), "unknown");
    assert_string_equal(text_of(json, NULL, "portal"), "");
    assert_int_equal(mr_json_count(mr_json_get(json, "fencing"), "keys"),
                     MR_FENCE_KEYS_MAX);
}

static void test_reason_and_end_of_a_cut(void **state)
{
    (void)state;
    mr_page_write_text(&page->reason, "it was cut off on request");
    atomic_store(&page->state, MR_LINK_CUT);
    from.server_end = "signal 9";
    MR_AUTO_JSON struct json_object *json = mr_lun_status(&from);
    assert_true(mr_json_get_bool(json, "cut", false));
    assert_string_equal(text_of(json, NULL, "down_reason"), "it was cut off on request");
    assert_string_equal(text_of(json, "transport", "reason"),
                        "it was cut off on request");
    assert_string_equal(text_of(json, NULL, "server_end"), "signal 9");
}

/* The page says what a server wrote that does not run any more. */
static void test_session_is_not_up_without_a_server_that_runs(void **state)
{
    (void)state;
    mr_page_write_text(&page->reason, "the target was silent");
    atomic_store(&page->state, MR_LINK_UP);
    from.server_wall_ms = 1000;
    from.server = MR_LUN_SERVER_RESTARTS;
    MR_AUTO_JSON struct json_object *restarts = mr_lun_status(&from);
    assert_string_equal(text_of(restarts, NULL, "state"), "restarting");
    assert_string_equal(text_of(restarts, "transport", "state"), "restarting");
    assert_string_equal(text_of(restarts, "transport", "since"),
                        "1970-01-01T00:00:01.000Z");
    assert_non_null(strstr(text_of(restarts, "transport", "reason"), "the server"));
    from.server = MR_LUN_SERVER_STOPPED;
    MR_AUTO_JSON struct json_object *stopped = mr_lun_stats(&from);
    assert_string_equal(text_of(stopped, NULL, "state"), "unresponsive");
}

static void test_server_that_is_late_is_unresponsive(void **state)
{
    const int64_t late_ns = MR_LUN_SERVER_LATE_MS * MR_NS_PER_MS;

    (void)state;
    atomic_store(&page->state, MR_LINK_UP);
    atomic_store(&page->due_ns, mr_now_ns() - late_ns / 2);
    MR_AUTO_JSON struct json_object *busy = mr_lun_status(&from);
    assert_string_equal(text_of(busy, "transport", "state"), "up");
    atomic_store(&page->due_ns, mr_now_ns() - late_ns);
    MR_AUTO_JSON struct json_object *late = mr_lun_status(&from);
    assert_string_equal(text_of(late, "transport", "state"), "unresponsive");
    atomic_store(&page->due_ns, INT64_MAX); /* nothing is due */
    MR_AUTO_JSON struct json_object *idle = mr_lun_status(&from);
    assert_string_equal(text_of(idle, "transport", "state"), "up");
}

static void test_what_fails_for_good_is_said_without_a_server(void **state)
{
    static const enum mr_link_state all[] = {MR_LINK_CUT, MR_LINK_MISMATCH,
                                             MR_LINK_FENCED};

    (void)state;
    from.server = MR_LUN_SERVER_RESTARTS;
    mr_page_write_text(&page->reason, "why");
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        atomic_store(&page->state, all[i]);
        MR_AUTO_JSON struct json_object *json = mr_lun_status(&from);
        assert_string_equal(text_of(json, "transport", "state"),
                            mr_link_state_name(all[i]));
        assert_string_equal(text_of(json, "transport", "reason"), "why");
    }
}

static void test_fencing_names_keys_in_hex(void **state)
{
    const struct mr_page_fence fence = {.registered = true,
                                        .key = 0xab,
                                        .holder = 0xffffffffffffffff,
                                        .key_count = 1,
                                        .keys = {0xab}};

    (void)state;
    start.reserve = true;
    mr_page_write_fence(page, &fence);
    MR_AUTO_JSON struct json_object *json = mr_lun_status(&from);
    assert_string_equal(text_of(json, "fencing", "key"), "0x00000000000000ab");
    assert_string_equal(text_of(json, "fencing", "holder"), "0xffffffffffffffff");
    assert_string_equal(text_of(json, "fencing", "checked_at"), "(none)");
}

#define STATUS_TEST(test) cmocka_unit_test_setup_teardown(test, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STATUS_TEST(test_page_that_nobody_filled_is_no_trouble),
        STATUS_TEST(test_server_facts_are_said_once_they_are_known),
        STATUS_TEST(test_nonsense_in_the_page_is_not_followed),
        STATUS_TEST(test_reason_and_end_of_a_cut),
        STATUS_TEST(test_session_is_not_up_without_a_server_that_runs),
        STATUS_TEST(test_server_that_is_late_is_unresponsive),
        STATUS_TEST(test_what_fails_for_good_is_said_without_a_server),
        STATUS_TEST(test_fencing_names_keys_in_hex),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
