/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>

#include "storage/lun/reservation.h"

static const uint8_t two_keys[] = {
    0,    0,    1,    2,    0,    0,    0,    16,   /* generation 258, 16 bytes */
    0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, /* a key */
    0xff, 0,    0,    0,    0,    0,    0,    1,    /* another */
};

static const uint8_t reserved[] = {
    0,    0,    1,    2,    0, 0, 0, 16, 0x11, 0x22, 0x33, 0x44,
    0x55, 0x66, 0x77, 0x88, 0, 0, 0, 0,  0,    0x05, 0,    0,
};

static void test_keys_are_read(void **state)
{
    struct mr_reservation seen = {.known = false};

    (void)state;
    assert_int_equal(mr_parse_pr_keys(two_keys, sizeof(two_keys), &seen), 0);
    assert_int_equal(seen.generation, 258);
    assert_int_equal(seen.key_count, 2);
    assert_true(seen.keys[0] == 0x1122334455667788);
    assert_true(seen.keys[1] == 0xff00000000000001);
    assert_false(seen.known); /* only the caller knows whether both answers fit */
    assert_int_equal(mr_reservation_count(&seen, 0x1122334455667788), 1);
    assert_int_equal(mr_reservation_count(&seen, 0x1122334455667789), 0);
}

static void test_a_key_is_counted_once_per_registration(void **state)
{
    struct mr_reservation seen = {.key_count = 3, .keys = {7, 8, 7, 7}};

    (void)state;
    assert_int_equal(mr_reservation_count(&seen, 7), 2);
}

static void test_no_keys_are_an_answer(void **state)
{
    static const uint8_t none[8] = {0, 0, 0, 9};
    struct mr_reservation seen = {.key_count = 5};

    (void)state;
    assert_int_equal(mr_parse_pr_keys(none, sizeof(none), &seen), 0);
    assert_int_equal(seen.generation, 9);
    assert_int_equal(seen.key_count, 0);
}

static void test_cut_keys_are_refused_at_every_length(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof(two_keys); len++) {
        /* On the heap and of this size, so that a read beyond it is caught. */
        uint8_t *data = malloc(len ? len : 1);
        struct mr_reservation seen = {.known = false};

        assert_non_null(data);
        memcpy(data, two_keys, len);
        assert_int_equal(mr_parse_pr_keys(data, len, &seen), -EBADMSG);
        assert_int_equal(seen.key_count, 0);
        free(data);
    }
}

static void check_keys_refused(uint32_t bytes, size_t len)
{
    static uint8_t data[8 + 8 * (MR_RESERVATION_KEYS_MAX + 2)];
    struct mr_reservation seen = {.known = false};

    memset(data, 0xaa, sizeof(data));
    for (size_t i = 0; i < 4; i++)
        data[4 + i] = (uint8_t)(bytes >> (24 - 8 * i));
    assert_int_equal(mr_parse_pr_keys(data, len, &seen), -EBADMSG);
    assert_int_equal(seen.key_count, 0);
}

static void test_key_lists_that_make_no_sense_are_refused(void **state)
{
    static const uint8_t zero_key[16] = {0, 0, 0, 1, 0, 0, 0, 8};
    struct mr_reservation seen;

    (void)state;
    check_keys_refused(0xffffffff, 8 + 16);
    check_keys_refused(0xfffffff8, 8 + 16);
    check_keys_refused(17, 8 + 24);
    check_keys_refused(12, 8 + 16);
    check_keys_refused(24, 8 + 16);
    /* More than we can keep: not all is known. */
    check_keys_refused(8 * (MR_RESERVATION_KEYS_MAX + 1),
                       8 + 8 * (MR_RESERVATION_KEYS_MAX + 1));
    assert_int_equal(mr_parse_pr_keys(zero_key, sizeof(zero_key), &seen), -EBADMSG);
}

static void test_as_many_keys_as_fit_are_read(void **state)
{
    static uint8_t data[8 + 8 * MR_RESERVATION_KEYS_MAX];
    struct mr_reservation seen;

    (void)state;
    memset(data, 0x5a, sizeof(data));
    data[4] = data[5] = 0;
    data[6] = 8 * MR_RESERVATION_KEYS_MAX >> 8;
    data[7] = 8 * MR_RESERVATION_KEYS_MAX & 0xff;
    assert_int_equal(mr_parse_pr_keys(data, sizeof(data), &seen), 0);
    assert_int_equal(seen.key_count, MR_RESERVATION_KEYS_MAX);
    assert_int_equal(mr_reservation_count(&seen, 0x5a5a5a5a5a5a5a5a),
                     MR_RESERVATION_KEYS_MAX);
}

static void test_a_reservation_is_read(void **state)
{
    struct mr_reservation seen = {.known = false};
    uint32_t generation = 0;

    (void)state;
    assert_int_equal(
        mr_parse_pr_reservation(reserved, sizeof(reserved), &seen, &generation), 0);
    assert_int_equal(generation, 258);
    assert_true(seen.held);
    assert_true(seen.holder == 0x1122334455667788);
    assert_int_equal(seen.type, 5);
}

static void test_no_reservation_is_an_answer(void **state)
{
    static const uint8_t none[8] = {0, 0, 0, 3};
    struct mr_reservation seen = {.held = true, .holder = 9, .type = 5};
    uint32_t generation = 0;

    (void)state;
    assert_int_equal(mr_parse_pr_reservation(none, sizeof(none), &seen, &generation), 0);
    assert_int_equal(generation, 3);
    assert_false(seen.held);
    assert_true(seen.holder == 0);
    assert_int_equal(seen.type, 0);
}

static void test_cut_reservations_are_refused_at_every_length(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof(reserved); len++) {
        uint8_t *data = malloc(len ? len : 1);
        struct mr_reservation seen = {.held = true};
        uint32_t generation = 0;

        assert_non_null(data);
        memcpy(data, reserved, len);
        assert_int_equal(mr_parse_pr_reservation(data, len, &seen, &generation),
                         -EBADMSG);
        assert_false(seen.held);
        free(data);
    }
}

static void test_reservations_that_make_no_sense_are_refused(void **state)
{
    uint8_t data[sizeof(reserved) + 16] = {0};
    struct mr_reservation seen;
    uint32_t generation = 0;

    (void)state;
    memcpy(data, reserved, sizeof(reserved));
    data[21] = 0x15; /* another scope than the logical unit */
    assert_int_equal(mr_parse_pr_reservation(data, sizeof(reserved), &seen, &generation),
                     -EBADMSG);
    assert_false(seen.held);
    data[21] = 0x05;
    for (unsigned bytes = 1; bytes < 256; bytes++) {
        data[7] = (uint8_t)bytes;
        assert_int_equal(mr_parse_pr_reservation(data, sizeof(data), &seen, &generation),
                         bytes == 16 ? 0 : -EBADMSG);
    }
    data[4] = 0xff;
    data[7] = 16;
    assert_int_equal(mr_parse_pr_reservation(data, sizeof(data), &seen, &generation),
                     -EBADMSG);
}

static void test_persistence_is_read_and_otherwise_no(void **state)
{
    /* As LIO answers with no registration that is kept: PTPL_C, and not PTPL_A. */
    uint8_t data[8] = {0, 8, 0x1d, 0x90, 0xea, 0x01};
    bool ptpl = false;

    (void)state;
    assert_int_equal(mr_parse_pr_capabilities(data, sizeof(data), &ptpl), 0);
    assert_true(ptpl);
    data[2] = 0x1c;
    data[3] = 0x91;
    assert_int_equal(mr_parse_pr_capabilities(data, sizeof(data), &ptpl), 0);
    assert_false(ptpl);
    data[2] = 0x1d;
    for (size_t len = 0; len < sizeof(data); len++) {
        ptpl = true;
        assert_int_equal(mr_parse_pr_capabilities(data, len, &ptpl), -EBADMSG);
        assert_false(ptpl);
    }
    data[1] = 7;
    assert_int_equal(mr_parse_pr_capabilities(data, sizeof(data), &ptpl), -EBADMSG);
    assert_false(ptpl);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_are_read),
        cmocka_unit_test(test_a_key_is_counted_once_per_registration),
        cmocka_unit_test(test_no_keys_are_an_answer),
        cmocka_unit_test(test_cut_keys_are_refused_at_every_length),
        cmocka_unit_test(test_key_lists_that_make_no_sense_are_refused),
        cmocka_unit_test(test_as_many_keys_as_fit_are_read),
        cmocka_unit_test(test_a_reservation_is_read),
        cmocka_unit_test(test_no_reservation_is_an_answer),
        cmocka_unit_test(test_cut_reservations_are_refused_at_every_length),
        cmocka_unit_test(test_reservations_that_make_no_sense_are_refused),
        cmocka_unit_test(test_persistence_is_read_and_otherwise_no),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
