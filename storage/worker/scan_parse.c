/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define MR_PF_KTHREAD 0x00200000U /* include/linux/sched.h */

static bool is_octal(char c)
{
    return c >= '0' && c <= '7';
}

void mr_unescape_octal(char *text)
{
    char *to = text;

    for (const char *from = text; *from; to++) {
        if (from[0] == '\\' && from[1] <= '3' && is_octal(from[1]) && is_octal(from[2]) &&
            is_octal(from[3])) {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

int mr_parse_mountinfo(char *line, struct mr_mountinfo *ret)
{
    enum {
        ID,
        PARENT,
        DEV,
        ROOT,
        POINT,
        OPTIONS,
        FIELDS
    };
    char *field[FIELDS];
    char *rest = line;
    unsigned dev_major = 0;
    unsigned dev_minor = 0;

    for (int i = 0; i < FIELDS; i++) {
        field[i] = strsep(&rest, " ");
        if (!field[i])
            return -EINVAL;
    }
    uint64_t shared = 0;
    uint64_t master = 0;
    for (const char *tag; (tag = strsep(&rest, " ")) && strcmp(tag, "-") != 0;) {
        (void)sscanf(tag, "shared:%" SCNu64, &shared);
        (void)sscanf(tag, "master:%" SCNu64, &master);
    }
    char *fs_type = strsep(&rest, " ");
    char *source = strsep(&rest, " ");
    if (!source || !rest)
        return -EINVAL;
    if (sscanf(field[DEV], "%u:%u", &dev_major, &dev_minor) != 2)
        return -EINVAL;
    *ret = (struct mr_mountinfo){
        .id = strtoull(field[ID], NULL, 10),
        .parent = strtoull(field[PARENT], NULL, 10),
        .dev = makedev(dev_major, dev_minor),
        .shared = shared,
        .master = master,
        .root = field[ROOT],
        .point = field[POINT],
        .fs_type = fs_type,
        .source = source,
        .options = rest,
    };
    mr_unescape_octal(ret->root);
    mr_unescape_octal(ret->point);
    mr_unescape_octal(ret->source);
    return 0;
}

/* Cuts the list at the next colon that no backslash protects, and drops the backslashes.
 */
static char *split_lower(char **list)
{
    char *start = *list;
    char *to = start;
    const char *from = start;

    while (*from && *from != ':') {
        if (*from == '\\' && from[1])
            from++;
        *to++ = *from++;
    }
    *list = *from ? start + (from - start) + 1 : NULL;
    *to = '\0';
    return start;
}

const char *mr_overlay_next(struct mr_overlay_layers *layers)
{
    static const char *const single[] = {
        "lowerdir+=", "datadir+=", "upperdir=", "workdir="};

    for (;;) {
        while (layers->lower) {
            const char *layer = split_lower(&layers->lower);
            if (*layer)
                return layer;
        }
        char *option = strsep(&layers->options, ",");
        if (!option)
            return NULL;
        mr_unescape_octal(option);
        if (strncmp(option, "lowerdir=", 9) == 0)
            layers->lower = option + 9;
        for (size_t i = 0; i < sizeof(single) / sizeof(single[0]); i++)
            if (strncmp(option, single[i], strlen(single[i])) == 0)
                return option + strlen(single[i]);
    }
}

bool mr_path_below(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);

    while (len > 1 && prefix[len - 1] == '/')
        len--;
    if (*path != '/' || *prefix != '/')
        return false;
    if (len == 1)
        return true;
    return strncmp(path, prefix, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

/* Reads hex digits at *at; false when there are none or too many. */
static bool take_hex(const char **at, uint64_t *ret)
{
    const char *p = *at;
    uint64_t value = 0;

    for (;; p++) {
        unsigned digit;
        if (*p >= '0' && *p <= '9')
            digit = (unsigned)(*p - '0');
        else if (*p >= 'a' && *p <= 'f')
            digit = (unsigned)(*p - 'a') + 10;
        else
            break;
        value = value << 4 | digit;
    }
    bool ok = p > *at && p - *at <= 16;
    *at = p;
    *ret = value;
    return ok;
}

static bool take_char(const char **at, char c)
{
    bool ok = **at == c;
    *at += ok;
    return ok;
}

int mr_parse_maps(const char *line, struct mr_maps_line *ret)
{
    const char *p = line;
    uint64_t offset;
    uint64_t dev_major;
    uint64_t dev_minor;

    *ret = (struct mr_maps_line){.path = ""};
    if (!take_hex(&p, &ret->start) || !take_char(&p, '-') || !take_hex(&p, &ret->end) ||
        !take_char(&p, ' '))
        return -EINVAL;
    for (int i = 0; i < 4; i++) /* rwxp */
        if (*p++ <= ' ')
            return -EINVAL;
    if (!take_char(&p, ' ') || !take_hex(&p, &offset) || !take_char(&p, ' ') ||
        !take_hex(&p, &dev_major) || !take_char(&p, ':') || !take_hex(&p, &dev_minor) ||
        !take_char(&p, ' '))
        return -EINVAL;
    ret->dev = makedev((unsigned)dev_major, (unsigned)dev_minor);
    for (; *p >= '0' && *p <= '9'; p++)
        ret->inode = ret->inode * 10 + (uint64_t)(*p - '0');
    ret->path = p + strspn(p, " ");
    return 0;
}

int mr_parse_stat(const char *text, struct mr_task_stat *ret)
{
    const char *open = strchr(text, '(');
    const char *close = strrchr(text, ')');
    unsigned flags = 0;

    *ret = (struct mr_task_stat){0};
    if (!open || !close || close < open)
        return -EINVAL;
    size_t len = (size_t)(close - open - 1);
    if (len >= sizeof(ret->comm))
        len = sizeof(ret->comm) - 1;
    memcpy(ret->comm, open + 1, len);
    /* state ppid pgrp session tty tpgid flags, 4 faults, 4 times, priority nice, threads,
     * itrealvalue, start time */
    if (sscanf(close + 1,
               " %c %*d %*d %*d %*d %*d %u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d"
               " %" SCNu64 " %*d %" SCNu64,
               &ret->state, &flags, &ret->threads, &ret->start_time) != 4)
        return -EINVAL;
    ret->kernel_thread = (flags & MR_PF_KTHREAD) != 0;
    return 0;
}

char *mr_parse_swap(char *line, bool *ret_partition)
{
    static const char deleted[] = " (deleted)";
    char *end = line + strcspn(line, " \t");
    const char *type = end + strspn(end, " \t");

    if (*line != '/' || !*type)
        return NULL;
    *ret_partition = strncmp(type, "partition", 9) == 0;
    *end = '\0';
    mr_unescape_octal(line);
    size_t len = strlen(line);
    if (len > sizeof(deleted) && strcmp(line + len - (sizeof(deleted) - 1), deleted) == 0)
        line[len - (sizeof(deleted) - 1)] = '\0';
    return line;
}

uint64_t mr_parse_ns_link(const char *text)
{
    uint64_t inode = 0;
    char end = '\0';

    if (sscanf(text, "mnt:[%" SCNu64 "%c", &inode, &end) != 2 || end != ']')
        return 0;
    return inode;
}

dev_t mr_decode_dev(uint64_t encoded)
{
    unsigned dev_major = (unsigned)((encoded & 0xfff00) >> 8);
    unsigned dev_minor = (unsigned)((encoded & 0xff) | ((encoded >> 12) & 0xfff00));

    return makedev(dev_major, dev_minor);
}

bool mr_fs_may_block(const char *fs_type)
{
    static const char *const prefixes[] = {
        "fuse", "nfs",   "cifs", "smb",      "9p",     "ceph",   "afs",
        "coda", "ocfs2", "gfs2", "orangefs", "lustre", "beegfs", "virtiofs"};

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
        if (strncmp(fs_type, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}
