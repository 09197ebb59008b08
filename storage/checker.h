/* SPDX-License-Identifier: Apache-2.0
 *
 * The checker: what the kernel tells us by itself about mounts and devices. One inotify
 * for the IN_UNMOUNT watches that workers add, /proc/self/mountinfo by EPOLLPRI, and
 * libudev's monitor on the `kernel` source (containers and CI have no udevd). An event
 * only wakes somebody up; it proves nothing. Core thread only.
 */
#ifndef MR_STORAGE_CHECKER_H
#define MR_STORAGE_CHECKER_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/base/loop.h"

struct mr_checker;

struct mr_checker_events {
    /* The super block behind this watch dies for good (inotify(7) IN_UNMOUNT); the watch
     * is gone. */
    void (*unmounted)(void *ctx, int wd);
    /* Events were lost (IN_Q_OVERFLOW): look at everything again. */
    void (*overflow)(void *ctx);
    /* The own mount table changed; coalesced, at most every 50 ms. */
    void (*mounts_changed)(void *ctx);
    /* A mount went away in a marked foreign namespace (fanotify(7) FAN_MNT_DETACH). */
    void (*copies_changed)(void *ctx);
    /* The kernel sent a uevent for this block device. */
    void (*device_changed)(void *ctx, uint32_t major, uint32_t minor);
};

/* events is borrowed for the checker's life. A missing udev monitor is no failure: there
 * is a poll behind it. */
int mr_checker_new(struct mr_loop *loop, const struct mr_checker_events *events,
                   void *ctx, struct mr_checker **ret, struct mr_err *err);
void mr_checker_free(struct mr_checker *checker);

/* The inotify that workers inherit. Borrowed. */
int mr_checker_inotify_fd(const struct mr_checker *checker);
/* The fanotify group (FAN_REPORT_MNT, Linux 6.14) whose marks scans add on foreign mount
 * namespaces; -1 when the kernel has none. A mark pins no namespace. Borrowed. */
int mr_checker_fanotify_fd(const struct mr_checker *checker);
/* Nobody waits any more: drops all marks. */
void mr_checker_forget_copies(struct mr_checker *checker);
/* A worker reported its watch: true when its event came before the report (and is used up
 * by this). */
bool mr_checker_fired_early(struct mr_checker *checker, int wd);
/* Nobody waits for this watch any more. */
void mr_checker_forget(struct mr_checker *checker, int wd);

#endif
