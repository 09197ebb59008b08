/* SPDX-License-Identifier: Apache-2.0
 *
 * Which addresses count after names were resolved again. */
#include "tests/unit/unit.h"

#include <stdarg.h>
#include <stdio.h>

#include "storage/lun/resolve.h"

/* Ends with NULL. */
static struct mr_page_portals portals(const char *first, ...)
{
    struct mr_page_portals made = {0};
    const char *portal = first;
    va_list ap;

    va_start(ap, first);
    for (; portal; portal = va_arg(ap, const char *))
        (void)snprintf(made.at[made.count++], MR_PORTAL_TEXT, "%s", portal);
    va_end(ap);
    return made;
}

static void test_what_was_found_counts(void **state)
{
    struct mr_page_portals before = portals("a", "b", NULL);
    struct mr_page_portals found = portals("c", NULL);

    (void)state;
    assert_true(mr_resolve_merge(&before, true, &found));
    assert_int_equal(found.count, 1);
    assert_string_equal(found.at[0], "c");
}

/* Else the server would forget which of them was good. */
static void test_the_same_addresses_are_no_news(void **state)
{
    struct mr_page_portals before = portals("a", "b", NULL);
    struct mr_page_portals found = portals("b", "a", NULL);

    (void)state;
    assert_false(mr_resolve_merge(&before, true, &found));
    found = portals("b", NULL);
    assert_false(mr_resolve_merge(&before, false, &found));
    found = portals("b", NULL);
    assert_true(mr_resolve_merge(&before, true, &found));
}

static void test_one_of_two_names_of_an_address_may_get_another(void **state)
{
    struct mr_page_portals before = portals("a", "a", NULL);
    struct mr_page_portals found = portals("a", "b", NULL);

    (void)state;
    assert_true(mr_resolve_merge(&before, true, &found));
    assert_string_equal(found.at[1], "b");
    found = portals("a", "a", NULL);
    assert_false(mr_resolve_merge(&before, true, &found));
}

static void test_old_addresses_stay_as_long_as_a_name_is_not_known(void **state)
{
    struct mr_page_portals before = portals("a", "b", NULL);
    struct mr_page_portals found = portals("b", "c", NULL);

    (void)state;
    assert_true(mr_resolve_merge(&before, false, &found));
    assert_int_equal(found.count, 3);
    assert_string_equal(found.at[0], "b");
    assert_string_equal(found.at[1], "c");
    assert_string_equal(found.at[2], "a");
}

static void test_there_are_no_more_than_fit(void **state)
{
    struct mr_page_portals before = portals("1", "2", "3", "4", "5", "6", "7", "8", NULL);
    struct mr_page_portals found = portals("9", "8", NULL);

    (void)state;
    assert_true(mr_resolve_merge(&before, false, &found));
    assert_int_equal(found.count, MR_LUN_PORTALS_MAX);
    assert_string_equal(found.at[0], "9");
    assert_string_equal(found.at[7], "6");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_found_counts),
        cmocka_unit_test(test_the_same_addresses_are_no_news),
        cmocka_unit_test(test_one_of_two_names_of_an_address_may_get_another),
        cmocka_unit_test(test_old_addresses_stay_as_long_as_a_name_is_not_known),
        cmocka_unit_test(test_there_are_no_more_than_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
