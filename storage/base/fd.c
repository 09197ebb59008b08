/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/base/fd.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/base/cleanup.h"

/* Reads until the buffer is full or the file ends. */
static ssize_t read_up_to(int fd, char *dst, size_t size)
{
    size_t used = 0;
    while (used < size) {
        ssize_t got = read(fd, dst + used, size - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        used += (size_t)got;
    }
    return (ssize_t)used;
}

ssize_t mr_read_text(int dirfd, const char *path, char *dst, size_t size)
{
    if (size == 0)
        return -EINVAL;
    dst[0] = '\0';
    MR_AUTO_CLOSE int fd =
        openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -errno;
    ssize_t len = read_up_to(fd, dst, size - 1);
    if (len < 0) {
        dst[0] = '\0';
        return len;
    }
    while (len > 0 && isspace((unsigned char)dst[len - 1]))
        len--;
    dst[len] = '\0';
    return len;
}

ssize_t mr_read_file(int dirfd, const char *path, size_t max, char **ret)
{
    size_t size = 4096;
    size_t used = 0;
    MR_AUTO_FREE char *text = NULL;
    MR_AUTO_CLOSE int fd =
        openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -errno;
    for (;;) {
        char *bigger = realloc(text, size + 1);
        if (!bigger)
            return -ENOMEM;
        text = bigger;
        ssize_t got = read_up_to(fd, text + used, size - used);
        if (got < 0)
            return got;
        used += (size_t)got;
        if (used < size)
            break;
        if (size > max)
            return -EFBIG;
        size *= 2;
    }
    if (used > max)
        return -EFBIG;
    text[used] = '\0';
    *ret = mr_take_ptr(text);
    return (ssize_t)used;
}

int mr_write_all(int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t put = write(fd, at, len);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        at += put;
        len -= (size_t)put;
    }
    return 0;
}

ssize_t mr_pread_all(int fd, void *dst, size_t len, off_t offset)
{
    size_t used = 0;
    while (used < len) {
        ssize_t got = pread(fd, (char *)dst + used, len - used, offset + (off_t)used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        used += (size_t)got;
    }
    return (ssize_t)used;
}

int mr_mkdir_p(const char *path, mode_t mode)
{
    char part[PATH_MAX];
    size_t len = strlen(path);

    if (path[0] != '/')
        return -EINVAL;
    if (len >= sizeof(part))
        return -ENAMETOOLONG;
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        char kept = part[i];
        part[i] = '\0';
        if (mkdir(part, mode) != 0 && errno != EEXIST)
            return -errno;
        part[i] = kept;
    }
    struct stat st;
    if (stat(path, &st) != 0)
        return -errno;
    return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int mr_format(char *dst, size_t size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(dst, size, fmt, ap);
    va_end(ap);
    return len >= 0 && (size_t)len < size ? 0 : -ENAMETOOLONG;
}

int mr_random_hex(size_t bytes, char *dst)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char raw[32];

    if (bytes > sizeof(raw))
        return -EINVAL;
    if (getrandom(raw, bytes, 0) != (ssize_t)bytes)
        return -EIO;
    for (size_t i = 0; i < bytes; i++) {
        dst[2 * i] = digits[raw[i] >> 4];
        dst[2 * i + 1] = digits[raw[i] & 15];
    }
    dst[2 * bytes] = '\0';
    return 0;
}

uint64_t mr_process_start_time(pid_t pid)
{
    char path[32];
    char text[1024];
    unsigned long long start = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (mr_read_text(AT_FDCWD, path, text, sizeof(text)) <= 0)
        return 0;
    /* The command may hold blanks and parentheses: fields count from the last one. */
    char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at || sscanf(at, " %llu", &start) != 1)
        return 0;
    return start;
}

ssize_t mr_sysfs_block_attr(uint32_t major, uint32_t minor, const char *attr, char *dst,
                            size_t size)
{
    char path[256];
    int rc = mr_format(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major, minor, attr);
    if (rc < 0)
        return rc;
    ssize_t len = mr_read_text(AT_FDCWD, path, dst, size);
    /* Opened just before the attribute went away (fs/kernfs): the second open tells the
     * truth. */
    return len == -ENODEV ? mr_read_text(AT_FDCWD, path, dst, size) : len;
}
