/* SPDX-License-Identifier: Apache-2.0
 *
 * fdinfo, uprobe_events and the exports of the NFS server, as the kernel writes them and
 * as they should never be.
 */
#include "storage/worker/scan_parse.h"

#include <stdio.h>
#include <sys/sysmacros.h>

#include "storage/base/cleanup.h"
#include "tests/unit/unit.h"

#define HEAD "pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t1036\n"

static void test_path_only_fds_are_recognised(void **state)
{
    (void)state;
    assert_true(mr_fdinfo_is_path("pos:\t0\nflags:\t012000000\nmnt_id:\t29\n"));
    assert_false(mr_fdinfo_is_path("pos:\t0\nflags:\t02100000\nmnt_id:\t29\n"));
    assert_false(mr_fdinfo_is_path(""));
}

static void test_fds_in_flight_are_counted(void **state)
{
    (void)state;
    assert_int_equal(mr_fdinfo_in_flight(HEAD "scm_fds: 3\n"), 3);
    assert_int_equal(mr_fdinfo_in_flight(HEAD "scm_fds: 0\n"), 0);
    assert_int_equal(mr_fdinfo_in_flight(HEAD), 0);
    assert_int_equal(mr_fdinfo_in_flight(HEAD "scm_fds:"), 0);
}

static void assert_files(const char *text, const char *const *expected)
{
    MR_AUTO_FREE char *copy = strdup(text);
    char *files = mr_fdinfo_ring_files(copy);
    const char *path;

    assert_non_null(files);
    for (; (path = mr_fdinfo_next_file(&files)); expected++) {
        assert_non_null(*expected);
        assert_string_equal(path, *expected);
    }
    assert_null(*expected);
}
#define ASSERT_FILES(text, ...)                                                          \
    assert_files(HEAD text, (const char *const[]){__VA_ARGS__, NULL})

static void test_files_of_a_ring(void **state)
{
    char busy[] = HEAD "SqMask:\t0x7\n";

    (void)state;
    ASSERT_FILES("SQEs:\t0\nUserFiles:\t4\n    0: /mnt/v/a\\040b\\012c\n"
                 "    1: socket:[77]\n  300: /x: /y\n100000: /z\nUserBufs:\t1\n"
                 "    0: 0x7f/4096\n",
                 "/mnt/v/a b\nc", "/x: /y", "/z");
    ASSERT_FILES("UserFiles:\t0\nUserBufs:\t0\n", NULL);
    ASSERT_FILES("UserFiles:\t1\n    0: /cut", "/cut");
    ASSERT_FILES("UserFiles:\t3\n    0 /mnt\n    1:/mnt\n    : /mnt\n     \n", "/mnt");
    assert_null(mr_fdinfo_ring_files(busy));
}

static void test_marks_of_a_fanotify_group(void **state)
{
    const char *text =
        HEAD "fanotify flags:4e03 event-flags:8000\n"
             "fanotify ino:13 sdev:fe00001 mflags:0 mask:20 ignored_mask:0 "
             "fhandle-bytes:8 fhandle-type:1 f_handle:1300000000000000\n"
             "fanotify sdev:700003 mflags:0 mask:20 ignored_mask:0\n"
             "inotify wd:1 ino:13 sdev:700005 mask:2\n"
             "fanotify nonsense\nfanotify \n"
             "fanotify mnt_id:56 mflags:0 mask:20 ignored_mask:0";
    struct mr_fanotify_mark mark;

    (void)state;
    assert_int_equal(mr_fdinfo_fanotify_flags(text), 0x4e03);
    assert_int_equal(mr_fdinfo_fanotify_flags(HEAD), 0);
    assert_true(mr_fdinfo_next_mark(&text, &mark));
    assert_true(mark.dev == makedev(254, 1) && mark.mount_id == 0);
    assert_true(mr_fdinfo_next_mark(&text, &mark));
    assert_true(mark.dev == makedev(7, 3) && mark.mount_id == 0);
    assert_true(mr_fdinfo_next_mark(&text, &mark));
    assert_true(mark.dev == 0 && mark.mount_id == 0x56);
    assert_false(mr_fdinfo_next_mark(&text, &mark));
    assert_false(mr_fdinfo_next_mark(&text, &mark));
}

static void test_device_numbers_of_the_kernel(void **state)
{
    (void)state;
    assert_true(mr_kernel_dev(0x00700003) == makedev(7, 3));
    assert_true(mr_kernel_dev(0xfff12345) == makedev(0xfff, 0x12345));
}

static void assert_uprobe(const char *line, const char *expected)
{
    MR_AUTO_FREE char *copy = strdup(line);
    const char *path = mr_parse_uprobe(copy);

    if (!expected)
        assert_null(path);
    else
        assert_string_equal(path, expected);
}

static void test_programs_of_uprobes(void **state)
{
    (void)state;
    assert_uprobe("p:uprobes/p_bash_0x4245c0 /bin/bash:0x00000000004245c0", "/bin/bash");
    assert_uprobe("r:u/x /mnt/v/a b:0x0000000000000100 arg1=$retval", "/mnt/v/a b");
    assert_uprobe("p:u/x /mnt/v/a:0x0000000000000100(0x200) arg1=%ax:x64", "/mnt/v/a");
    assert_uprobe("p:u/x /mnt/a:0x1:0x0000000000000100", "/mnt/a:0x1");
    assert_uprobe("p:u/x /mnt/v/a", NULL);
    assert_uprobe("p:kprobes/x do_sys_open+0x20", NULL);
    assert_uprobe("# /mnt/v/a:0x10", NULL);
    assert_uprobe("", NULL);
}

static void assert_export(const char *line, const char *expected)
{
    MR_AUTO_FREE char *copy = strdup(line);
    const char *path = mr_parse_export(copy);

    if (!expected)
        assert_null(path);
    else
        assert_string_equal(path, expected);
}

static void test_paths_of_exports(void **state)
{
    (void)state;
    assert_export("/srv/a\\040b\t*(rw,root_squash,sync)", "/srv/a b");
    assert_export("/srv 10.0.0.0/8(ro)", "/srv");
    assert_export("# Path Client(Flags) # IPs", NULL);
    assert_export("relative\t*(ro)", NULL);
    assert_export("", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path_only_fds_are_recognised),
        cmocka_unit_test(test_fds_in_flight_are_counted),
        cmocka_unit_test(test_files_of_a_ring),
        cmocka_unit_test(test_marks_of_a_fanotify_group),
        cmocka_unit_test(test_device_numbers_of_the_kernel),
        cmocka_unit_test(test_programs_of_uprobes),
        cmocka_unit_test(test_paths_of_exports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
