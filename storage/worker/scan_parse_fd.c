/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_parse.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

dev_t mr_kernel_dev(uint32_t dev)
{
    return makedev(dev >> 20, dev & 0xfffff);
}

bool mr_fdinfo_is_path(const char *text)
{
    const char *flags = strstr(text, "flags:");

    return flags && (strtoul(flags + 6, NULL, 8) & O_PATH) != 0;
}

uint64_t mr_fdinfo_in_flight(const char *text)
{
    const char *line = strstr(text, "\nscm_fds:");

    return line ? strtoull(line + 9, NULL, 10) : 0;
}

char *mr_fdinfo_ring_files(char *text)
{
    char *line = strstr(text, "\nUserFiles:");

    line = line ? strchr(line + 1, '\n') : NULL;
    return line ? line + 1 : NULL;
}

char *mr_fdinfo_next_file(char **lines)
{
    while (*lines && (**lines == ' ' || isdigit((unsigned char)**lines))) {
        char *line = strsep(lines, "\n");
        char *path = line + strspn(line, " 0123456789");
        if (strncmp(path, ": /", 3) != 0)
            continue; /* a socket, a pipe, ... */
        mr_unescape_octal(path);
        return path + 2;
    }
    return NULL;
}

unsigned mr_fdinfo_fanotify_flags(const char *text)
{
    const char *line = strstr(text, "\nfanotify flags:");

    return line ? (unsigned)strtoul(line + 16, NULL, 16) : 0;
}

bool mr_fdinfo_next_mark(const char **lines, struct mr_fanotify_mark *ret)
{
    static const char head[] = "fanotify ";

    while (**lines) {
        const char *line = *lines;
        size_t len = strcspn(line, "\n");
        unsigned sdev = 0;
        *lines += len + (line[len] == '\n');
        *ret = (struct mr_fanotify_mark){0};
        if (strncmp(line, head, sizeof(head) - 1) != 0)
            continue;
        line += sizeof(head) - 1;
        if (sscanf(line, "mnt_id:%" SCNx64, &ret->mount_id) == 1)
            return true;
        if (sscanf(line, "sdev:%x", &sdev) == 1 ||
            sscanf(line, "ino:%*x sdev:%x", &sdev) == 1) {
            ret->dev = mr_kernel_dev(sdev);
            return true;
        }
    }
    return false;
}

char *mr_parse_uprobe(char *line)
{
    char *path = strstr(line, " /");
    char *end = NULL;

    for (char *p = path; p && (p = strstr(p, ":0x")); p++)
        end = p; /* a path may hold such a text, too */
    if (!end || (line[0] != 'p' && line[0] != 'r'))
        return NULL;
    *end = '\0';
    return path + 1;
}

char *mr_parse_export(char *line)
{
    line[strcspn(line, " \t")] = '\0';
    mr_unescape_octal(line);
    return *line == '/' ? line : NULL;
}
