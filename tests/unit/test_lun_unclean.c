/* SPDX-License-Identifier: Apache-2.0
 *
 * What one attachment leaves for the next in the lock file of its source. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "storage/identity.h"
#include "storage/lun/unclean.h"

static void test_an_attachment_that_died_is_known_to_the_next(void **state)
{
    (void)state;
    int fd = memfd_create("lock", MFD_CLOEXEC);
    char token[MR_TOKEN_TEXT] = "0123456789abcdef0123456789abcdef";

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, token, strlen(token), 0), (ssize_t)strlen(token));
    assert_false(mr_unclean_read(fd));
    mr_unclean_write(fd, true);
    assert_true(mr_unclean_read(fd));
    token[0] = 'f'; /* of the next */
    assert_int_equal(pwrite(fd, token, strlen(token), 0), (ssize_t)strlen(token));
    assert_true(mr_unclean_read(fd));
    mr_unclean_write(fd, false);
    assert_false(mr_unclean_read(fd));
    memset(token, 0, sizeof(token));
    assert_true(pread(fd, token, sizeof(token) - 1, 0) > 0);
    assert_string_equal(token, "f123456789abcdef0123456789abcdef");
    assert_int_equal(close(fd), 0);
}

static void test_unknown_is_unclean(void **state)
{
    (void)state;
    int pair[2];

    assert_int_equal(pipe(pair), 0);
    assert_true(mr_unclean_read(pair[0])); /* ESPIPE */
    assert_false(mr_unclean_read(-1));
    mr_unclean_write(-1, true);
    assert_int_equal(close(pair[0]), 0);
    assert_int_equal(close(pair[1]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_attachment_that_died_is_known_to_the_next),
        cmocka_unit_test(test_unknown_is_unclean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
