/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/serve.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/base/json.h"
#include "storage/base/log.h"
#include "storage/base/msg.h"
#include "storage/lun/exits.h"
#include "storage/lun/io.h"
#include "storage/lun/link.h"
#include "storage/lun/process.h"

#define START_MS 10000
#define TIMER_SLACK_NS 5000ul /* rest() is not much longer */
#define STOP_NS (2 * MR_NS_PER_S)

enum {
    FD_FUSE,
    FD_ISCSI,
    FD_ORDER,
    FD_COUNT,
};

struct server {
    struct mr_lun_start start;
    struct mr_page *page;
    struct mr_io io;
    struct mr_link link;
    bool hand_over; /* ordered */
};

/* --- the loop --- */

/* FAIL_NOW goes when it is done: a server that dies before leaves it to the next one. */
static void take_orders(struct server *server)
{
    struct mr_link *link = &server->link;
    uint64_t count;
    ssize_t n = read(MR_LUN_ORDER_FD, &count, sizeof(count));
    unsigned orders = atomic_fetch_and(&server->page->orders, MR_ORDER_FAIL_NOW);

    (void)n; /* the orders count, not how often they were announced */
    if (orders & MR_ORDER_TIMEOUTS)
        mr_link_new_timeouts(link);
    if (orders & MR_ORDER_CUT)
        mr_link_cut(link);
    if (orders & MR_ORDER_FAIL_NOW) {
        mr_link_fail_now(link);
        (void)atomic_fetch_and(&server->page->orders, ~(unsigned)MR_ORDER_FAIL_NOW);
    }
    if (orders & MR_ORDER_RESIZE)
        mr_link_resize(link);
    if (orders & MR_ORDER_FENCE)
        mr_link_look(link);
    if (orders & MR_ORDER_HAND_OVER) {
        server->hand_over = true;
        server->io.drain = true;
    }
}

static int64_t min_ns(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Nothing is left to answer, or nothing that can be answered now: the kernel gives it to
 * the next server again. */
static bool can_hand_over(const struct server *server)
{
    if (!server->hand_over)
        return false;
    return mr_io_in_flight(&server->io) == 0 ||
           (mr_link_state(&server->link) != MR_LINK_UP &&
            atomic_load(&server->page->can_resend));
}

static void rest(const struct mr_io *io)
{
    const struct timespec time = {.tv_nsec = mr_io_rest_ns(io)};

    if (time.tv_nsec > 0)
        (void)nanosleep(&time, NULL);
}

/* One turn: waits for events (not past until_ns), handles them. Also the turn of a
 * session that waits, which it ends with -ECANCELED when the wait has become pointless.
 */
static int turn(void *ctx, int64_t until_ns)
{
    struct server *server = ctx;
    struct mr_io *io = &server->io;
    struct mr_session *session = &server->link.session;
    struct pollfd fds[FD_COUNT];

    rest(io);
    until_ns = min_ns(until_ns, mr_link_check(&server->link));
    /* It may have read answers. */
    mr_replies_send(&io->replies);
    until_ns = min_ns(until_ns, mr_io_check(io));
    atomic_store_explicit(&server->page->due_ns, until_ns, memory_order_relaxed);
    fds[FD_FUSE] = mr_io_poll(io);
    fds[FD_ISCSI] = (struct pollfd){.fd = mr_session_fd(session),
                                    .events = mr_session_events(session)};
    fds[FD_ORDER] = (struct pollfd){.fd = MR_LUN_ORDER_FD, .events = POLLIN};
    if (poll(fds, FD_COUNT, mr_process_poll_ms(io->now_ns, until_ns)) < 0)
        memset(fds, 0, sizeof(fds)); /* EINTR, ENOMEM: no events, the clock goes on */
    io->now_ns = mr_now_ns();
    mr_process_watchdog(io->now_ns);
    if (fds[FD_ORDER].revents)
        take_orders(server);
    if (io->mode == MR_IO_RUNNING)
        fds[FD_ISCSI].revents &= (short)~POLLOUT; /* mr_io_step() sends, in one go */
    if (fds[FD_ISCSI].revents)
        mr_session_service(session, fds[FD_ISCSI].revents, io->now_ns);
    /* Answers bring new requests: what has come meanwhile is sent with the rest. */
    if (fds[FD_FUSE].revents || fds[FD_ISCSI].revents)
        mr_io_receive(io);
    mr_io_step(io);
    return io->gone || server->link.cut || can_hand_over(server) ? -ECANCELED : 0;
}

/* Nobody waits for an answer any more, but what the target was told to do shall be done
 * before the session ends. */
static int release(struct server *server)
{
    struct mr_link *link = &server->link;
    const int64_t deadline_ns = mr_now_ns() + STOP_NS;

    while (mr_io_in_flight(&server->io) > 0 && mr_link_state(link) == MR_LINK_UP &&
           !link->session.lost && mr_now_ns() < deadline_ns)
        (void)turn(server, deadline_ns);
    link->session.turn = NULL;
    atomic_store(&server->page->logged_out,
                 mr_link_end(link, true, mr_now_ns() + STOP_NS));
    return MR_LUN_EXIT_RELEASED;
}

static int hand_over(struct server *server)
{
    server->link.session.turn = NULL;
    atomic_store(&server->page->logged_out,
                 mr_link_end(&server->link, false, mr_now_ns() + STOP_NS));
    return MR_LUN_EXIT_HANDED_OVER;
}

static int serve(struct server *server)
{
    /* The server before may have died with the announcement in its hands. */
    take_orders(server);
    for (;;) {
        if (server->io.gone)
            return release(server);
        if (can_hand_over(server))
            return hand_over(server);
        if (turn(server, INT64_MAX) == 0 || server->link.cut)
            mr_link_step(&server->link);
    }
}

/* --- the start --- */

static int receive_start(struct mr_lun_start *ret, struct mr_err *err)
{
    struct pollfd channel = {.fd = MR_LUN_CHANNEL_FD, .events = POLLIN};
    MR_AUTO_JSON struct json_object *json = NULL;

    if (poll(&channel, 1, START_MS) <= 0 ||
        mr_msg_recv(MR_LUN_CHANNEL_FD, &json, NULL, MSG_DONTWAIT, err) <= 0)
        return mr_fail(err, MR_E_INVALID_REQUEST, EINVAL, "no start message at fd %d",
                       MR_LUN_CHANNEL_FD);
    return mr_lun_start_decode(json, ret, err);
}

/* Then the keeper mounts, and closes its end. */
static void answer(const struct mr_err *problem)
{
    MR_AUTO_JSON struct json_object *json = json_object_new_object();
    struct mr_err err;

    if (json) {
        mr_json_set_bool(json, "ok", !problem);
        if (problem)
            mr_json_set(json, "error", mr_err_to_json(problem));
        (void)mr_msg_send(MR_LUN_CHANNEL_FD, json, -1, MSG_DONTWAIT, &err);
    }
}

static void protect(struct server *server)
{
    struct mr_process_protection granted;

    mr_process_protect(MR_PROCESS_SERVER_HEAP, &granted);
    atomic_store(&server->page->memory_locked, granted.locked);
    atomic_store(&server->page->io_flusher, granted.io_flusher);
    atomic_store(&server->page->oom_protected, granted.oom_protected);
}

/* Memory first: a target that answers must not find us without any. */
static int set_up(struct server *server, struct mr_err *err)
{
    struct mr_link *link = &server->link;
    int r = receive_start(&server->start, err);

    if (r == 0)
        r = mr_page_map(MR_LUN_PAGE_FD, &server->page, err);
    if (r == 0)
        r = mr_io_init(&server->io, MR_LUN_FUSE_FD, server->page, err);
    if (r < 0)
        return r;
    protect(server);
    link->start = &server->start;
    link->page = server->page;
    link->io = &server->io;
    link->news_fd = MR_LUN_NEWS_FD;
    link->lock_fd = MR_LUN_LOCK_FD;
    if (atomic_load(&server->page->known))
        return 0;
    return mr_link_start(link, MR_LUN_CHANNEL_FD,
                         mr_now_ns() + server->start.timeout_ms * MR_NS_PER_MS, err);
}

/* Waits until the keeper has mounted. */
static void await_mount(void)
{
    struct pollfd channel = {.fd = MR_LUN_CHANNEL_FD, .events = POLLIN};

    (void)poll(&channel, 1, START_MS);
    (void)close(MR_LUN_CHANNEL_FD);
}

int mr_server_main(void)
{
    static struct server server; /* too large for a stack frame */
    struct mr_err err = {0};
    bool adopted;
    int r;

    srandom((unsigned)getpid() ^ (unsigned)mr_now_ns());
    r = set_up(&server, &err);
    if (r < 0) {
        mr_log(MR_LOG_ERR, "code=%s %s", mr_code_slug(err.code), err.message);
        answer(&err);
        return mr_exit_code(err.code);
    }
    adopted = !server.link.session.up;
    atomic_store(&server.page->due_ns, mr_now_ns());
    answer(NULL);
    await_mount();
    mr_process_quiet();
    mr_process_limit();
    server.link.session.turn = turn;
    server.link.session.turn_ctx = &server;
    (void)prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
    server.io.now_ns = mr_now_ns();
    mr_io_serve(&server.io);
    if (adopted)
        mr_link_adopt(&server.link);
    else
        mr_link_run(&server.link);
    return serve(&server);
}
