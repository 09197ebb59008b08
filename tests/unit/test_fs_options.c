/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "storage/fs_options.h"

static void test_only_xfs_and_ext4_are_known(void **state)
{
    (void)state;
    assert_true(mr_fs_type_known("xfs"));
    assert_true(mr_fs_type_known("ext4"));
    assert_false(mr_fs_type_known("ext3"));
    assert_false(mr_fs_type_known("XFS"));
    assert_false(mr_fs_type_known(""));
    assert_false(mr_fs_type_known(NULL));
}

static void test_useful_options_are_allowed(void **state)
{
    (void)state;
    static const char *const both[] = {"noatime", "nosuid",  "suid",
                                       "dev",     "discard", "lazytime"};
    static const char *const xfs[] = {"inode64", "logbsize=256k", "allocsize=1m",
                                      "logbufs=8"};
    static const char *const ext4[] = {"commit=30",         "data=journal",
                                       "errors=remount-ro", "errors=continue",
                                       "stripe=0",          "journal_ioprio=7"};
    for (size_t i = 0; i < sizeof(both) / sizeof(both[0]); i++) {
        assert_true(mr_fs_option_allowed("xfs", both[i]));
        assert_true(mr_fs_option_allowed("ext4", both[i]));
    }
    for (size_t i = 0; i < sizeof(xfs) / sizeof(xfs[0]); i++) {
        assert_true(mr_fs_option_allowed("xfs", xfs[i]));
        assert_false(mr_fs_option_allowed("ext4", xfs[i]));
    }
    for (size_t i = 0; i < sizeof(ext4) / sizeof(ext4[0]); i++) {
        assert_true(mr_fs_option_allowed("ext4", ext4[i]));
        assert_false(mr_fs_option_allowed("xfs", ext4[i]));
    }
}

static void test_dangerous_options_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "logdev=/dev/sda",
        "rtdev=/dev/sda",
        "journal_path=/dev/sda",
        "journal_dev=2049",
        "usrjquota=/etc/x",
        "norecovery",
        "noload",
        "nouuid",
        "sb=1",
        "nobarrier",
        "barrier=0",
        "errors=panic",
        "data=writeback",
        "ro",
        "rw",
        "remount",
        "bind",
        "loop",
        "defaults",
        "user",
        "context=x",
        "x-initrd.mount",
        "_netdev",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(mr_fs_option_allowed("xfs", bad[i]));
        assert_false(mr_fs_option_allowed("ext4", bad[i]));
    }
}

static void test_malformed_options_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "=",
        "noatime,suid",
        "noatime ",
        "NOATIME",
        "noatim",
        "noatimex",
        "noatime=",
        "noatime=1",
        "commit",
        "commit=",
        "commit=0",
        "commit=301",
        "commit=-5",
        "commit=5s",
        "commit= 5",
        "commit=99999999999999999999",
        "data",
        "data=",
        "data=order",
        "data=ordered|journal",
        "data=|",
        "stripe=1k",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(mr_fs_option_allowed("ext4", bad[i]));
    assert_false(mr_fs_option_allowed("xfs", "logbsize=1"));
    assert_false(mr_fs_option_allowed("xfs", "logbsize=256kk"));
    assert_false(mr_fs_option_allowed("xfs", "logbsize=9999999999g"));
    assert_false(mr_fs_option_allowed("ext3", "noatime"));
    assert_false(mr_fs_option_allowed(NULL, "noatime"));
    assert_false(mr_fs_option_allowed("xfs", NULL));
}

static void test_contradictions_are_seen(void **state)
{
    (void)state;
    assert_true(mr_fs_options_conflict("xfs", "noatime", "relatime"));
    assert_true(mr_fs_options_conflict("xfs", "suid", "nosuid"));
    assert_true(mr_fs_options_conflict("ext4", "commit=5", "commit=30"));
    assert_true(mr_fs_options_conflict("ext4", "dirsync", "dirsync"));
    assert_false(mr_fs_options_conflict("ext4", "suid", "nodev"));
    assert_false(mr_fs_options_conflict("ext4", "dirsync", "usrquota"));
    assert_false(mr_fs_options_conflict("ext4", "commit=5", "stripe=5"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_xfs_and_ext4_are_known),
        cmocka_unit_test(test_useful_options_are_allowed),
        cmocka_unit_test(test_dangerous_options_are_refused),
        cmocka_unit_test(test_malformed_options_are_refused),
        cmocka_unit_test(test_contradictions_are_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
