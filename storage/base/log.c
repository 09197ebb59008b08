/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *program_name = "mooring";
static enum mr_log_level max_level = MR_LOG_INFO;

void mr_log_init(const char *program)
{
    static const struct {
        const char *name;
        enum mr_log_level level;
    } levels[] = {
        {"err", MR_LOG_ERR},   {"warning", MR_LOG_WARNING}, {"notice", MR_LOG_NOTICE},
        {"info", MR_LOG_INFO}, {"debug", MR_LOG_DEBUG},
    };
    const char *wanted = getenv("MOORING_LOG");

    program_name = program;
    for (size_t i = 0; wanted && i < sizeof(levels) / sizeof(levels[0]); i++)
        if (strcmp(wanted, levels[i].name) == 0)
            max_level = levels[i].level;
}

void mr_log(enum mr_log_level level, const char *fmt, ...)
{
    int saved = errno;
    char line[2048];
    va_list ap;

    if (level > max_level)
        return;
    int head = snprintf(line, sizeof(line), "<%d>%s: ", (int)level, program_name);
    if (head < 0)
        return;
    size_t used = (size_t)head;
    va_start(ap, fmt);
    int body = vsnprintf(line + used, sizeof(line) - used - 1, fmt, ap);
    va_end(ap);
    if (body > 0)
        used += (size_t)body;
    if (used > sizeof(line) - 2)
        used = sizeof(line) - 2;
    /* Input may not forge log lines or terminal sequences. */
    for (size_t i = (size_t)head; i < used; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = ' ';
    line[used++] = '\n';
    /* The core may not wait for a reader that got stuck: then the line is lost. */
    struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&out, 1, 0) == 0 || write(STDERR_FILENO, line, used) < 0)
        errno = saved; /* nowhere to complain */
    errno = saved;
}
