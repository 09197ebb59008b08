/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes on around the volumes on a node: many mounts, mounts that come and go, many
 * processes; and the simplest programs that look at it.
 */
#include "bare.h"

#include <ctype.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES_MAX 4096
#define NS_PER_S 1000000000

static void mount_tmpfs(const char *path)
{
    if (mount("bench", path, "tmpfs", 0, NULL) < 0)
        err(1, "mount tmpfs on '%s'", path);
}

/* COUNT bind mounts in a tmpfs on DIRECTORY, until stdin closes. */
void mr_bare_mounts(char **argument)
{
    unsigned long count = strtoul(argument[1], NULL, 10);
    char path[300];

    mount_tmpfs(argument[0]);
    for (unsigned long i = 1; i < count; i++) {
        (void)snprintf(path, sizeof(path), "%s/%lu", argument[0], i);
        if (mkdir(path, 0700) < 0 || mount(path, path, NULL, MS_BIND, NULL) < 0)
            err(1, "bind '%s'", path);
    }
    mr_bare_hold();
    if (umount2(argument[0], MNT_DETACH) < 0)
        err(1, "umount '%s'", argument[0]);
    mr_bare_say("%lu", count);
}

/* A tmpfs comes and goes on DIRECTORY, so many times per second -> pairs that were made.
 */
void mr_bare_churn(char **argument)
{
    int64_t period_ns = NS_PER_S / strtol(argument[1], NULL, 10);
    int64_t next_ns = mr_bare_now_ns();
    unsigned long pairs = 0;

    mr_bare_say("ready");
    while (!mr_bare_asked(0)) {
        mount_tmpfs(argument[0]);
        if (umount2(argument[0], UMOUNT_NOFOLLOW) < 0)
            err(1, "umount '%s'", argument[0]);
        pairs++;
        next_ns += period_ns;
        int64_t left_ns = next_ns - mr_bare_now_ns();
        if (left_ns > 0)
            mr_bare_sleep_ns(left_ns);
    }
    mr_bare_say("%lu", pairs);
}

/* Reads the whole mount table again at every change of it, proc_pid_mountinfo(5), as a
 * simple agent does -> number of reads. */
void mr_bare_reader(char **argument)
{
    static char table[1 << 16];
    unsigned long reads = 0;
    int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                           {.fd = fd, .events = POLLPRI}};

    (void)argument;
    if (fd < 0)
        err(1, "open '/proc/self/mountinfo'");
    mr_bare_say("ready");
    while (poll(fds, 2, -1) > 0 && fds[0].revents == 0) {
        if (lseek(fd, 0, SEEK_SET) < 0)
            err(1, "lseek");
        while (read(fd, table, sizeof(table)) > 0)
            continue;
        reads++;
    }
    mr_bare_say("%lu", reads);
}

/* Counts how often the kernel's uevents wake a listener: "count" -> wake-ups so far. */
void mr_bare_events(char **argument)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    char message[8192];
    const char *order;
    unsigned long wakes = 0;
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    NETLINK_KOBJECT_UEVENT);
    struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                           {.fd = fd, .events = POLLIN}};

    (void)argument;
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        err(1, "listen to uevents");
    while (poll(fds, 2, -1) > 0) {
        if (fds[1].revents != 0) {
            while (recv(fd, message, sizeof(message), 0) > 0)
                continue;
            wakes++;
        }
        if (fds[0].revents == 0)
            continue;
        if (!mr_bare_order(&order))
            return;
        mr_bare_say("%lu", wakes);
    }
}

/* COUNT processes that do nothing, until stdin closes. */
void mr_bare_sleepers(char **argument)
{
    static pid_t pids[PROCESSES_MAX];
    size_t count = strtoul(argument[0], NULL, 10);

    if (count > PROCESSES_MAX)
        errx(1, "too many processes");
    for (size_t i = 0; i < count; i++) {
        pids[i] = fork();
        if (pids[i] < 0)
            err(1, "fork");
        if (pids[i] > 0)
            continue;
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
            err(1, "prctl");
        (void)pause();
        _exit(0);
    }
    mr_bare_hold();
    for (size_t i = 0; i < count; i++) {
        (void)kill(pids[i], SIGKILL);
        (void)waitpid(pids[i], NULL, 0);
    }
    mr_bare_say("%zu", count);
}

/* "look" -> nanoseconds for /proc/PID/stat of all processes, and how many there are. */
void mr_bare_stats(char **argument)
{
    const char *order;

    (void)argument;
    while (mr_bare_order(&order)) {
        int64_t started_ns = mr_bare_now_ns();
        DIR *proc = opendir("/proc");
        unsigned count = 0;
        if (!proc)
            err(1, "open '/proc'");
        for (const struct dirent *entry = readdir(proc); entry; entry = readdir(proc)) {
            char path[300];
            char text[1024];
            if (!isdigit((unsigned char)entry->d_name[0]))
                continue;
            (void)snprintf(path, sizeof(path), "%s/stat", entry->d_name);
            int fd = openat(dirfd(proc), path, O_RDONLY | O_CLOEXEC);
            if (fd < 0)
                continue;
            count += read(fd, text, sizeof(text)) > 0;
            (void)close(fd);
        }
        (void)closedir(proc);
        mr_bare_say("%jd %u", (intmax_t)(mr_bare_now_ns() - started_ns), count);
    }
}
