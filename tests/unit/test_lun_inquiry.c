/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/lun/inquiry.h"

typedef int (*parse_fn)(const uint8_t *data, size_t len, struct mr_lun_facts *facts);

/* Parses an exact copy, so that a sanitizer sees a read past the end. */
static int parse(parse_fn fn, const void *data, size_t len, struct mr_lun_facts *facts)
{
    uint8_t *copy = malloc(len ? len : 1);
    int r;

    assert_non_null(copy);
    memcpy(copy, data, len);
    r = fn(copy, len, facts);
    free(copy);
    return r;
}

static int capacity(uint64_t last, uint32_t block, uint8_t flags,
                    struct mr_lun_facts *facts)
{
    uint8_t data[32] = {0};

    for (size_t i = 0; i < 8; i++)
        data[i] = (uint8_t)(last >> (56 - 8 * i));
    for (size_t i = 0; i < 4; i++)
        data[8 + i] = (uint8_t)(block >> (24 - 8 * i));
    data[14] = flags;
    return parse(mr_parse_capacity16, data, sizeof(data), facts);
}

static void test_capacity_is_read(void **state)
{
    (void)state;
    struct mr_lun_facts facts = {0};

    assert_int_equal(capacity(2097151, 512, 0xc0, &facts), 0);
    assert_true(facts.size_bytes == 1ull << 30);
    assert_int_equal(facts.block_size, 512);
    assert_true(facts.thin);
    /* Thin, but unmapped blocks read as anything: no use for zeroing. */
    assert_int_equal(capacity(2097151, 512, 0x80, &facts), 0);
    assert_false(facts.thin);
    assert_int_equal(capacity(0, 4096, 0, &facts), 0);
    assert_true(facts.size_bytes == 4096);
    assert_false(facts.thin);
}

static void test_impossible_capacities_are_refused(void **state)
{
    (void)state;
    static const uint32_t blocks[] = {0, 1, 256, 520, 528, 4160, 8192, UINT32_MAX};
    struct mr_lun_facts facts = {0};
    uint8_t data[14] = {0};

    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++)
        assert_int_equal(capacity(1000, blocks[i], 0, &facts), -ENOTSUP);
    assert_int_equal(capacity(UINT64_MAX, 512, 0, &facts), -EBADMSG);
    assert_int_equal(capacity((uint64_t)INT64_MAX / 512, 512, 0, &facts), -EBADMSG);
    assert_int_equal(parse(mr_parse_capacity16, data, sizeof(data), &facts), -EBADMSG);
}

static void test_serial_is_trimmed_and_cleaned(void **state)
{
    (void)state;
    const uint8_t page[] = {0, 0x80, 0, 9, ' ', 'a', 'b', '\n', 'c', 0xff, ' ', 0, ' '};
    struct mr_lun_facts facts = {0};

    assert_int_equal(parse(mr_parse_vpd_serial, page, sizeof(page), &facts), 0);
    assert_string_equal(facts.serial, "ab_c_");
}

static void test_serial_with_a_lying_length_is_cut(void **state)
{
    (void)state;
    uint8_t page[260] = {0, 0x80, 0xff, 0xff};
    struct mr_lun_facts facts = {0};

    memset(page + 4, 'x', sizeof(page) - 4);
    assert_int_equal(parse(mr_parse_vpd_serial, page, sizeof(page), &facts), 0);
    assert_int_equal(strlen(facts.serial), sizeof(facts.serial) - 1);
    assert_int_equal(parse(mr_parse_vpd_serial, page, 4, &facts), 0);
    assert_string_equal(facts.serial, "");
    assert_int_equal(parse(mr_parse_vpd_serial, page, 3, &facts), -EBADMSG);
    page[1] = 0x83;
    assert_int_equal(parse(mr_parse_vpd_serial, page, sizeof(page), &facts), -EBADMSG);
}

static void test_longest_naa_of_the_lun_wins(void **state)
{
    (void)state;
    const uint8_t page[] = {
        0,    0x83, 0, 46,                             /* */
        0x02, 0x01, 0, 4,  'T',  'E',  'S', 'T',       /* T10: not binary */
        0x01, 0x02, 0, 2,  1,    2,                    /* EUI */
        0x01, 0x13, 0, 12, 9,    9,    9,   9,         /* NAA of a port */
        9,    9,    9, 9,  9,    9,    9,   9,         /* */
        0x01, 0x03, 0, 2,  0x50, 0x01,                 /* NAA, short */
        0x01, 0x03, 0, 6,  0x60, 0xab, 0,   1,   2, 3, /* NAA, longer */
    };
    struct mr_lun_facts facts = {0};

    assert_int_equal(parse(mr_parse_vpd_device_id, page, sizeof(page), &facts), 0);
    assert_string_equal(facts.wwn, "naa.60ab00010203");
}

static void test_designator_past_the_end_is_refused(void **state)
{
    (void)state;
    const uint8_t page[] = {0, 0x83, 0, 255, 0x01, 0x03, 0, 200, 1, 2, 3};
    struct mr_lun_facts facts = {0};

    assert_int_equal(parse(mr_parse_vpd_device_id, page, sizeof(page), &facts), -EBADMSG);
    assert_string_equal(facts.wwn, "");
}

static void test_limits_are_read_as_far_as_they_go(void **state)
{
    (void)state;
    uint8_t page[64] = {0, 0xb0, 0, 0x3c};
    struct mr_lun_facts facts = {0};

    page[11] = 16; /* maximum transfer length */
    page[31] = 8;  /* optimal unmap granularity */
    page[42] = 1;  /* maximum write same length: 256 */
    assert_int_equal(parse(mr_parse_vpd_limits, page, sizeof(page), &facts), 0);
    assert_int_equal(facts.max_transfer_blocks, 16);
    assert_int_equal(facts.unmap_granularity_blocks, 8);
    assert_true(facts.max_write_same_blocks == 256);
    facts = (struct mr_lun_facts){0};
    assert_int_equal(parse(mr_parse_vpd_limits, page, 16, &facts), 0);
    assert_int_equal(facts.max_transfer_blocks, 16);
    assert_true(facts.max_write_same_blocks == 0);
    assert_int_equal(parse(mr_parse_vpd_limits, page, 15, &facts), -EBADMSG);
}

static int mode(const uint8_t *data, size_t len, struct mr_lun_facts *facts)
{
    *facts = (struct mr_lun_facts){0};
    return parse(mr_parse_mode_sense6, data, len, facts);
}

static void test_write_cache_is_known_only_when_said(void **state)
{
    (void)state;
    uint8_t on[] = {23, 0, 0x80, 0, 0x08, 0x12, 0x04, 0, 0, 0, 0, 0,
                    0,  0, 0,    0, 0,    0,    0,    0, 0, 0, 0, 0};
    const uint8_t other[] = {7, 0, 0, 0, 0x0a, 2, 0, 0};
    const uint8_t sub[] = {11, 0, 0, 0, 0x4a, 1, 0, 0, 0x08, 0x12, 0x00, 0};
    const uint8_t cut[] = {5, 0, 0, 0, 0x08, 0x12};
    struct mr_lun_facts facts;

    assert_int_equal(mode(on, sizeof(on), &facts), 0);
    assert_int_equal(facts.write_cache, MR_WRITE_CACHE_ON);
    assert_true(facts.write_protected);
    on[6] = 0;
    assert_int_equal(mode(on, sizeof(on), &facts), 0);
    assert_int_equal(facts.write_cache, MR_WRITE_CACHE_OFF);
    assert_int_equal(mode(other, sizeof(other), &facts), 0);
    assert_int_equal(facts.write_cache, MR_WRITE_CACHE_UNKNOWN);
    assert_false(facts.write_protected);
    assert_int_equal(mode(sub, sizeof(sub), &facts), 0);
    assert_int_equal(facts.write_cache, MR_WRITE_CACHE_OFF);
    assert_int_equal(mode(cut, sizeof(cut), &facts), 0);
    assert_int_equal(facts.write_cache, MR_WRITE_CACHE_UNKNOWN);
    assert_int_equal(mode(on, 3, &facts), -EBADMSG);
}

/* Every parser on every length of every page: a sanitizer watches. */
static void test_cut_answers_are_never_read_past_their_end(void **state)
{
    (void)state;
    static const parse_fn all[] = {mr_parse_capacity16, mr_parse_vpd_serial,
                                   mr_parse_vpd_device_id, mr_parse_vpd_limits,
                                   mr_parse_mode_sense6};
    static const uint8_t pages[] = {0x80, 0x83, 0xb0};
    uint8_t data[96];
    struct mr_lun_facts facts;

    for (size_t p = 0; p < sizeof(pages); p++) {
        for (unsigned fill = 0; fill < 256; fill += 5) {
            memset(data, (int)fill, sizeof(data));
            data[1] = pages[p];
            for (size_t len = 0; len <= sizeof(data); len++) {
                for (size_t f = 0; f < sizeof(all) / sizeof(all[0]); f++) {
                    facts = (struct mr_lun_facts){0};
                    (void)parse(all[f], data, len, &facts);
                    assert_true(strlen(facts.wwn) < sizeof(facts.wwn));
                    assert_true(strlen(facts.serial) < sizeof(facts.serial));
                }
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_capacity_is_read),
        cmocka_unit_test(test_impossible_capacities_are_refused),
        cmocka_unit_test(test_serial_is_trimmed_and_cleaned),
        cmocka_unit_test(test_serial_with_a_lying_length_is_cut),
        cmocka_unit_test(test_longest_naa_of_the_lun_wins),
        cmocka_unit_test(test_designator_past_the_end_is_refused),
        cmocka_unit_test(test_limits_are_read_as_far_as_they_go),
        cmocka_unit_test(test_write_cache_is_known_only_when_said),
        cmocka_unit_test(test_cut_answers_are_never_read_past_their_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
