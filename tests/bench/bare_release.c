/* SPDX-License-Identifier: Apache-2.0
 *
 * A holder, and a witness of what happens when it lets go. The witness knows nothing of
 * who detaches: it sees the super block's end (IN_UNMOUNT), the granted claim and the end
 * of the device. An exclusive open that is refused gives no inotify event, a granted one
 * gives IN_OPEN (fs/open.c vfs_open(), fsnotify_open()), so that the last open before the
 * device is gone is the claim. All times are CLOCK_MONOTONIC of this one process.
 */
#include "bare.h"

#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK_BYTES (1 << 20)
#define LOOK_NS 50000

struct witness {
    int inotify;
    int node_wd;
    int root_wd;
    int64_t unmount_ns;
    int64_t claim_ns; /* of the last open */
    bool closed;      /* since then */
};

static void write_dirty(const char *mount_path, size_t bytes)
{
    static char chunk[CHUNK_BYTES];
    char path[300];

    (void)snprintf(path, sizeof(path), "%s/dirty", mount_path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        err(1, "open '%s'", path);
    for (size_t done = 0; done < bytes; done += sizeof(chunk))
        if (write(fd, chunk, sizeof(chunk)) != (ssize_t)sizeof(chunk))
            err(1, "write '%s'", path);
    (void)close(fd);
}

static void tell(int fd)
{
    if (write(fd, "", 1) != 1)
        err(1, "write");
}

static void expect(int fd)
{
    char byte;

    if (read(fd, &byte, 1) != 1)
        errx(1, "the other end is gone");
}

/* A process in a private copy of our mount namespace. Asked once, it writes. */
static pid_t start_holder(const char *mount_path, size_t dirty_bytes, int ask, int answer)
{
    pid_t child = fork();

    if (child < 0)
        err(1, "fork");
    if (child > 0)
        return child;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        err(1, "copy of the mount namespace");
    tell(answer);
    expect(ask);
    if (dirty_bytes > 0)
        write_dirty(mount_path, dirty_bytes);
    tell(answer);
    (void)pause();
    _exit(0);
}

static void see(struct witness *witness, const struct inotify_event *event,
                int64_t now_ns)
{
    if (event->wd == witness->root_wd && (event->mask & IN_UNMOUNT))
        witness->unmount_ns = now_ns;
    if (event->wd != witness->node_wd)
        return;
    if (event->mask & IN_OPEN) {
        witness->claim_ns = now_ns;
        witness->closed = false;
    } else if (event->mask & IN_CLOSE) {
        witness->closed = true;
    }
}

static void read_events(struct witness *witness)
{
    char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    int64_t now_ns = mr_bare_now_ns();
    ssize_t got;

    while ((got = read(witness->inotify, buf, sizeof(buf))) > 0) {
        for (char *at = buf; at < buf + got;) {
            const struct inotify_event *event = (const void *)at;
            at += sizeof(*event) + event->len;
            see(witness, event, now_ns);
        }
    }
}

/* Returns the time at which the device was gone. After a close it is looked for all the
 * time, before that only events wake us up. */
static int64_t watch(struct witness *witness, const char *node, const char *backing)
{
    int64_t deadline_ns = mr_bare_now_ns() + MR_GIVE_UP_NS;
    struct pollfd event = {.fd = witness->inotify, .events = POLLIN};

    while (mr_bare_now_ns() < deadline_ns) {
        const struct timespec look = {.tv_nsec = LOOK_NS};
        const struct timespec wait = {.tv_sec = 1};
        bool looking = witness->claim_ns > 0 && witness->closed;
        if (ppoll(&event, 1, looking ? &look : &wait, NULL) > 0)
            read_events(witness);
        if (looking && mr_bare_gone(node, backing))
            return mr_bare_now_ns();
    }
    errx(1, "'%s' was not let go", node);
}

/* "ready", then "go" lets the holder die -> nanoseconds from there to the end of the
 * super block, to the claim and to the end of the device. */
void mr_bare_release(char **argument)
{
    const char *order;
    char backing[512];
    int ask[2];
    int answer[2];
    struct witness witness = {.inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};

    if (pipe2(ask, O_CLOEXEC) < 0 || pipe2(answer, O_CLOEXEC) < 0)
        err(1, "pipe2");
    pid_t holder =
        start_holder(argument[1], strtoul(argument[2], NULL, 10), ask[0], answer[1]);
    expect(answer[0]);
    witness.node_wd = inotify_add_watch(witness.inotify, argument[0], IN_OPEN | IN_CLOSE);
    witness.root_wd = inotify_add_watch(witness.inotify, argument[1], IN_UNMOUNT);
    if (witness.node_wd < 0 || witness.root_wd < 0)
        err(1, "watch '%s' and '%s'", argument[0], argument[1]);
    mr_bare_backing(argument[0], backing);
    mr_bare_say("ready");
    if (!mr_bare_order(&order))
        return;
    tell(ask[1]);
    expect(answer[0]);
    read_events(&witness);
    witness.unmount_ns = witness.claim_ns = 0;
    int64_t released_ns = mr_bare_now_ns();
    if (kill(holder, SIGKILL) < 0)
        err(1, "kill");
    int64_t gone_ns = watch(&witness, argument[0], backing);
    (void)waitpid(holder, NULL, 0);
    if (witness.unmount_ns == 0)
        errx(1, "no IN_UNMOUNT");
    mr_bare_say("%jd %jd %jd", (intmax_t)(witness.unmount_ns - released_ns),
                (intmax_t)(witness.claim_ns - released_ns),
                (intmax_t)(gone_ns - released_ns));
}
