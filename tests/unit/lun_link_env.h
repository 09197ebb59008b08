/* SPDX-License-Identifier: Apache-2.0
 *
 * A link (link.c and link_login.c) between a session, a data path and questions that only
 * take notes; they shadow the real ones.
 */
#ifndef MR_TESTS_UNIT_LUN_LINK_ENV_H
#define MR_TESTS_UNIT_LUN_LINK_ENV_H

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
    bool answers; /* logins */
    unsigned resets;
    int reset_error;
    bool reserved; /* by another node */
    bool no_logout;
    unsigned logouts;
    bool queued;     /* something still to be sent */
    char tried[64];  /* portals */
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
    fake.logouts++;
    return !fake.no_logout;
}

bool mr_session_sent_all(const struct mr_session *s)
{
    (void)s;
    return !fake.queued;
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
    (void)from, (void)deadline_ns;
    (void)strncat(fake.tried, portal, sizeof(fake.tried) - strlen(fake.tried) - 1);
    s->up = fake.answers;
    if (fake.answers)
        return 0;
    return mr_fail(err, MR_E_PORTAL_UNREACHABLE, ECONNREFUSED, "no");
}

int mr_session_reset_lun(struct mr_session *s, int64_t deadline_ns)
{
    (void)s, (void)deadline_ns;
    fake.resets++;
    return fake.reset_error;
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
    (void)a;
    return fake.reserved ? mr_fail(err, MR_E_SOURCE_IN_USE, EBUSY, "reserved") : 0;
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
    (void)err;
    *ret = (struct mr_fuse_geometry){.size_bytes = facts->size_bytes,
                                     .writable = !read_only};
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

/* --- one link, which is up --- */

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
        .lock_fd = -1,
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

#endif
