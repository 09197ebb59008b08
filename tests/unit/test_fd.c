/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"

struct fixture {
    char dir[64];
    int dir_fd;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    strcpy(f->dir, "/tmp/mr-fd-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->dir_fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = f;
    return f->dir_fd < 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    (void)unlinkat(f->dir_fd, "file", 0);
    (void)unlinkat(f->dir_fd, "a/b/c", AT_REMOVEDIR);
    (void)unlinkat(f->dir_fd, "a/b", AT_REMOVEDIR);
    (void)unlinkat(f->dir_fd, "a", AT_REMOVEDIR);
    (void)close(f->dir_fd);
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static void put_file(struct fixture *f, const char *data, size_t len)
{
    MR_AUTO_CLOSE int fd =
        openat(f->dir_fd, "file", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(mr_write_all(fd, data, len), 0);
}

static void test_read_text_cuts_white_space_and_length(void **state)
{
    struct fixture *f = *state;
    char text[8];
    put_file(f, "ab c \n\n", 7);
    assert_int_equal(mr_read_text(f->dir_fd, "file", text, sizeof(text)), 4);
    assert_string_equal(text, "ab c");
    put_file(f, "0123456789", 10);
    assert_int_equal(mr_read_text(f->dir_fd, "file", text, sizeof(text)), 7);
    assert_string_equal(text, "0123456");
    put_file(f, "", 0);
    assert_int_equal(mr_read_text(f->dir_fd, "file", text, sizeof(text)), 0);
    assert_string_equal(text, "");
    assert_int_equal(mr_read_text(f->dir_fd, "missing", text, sizeof(text)), -ENOENT);
}

static void test_read_file_reads_all_or_says_too_big(void **state)
{
    struct fixture *f = *state;
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 8192, 100000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        MR_AUTO_FREE char *data = malloc(sizes[i] + 1);
        MR_AUTO_FREE char *back = NULL;
        MR_AUTO_FREE char *none = NULL;
        memset(data, 'x', sizes[i] + 1);
        put_file(f, data, sizes[i]);
        assert_int_equal(mr_read_file(f->dir_fd, "file", sizes[i], &back), sizes[i]);
        assert_memory_equal(back, data, sizes[i]);
        assert_int_equal(back[sizes[i]], '\0');
        put_file(f, data, sizes[i] + 1);
        assert_int_equal(mr_read_file(f->dir_fd, "file", sizes[i], &none), -EFBIG);
        assert_null(none);
    }
    char *none = NULL;
    assert_int_equal(mr_read_file(f->dir_fd, "missing", 10, &none), -ENOENT);
}

static void test_pread_all_stops_at_the_end(void **state)
{
    struct fixture *f = *state;
    char data[8];
    put_file(f, "0123456789", 10);
    MR_AUTO_CLOSE int fd = openat(f->dir_fd, "file", O_RDONLY | O_CLOEXEC);
    assert_int_equal(mr_pread_all(fd, data, 8, 0), 8);
    assert_memory_equal(data, "01234567", 8);
    assert_int_equal(mr_pread_all(fd, data, 8, 7), 3);
    assert_memory_equal(data, "789", 3);
    assert_int_equal(mr_pread_all(fd, data, 8, 10), 0);
    assert_int_equal(mr_pread_all(-1, data, 8, 0), -EBADF);
}

static void test_write_all_reports_errors(void **state)
{
    (void)state;
    assert_int_equal(mr_write_all(-1, "a", 1), -EBADF);
    assert_int_equal(mr_write_all(-1, "", 0), 0);
}

static void test_mkdir_p_makes_missing_parts(void **state)
{
    struct fixture *f = *state;
    char path[100];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/a/b/c", f->dir);
    (void)umask(022);
    assert_int_equal(mr_mkdir_p(path, 0700), 0);
    assert_int_equal(mr_mkdir_p(path, 0700), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0700);
    put_file(f, "", 0);
    (void)snprintf(path, sizeof(path), "%s/file", f->dir);
    assert_int_equal(mr_mkdir_p(path, 0700), -ENOTDIR);
    (void)snprintf(path, sizeof(path), "%s/file/x", f->dir);
    assert_int_equal(mr_mkdir_p(path, 0700), -ENOTDIR);
    assert_int_equal(mr_mkdir_p("relative", 0700), -EINVAL);
}

static void test_format_says_whether_it_fitted(void **state)
{
    (void)state;
    char text[4];
    assert_int_equal(mr_format(text, sizeof(text), "%d", 123), 0);
    assert_string_equal(text, "123");
    assert_int_equal(mr_format(text, sizeof(text), "%d", 1234), -ENAMETOOLONG);
}

static void test_random_hex_is_hex_and_random(void **state)
{
    (void)state;
    char a[33];
    char b[33];
    assert_int_equal(mr_random_hex(16, a), 0);
    assert_int_equal(mr_random_hex(16, b), 0);
    assert_int_equal(strlen(a), 32);
    assert_int_equal(strspn(a, "0123456789abcdef"), 32);
    assert_string_not_equal(a, b);
}

static void test_process_start_time_names_a_process(void **state)
{
    (void)state;
    uint64_t own = mr_process_start_time(getpid());
    assert_true(own > 0);
    assert_true(own == mr_process_start_time(getpid()));
    assert_true(mr_process_start_time(1) <= own);
    assert_true(mr_process_start_time(0x7ffffffe) == 0);
}

static void test_a_missing_block_device_has_no_attributes(void **state)
{
    (void)state;
    char text[16];
    assert_int_equal(mr_sysfs_block_attr(4095, 1048575, "size", text, sizeof(text)),
                     -ENOENT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_read_text_cuts_white_space_and_length),
        TEST(test_read_file_reads_all_or_says_too_big),
        TEST(test_pread_all_stops_at_the_end),
        TEST(test_mkdir_p_makes_missing_parts),
        cmocka_unit_test(test_write_all_reports_errors),
        cmocka_unit_test(test_format_says_whether_it_fitted),
        cmocka_unit_test(test_random_hex_is_hex_and_random),
        cmocka_unit_test(test_process_start_time_names_a_process),
        cmocka_unit_test(test_a_missing_block_device_has_no_attributes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
