/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/checker.h"

#include <errno.h>
#include <fcntl.h>
#include <libudev.h>
#include <stdlib.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"

#define MR_CHECKER_EARLY 64
#define MR_CHECKER_COALESCE_NS (50 * MR_NS_PER_MS)
#define MR_CHECKER_READS 64

/* Newer than the headers of Debian 12: include/uapi/linux/fanotify.h of Linux 6.15. */
#define MR_FAN_REPORT_MNT 0x00004000U
#define MR_FAN_MARK_MNTNS 0x00000110U

struct mr_checker {
    struct mr_loop *loop;
    const struct mr_checker_events *events;
    void *ctx;
    int inotify_fd;
    int fanotify_fd;  /* -1: not on this kernel */
    int mountinfo_fd; /* our own: pins nothing but our own namespace */
    struct udev *udev;
    struct udev_monitor *monitor;
    struct mr_io *inotify_io;
    struct mr_io *fanotify_io;
    struct mr_io *mountinfo_io;
    struct mr_io *udev_io;
    struct mr_timer coalesce;
    int64_t mounts_told_ns;
    struct mr_timer copies;
    int64_t copies_told_ns;
    int early[MR_CHECKER_EARLY]; /* fired, but not reported yet; ring, -1 = free */
    unsigned early_next;
};

static void on_inotify(void *ctx, uint32_t events)
{
    struct mr_checker *checker = ctx;
    char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t got;

    (void)events;
    while ((got = read(checker->inotify_fd, buf, sizeof(buf))) > 0) {
        for (char *at = buf; at < buf + got;) {
            const struct inotify_event *event = (const void *)at;
            at += sizeof(*event) + event->len;
            if (event->mask & IN_Q_OVERFLOW)
                checker->events->overflow(checker->ctx);
            if (!(event->mask & IN_UNMOUNT))
                continue;
            /* Kept until somebody takes it: the worker's report may still be on its way.
             */
            checker->early[checker->early_next++ % MR_CHECKER_EARLY] = event->wd;
            checker->events->unmounted(checker->ctx, event->wd);
        }
    }
}

bool mr_checker_fired_early(struct mr_checker *checker, int wd)
{
    for (unsigned i = 0; i < MR_CHECKER_EARLY; i++) {
        if (checker->early[i] == wd) {
            checker->early[i] = -1;
            return true;
        }
    }
    return false;
}

void mr_checker_forget(struct mr_checker *checker, int wd)
{
    if (wd >= 0 && !mr_checker_fired_early(checker, wd))
        (void)inotify_rm_watch(checker->inotify_fd, wd);
}

int mr_checker_inotify_fd(const struct mr_checker *checker)
{
    return checker->inotify_fd;
}

static void tell_copies(void *ctx)
{
    struct mr_checker *checker = ctx;
    checker->copies_told_ns = mr_now_ns();
    checker->events->copies_changed(checker->ctx);
}

/* Which mount it was does not matter: only a claim tells whether that was the last. The
 * first one is told at once, a storm of them coalesced. */
static void on_fanotify(void *ctx, uint32_t events)
{
    struct mr_checker *checker = ctx;
    char buf[4096];

    (void)events;
    for (int i = 0; i < MR_CHECKER_READS; i++) /* the rest wakes us again */
        if (read(checker->fanotify_fd, buf, sizeof(buf)) <= 0)
            break;
    if (checker->copies.heap_index == 0)
        mr_timer_set(&checker->copies, checker->copies_told_ns + MR_CHECKER_COALESCE_NS);
}

int mr_checker_fanotify_fd(const struct mr_checker *checker)
{
    return checker->fanotify_fd;
}

void mr_checker_forget_copies(struct mr_checker *checker)
{
    if (checker->fanotify_fd >= 0)
        (void)fanotify_mark(checker->fanotify_fd, FAN_MARK_FLUSH | MR_FAN_MARK_MNTNS, 0,
                            AT_FDCWD, NULL);
}

static void on_mountinfo(void *ctx, uint32_t events);

/* Failing to listen again costs wake-ups only: there is a poll behind each of them. */
static void listen_to_mounts(struct mr_checker *checker)
{
    (void)mr_loop_add(checker->loop, checker->mountinfo_fd, EPOLLPRI, on_mountinfo,
                      checker, &checker->mountinfo_io, NULL);
}

static void tell_mounts(void *ctx)
{
    struct mr_checker *checker = ctx;
    checker->mounts_told_ns = mr_now_ns();
    if (!checker->mountinfo_io)
        listen_to_mounts(checker); /* before the look, or a change would be missed */
    checker->events->mounts_changed(checker->ctx);
}

static void on_mountinfo(void *ctx, uint32_t events)
{
    struct mr_checker *checker = ctx;
    (void)events;
    /* EPOLLPRI is edge-like per open file: the poll itself marks it as seen
     * (proc_pid_mountinfo(5)). Nobody listens until the coalesced look: with hundreds of
     * mounts a second each would wake us for nothing. */
    mr_io_remove(checker->mountinfo_io);
    checker->mountinfo_io = NULL;
    mr_timer_set(&checker->coalesce, checker->mounts_told_ns + MR_CHECKER_COALESCE_NS);
}

static void on_udev(void *ctx, uint32_t events)
{
    struct mr_checker *checker = ctx;
    struct udev_device *device;

    (void)events;
    while ((device = udev_monitor_receive_device(checker->monitor))) {
        dev_t dev = udev_device_get_devnum(device);
        (void)udev_device_unref(device);
        checker->events->device_changed(checker->ctx, major(dev), minor(dev));
    }
}

/* Without it the end of a copy is seen by its IN_UNMOUNT and by the fallback polls. */
static int start_fanotify(struct mr_checker *checker, struct mr_loop *loop,
                          struct mr_err *err)
{
    checker->fanotify_fd =
        fanotify_init(MR_FAN_REPORT_MNT | FAN_CLOEXEC | FAN_NONBLOCK, 0);
    if (checker->fanotify_fd < 0)
        return 0;
    return mr_loop_add(loop, checker->fanotify_fd, EPOLLIN, on_fanotify, checker,
                       &checker->fanotify_io, err);
}

/* False when there is no monitor to be had; the fallback polls then do its work alone. */
static bool start_monitor(struct mr_checker *checker, struct mr_loop *loop)
{
    checker->udev = udev_new();
    if (!checker->udev)
        return false;
    checker->monitor = udev_monitor_new_from_netlink(checker->udev, "kernel");
    if (!checker->monitor ||
        udev_monitor_filter_add_match_subsystem_devtype(checker->monitor, "block", NULL) <
            0 ||
        udev_monitor_enable_receiving(checker->monitor) < 0)
        return false;
    return mr_loop_add(loop, udev_monitor_get_fd(checker->monitor), EPOLLIN, on_udev,
                       checker, &checker->udev_io, NULL) == 0;
}

int mr_checker_new(struct mr_loop *loop, const struct mr_checker_events *events,
                   void *ctx, struct mr_checker **ret, struct mr_err *err)
{
    struct mr_checker *checker = calloc(1, sizeof(*checker));
    if (!checker)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "create the checker");
    checker->loop = loop;
    checker->events = events;
    checker->ctx = ctx;
    checker->fanotify_fd = -1;
    for (unsigned i = 0; i < MR_CHECKER_EARLY; i++)
        checker->early[i] = -1;
    mr_timer_init(&checker->coalesce, loop, tell_mounts, checker);
    mr_timer_init(&checker->copies, loop, tell_copies, checker);
    checker->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    checker->mountinfo_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    int rc = 0;
    if (checker->inotify_fd < 0 || checker->mountinfo_fd < 0)
        rc = mr_fail(err, MR_E_INTERNAL, errno, "open inotify and /proc/self/mountinfo");
    if (rc == 0)
        rc = mr_loop_add(loop, checker->inotify_fd, EPOLLIN, on_inotify, checker,
                         &checker->inotify_io, err);
    if (rc == 0)
        rc = mr_loop_add(loop, checker->mountinfo_fd, EPOLLPRI, on_mountinfo, checker,
                         &checker->mountinfo_io, err);
    if (rc == 0)
        rc = start_fanotify(checker, loop, err);
    if (rc < 0) {
        mr_checker_free(checker);
        return rc;
    }
    (void)start_monitor(checker, loop);
    *ret = checker;
    return 0;
}

void mr_checker_free(struct mr_checker *checker)
{
    if (!checker)
        return;
    mr_timer_cancel(&checker->coalesce);
    mr_timer_cancel(&checker->copies);
    mr_io_remove(checker->inotify_io);
    mr_io_remove(checker->fanotify_io);
    mr_io_remove(checker->mountinfo_io);
    mr_io_remove(checker->udev_io);
    mr_close(&checker->inotify_fd);
    mr_close(&checker->fanotify_fd);
    mr_close(&checker->mountinfo_fd);
    if (checker->monitor)
        (void)udev_monitor_unref(checker->monitor);
    if (checker->udev)
        (void)udev_unref(checker->udev);
    free(checker);
}
