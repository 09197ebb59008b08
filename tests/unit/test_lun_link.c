/* SPDX-License-Identifier: Apache-2.0
 *
 * What the link does about what a target says beside its answers: link.c and link_login.c
 * between a session, a data path and questions that only take notes. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/lun/fence.h"
#include "storage/lun/identify.h"
#include "storage/lun/link.h"

#define SIZE (1ull << 30)

static struct mr_page page;
static struct mr_io io;
static struct mr_lun_start start;
static struct mr_link link_;

static struct fake {
    struct mr_lun_facts facts; /* what the LUN says of itself */
    unsigned capacity_asked;
    unsigned identity_asked;
    unsigned fence_asked;
    bool sending_while_asked; /* requests went out during an identification */
    int identity_error;
    unsigned on_fence; /* attentions that the questions meet */
    unsigned on_capacity;
    unsigned on_identity;
    uint64_t told_size;
    unsigned closed;
    unsigned doubts; /* about commands in flight */
} fake;

/* --- instead of session.c --- */

void mr_session_lose(struct mr_session *s, const char *fmt, ...)
{
    va_list ap;

    s->lost = true;
    va_start(ap, fmt);
    (void)vsnprintf(s->down_reason, sizeof(s->down_reason), fmt, ap);
    va_end(ap);
}

void mr_session_close(struct mr_session *s)
{
    s->up = false;
    s->iscsi = NULL;
    fake.closed++;
}

bool mr_session_logout(struct mr_session *s, int64_t deadline_ns)
{
    (void)deadline_ns;
    s->up = false;
    return true;
}

int64_t mr_session_check(struct mr_session *s, int64_t oldest_ns, int64_t now_ns)
{
    (void)s, (void)oldest_ns;
    return now_ns + 5 * MR_NS_PER_S;
}

void mr_session_set_timeout(struct mr_session *s, int64_t timeout_ms)
{
    s->timeout_ns = timeout_ms * MR_NS_PER_MS;
}

int mr_session_open_portal(struct mr_session *s, const struct mr_lun_start *from,
                           const char *portal, int64_t deadline_ns, struct mr_err *err)
{
    (void)s, (void)from, (void)portal, (void)deadline_ns;
    return mr_fail(err, MR_E_PORTAL_UNREACHABLE, ECONNREFUSED, "no");
}

int mr_session_reset_lun(struct mr_session *s, int64_t deadline_ns)
{
    (void)s, (void)deadline_ns;
    return 0;
}

/* --- instead of the questions --- */

int mr_lun_identify(struct mr_session *s, const char *target, int64_t deadline_ns,
                    struct mr_lun_facts *ret, struct mr_err *err)
{
    (void)target, (void)deadline_ns;
    fake.identity_asked++;
    fake.sending_while_asked = fake.sending_while_asked || io.mode == MR_IO_RUNNING;
    s->attention |= fake.on_identity;
    *ret = fake.facts;
    return fake.identity_error < 0
               ? mr_fail(err, MR_E_DEVICE_ERROR, -fake.identity_error, "not now")
               : 0;
}

int mr_lun_capacity(struct mr_session *s, const char *target, int64_t deadline_ns,
                    struct mr_lun_facts *facts, struct mr_err *err)
{
    (void)target, (void)deadline_ns, (void)err;
    fake.capacity_asked++;
    s->attention |= fake.on_capacity;
    fake.on_capacity = 0;
    facts->size_bytes = fake.facts.size_bytes;
    return 0;
}

int mr_lun_ready(struct mr_session *s, const char *target, int64_t deadline_ns,
                 struct mr_err *err)
{
    (void)s, (void)target, (void)deadline_ns, (void)err;
    return 0;
}

int mr_fence_look(const struct mr_asker *a, struct mr_page_fence *state,
                  struct mr_err *err)
{
    (void)state, (void)err;
    fake.fence_asked++;
    a->s->attention |= fake.on_fence;
    fake.on_fence = 0;
    return 0;
}

int mr_fence_check(const struct mr_asker *a, struct mr_page_fence *state,
                   struct mr_err *err)
{
    return mr_fence_look(a, state, err);
}

int mr_fence_acquire(const struct mr_asker *a, const struct mr_fence_ask *ask,
                     struct mr_page_fence *state, struct mr_err *err)
{
    (void)ask;
    return mr_fence_look(a, state, err);
}

int mr_fence_in_the_way(const struct mr_asker *a, struct mr_err *err)
{
    (void)a, (void)err;
    return 0;
}

int mr_fence_release(const struct mr_asker *a, struct mr_page_fence *state,
                     struct mr_err *err)
{
    (void)a, (void)state, (void)err;
    return 0;
}

/* --- instead of io.c --- */

int mr_io_geometry(const struct mr_lun_facts *facts, bool read_only,
                   struct mr_fuse_geometry *ret, struct mr_err *err)
{
    (void)facts, (void)read_only, (void)ret, (void)err;
    return 0;
}

void mr_io_run(struct mr_io *of, struct mr_session *session)
{
    of->session = session;
    of->mode = MR_IO_RUNNING;
}

void mr_io_pause(struct mr_io *of)
{
    of->mode = MR_IO_HOLDING;
}

void mr_io_resume(struct mr_io *of)
{
    assert_int_equal(of->mode, MR_IO_HOLDING);
    of->mode = MR_IO_RUNNING;
}

void mr_io_hold(struct mr_io *of)
{
    of->mode = MR_IO_HOLDING;
}

void mr_io_refuse(struct mr_io *of)
{
    of->mode = MR_IO_REFUSING;
}

int mr_io_resized(struct mr_io *of, uint64_t size_bytes)
{
    (void)of;
    fake.told_size = size_bytes;
    return 0;
}

void mr_io_doubt(struct mr_io *of)
{
    (void)of;
    fake.doubts++;
}

unsigned mr_io_in_flight(const struct mr_io *of)
{
    return of->in_flight;
}

int64_t mr_io_oldest(const struct mr_io *of)
{
    (void)of;
    return 0;
}

/* --- the tests --- */

static int set_up(void **state)
{
    (void)state;
    memset(&page, 0, sizeof(page));
    fake = (struct fake){.facts = {.size_bytes = SIZE, .block_size = 512}};
    (void)snprintf(fake.facts.wwn, sizeof(fake.facts.wwn), "naa.1");
    page.facts = fake.facts;
    atomic_store(&page.timeout_ms, 10000);
    atomic_store(&page.replacement_ms, 120000);
    start = (struct mr_lun_start){.target = "t"};
    memset(&io, 0, sizeof(io));
    io.page = &page;
    io.now_ns = mr_now_ns();
    link_ = (struct mr_link){
        .start = &start,
        .page = &page,
        .io = &io,
        .news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .session = {.up = true, .timeout_ns = 10 * MR_NS_PER_S},
    };
    mr_link_run(&link_);
    return link_.news_fd < 0;
}

static int tear_down(void **state)
{
    (void)state;
    return close(link_.news_fd);
}

/* The loop: as long as there is something to do now. */
static void turns(void)
{
    unsigned count = 0;

    do {
        mr_link_step(&link_);
        assert_true(++count < 10);
    } while (mr_link_check(&link_) <= io.now_ns);
}

static void test_a_capacity_change_told_to_a_question_is_read(void **state)
{
    (void)state;
    fake.facts.size_bytes = 2 * SIZE;
    fake.on_fence = MR_ATTENTION_CAPACITY;
    start.reserve = true;
    mr_link_look(&link_);
    turns();
    assert_int_equal(fake.capacity_asked, 1);
    assert_true(fake.told_size == 2 * SIZE);
    assert_int_equal(mr_link_state(&link_), MR_LINK_UP);
}

static void test_a_capacity_change_told_during_the_login_is_read(void **state)
{
    (void)state;
    fake.facts.size_bytes = 2 * SIZE;
    link_.session.attention = MR_ATTENTION_CAPACITY | MR_ATTENTION_RESET;
    mr_link_run(&link_);
    assert_true(mr_link_check(&link_) <= io.now_ns); /* not with the next event */
    turns();
    assert_true(fake.told_size == 2 * SIZE);
    assert_true(atomic_load(&page.counters.power_on_resets) == 0);
}

static void test_a_loss_of_the_reservation_told_to_a_question_is_looked_at(void **state)
{
    (void)state;
    start.reserve = true;
    fake.on_capacity = MR_ATTENTION_RESERVATION;
    mr_link_resize(&link_);
    turns();
    assert_int_equal(fake.fence_asked, 1);
    assert_int_equal(mr_link_state(&link_), MR_LINK_UP);
    io.attention = MR_ATTENTION_RESERVATION; /* as a conflict */
    turns();
    assert_int_equal(mr_link_state(&link_), MR_LINK_DOWN);
}

static void test_without_fencing_reservations_are_not_looked_at(void **state)
{
    (void)state;
    link_.session.attention = MR_ATTENTION_RESERVATION;
    turns();
    assert_int_equal(fake.fence_asked, 0);
}

static void test_a_reset_told_to_a_question_is_counted(void **state)
{
    (void)state;
    link_.session.resets = 1;
    link_.session.attention = MR_ATTENTION_RESET;
    turns();
    assert_true(atomic_load(&page.counters.power_on_resets) == 1);
}

static void test_commands_are_in_doubt_whoever_is_told_of_the_reset(void **state)
{
    (void)state;
    io.attention = MR_ATTENTION_ABORTED;
    turns();
    assert_int_equal(fake.doubts, 1);
    link_.session.attention = MR_ATTENTION_ABORTED;
    turns();
    assert_int_equal(fake.doubts, 2);
    link_.session.attention = MR_ATTENTION_ABORTED; /* at the login */
    mr_link_run(&link_);
    turns();
    assert_int_equal(fake.doubts, 2);
}

static void check_identity(unsigned *where)
{
    *where = MR_ATTENTION_IDENTITY;
    turns();
    assert_int_equal(fake.identity_asked, 1);
    assert_false(fake.sending_while_asked);
}

static void test_a_lun_that_may_be_another_one_proves_itself_first(void **state)
{
    (void)state;
    check_identity(&io.attention);
    assert_int_equal(io.mode, MR_IO_RUNNING);
    assert_int_equal(mr_link_state(&link_), MR_LINK_UP);
    assert_int_equal(fake.closed, 0);
}

static void test_another_lun_behind_the_number_is_final(void **state)
{
    (void)state;
    (void)snprintf(fake.facts.wwn, sizeof(fake.facts.wwn), "naa.2");
    check_identity(&link_.session.attention);
    assert_int_equal(mr_link_state(&link_), MR_LINK_MISMATCH);
    assert_int_equal(io.mode, MR_IO_REFUSING);
}

static void test_a_lun_that_has_grown_with_its_identity_is_told(void **state)
{
    (void)state;
    fake.facts.size_bytes = 2 * SIZE;
    check_identity(&io.attention);
    assert_true(fake.told_size == 2 * SIZE);
    assert_int_equal(io.mode, MR_IO_RUNNING);
}

static void test_a_lun_that_cannot_prove_itself_costs_the_session(void **state)
{
    (void)state;
    fake.identity_error = -EAGAIN;
    io.attention = MR_ATTENTION_IDENTITY;
    turns();
    assert_int_equal(mr_link_state(&link_), MR_LINK_DOWN);
    assert_int_equal(io.mode, MR_IO_HOLDING);
    assert_non_null(strstr(link_.session.down_reason, "not now"));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_capacity_change_told_to_a_question_is_read),
        TEST(test_a_capacity_change_told_during_the_login_is_read),
        TEST(test_a_loss_of_the_reservation_told_to_a_question_is_looked_at),
        TEST(test_without_fencing_reservations_are_not_looked_at),
        TEST(test_commands_are_in_doubt_whoever_is_told_of_the_reset),
        TEST(test_a_reset_told_to_a_question_is_counted),
        TEST(test_a_lun_that_may_be_another_one_proves_itself_first),
        TEST(test_another_lun_behind_the_number_is_final),
        TEST(test_a_lun_that_has_grown_with_its_identity_is_told),
        TEST(test_a_lun_that_cannot_prove_itself_costs_the_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
