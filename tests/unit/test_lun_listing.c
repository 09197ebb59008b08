/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/lun/listing.h"

#define NAME "iqn.2026-11.example:disk"

/* --- SendTargets --- */

static void test_targets_and_portals_are_listed_by_name(void **state)
{
    (void)state;
    static struct mr_listed_targets list;
    struct mr_listed_target *b = mr_listed_add(&list, NAME "b");
    struct mr_listed_target *a = mr_listed_add(&list, NAME "a");

    mr_listed_add_portal(&list, b, "127.0.0.1:3260,1");
    mr_listed_add_portal(&list, a, "[::1]:3261,2");
    mr_listed_add_portal(&list, a, "storage.example,65535");
    assert_ptr_equal(mr_listed_add(&list, NAME "b"), b);
    mr_listed_sort(&list);
    assert_int_equal(list.count, 2);
    assert_string_equal(list.targets[0].name, NAME "a");
    assert_int_equal(list.targets[0].portal_count, 2);
    assert_string_equal(list.targets[0].portals[0], "[::1]:3261");
    assert_string_equal(list.targets[0].portals[1], "storage.example");
    assert_string_equal(list.targets[1].portals[0], "127.0.0.1:3260");
    assert_false(list.cut);
}

static void test_what_is_no_target_name_is_left_out(void **state)
{
    (void)state;
    static const char *const bad[] = {"",       "iqn.",     "x.2026:a",  NAME " b",
                                      NAME "/", NAME "\"b", NAME "\xff", NAME "\nb"};
    char longest[MR_ISCSI_NAME + 1];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct mr_listed_targets *list = calloc(1, sizeof(*list));
        if (mr_listed_add(list, bad[i]))
            fail_msg("'%s' was taken", bad[i]);
        assert_true(list->cut);
        free(list);
    }
    struct mr_listed_targets *list = calloc(1, sizeof(*list));
    memset(longest, 'x', sizeof(longest));
    memcpy(longest, "iqn.", 4);
    longest[MR_ISCSI_NAME] = '\0';
    assert_null(mr_listed_add(list, longest));
    longest[MR_ISCSI_NAME - 1] = '\0';
    assert_non_null(mr_listed_add(list, longest));
    free(list);
}

static void test_what_is_no_portal_is_left_out(void **state)
{
    (void)state;
    static const char *const bad[] = {"",          ",1",     ":3260,1", "h:0,1",
                                      "h:99999,1", "[::1,1", "a b:1,1", "a\"b,1",
                                      "a\\,1",     "\x7f,1"};
    struct mr_listed_targets *list = calloc(1, sizeof(*list));
    struct mr_listed_target *target = mr_listed_add(list, NAME);
    char longest[400];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        list->cut = false;
        mr_listed_add_portal(list, target, bad[i]);
        if (target->portal_count != 0 || !list->cut)
            fail_msg("'%s' was taken", bad[i]);
    }
    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    mr_listed_add_portal(list, target, longest);
    assert_int_equal(target->portal_count, 0);
    list->cut = false;
    for (size_t i = 0; i < MR_LISTED_PORTALS_MAX; i++)
        mr_listed_add_portal(list, target, "127.0.0.1:3260,1");
    assert_false(list->cut);
    mr_listed_add_portal(list, target, "127.0.0.1:3260,1");
    assert_int_equal(target->portal_count, MR_LISTED_PORTALS_MAX);
    assert_true(list->cut);
    free(list);
}

static void test_list_of_targets_has_an_end(void **state)
{
    (void)state;
    struct mr_listed_targets *list = calloc(1, sizeof(*list));
    char name[64];

    for (int i = 0; i < MR_LISTED_TARGETS_MAX + 10; i++) {
        (void)snprintf(name, sizeof(name), NAME "%d", i);
        assert_true((mr_listed_add(list, name) != NULL) == (i < MR_LISTED_TARGETS_MAX));
    }
    assert_int_equal(list->count, MR_LISTED_TARGETS_MAX);
    assert_true(list->cut);
    free(list);
}

/* --- REPORT LUNS --- */

/* Parses an exact copy, so that a sanitizer sees a read past the end. */
static int parse(const void *data, size_t len, uint16_t *luns, size_t max, bool *cut)
{
    uint8_t *copy = malloc(len ? len : 1);

    memcpy(copy, data, len);
    int r = mr_parse_report_luns(copy, len, luns, max, cut);
    free(copy);
    return r;
}

static void test_luns_are_read_raw(void **state)
{
    (void)state;
    const uint8_t data[] = {0,    0,    0, 24, 0, 0, 0, 0, 0, 7, 0, 0,
                            0,    0,    0, 0,  0, 0, 0, 0, 0, 0, 0, 0, /* flat: 300 */
                            0x41, 0x2c, 0, 0,  0, 0, 0, 0};
    uint16_t luns[4];
    bool cut;

    assert_int_equal(parse(data, sizeof(data), luns, 4, &cut), 3);
    assert_int_equal(luns[0], 7);
    assert_int_equal(luns[1], 0);
    assert_int_equal(luns[2], 0x412c);
    assert_false(cut);
    assert_int_equal(parse(data, sizeof(data), luns, 2, &cut), 2);
    assert_true(cut);
    /* Less came than was said. */
    assert_int_equal(parse(data, sizeof(data) - 1, luns, 4, &cut), 2);
    assert_true(cut);
}

static void test_luns_of_several_levels_are_left_out(void **state)
{
    (void)state;
    const uint8_t data[] = {0, 0, 0, 16, 0, 0, 0, 0, 0, 1, 0, 2,
                            0, 0, 0, 0,  0, 3, 0, 0, 0, 0, 0, 0};
    uint16_t luns[2];
    bool cut;

    assert_int_equal(parse(data, sizeof(data), luns, 2, &cut), 1);
    assert_int_equal(luns[0], 3);
    assert_true(cut);
}

static void test_bad_lists_of_luns_are_refused(void **state)
{
    (void)state;
    const uint8_t crooked[] = {0, 0, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0};
    const uint8_t endless[] = {0xff, 0xff, 0xff, 0xf8, 0, 0, 0, 0};
    uint16_t luns[2];
    bool cut;

    assert_int_equal(parse(crooked, sizeof(crooked), luns, 2, &cut), -EBADMSG);
    for (size_t len = 0; len < 8; len++)
        assert_int_equal(parse(endless, len, luns, 2, &cut), -EBADMSG);
    assert_int_equal(parse(endless, sizeof(endless), luns, 2, &cut), 0);
    assert_true(cut);
}

static void test_names_of_an_inquiry_are_cut_and_cleaned(void **state)
{
    (void)state;
    uint8_t data[36] = {0};
    char vendor[MR_INQUIRY_VENDOR];
    char product[MR_INQUIRY_PRODUCT];

    memcpy(data + 8,
           "IET     VIRTUAL\x01"
           "\xff"
           "DISK    ",
           24);
    mr_parse_inquiry_names(data, sizeof(data), vendor, product);
    assert_string_equal(vendor, "IET");
    assert_string_equal(product, "VIRTUAL__DISK");
    mr_parse_inquiry_names(data, 31, vendor, product);
    assert_string_equal(vendor, "");
    assert_string_equal(product, "");
}

/* --- what a prober looks at --- */

static uint64_t covered(const struct mr_range *ranges, size_t count, uint64_t offset)
{
    for (size_t i = 0; i < count; i++)
        if (offset >= ranges[i].offset && offset < ranges[i].offset + ranges[i].length)
            return true;
    return false;
}

static void test_ranges_cover_both_edges_once(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {512,
                                     4096,
                                     1 << 20,
                                     2 << 20,
                                     (2 << 20) + 512,
                                     (4 << 20) - 512,
                                     4 << 20,
                                     (6 << 20) + 512,
                                     64 << 20,
                                     1ull << 50,
                                     INT64_MAX & ~511ull};
    struct mr_range ranges[MR_PROBE_RANGES];

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint64_t size = sizes[i];
        uint64_t end = 0;
        size_t count = mr_probe_ranges(size, 512, ranges);
        for (size_t j = 0; j < count; j++) {
            assert_true(ranges[j].length > 0 && ranges[j].offset >= end);
            assert_int_equal(ranges[j].offset % 512, 0);
            assert_int_equal(ranges[j].length % 512, 0);
            end = ranges[j].offset + ranges[j].length;
        }
        assert_true(end == size);
        assert_true(covered(ranges, count, 0));
        assert_true(covered(ranges, count, size < 2 << 20 ? size - 1 : (2 << 20) - 1));
        assert_true(covered(ranges, count, size < 2 << 20 ? 0 : size - (2 << 20)));
        assert_true(covered(ranges, count, size < 4 << 20 ? 0 : 4 << 20) ||
                    size <= 4 << 20);
        assert_true(end - ranges[0].offset == size);
    }
}

static void make_boot_sector(uint8_t head[512], uint16_t sector, uint8_t per_cluster,
                             uint64_t cluster)
{
    memset(head, 0, 512);
    memcpy(head + 3, "NTFS    ", 8);
    head[11] = (uint8_t)sector;
    head[12] = (uint8_t)(sector >> 8);
    head[13] = per_cluster;
    for (int i = 0; i < 8; i++)
        head[48 + i] = (uint8_t)(cluster >> (8 * i));
}

static void test_ntfs_table_is_found(void **state)
{
    (void)state;
    uint8_t head[512];
    struct mr_range range;

    make_boot_sector(head, 512, 8, 786432);
    assert_true(mr_ntfs_table(head, sizeof(head), 8ull << 30, 4096, &range));
    assert_true(range.offset == 3ull << 30);
    assert_int_equal(range.length, 16384);
    /* Clusters of 2^17 sectors... */
    make_boot_sector(head, 512, 256 - 10, 3);
    assert_true(mr_ntfs_table(head, sizeof(head), 8ull << 20, 512, &range));
    assert_true(range.offset == 3 * 512 * 1024);
    /* ... and one at the very end. */
    make_boot_sector(head, 512, 1, (1 << 20) / 512 - 1);
    assert_true(mr_ntfs_table(head, sizeof(head), 1 << 20, 512, &range));
    assert_int_equal(range.length, 512);
}

static void test_hostile_ntfs_table_is_not_followed(void **state)
{
    (void)state;
    uint8_t head[512];
    struct mr_range range;

    make_boot_sector(head, 512, 8, 256);
    assert_false(mr_ntfs_table(head, sizeof(head), 256 * 4096, 512, &range));
    assert_true(mr_ntfs_table(head, sizeof(head), 257 * 4096, 512, &range));
    assert_false(mr_ntfs_table(head, 511, 1 << 30, 512, &range));
    make_boot_sector(head, 512, 8, UINT64_MAX);
    assert_false(mr_ntfs_table(head, sizeof(head), 1ull << 40, 512, &range));
    make_boot_sector(head, 0, 8, 4);
    assert_false(mr_ntfs_table(head, sizeof(head), 1 << 30, 512, &range));
    make_boot_sector(head, 512, 0, 4);
    assert_false(mr_ntfs_table(head, sizeof(head), 1 << 30, 512, &range));
    make_boot_sector(head, 8192, 1, 4);
    assert_false(mr_ntfs_table(head, sizeof(head), 1 << 30, 512, &range));
    head[3] = 'X';
    assert_false(mr_ntfs_table(head, sizeof(head), 1 << 30, 512, &range));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets_and_portals_are_listed_by_name),
        cmocka_unit_test(test_what_is_no_target_name_is_left_out),
        cmocka_unit_test(test_what_is_no_portal_is_left_out),
        cmocka_unit_test(test_list_of_targets_has_an_end),
        cmocka_unit_test(test_luns_are_read_raw),
        cmocka_unit_test(test_luns_of_several_levels_are_left_out),
        cmocka_unit_test(test_bad_lists_of_luns_are_refused),
        cmocka_unit_test(test_names_of_an_inquiry_are_cut_and_cleaned),
        cmocka_unit_test(test_ranges_cover_both_edges_once),
        cmocka_unit_test(test_ntfs_table_is_found),
        cmocka_unit_test(test_hostile_ntfs_table_is_not_followed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
