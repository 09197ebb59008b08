/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/base/fd.h"

#define NAME_CHARS "abcdefghijklmnopqrstuvwxyz0123456789_-"
#define ORDER_TEXT 32
#define FAIL "fail "

/* Adds one part of a name; only what can lead to no other directory. */
static int add(char *path, const char *sign, const char *part)
{
    size_t used = strlen(path);

    if (!part)
        return 0;
    if (!*part || part[strspn(part, NAME_CHARS)])
        return -EINVAL;
    return mr_format(path + used, PATH_MAX - used, "%s%s", sign, part);
}

/* Whoever renames the file is the one that obeys it. */
static int take(const char *path, char order[ORDER_TEXT])
{
    char hit[PATH_MAX];
    int rc = mr_format(hit, sizeof(hit), "%s.hit.%d", path, (int)getpid());

    if (rc < 0)
        return rc;
    if (rename(path, hit) < 0)
        return -errno;
    return (int)mr_read_text(AT_FDCWD, hit, order, ORDER_TEXT);
}

static int obey(const char *order)
{
    char *end = NULL;

    if (strcmp(order, "die") == 0) {
        (void)raise(SIGKILL);
    } else if (strcmp(order, "stop") == 0) {
        (void)raise(SIGSTOP);
        return 0;
    } else if (strncmp(order, FAIL, strlen(FAIL)) == 0) {
        long errnum = strtol(order + strlen(FAIL), &end, 10);
        if (errnum > 0 && errnum < 4096 && *end == '\0')
            return -(int)errnum;
    }
    abort(); /* a test with a wrong order must not pass */
}

int mr_fault(const char *place, const char *what, const char *when)
{
    const char *dir = getenv(MR_FAULT_ENV);
    char path[PATH_MAX];
    char order[ORDER_TEXT];

    if (!dir || *dir != '/')
        return 0;
    if (mr_format(path, sizeof(path), "%s", dir) < 0 || add(path, "/", place) < 0 ||
        add(path, ".", what) < 0 || add(path, ".", when) < 0)
        return 0;
    return take(path, order) < 0 ? 0 : obey(order);
}

int mr_fault_fail(const char *place, const char *what, const char *when,
                  struct mr_err *err)
{
    int rc = mr_fault(place, what, when);

    if (rc == 0)
        return 0;
    return mr_fail(err, MR_E_INTERNAL, -rc, "fault %s.%s.%s", place, what ? what : "",
                   when ? when : "");
}
