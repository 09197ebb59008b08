/* SPDX-License-Identifier: Apache-2.0
 *
 * Lines of /proc, as the kernel writes them and as they should never be.
 */
#include "storage/worker/scan_parse.h"

#include <errno.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include "storage/base/cleanup.h"
#include "tests/unit/unit.h"

static void test_mountinfo_line_with_optional_fields_and_escapes(void **state)
{
    char line[] =
        "1201 35 7:3 /sub /mnt/a\\040b\\134c rw,relatime shared:7 master:2 - ext4 "
        "/dev/loop3 rw,lowerdir=/x\\040y";
    struct mr_mountinfo info;

    (void)state;
    assert_int_equal(mr_parse_mountinfo(line, &info), 0);
    assert_int_equal(info.id, 1201);
    assert_int_equal(info.parent, 35);
    assert_true(info.dev == makedev(7, 3));
    assert_int_equal(info.shared, 7);
    assert_int_equal(info.master, 2);
    assert_string_equal(info.root, "/sub");
    assert_string_equal(info.point, "/mnt/a b\\c");
    assert_string_equal(info.fs_type, "ext4");
    assert_string_equal(info.options, "rw,lowerdir=/x\\040y");
}

static void test_mountinfo_line_with_empty_source(void **state)
{
    char line[] = "30 1 0:28 / /run rw - tmpfs  rw,size=1k";
    struct mr_mountinfo info;

    (void)state;
    assert_int_equal(mr_parse_mountinfo(line, &info), 0);
    assert_string_equal(info.fs_type, "tmpfs");
    assert_string_equal(info.options, "rw,size=1k");
}

static void test_broken_mountinfo_is_refused(void **state)
{
    static const char *const lines[] = {
        "",
        "1 2 3:4",
        "1 2 3:4 / /mnt rw",
        "1 2 3:4 / /mnt rw shared:1 ext4 /dev/x rw",
        "1 2 3:4 / /mnt rw - ext4",
        "1 2 x / /mnt rw - ext4 /dev/x rw",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        MR_AUTO_FREE char *line = strdup(lines[i]);
        struct mr_mountinfo info;
        assert_int_equal(mr_parse_mountinfo(line, &info), -EINVAL);
    }
}

static void test_only_octal_bytes_are_unescaped(void **state)
{
    char text[] = "\\040\\400\\08\\\\101\\101\\";

    (void)state;
    mr_unescape_octal(text);
    assert_string_equal(text, " \\400\\08\\AA\\");
}

static void assert_layers(const char *options, const char *const *expected)
{
    MR_AUTO_FREE char *copy = strdup(options);
    struct mr_overlay_layers layers = {.options = copy};
    const char *layer;

    for (; (layer = mr_overlay_next(&layers)); expected++) {
        assert_non_null(*expected);
        assert_string_equal(layer, *expected);
    }
    assert_null(*expected);
}
#define ASSERT_LAYERS(options, ...)                                                      \
    assert_layers(options, (const char *const[]){__VA_ARGS__, NULL})

static void test_overlay_layers_of_both_mount_apis(void **state)
{
    (void)state;
    ASSERT_LAYERS("rw,relatime,lowerdir=/a:/b\\134:c::/d,upperdir=/u,workdir=/w,xino=off",
                  "/a", "/b:c", "/d", "/u", "/w");
    ASSERT_LAYERS("ro,lowerdir+=/a:b,datadir+=/d,index=off", "/a:b", "/d");
    ASSERT_LAYERS("lowerdir=/x\\040y\\054z,metacopy=on", "/x y,z");
    ASSERT_LAYERS("rw,lowerdir=", NULL);
}

static void test_below_means_whole_components(void **state)
{
    (void)state;
    assert_true(mr_path_below("/mnt/v", "/mnt/v"));
    assert_true(mr_path_below("/mnt/v/a", "/mnt/v"));
    assert_true(mr_path_below("/mnt/v/a", "/mnt/v/"));
    assert_true(mr_path_below("/mnt", "/"));
    assert_false(mr_path_below("/mnt/vv", "/mnt/v"));
    assert_false(mr_path_below("/mnt", "/mnt/v"));
    assert_false(mr_path_below("/mnt/v", ""));
    assert_false(mr_path_below("mnt/v", "mnt"));
    assert_false(mr_path_below("", "/"));
}

static void test_maps_line(void **state)
{
    struct mr_maps_line line;

    (void)state;
    assert_int_equal(mr_parse_maps("7f01a000-7f01c000 r-xp 00002000 fd:0a 131077   "
                                   "                  /usr/lib/a b.so",
                                   &line),
                     0);
    assert_true(line.start == 0x7f01a000 && line.end == 0x7f01c000);
    assert_true(line.dev == makedev(0xfd, 0x0a));
    assert_int_equal(line.inode, 131077);
    assert_string_equal(line.path, "/usr/lib/a b.so");
    assert_int_equal(mr_parse_maps("00400000-00401000 rw-p 00000000 00:00 0 ", &line), 0);
    assert_int_equal(line.inode, 0);
    assert_string_equal(line.path, "");
}

static void test_broken_maps_line_is_refused(void **state)
{
    static const char *const lines[] = {
        "",
        "7f",
        "7f-80",
        "7f-80 r",
        "7f-80 r-xp",
        "7f-80 r-xp 0 fd",
        "7f-80 r-xp 0 fd:0a",
        "zz-80 r-xp 0 fd:0a 1 /x",
        "12345678901234567-80 r-xp 0 fd:0a 1 /x",
    };
    struct mr_maps_line line;

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        assert_int_equal(mr_parse_maps(lines[i], &line), -EINVAL);
}

static void test_stat_of_a_process_that_calls_itself_odd_names(void **state)
{
    struct mr_task_stat stat;

    (void)state;
    assert_int_equal(
        mr_parse_stat("42 (a) Z) 1 (b) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 "
                      "20 0 3 0 987654 1000 10",
                      &stat),
        0);
    assert_string_equal(stat.comm, "a) Z) 1 (b");
    assert_int_equal(stat.state, 'S');
    assert_int_equal(stat.threads, 3);
    assert_int_equal(stat.start_time, 987654);
    assert_false(stat.kernel_thread);
    assert_int_equal(
        mr_parse_stat("2 (kthreadd) D 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 "
                      "0 1 0 0",
                      &stat),
        0);
    assert_true(stat.kernel_thread);
    assert_int_equal(mr_parse_stat("42 a S 1", &stat), -EINVAL);
    assert_int_equal(mr_parse_stat("42 )a( S 1", &stat), -EINVAL);
    assert_int_equal(mr_parse_stat("42 (a) S 1 2", &stat), -EINVAL);
}

static void test_swap_lines(void **state)
{
    char head[] = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority";
    char device[] = "/dev/loop3                              partition\t8188\t\t0\t\t-2";
    char file[] = "/mnt/v/swap\\040file\\040(deleted) file\t\t8188\t\t0\t\t-3";
    bool partition = false;

    (void)state;
    assert_null(mr_parse_swap(head, &partition));
    assert_string_equal(mr_parse_swap(device, &partition), "/dev/loop3");
    assert_true(partition);
    assert_string_equal(mr_parse_swap(file, &partition), "/mnt/v/swap file");
    assert_false(partition);
}

static void test_namespace_links(void **state)
{
    (void)state;
    assert_true(mr_parse_ns_link("mnt:[4026531832]") == 4026531832U);
    assert_true(mr_parse_ns_link("net:[4026531832]") == 0);
    assert_true(mr_parse_ns_link("mnt:[40265") == 0);
    assert_true(mr_parse_ns_link("") == 0);
}

static void test_kernel_device_numbers(void **state)
{
    (void)state;
    assert_true(mr_decode_dev(0x703) == makedev(7, 3));
    /* minor 0x12345: low byte below the major, the rest above it */
    assert_true(mr_decode_dev(0x12300000U | 0xfd00 | 0x45) == makedev(0xfd, 0x12345));
}

static void test_file_systems_with_a_server_may_block(void **state)
{
    (void)state;
    assert_true(mr_fs_may_block("fuse.sshfs"));
    assert_true(mr_fs_may_block("nfs4"));
    assert_false(mr_fs_may_block("ext4"));
    assert_false(mr_fs_may_block("tmpfs"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mountinfo_line_with_optional_fields_and_escapes),
        cmocka_unit_test(test_mountinfo_line_with_empty_source),
        cmocka_unit_test(test_broken_mountinfo_is_refused),
        cmocka_unit_test(test_only_octal_bytes_are_unescaped),
        cmocka_unit_test(test_overlay_layers_of_both_mount_apis),
        cmocka_unit_test(test_below_means_whole_components),
        cmocka_unit_test(test_maps_line),
        cmocka_unit_test(test_broken_maps_line_is_refused),
        cmocka_unit_test(test_stat_of_a_process_that_calls_itself_odd_names),
        cmocka_unit_test(test_swap_lines),
        cmocka_unit_test(test_namespace_links),
        cmocka_unit_test(test_kernel_device_numbers),
        cmocka_unit_test(test_file_systems_with_a_server_may_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
