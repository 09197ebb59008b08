/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "storage/base/cleanup.h"

static void interrupt_only(int sig)
{
    (void)sig;
}

static bool channel_closed(int channel_fd)
{
    struct pollfd pfd = {.fd = channel_fd};

    return poll(&pfd, 1, 0) > 0 && (pfd.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

/* flock(2) cannot wait for two things. A repeating timer interrupts it once a second
 * (repeating: a signal that comes before flock has gone to sleep is not the last one),
 * then the channel is looked at. */
static int lock_or_hangup(int fd, int channel_fd)
{
    struct sigaction action = {.sa_handler = interrupt_only}; /* no SA_RESTART */
    struct sigaction old_action;
    const struct itimerval every_second = {.it_interval = {.tv_sec = 1},
                                           .it_value = {.tv_sec = 1}};
    const struct itimerval off = {0};
    int r = 0;

    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno != EWOULDBLOCK)
        return -errno;
    if (sigaction(SIGALRM, &action, &old_action) < 0 ||
        setitimer(ITIMER_REAL, &every_second, NULL) < 0)
        return -errno;
    while (r == 0 && flock(fd, LOCK_EX) < 0) {
        if (errno != EINTR)
            r = -errno;
        else if (channel_closed(channel_fd))
            r = -ECANCELED;
    }
    (void)setitimer(ITIMER_REAL, &off, NULL);
    (void)sigaction(SIGALRM, &old_action, NULL);
    return r;
}

/* Somebody may have replaced the file while we waited: then we hold the lock of nothing.
 */
static int is_the_file(const char *path, int fd, bool *ret_same)
{
    struct stat here;
    struct stat there;

    *ret_same = false;
    if (fstat(fd, &here) < 0)
        return -errno;
    if (!S_ISREG(here.st_mode))
        return -EINVAL;
    if (lstat(path, &there) < 0)
        return errno == ENOENT ? 0 : -errno;
    *ret_same = here.st_ino == there.st_ino && here.st_dev == there.st_dev;
    return 0;
}

int mr_lock_take(const char *path, int channel_fd, int *ret_fd, struct mr_err *err)
{
    for (;;) {
        bool same = false;
        MR_AUTO_CLOSE int fd =
            open(path, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
        if (fd < 0)
            return mr_fail(err, MR_E_INTERNAL, errno, "open lock file '%s'", path);
        int r = lock_or_hangup(fd, channel_fd);
        if (r == 0)
            r = is_the_file(path, fd, &same);
        if (r < 0)
            return mr_fail(err, MR_E_INTERNAL, -r, "lock '%s'", path);
        if (same) {
            *ret_fd = mr_take_fd(&fd);
            return 0;
        }
    }
}
