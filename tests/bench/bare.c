/* SPDX-License-Identifier: Apache-2.0 */
#include "bare.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000

int64_t mr_bare_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

void mr_bare_sleep_ns(int64_t ns)
{
    struct timespec nap = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};

    (void)nanosleep(&nap, NULL);
}

void mr_bare_say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    (void)putchar('\n');
    if (fflush(stdout) != 0)
        err(1, "stdout");
}

bool mr_bare_order(const char **ret)
{
    static char *line;
    static size_t size;
    ssize_t n = getline(&line, &size, stdin);

    if (n <= 0)
        return false;
    line[strcspn(line, "\n")] = '\0';
    *ret = line;
    return true;
}

bool mr_bare_asked(int timeout_ms)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

    return poll(&input, 1, timeout_ms) > 0;
}

void mr_bare_hold(void)
{
    mr_bare_say("ready");
    while (!mr_bare_asked(-1))
        continue;
}

/* The length, or a negative errno. */
static ssize_t read_backing(const char *node, char dst[512])
{
    char path[96];
    const char *slash = strrchr(node, '/');

    (void)snprintf(path, sizeof(path), "/sys/block/%.32s/loop/backing_file",
                   slash ? slash + 1 : node);
    dst[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, dst, 511);
    if (n < 0)
        n = -errno;
    dst[n > 0 ? n : 0] = '\0';
    (void)close(fd);
    return n;
}

void mr_bare_backing(const char *node, char dst[512])
{
    (void)read_backing(node, dst);
}

bool mr_bare_gone(const char *node, const char *backing)
{
    char now[512];
    ssize_t n = read_backing(node, now);

    return n == -ENOENT || (n > 0 && strcmp(now, backing) != 0);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *mode;
        int arguments;
        void (*run)(char **argument);
    } modes[] = {
        {"volume", 3, mr_bare_volume},     /* TYPE IMAGE MOUNT_PATH */
        {"at-once", 3, mr_bare_at_once},   /* TYPE DIRECTORY COUNT */
        {"release", 3, mr_bare_release},   /* NODE MOUNT_PATH DIRTY_BYTES */
        {"mounts", 2, mr_bare_mounts},     /* DIRECTORY COUNT */
        {"churn", 2, mr_bare_churn},       /* DIRECTORY PAIRS_PER_SECOND */
        {"reader", 0, mr_bare_reader},     /* */
        {"events", 0, mr_bare_events},     /* */
        {"sleepers", 1, mr_bare_sleepers}, /* COUNT */
        {"stats", 0, mr_bare_stats},       /* */
        {"iscsi", 4, mr_bare_iscsi},       /* PORTAL TARGET LUN FIRST_BYTE */
    };

    for (size_t i = 0; argc > 1 && i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(argv[1], modes[i].mode) == 0 && argc == 2 + modes[i].arguments) {
            modes[i].run(argv + 2);
            return 0;
        }
    }
    errx(1, "usage: bare MODE ARGUMENT...");
}
