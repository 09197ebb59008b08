/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/fs_options.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Left out on purpose: what names another device or file (logdev, rtdev, journal_path,
 * usrjquota), what hides a damaged or doubly mapped device (norecovery, noload, nouuid,
 * sb), what gives up write ordering (nobarrier, data=writeback), what can stop the node
 * (errors=panic), and ro/rw (the spec has read_only). */
struct fs_option {
    const char *name;
    const char
        *group; /* options of one group exclude each other; NULL: a group of its own */
    const char *type;  /* file system it belongs to; NULL: any */
    const char *words; /* "=WORD" with one of these, separated by '|' */
    int64_t min;       /* "=NUMBER" in min..max when max is not 0 */
    int64_t max;
    bool suffix; /* the number may end in k, m or g */
};

#define XFS .type = "xfs"
#define EXT4 .type = "ext4"

static const struct fs_option options[] = {
    {.name = "noatime", .group = "atime"},
    {.name = "relatime", .group = "atime"},
    {.name = "strictatime", .group = "atime"},
    {.name = "diratime", .group = "diratime"},
    {.name = "nodiratime", .group = "diratime"},
    {.name = "lazytime", .group = "lazytime"},
    {.name = "nolazytime", .group = "lazytime"},
    {.name = "dev", .group = "dev"},
    {.name = "nodev", .group = "dev"},
    {.name = "suid", .group = "suid"},
    {.name = "nosuid", .group = "suid"},
    {.name = "exec", .group = "exec"},
    {.name = "noexec", .group = "exec"},
    {.name = "sync", .group = "sync"},
    {.name = "async", .group = "sync"},
    {.name = "dirsync"},
    {.name = "discard", .group = "discard"},
    {.name = "nodiscard", .group = "discard"},

    {.name = "inode32", XFS, .group = "inode"},
    {.name = "inode64", XFS, .group = "inode"},
    {.name = "largeio", XFS, .group = "largeio"},
    {.name = "nolargeio", XFS, .group = "largeio"},
    {.name = "noalign", XFS},
    {.name = "swalloc", XFS},
    {.name = "wsync", XFS},
    {.name = "uquota", XFS},
    {.name = "gquota", XFS},
    {.name = "pquota", XFS},
    {.name = "allocsize", XFS, .min = 1, .max = 1 << 30, .suffix = true},
    {.name = "logbufs", XFS, .min = 2, .max = 8},
    {.name = "logbsize", XFS, .min = 16384, .max = 262144, .suffix = true},

    {.name = "acl", EXT4, .group = "acl"},
    {.name = "noacl", EXT4, .group = "acl"},
    {.name = "user_xattr", EXT4, .group = "user_xattr"},
    {.name = "nouser_xattr", EXT4, .group = "user_xattr"},
    {.name = "delalloc", EXT4, .group = "delalloc"},
    {.name = "nodelalloc", EXT4, .group = "delalloc"},
    {.name = "auto_da_alloc", EXT4, .group = "auto_da_alloc"},
    {.name = "noauto_da_alloc", EXT4, .group = "auto_da_alloc"},
    {.name = "init_itable", EXT4, .group = "init_itable"},
    {.name = "noinit_itable", EXT4, .group = "init_itable"},
    {.name = "usrquota", EXT4},
    {.name = "grpquota", EXT4},
    {.name = "prjquota", EXT4},
    {.name = "data", EXT4, .words = "ordered|journal"},
    {.name = "errors", EXT4, .words = "remount-ro|continue"},
    {.name = "commit", EXT4, .min = 1, .max = 300},
    {.name = "stripe", EXT4, .max = INT32_MAX},
    {.name = "journal_ioprio", EXT4, .max = 7},
    {.name = "max_batch_time", EXT4, .max = 1000000},
    {.name = "min_batch_time", EXT4, .max = 1000000},
};

#undef XFS
#undef EXT4

bool mr_fs_type_known(const char *type)
{
    return type && (strcmp(type, "xfs") == 0 || strcmp(type, "ext4") == 0);
}

static bool number_in_range(const struct fs_option *o, const char *text)
{
    int64_t value = 0;
    size_t i = 0;

    for (; text[i] >= '0' && text[i] <= '9'; i++) {
        if (i == 10)
            return false;
        value = value * 10 + (text[i] - '0');
    }
    if (i == 0 || value > o->max)
        return false;
    if (o->suffix && text[i]) {
        static const char units[] = "kmg";
        const char *unit = strchr(units, text[i]);
        if (!unit)
            return false;
        value <<= 10 * (unit - units + 1);
        i++;
    }
    return text[i] == '\0' && value >= o->min && value <= o->max;
}

static bool is_one_of(const char *words, const char *text)
{
    size_t len = strcspn(text, "|");
    if (len == 0 || text[len])
        return false;
    for (const char *w = words; w; w = strchr(w, '|')) {
        w += *w == '|';
        if (strncmp(w, text, len) == 0 && (w[len] == '|' || w[len] == '\0'))
            return true;
    }
    return false;
}

/* The table row that allows option on type, or NULL. */
static const struct fs_option *find(const char *type, const char *option)
{
    size_t name_len = strcspn(option, "=");
    const char *value = option[name_len] ? option + name_len + 1 : NULL;

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        const struct fs_option *o = &options[i];
        if (strncmp(o->name, option, name_len) != 0 || o->name[name_len])
            continue;
        if (o->type && strcmp(o->type, type) != 0)
            continue;
        if (o->words)
            return value && is_one_of(o->words, value) ? o : NULL;
        if (o->max)
            return value && number_in_range(o, value) ? o : NULL;
        return value ? NULL : o;
    }
    return NULL;
}

bool mr_fs_option_allowed(const char *type, const char *option)
{
    return mr_fs_type_known(type) && option && find(type, option);
}

bool mr_fs_options_conflict(const char *type, const char *a, const char *b)
{
    const struct fs_option *x = find(type, a);
    const struct fs_option *y = find(type, b);
    if (!x || !y)
        return false;
    return x == y || (x->group && y->group && strcmp(x->group, y->group) == 0);
}
