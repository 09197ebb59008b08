/* SPDX-License-Identifier: Apache-2.0
 *
 * The first session of an attachment, and the end of the last: what may still be under
 * way at the target of the attachment before. */
#include "tests/unit/lun_link_env.h"

#include <sys/mman.h>

#include "storage/lun/unclean.h"

static int lock_fd;

static int before(void **state)
{
    lock_fd = memfd_create("lock", MFD_CLOEXEC);
    return lock_fd < 0 ? -1 : set_up(state);
}

static int after(void **state)
{
    return tear_down(state) + close(lock_fd);
}

static int attach(void)
{
    struct mr_err err = {0};
    const int news_fd = link_.news_fd;

    (void)snprintf(start.portals[0], sizeof(start.portals[0]), "127.0.0.1");
    start.portal_count = 1;
    fake.resets = 0;
    fake.answers = true;
    io.in_flight = 0;
    memset(&link_, 0, sizeof(link_));
    link_.start = &start;
    link_.page = &page;
    link_.io = &io;
    link_.news_fd = news_fd;
    link_.lock_fd = lock_fd;
    int r = mr_link_start(&link_, -1, mr_now_ns() + MR_NS_PER_S, &err);
    if (r == 0)
        mr_link_run(&link_);
    return r;
}

static void detach(void)
{
    (void)mr_link_end(&link_, true, mr_now_ns() + MR_NS_PER_S);
}

static void test_after_a_clean_end_nobody_is_reset(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(attach(), 0);
        assert_int_equal(fake.resets, 0);
        assert_true(mr_unclean_read(lock_fd)); /* if we died now */
        detach();
        assert_false(mr_unclean_read(lock_fd));
    }
}

static void test_after_an_attachment_that_died_the_lun_is_reset_once(void **state)
{
    (void)state;
    assert_int_equal(attach(), 0);
    assert_int_equal(attach(), 0);
    assert_int_equal(fake.resets, 1);
    detach();
    assert_int_equal(attach(), 0);
    assert_int_equal(fake.resets, 0);
}

static void test_an_end_without_the_targets_word_is_not_clean(void **state)
{
    (void)state;
    assert_int_equal(attach(), 0);
    fake.no_logout = true;
    detach();
    assert_int_equal(attach(), 0);
    assert_int_equal(fake.resets, 1);
    fake.no_logout = false;
    io.in_flight = 1; /* the target was slower than we waited */
    detach();
    assert_int_equal(attach(), 0);
    assert_int_equal(fake.resets, 1);
}

static void test_an_attachment_that_is_refused_resets_nobody(void **state)
{
    (void)state;
    assert_int_equal(attach(), 0);
    fake.reserved = true;
    assert_int_equal(attach(), -EBUSY);
    assert_int_equal(fake.resets, 0);
    fake.reserved = false;
    assert_int_equal(attach(), 0);
    assert_int_equal(fake.resets, 1);
}

static void test_without_an_answer_to_the_reset_nothing_starts(void **state)
{
    (void)state;
    assert_int_equal(attach(), 0);
    atomic_store(&page.known, false);
    fake.reset_error = -ETIMEDOUT;
    assert_int_equal(attach(), -ETIMEDOUT);
    assert_false(atomic_load(&page.known));
    fake.reset_error = 0;
    assert_int_equal(attach(), 0);
    assert_int_equal(fake.resets, 1);
}

static void test_one_that_writes_nothing_leaves_nothing(void **state)
{
    (void)state;
    start.read_only = true;
    assert_int_equal(attach(), 0);
    assert_false(mr_unclean_read(lock_fd));
    start.read_only = false;
    assert_int_equal(attach(), 0);
    start.read_only = true;
    assert_int_equal(attach(), 0);
    assert_int_equal(fake.resets, 1); /* it shall not read what is about to change */
    assert_false(mr_unclean_read(lock_fd));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_after_a_clean_end_nobody_is_reset),
        TEST(test_after_an_attachment_that_died_the_lun_is_reset_once),
        TEST(test_an_end_without_the_targets_word_is_not_clean),
        TEST(test_an_attachment_that_is_refused_resets_nobody),
        TEST(test_without_an_answer_to_the_reset_nothing_starts),
        TEST(test_one_that_writes_nothing_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
