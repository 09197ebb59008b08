/* SPDX-License-Identifier: Apache-2.0
 *
 * What the probe calls blank, and making file systems, on real loop devices.
 */
#include "storage/worker/filesystem.h"

#include "tests/unit/test_worker_env.h"

#define UUID_A "0c3f0f5e-9f3a-4a6e-8f0b-6d4b7a1c2e01"
#define UUID_B "0c3f0f5e-9f3a-4a6e-8f0b-6d4b7a1c2e02"
#define FAR_NS (mr_now_ns() + 120 * MR_NS_PER_S)

static void image_write(const char *name, off_t at, const void *data, size_t len)
{
    char path[ENV_PATH];

    MR_AUTO_CLOSE int fd = open(env_path(path, env_images, name), O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, len, at), (ssize_t)len);
}

/* Probes an image of this size with one thing written to it. */
static struct mr_probe probe_with(off_t bytes, off_t at, const void *data, size_t len)
{
    char token[MR_TOKEN_TEXT];
    char path[ENV_PATH];
    struct mr_identity identity;
    struct mr_probe probe;
    struct mr_err err = {0};

    env_image(path, "p.img", bytes);
    if (len > 0)
        image_write("p.img", at, data, len);
    assert_int_equal(env_try_map(env_token(token), path, false, &identity, &err), 0);
    assert_int_equal(mr_filesystem_probe(&identity, &probe, &err), 0);
    env_unmap(token, &identity);
    return probe;
}

static void test_zeroes_are_blank(void **state)
{
    static const off_t sizes[] = {512, 4096, MIB, 2 * MIB, 3 * MIB, 4 * MIB, 64 * MIB};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        assert_int_equal(probe_with(sizes[i], 0, NULL, 0).content, MR_CONTENT_BLANK);
}

static void test_one_byte_at_either_edge_is_not_blank(void **state)
{
    static const off_t offsets[] = {0, 511, 2 * MIB - 1, 14 * MIB, 16 * MIB - 1};
    char detail[64];

    (void)state;
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        struct mr_probe probe = probe_with(ENV_SMALL_BYTES, offsets[i], "x", 1);
        assert_int_equal(probe.content, MR_CONTENT_UNKNOWN);
        (void)snprintf(detail, sizeof(detail), "non-zero byte at offset %jd",
                       (intmax_t)offsets[i]);
        assert_string_equal(probe.detail, detail);
    }
}

static void test_edges_of_a_short_device_meet_without_a_gap(void **state)
{
    (void)state;
    /* 3 MiB: head is [0, 2), tail is [1, 3). */
    assert_int_equal(probe_with(3 * MIB, 3 * MIB - 1, "x", 1).content,
                     MR_CONTENT_UNKNOWN);
    assert_int_equal(probe_with(3 * MIB, 2 * MIB, "x", 1).content, MR_CONTENT_UNKNOWN);
}

/* One Linux partition, from sector 2048, 2048 long. */
static void partition_table(unsigned char mbr[512])
{
    memset(mbr, 0, 512);
    mbr[446 + 4] = 0x83;
    mbr[446 + 9] = 8;
    mbr[446 + 13] = 8;
    mbr[510] = 0x55;
    mbr[511] = 0xaa;
}

static void test_foreign_signatures_are_named_and_not_blank(void **state)
{
    static const unsigned char luks[] = {'L', 'U', 'K', 'S', 0xba, 0xbe, 0, 1};
    unsigned char label[512] = "LABELONE"; /* LVM2 label in sector 1 */
    unsigned char mbr[512];

    (void)state;
    label[8] = 1;   /* sector number, 64 bit */
    label[20] = 32; /* offset of the volume's header */
    memcpy(label + 24, "LVM2 001", 8);
    struct mr_probe probe = probe_with(ENV_SMALL_BYTES, 512, label, sizeof(label));
    assert_int_not_equal(probe.content, MR_CONTENT_BLANK); /* its checksum is wrong */

    probe = probe_with(ENV_SMALL_BYTES, 0, luks, sizeof(luks));
    assert_int_equal(probe.content, MR_CONTENT_FORMATTED);
    assert_string_equal(probe.type, "crypto_LUKS");

    partition_table(mbr);
    probe = probe_with(ENV_SMALL_BYTES, 0, mbr, sizeof(mbr));
    assert_int_equal(probe.content, MR_CONTENT_FORMATTED);
    assert_string_equal(probe.type, "dos");
    assert_non_null(strstr(probe.detail, "partition table"));
}

static void run_on_image(const char *name, off_t bytes, const char *tool,
                         const char *option)
{
    char path[ENV_PATH];

    ENV_RUN(tool, option, env_image(path, name, bytes));
}

static struct mr_probe probe_image(const char *name)
{
    char token[MR_TOKEN_TEXT];
    char path[ENV_PATH];
    struct mr_identity identity;
    struct mr_probe probe;
    struct mr_err err = {0};

    env_path(path, env_images, name);
    assert_int_equal(env_try_map(env_token(token), path, false, &identity, &err), 0);
    assert_int_equal(mr_filesystem_probe(&identity, &probe, &err), 0);
    env_unmap(token, &identity);
    return probe;
}

static void test_existing_file_systems_are_named_with_their_uuid(void **state)
{
    (void)state;
    run_on_image("e.img", ENV_SMALL_BYTES, "/usr/sbin/mkfs.ext4", "-q");
    struct mr_probe probe = probe_image("e.img");
    assert_int_equal(probe.content, MR_CONTENT_FORMATTED);
    assert_string_equal(probe.type, "ext4");
    assert_int_equal(strlen(probe.uuid), 36);
    assert_non_null(strstr(probe.detail, "ext4 file system, UUID "));

    run_on_image("s.img", ENV_SMALL_BYTES, "/usr/sbin/mkswap", "-q");
    probe = probe_image("s.img");
    assert_int_equal(probe.content, MR_CONTENT_FORMATTED);
    assert_string_equal(probe.type, "swap");
}

static void test_two_signatures_are_unknown(void **state)
{
    static const char romfs[] = "-rom1fs-";
    unsigned char mbr[512];

    (void)state;
    run_on_image("e.img", ENV_SMALL_BYTES, "/usr/sbin/mkfs.ext4", "-q");
    partition_table(mbr);
    image_write("e.img", 0, mbr, sizeof(mbr));
    struct mr_probe probe = probe_image("e.img");
    assert_int_equal(probe.content, MR_CONTENT_UNKNOWN);
    assert_non_null(strstr(probe.detail, "ext4 and a dos partition table"));

    run_on_image("e.img", ENV_SMALL_BYTES, "/usr/sbin/mkfs.ext4", "-q");
    image_write("e.img", 0, romfs, sizeof(romfs));
    probe = probe_image("e.img");
    assert_int_equal(probe.content, MR_CONTENT_UNKNOWN);
    assert_non_null(strstr(probe.detail, "several signatures"));
}

/* mkfs.ext4 that died before it wrote the superblock: libblkid says nothing, but it is
 * not blank. */
static void test_interrupted_mkfs_is_not_blank(void **state)
{
    static const unsigned char zeroes[2048] = {0};

    (void)state;
    run_on_image("e.img", ENV_SMALL_BYTES, "/usr/sbin/mkfs.ext4", "-q");
    image_write("e.img", 0, zeroes, sizeof(zeroes));
    struct mr_probe probe = probe_image("e.img");
    assert_int_equal(probe.content, MR_CONTENT_UNKNOWN);
    assert_non_null(strstr(probe.detail, "non-zero byte at offset"));
}

/* The backing file was cut behind the device's back: its tail cannot be read. */
static void test_unreadable_device_is_unknown(void **state)
{
    char token[MR_TOKEN_TEXT];
    char path[ENV_PATH];
    struct mr_identity identity;
    struct mr_probe probe;
    struct mr_err err = {0};

    (void)state;
    env_map("cut.img", ENV_SMALL_BYTES, token, &identity);
    assert_int_equal(truncate(env_path(path, env_images, "cut.img"), 4 * MIB), 0);
    assert_int_equal(mr_filesystem_probe(&identity, &probe, &err), 0);
    assert_int_equal(probe.content, MR_CONTENT_UNKNOWN);
    assert_non_null(strstr(probe.detail, "cannot read"));
    env_unmap(token, &identity);
}

static void test_probe_of_another_diskseq_is_a_mismatch(void **state)
{
    char token[MR_TOKEN_TEXT];
    struct mr_identity identity;
    struct mr_identity wrong;
    struct mr_probe probe;
    struct mr_err err = {0};

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &identity);
    wrong = identity;
    wrong.diskseq--;
    assert_true(mr_filesystem_probe(&wrong, &probe, &err) < 0);
    assert_int_equal(err.code, MR_E_DEVICE_MISMATCH);
    assert_true(mr_filesystem_format(&wrong, "ext4", UUID_A, -1, FAR_NS, &err) < 0);
    assert_int_equal(err.code, MR_E_DEVICE_MISMATCH);
    assert_int_equal(mr_filesystem_probe(&identity, &probe, &err), 0);
    assert_int_equal(probe.content, MR_CONTENT_BLANK); /* untouched */
    env_unmap(token, &identity);
}

static void format_and_look(const char *type, off_t bytes)
{
    char token[MR_TOKEN_TEXT];
    struct mr_identity identity;
    struct mr_probe probe;
    struct mr_err err = {0};

    env_map("f.img", bytes, token, &identity);
    int r = mr_filesystem_format(&identity, type, UUID_A, -1, FAR_NS, &err);
    if (r < 0)
        print_error("%s\n", err.message);
    assert_int_equal(r, 0);
    assert_int_equal(mr_filesystem_probe(&identity, &probe, &err), 0);
    assert_int_equal(probe.content, MR_CONTENT_FORMATTED);
    assert_string_equal(probe.type, type);
    assert_string_equal(probe.uuid, UUID_A);
    bool same = false;
    assert_int_equal(mr_filesystem_is(&identity, type, UUID_A, &same, &err), 0);
    assert_true(same);
    assert_int_equal(mr_filesystem_is(&identity, type, UUID_B, &same, &err), 0);
    assert_false(same);
    assert_int_equal(mr_filesystem_is(&identity, "btrfs", UUID_A, &same, &err), 0);
    assert_false(same);
    env_unmap(token, &identity); /* nothing of mkfs holds it */
}

static void test_format_makes_the_file_system_with_the_given_uuid(void **state)
{
    (void)state;
    format_and_look("ext4", ENV_SMALL_BYTES);
    format_and_look("xfs", ENV_XFS_BYTES);
}

static void test_format_of_a_held_device_is_refused(void **state)
{
    char token[MR_TOKEN_TEXT];
    struct mr_identity identity;
    struct mr_probe probe;
    struct mr_err err = {0};

    (void)state;
    env_map("f.img", ENV_SMALL_BYTES, token, &identity);
    int holder = open(identity.node, O_RDONLY | O_EXCL | O_CLOEXEC);
    assert_true(holder >= 0);
    assert_true(mr_filesystem_format(&identity, "ext4", UUID_A, -1, FAR_NS, &err) < 0);
    assert_int_equal(err.code, MR_E_DEVICE_HELD);
    assert_int_equal(close(holder), 0);
    assert_int_equal(mr_filesystem_probe(&identity, &probe, &err), 0);
    assert_int_equal(probe.content, MR_CONTENT_BLANK);
    env_unmap(token, &identity);
}

static void test_failing_mkfs_is_reported_with_its_words(void **state)
{
    char token[MR_TOKEN_TEXT];
    struct mr_identity identity;
    struct mr_err err = {0};

    (void)state;
    env_map("f.img", ENV_SMALL_BYTES, token, &identity);
    assert_true(mr_filesystem_format(&identity, "xfs", UUID_A, -1, FAR_NS, &err) < 0);
    assert_int_equal(err.code, MR_E_DEVICE_ERROR);
    assert_non_null(strstr(err.message, "mkfs.xfs"));
    assert_non_null(strstr(err.message, "300MB"));
    assert_true(mr_filesystem_format(&identity, "btrfs", UUID_A, -1, FAR_NS, &err) < 0);
    assert_int_equal(err.code, MR_E_FILESYSTEM_UNSUPPORTED);
    env_unmap(token, &identity);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zeroes_are_blank),
        cmocka_unit_test(test_one_byte_at_either_edge_is_not_blank),
        cmocka_unit_test(test_edges_of_a_short_device_meet_without_a_gap),
        cmocka_unit_test(test_foreign_signatures_are_named_and_not_blank),
        cmocka_unit_test(test_existing_file_systems_are_named_with_their_uuid),
        cmocka_unit_test(test_two_signatures_are_unknown),
        cmocka_unit_test(test_interrupted_mkfs_is_not_blank),
        cmocka_unit_test(test_unreadable_device_is_unknown),
        cmocka_unit_test(test_probe_of_another_diskseq_is_a_mismatch),
        cmocka_unit_test(test_format_makes_the_file_system_with_the_given_uuid),
        cmocka_unit_test(test_format_of_a_held_device_is_refused),
        cmocka_unit_test(test_failing_mkfs_is_reported_with_its_words),
    };

    return cmocka_run_group_tests_name("worker filesystem", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
