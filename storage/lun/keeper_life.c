/* SPDX-License-Identifier: Apache-2.0
 *
 * What follows when a server serves, or ends. */
#include "storage/lun/keeper.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/log.h"
#include "storage/lun/exits.h"
#include "storage/lun/fuse_abort.h"
#include "storage/lun/process.h"
#include "storage/lun/status.h"

/* A program on trial that moved no data is kept when it was there for so long. */
#define TRIAL_NS (5 * MR_NS_PER_S)
#define TRIAL_LOOK_NS (50 * MR_NS_PER_MS)
#define TRIAL_AWAY_NS (200 * MR_NS_PER_MS) /* the target is away */
/* Or this program cannot log in: less than who has ordered it waits, and than requests
 * do unless they are told otherwise. */
#define TRIAL_AWAY_MAX_NS (45 * MR_NS_PER_S)

void mr_keeper_abort(struct mr_keeper *k)
{
    if (k->abort_fd >= 0)
        (void)mr_fuse_abort(k->abort_fd);
    mr_keeper_stop(k, MR_KEEPER_STOP_MS);
    /* Without the abort file: the last of these fds does the same. fs/fuse/dev.c,
     * fuse_dev_release(). */
    mr_close(&k->fuse_fd);
    k->done = true;
    k->exit_code = MR_EXIT_CRASHED;
}

/* Handled by all servers so far. */
static uint64_t requests(const struct mr_keeper *k)
{
    const struct mr_page_counters *counters = &k->page->counters;

    return atomic_load(&counters->reads) + atomic_load(&counters->writes) +
           atomic_load(&counters->flushes) + atomic_load(&counters->discards) +
           atomic_load(&counters->zeroes);
}

/* Counted when a request is answered, and only if that went well. */
static uint64_t moved(const struct mr_keeper *k)
{
    const struct mr_page_counters *counters = &k->page->counters;

    return atomic_load(&counters->read_bytes) + atomic_load(&counters->written_bytes);
}

void mr_keeper_push(struct mr_keeper *k)
{
    MR_AUTO_JSON struct json_object *status = mr_keeper_status(k);

    if (status)
        mr_control_push(&k->control, status);
}

static void serving_starts(struct mr_keeper *k)
{
    struct mr_err err = {0};

    if (mr_control_open(&k->control, k->start.runtime_dir, k->start.token, &err) < 0) {
        mr_keeper_fail_start(k, &err);
        return;
    }
    k->serving = true;
    mr_log(MR_LOG_INFO, "serving target=%s lun=%u size_bytes=%llu", k->start.target,
           k->start.lun, (unsigned long long)atomic_load(&k->page->size_bytes));
    MR_AUTO_JSON struct json_object *status = mr_keeper_status(k);
    mr_keeper_tell_worker(k, status);
    mr_process_quiet();
}

void mr_keeper_ready(struct mr_keeper *k)
{
    mr_close(&k->server.channel);
    k->server.ready = true;
    k->server.ready_ns = mr_now_ns();
    k->server.requests = requests(k);
    k->server.bytes = moved(k);
    if (k->serving)
        mr_keeper_push(k);
    else
        serving_starts(k);
}

static bool has_moved_data(const struct mr_keeper *k)
{
    return k->server.ready && moved(k) != k->server.bytes;
}

static void trial_passed(struct mr_keeper *k)
{
    mr_close(&k->program_fd);
    k->program_fd = mr_take_fd(&k->trial_fd);
    k->server.on_trial = false;
}

/* Without a session it cannot show anything. */
static bool is_usable(const struct mr_keeper *k)
{
    const unsigned state = atomic_load(&k->page->state);

    return state == MR_LINK_UP || state == MR_LINK_CUT || state == MR_LINK_MISMATCH ||
           state == MR_LINK_FENCED;
}

/* Then the one before is tried again; that costs nothing but where the kernel cannot give
 * it what this one has read. */
static bool is_hopeless(const struct mr_keeper *k, int64_t now_ns)
{
    const bool away_long =
        k->server.usable_ns == 0 && now_ns - k->server.ready_ns >= TRIAL_AWAY_MAX_NS;

    return mr_lun_server_late_ms(k->page) >= MR_LUN_SERVER_LATE_MS ||
           (away_long && atomic_load(&k->page->can_resend));
}

int64_t mr_keeper_check_trial(struct mr_keeper *k)
{
    struct mr_keeper_server *server = &k->server;
    const int64_t now_ns = mr_now_ns();

    if (!server->on_trial || !server->ready)
        return INT64_MAX;
    if (!is_usable(k))
        server->usable_ns = 0;
    else if (server->usable_ns == 0)
        server->usable_ns = now_ns;
    if (is_hopeless(k, now_ns)) {
        (void)pidfd_send_signal(server->pidfd, SIGKILL, NULL, 0);
        return INT64_MAX; /* its end is seen */
    }
    if (has_moved_data(k) ||
        (server->usable_ns != 0 && now_ns - server->usable_ns >= TRIAL_NS)) {
        trial_passed(k);
        return INT64_MAX;
    }
    return now_ns + (server->usable_ns != 0 ? TRIAL_LOOK_NS : TRIAL_AWAY_NS);
}

/* Back to what is known to work, at once. Nothing is lost: if it has read requests, the
 * kernel gives them to the next one. And it is no crash of ours: who asks for such a
 * program again shall not use up what restarts we have. */
static void trial_fails(struct mr_keeper *k)
{
    k->trial_failed = true;
    mr_close(&k->trial_fd);
    k->restart_ns = mr_now_ns() + 1;
}

void mr_keeper_next(struct mr_keeper *k)
{
    struct mr_err err = {0};
    int64_t delay_ns;

    k->restart_ns = 0;
    /* This is what was asked for, how often so ever. */
    atomic_fetch_and(&k->page->orders, ~(unsigned)MR_ORDER_HAND_OVER);
    atomic_store(&k->page->due_ns, mr_now_ns());
    if (mr_keeper_spawn(k, &err) == 0)
        return;
    if (!k->serving) {
        mr_keeper_fail_start(k, &err);
        return;
    }
    if (k->trial_fd >= 0) {
        (void)snprintf(k->server_end, sizeof(k->server_end), "it cannot be started");
        trial_fails(k);
        return;
    }
    delay_ns = mr_restart_after(&k->restart, mr_now_ns(), false);
    if (delay_ns < 0)
        mr_keeper_abort(k);
    else
        k->restart_ns = mr_now_ns() + delay_ns + 1;
}

static void server_crashed(struct mr_keeper *k, int end)
{
    const int64_t now_ns = mr_now_ns();
    const bool served = k->server.ready && requests(k) != k->server.requests;
    const bool resend = atomic_load(&k->page->can_resend);
    int64_t delay_ns;

    (void)snprintf(k->server_end, sizeof(k->server_end), "%s %d",
                   end < 0 ? "signal" : "exit status", end < 0 ? -end : end);
    if (k->server.on_trial && (!k->server.ready || resend)) {
        trial_fails(k);
        mr_keeper_push(k);
        return;
    }
    delay_ns = mr_restart_after(&k->restart, now_ns, served);
    /* SIGPROF: its watchdog; what made it busy for ever would come again. One that was
     * not ready has taken no request with it. */
    if (delay_ns < 0 || end == -SIGPROF || (k->server.ready && !resend)) {
        mr_keeper_abort(k);
        return;
    }
    k->restart_ns = now_ns + delay_ns + 1;
    mr_keeper_push(k);
}

/* A server's word alone is not taken for it: our fds are all that is left then, and to
 * close them fails every request. fs/fuse/dev.c, fuse_dev_poll(). */
static bool is_released(const struct mr_keeper *k)
{
    struct pollfd fuse = {.fd = k->fuse_fd};

    return poll(&fuse, 1, 0) > 0 && (fuse.revents & (POLLERR | POLLHUP));
}

void mr_keeper_ended(struct mr_keeper *k, const struct mr_err *said)
{
    const int end = mr_keeper_reap(k);
    const bool meant = k->server.ready || !k->server.on_trial;
    struct mr_err err = *said;

    if (k->server.on_trial && has_moved_data(k))
        trial_passed(k);
    if (!k->serving) {
        if (!err.message[0] && k->server.late)
            (void)mr_fail(&err, MR_E_TARGET_TIMEOUT, ETIMEDOUT,
                          "the server was not ready in time: is a name server silent?");
        else if (!err.message[0]) /* it said nothing */
            (void)mr_fail(&err, MR_E_INTERNAL, EIO, "the server ended with %s %d",
                          end < 0 ? "signal" : "exit status", end < 0 ? -end : end);
        mr_keeper_fail_start(k, &err);
    } else if (end == MR_LUN_EXIT_RELEASED && meant && is_released(k)) {
        if (atomic_load(&k->page->logged_out))
            mr_control_unlink(&k->control);
        k->done = true;
        k->exit_code = 0;
    } else if (end == MR_LUN_EXIT_HANDED_OVER && !k->server.on_trial) {
        mr_keeper_next(k);
    } else {
        server_crashed(k, end);
    }
}
