/* SPDX-License-Identifier: Apache-2.0
 *
 * The page that keeper and server share: what a killed writer leaves, what another
 * version is told.
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "storage/base/fd.h"
#include "storage/lun/page.h"

static struct mr_page *page;
static int page_fd = -1;

static int before(void **state)
{
    struct mr_err err;

    (void)state;
    return mr_page_create(&page_fd, &page, &err);
}

static int after(void **state)
{
    (void)state;
    mr_page_unmap(page);
    return close(page_fd);
}

static void test_both_see_the_same_page(void **state)
{
    struct mr_page *other = NULL;
    struct mr_err err;
    char text[MR_PAGE_REASON];

    (void)state;
    assert_int_equal(mr_page_map(page_fd, &other, &err), 0);
    assert_ptr_not_equal(other, page);
    mr_page_write_text(&other->reason, "the target was silent");
    assert_true(mr_page_read_text(&page->reason, text));
    assert_string_equal(text, "the target was silent");
    mr_page_unmap(other);
}

static void test_page_of_another_version_or_size_is_refused(void **state)
{
    struct mr_page *other = NULL;
    struct mr_err err;

    (void)state;
    page->version++;
    assert_int_equal(mr_page_map(page_fd, &other, &err), -EPROTO);
    page->version--;
    page->size--;
    assert_int_equal(mr_page_map(page_fd, &other, &err), -EPROTO);
    page->size++;
    assert_int_equal(mr_page_map(page_fd, &other, &err), 0);
    mr_page_unmap(other);
    assert_int_not_equal(ftruncate(page_fd, 1), 0); /* nobody gets a SIGBUS */
}

static void test_long_text_is_cut(void **state)
{
    char text[MR_PAGE_REASON];
    char longer[2 * MR_PAGE_REASON];

    (void)state;
    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    mr_page_write_text(&page->reason, longer);
    assert_true(mr_page_read_text(&page->reason, text));
    assert_int_equal(strlen(text), MR_PAGE_REASON - 1);
}

static void test_text_of_a_writer_that_was_killed_is_not_read(void **state)
{
    char text[MR_PAGE_REASON];

    (void)state;
    mr_page_write_text(&page->reason, "before");
    atomic_fetch_add(&page->reason.sequence, 1); /* it has begun ... */
    memcpy(page->reason.text, "ha", 2);          /* ... and was killed */
    assert_false(mr_page_read_text(&page->reason, text));
    assert_string_equal(text, "");
    mr_page_write_text(&page->reason, "the next server");
    assert_true(mr_page_read_text(&page->reason, text));
    assert_string_equal(text, "the next server");
}

static void test_fence_is_copied_as_a_whole(void **state)
{
    const struct mr_page_fence fence = {
        .reserve = true,
        .registered = true,
        .key = 0x1122334455667788,
        .holder = 5,
        .key_count = 2,
        .keys = {7, 8},
        .checked_wall_ms = 9,
    };
    struct mr_page_fence back;

    (void)state;
    mr_page_write_fence(page, &fence);
    assert_true(mr_page_read_fence(page, &back));
    assert_true(back.reserve && back.registered);
    assert_true(back.key == fence.key && back.holder == 5 && back.keys[1] == 8);
    assert_int_equal(back.checked_wall_ms, 9);
    atomic_fetch_add(&page->fence.sequence, 1);
    assert_false(mr_page_read_fence(page, &back));
    assert_false(back.reserve || back.key != 0);
}

static void write_portals(const char *first, uint32_t count)
{
    struct mr_page_portals portals = {.count = count};

    (void)snprintf(portals.at[0], sizeof(portals.at[0]), "%s", first);
    mr_page_write_portals(page, &portals);
}

static void test_portals_that_were_read_stay_while_others_are_written(void **state)
{
    struct mr_page_portals portals;
    unsigned set;

    (void)state;
    write_portals("127.0.0.1:1", 1);
    set = atomic_load(&page->portal_set);
    write_portals("127.0.0.2:2", 2);
    assert_int_not_equal(atomic_load(&page->portal_set), set);
    assert_true(mr_page_read_portals(page, set, &portals));
    assert_string_equal(portals.at[0], "127.0.0.1:1");
    assert_true(mr_page_read_portals(page, !set, &portals));
    assert_int_equal(portals.count, 2);
    assert_string_equal(portals.at[0], "127.0.0.2:2");
}

static void test_portals_of_a_resolver_that_was_killed_are_not_read(void **state)
{
    struct mr_page_portals portals;
    unsigned set;

    (void)state;
    write_portals("127.0.0.1:1", 1);
    set = atomic_load(&page->portal_set);
    atomic_fetch_add(&page->portals[!set].sequence, 1); /* it has begun */
    assert_false(mr_page_read_portals(page, !set, &portals));
    assert_int_equal(portals.count, 0);
    assert_true(mr_page_read_portals(page, set, &portals)); /* still what counts */
    write_portals("127.0.0.3:3", 1);
    assert_true(mr_page_read_portals(page, !set, &portals));
    assert_string_equal(portals.at[0], "127.0.0.3:3");
}

static void test_portals_that_make_no_sense_are_none(void **state)
{
    struct mr_page_portals portals;

    (void)state;
    write_portals("127.0.0.1:1", MR_LUN_PORTALS_MAX + 1);
    assert_false(mr_page_read_portals(page, atomic_load(&page->portal_set), &portals));
    assert_false(mr_page_read_portals(page, 2, &portals));
}

#define PAGE_TEST(test) cmocka_unit_test_setup_teardown(test, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PAGE_TEST(test_both_see_the_same_page),
        PAGE_TEST(test_page_of_another_version_or_size_is_refused),
        PAGE_TEST(test_long_text_is_cut),
        PAGE_TEST(test_text_of_a_writer_that_was_killed_is_not_read),
        PAGE_TEST(test_portals_that_were_read_stay_while_others_are_written),
        PAGE_TEST(test_portals_of_a_resolver_that_was_killed_are_not_read),
        PAGE_TEST(test_portals_that_make_no_sense_are_none),
        PAGE_TEST(test_fence_is_copied_as_a_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
