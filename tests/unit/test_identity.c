/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "storage/base/json.h"
#include "storage/identity.h"

static const struct mr_identity sample = {
    .node = "/dev/loop3",
    .major = 7,
    .minor = 3,
    .diskseq = 123456789012,
    .size_bytes = 1ULL << 50,
    .block_size = 4096,
    .serial = "SER 1",
    .wwn = "naa.600140512345",
    .fs_uuid = "0f3e1b1e-8f4b-4f6c-9a43-2a2a6dcf6d9b",
    .source_key = "file:2049:131",
    .lun_pid = 4711,
    .lun_start_time = 987654321,
};

static void test_identity_survives_json(void **state)
{
    (void)state;
    MR_AUTO_JSON struct json_object *json = mr_identity_to_json(&sample);
    struct mr_identity back;
    mr_identity_from_json(&back, json);
    assert_string_equal(back.node, sample.node);
    assert_int_equal(back.major, sample.major);
    assert_int_equal(back.minor, sample.minor);
    assert_int_equal(back.diskseq, sample.diskseq);
    assert_int_equal(back.size_bytes, sample.size_bytes);
    assert_int_equal(back.block_size, sample.block_size);
    assert_string_equal(back.serial, sample.serial);
    assert_string_equal(back.wwn, sample.wwn);
    assert_string_equal(back.fs_uuid, sample.fs_uuid);
    assert_string_equal(back.source_key, sample.source_key);
    assert_int_equal(back.lun_pid, sample.lun_pid);
    assert_int_equal(back.lun_start_time, sample.lun_start_time);
}

static void test_mount_record_survives_json(void **state)
{
    (void)state;
    static const struct mr_mount_record record = {
        .mount = {.id = (1ULL << 32) + 7, .unique = true, .major = 7, .minor = 3},
        .root = "/var/lib/mooring/volumes",
        .path = "a/b c",
        .created = 2,
    };
    MR_AUTO_JSON struct json_object *json = mr_mount_record_to_json(&record);
    struct mr_mount_record back;
    mr_mount_record_from_json(&back, json);
    assert_int_equal(back.mount.id, record.mount.id);
    assert_true(back.mount.unique);
    assert_int_equal(back.mount.major, 7);
    assert_int_equal(back.mount.minor, 3);
    assert_string_equal(back.root, record.root);
    assert_string_equal(back.path, record.path);
    assert_int_equal(back.created, 2);
}

static void test_missing_or_wrong_members_become_zero(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{}",
        "[1]",
        "{'node': 5, 'major': '7', 'minor': 1.5, 'diskseq': -1, 'lun_pid': 4294967296}",
        "{'node': 'a node name that is longer than the field it goes into', 'major': "
        "4294967296,"
        " 'minor': -3, 'diskseq': null, 'lun_pid': -1, 'serial': 'a\\u0000b'}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        MR_AUTO_JSON struct json_object *json = parse_json(bad[i]);
        static const struct mr_identity zero;
        struct mr_identity identity = sample;
        mr_identity_from_json(&identity, json);
        assert_memory_equal(&identity, &zero, sizeof(zero));
    }
}

static void test_null_json_zeroes(void **state)
{
    (void)state;
    static const struct mr_mount_record zero;
    struct mr_identity identity = sample;
    struct mr_mount_record record;
    memset(&record, 0xff, sizeof(record));
    mr_identity_from_json(&identity, NULL);
    mr_mount_record_from_json(&record, NULL);
    assert_int_equal(identity.diskseq, 0);
    assert_memory_equal(&record, &zero, sizeof(zero));
}

#define TOKEN "00112233445566778899aabbccddeeff"

/* Known answers: what is in a kernel must be found by the agents of the years to come. */
static void test_mark_names_token_and_owner(void **state)
{
    (void)state;
    char mark[MR_MARK_TEXT];
    char token[MR_TOKEN_TEXT];

    mr_mark(mark, TOKEN, "/run/mooring");
    assert_string_equal(mark, "mooring:" TOKEN ":ecae8042ed180713");
    assert_true(mr_mark_read(mark, "/run/mooring", token));
    assert_string_equal(token, TOKEN);
    mr_mark(mark, TOKEN, "/");
    assert_string_equal(mark, "mooring:" TOKEN ":af63a24c860189fe");
}

static void test_mark_of_another_agent_is_not_ours(void **state)
{
    (void)state;
    char mark[MR_MARK_TEXT];
    char token[MR_TOKEN_TEXT];

    mr_mark(mark, TOKEN, "/run/mooring");
    assert_false(mr_mark_read(mark, "/run/mooring2", token));
    assert_false(mr_mark_read(mark, "/run/moorin", token));
    assert_false(mr_mark_read(mark, "", token));
    assert_true(mr_mark_read(mark, "/run/mooring//", token)); /* the same directory */
}

static void test_text_that_is_no_mark_is_not_read_as_one(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "mooring:",
        "mooring",
        "mooring:" TOKEN,
        "mooring:" TOKEN ":",
        "mooring:" TOKEN ":ecae8042ed180713x",
        "mooring:" TOKEN ":ecae8042ed180713\n",
        "mooring:" TOKEN "xecae8042ed180713",
        "Mooring:" TOKEN ":ecae8042ed180713",
        "mooring:00112233445566778899AABBCCDDEEFF:ecae8042ed180713",
        "mooring:00112233445566778899aabbccddee:f:ecae8042ed180713",
        "mooring:../../../../../../etc/passwd/00:ecae8042ed180713",
        " mooring:" TOKEN ":ecae8042ed180713",
        "\xff\xfe\x01",
    };
    char token[MR_TOKEN_TEXT];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (mr_mark_read(bad[i], "/run/mooring", token))
            fail_msg("'%s' was read as a mark", bad[i]);
}

static void test_token_is_32_lower_case_hex_digits(void **state)
{
    (void)state;
    assert_true(mr_token_valid(TOKEN));
    assert_false(mr_token_valid(NULL));
    assert_false(mr_token_valid(""));
    assert_false(mr_token_valid(TOKEN "0"));
    assert_false(mr_token_valid("00112233445566778899aabbccddeef"));
    assert_false(mr_token_valid("00112233445566778899AABBCCDDEEFF"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mark_names_token_and_owner),
        cmocka_unit_test(test_mark_of_another_agent_is_not_ours),
        cmocka_unit_test(test_text_that_is_no_mark_is_not_read_as_one),
        cmocka_unit_test(test_token_is_32_lower_case_hex_digits),
        cmocka_unit_test(test_identity_survives_json),
        cmocka_unit_test(test_mount_record_survives_json),
        cmocka_unit_test(test_missing_or_wrong_members_become_zero),
        cmocka_unit_test(test_null_json_zeroes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
