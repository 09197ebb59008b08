/* SPDX-License-Identifier: Apache-2.0
 *
 * What becomes of the way to the target without a target: what a further server takes
 * over from the one before, and orders that find no session.
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/lun/link.h"

#define REPLACEMENT_S 60

static struct mr_lun_start start;
static struct mr_page page;
static struct mr_io io;
static struct mr_link link_;

static int before(void **state)
{
    struct mr_err err;

    (void)state;
    memset(&page, 0, sizeof(page));
    atomic_store(&page.replacement_ms, REPLACEMENT_S * 1000);
    atomic_store(&page.timeout_ms, 15000);
    link_ = (struct mr_link){
        .start = &start, .page = &page, .io = &io, .news_fd = eventfd(0, EFD_NONBLOCK)};
    return link_.news_fd < 0 ? -1 : mr_io_init(&io, -1, &page, &err);
}

static int after(void **state)
{
    (void)state;
    mr_io_done(&io);
    return close(link_.news_fd);
}

static bool news(void)
{
    uint64_t count;

    return read(link_.news_fd, &count, sizeof(count)) > 0;
}

/* The server before was without a session for so long by the clock of the machine's run
 * and by the one that people set. */
static void adopt(int64_t down_s, int64_t wall_s)
{
    atomic_store(&page.state, MR_LINK_DOWN);
    atomic_store(&page.state_ns, mr_now_ns() - down_s * MR_NS_PER_S);
    atomic_store(&page.state_wall_ms, mr_wall_ms() - wall_s * 1000);
    io.now_ns = mr_now_ns();
    mr_link_adopt(&link_);
    (void)mr_link_check(&link_);
}

static void test_clock_that_was_set_does_not_use_up_the_patience(void **state)
{
    (void)state;
    adopt(2, 3600);
    assert_int_equal(mr_link_state(&link_), MR_LINK_DOWN);
}

static void test_clock_that_was_set_back_does_not_renew_the_patience(void **state)
{
    (void)state;
    adopt(REPLACEMENT_S + 1, -3600);
    assert_int_equal(mr_link_state(&link_), MR_LINK_FAILED);
}

static void test_fail_now_ends_the_waiting_for_a_session(void **state)
{
    (void)state;
    adopt(2, 2);
    mr_link_fail_now(&link_);
    assert_int_equal(mr_link_state(&link_), MR_LINK_FAILED);
    assert_int_equal(io.mode, MR_IO_REFUSING);
    assert_int_equal(atomic_load(&page.failed), 1);
    assert_true(news());
}

static void test_final_states_answer_orders_and_stay(void **state)
{
    static const enum mr_link_state all[] = {MR_LINK_CUT, MR_LINK_MISMATCH,
                                             MR_LINK_FENCED};

    (void)state;
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        atomic_store(&page.state, all[i]);
        mr_link_adopt(&link_);
        mr_link_fail_now(&link_);
        mr_link_look(&link_);
        mr_link_cut(&link_);
        mr_link_step(&link_);
        assert_int_equal(mr_link_state(&link_), all[i]);
        assert_int_equal(atomic_load(&page.failed), i + 1);
        assert_int_equal(atomic_load(&page.looked), i + 1);
        assert_int_equal(atomic_load(&page.look_error), ENOTCONN);
        assert_true(news());
    }
}

#define LINK_TEST(test) cmocka_unit_test_setup_teardown(test, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LINK_TEST(test_clock_that_was_set_does_not_use_up_the_patience),
        LINK_TEST(test_clock_that_was_set_back_does_not_renew_the_patience),
        LINK_TEST(test_fail_now_ends_the_waiting_for_a_session),
        LINK_TEST(test_final_states_answer_orders_and_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
