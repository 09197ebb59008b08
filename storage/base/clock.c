/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "storage/base/fd.h"

int64_t mr_now_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * MR_NS_PER_S + ts.tv_nsec;
}

int64_t mr_wall_ms(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * 1000LL + ts.tv_nsec / MR_NS_PER_MS;
}

const char *mr_time_text(int64_t wall_ms, char dst[MR_TIME_TEXT])
{
    time_t seconds = wall_ms / 1000;
    struct tm tm;
    char text[20];

    if (wall_ms < 0 || !gmtime_r(&seconds, &tm) ||
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        (void)snprintf(text, sizeof(text), "1970-01-01T00:00:00");
    (void)snprintf(dst, MR_TIME_TEXT, "%s.%03uZ", text,
                   (unsigned)(wall_ms % 1000) % 1000U);
    return dst;
}

int64_t mr_time_ms(const char *text)
{
    struct tm tm = {0};
    const char *end = text ? strptime(text, "%Y-%m-%dT%H:%M:%S.", &tm) : NULL;
    char *rest = NULL;

    if (!end || strlen(end) != 4 || strspn(end, "0123456789") != 3)
        return 0;
    long ms = strtol(end, &rest, 10);
    return *rest == 'Z' ? (int64_t)timegm(&tm) * 1000 + ms : 0;
}

void mr_sleep_ns(int64_t ns)
{
    if (ns <= 0)
        return;
    struct timespec left = {.tv_sec = ns / MR_NS_PER_S, .tv_nsec = ns % MR_NS_PER_S};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

int mr_boot_id(char dst[37])
{
    ssize_t len = mr_read_text(AT_FDCWD, "/proc/sys/kernel/random/boot_id", dst, 37);
    if (len < 0)
        return (int)len;
    return len == 36 ? 0 : -EBADMSG;
}
