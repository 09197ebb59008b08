/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/base/lock_owner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"

MR_DEFINE_CLEANUP(file, FILE *, (void)fclose);
MR_DEFINE_CLEANUP(dir, DIR *, (void)closedir);

/* "1: FLOCK  ADVISORY  WRITE 708 08:01:2359475 0 EOF": fs/locks.c, lock_get_status(). Who
 * only waits has an arrow before the type. */
static bool is_lock_on(const char *line, const struct stat *st, pid_t *ret_pid)
{
    char type[8];
    int pid = 0;
    unsigned dev_major = 0;
    unsigned dev_minor = 0;
    unsigned long inode = 0;

    if (sscanf(line, " %*d: %7s %*s %*s %d %x:%x:%lu", type, &pid, &dev_major, &dev_minor,
               &inode) != 5)
        return false;
    *ret_pid = pid;
    return (strcmp(type, "FLOCK") == 0 || strcmp(type, "POSIX") == 0 ||
            strcmp(type, "OFDLCK") == 0) &&
           dev_major == major(st->st_dev) && dev_minor == minor(st->st_dev) &&
           inode == st->st_ino;
}

/* The first lock on this file in a list whose lines have this prefix. */
static bool find_lock(int dirfd, const char *list, const char *prefix,
                      const struct stat *st, pid_t *ret_pid)
{
    MR_AUTO_FREE char *line = NULL;
    size_t size = 0;
    int fd = openat(dirfd, list, O_RDONLY | O_CLOEXEC);
    MR_CLEANUP(file) FILE *file = fd >= 0 ? fdopen(fd, "re") : NULL;

    if (!file)
        mr_close(&fd);
    while (file && getline(&line, &size, file) > 0)
        if (strncmp(line, prefix, strlen(prefix)) == 0 &&
            is_lock_on(line + strlen(prefix), st, ret_pid) && *ret_pid != getpid())
            return true;
    return false;
}

static bool is_number(const char *name)
{
    return *name && strspn(name, "0123456789") == strlen(name);
}

static DIR *open_dir(int dirfd, const char *path)
{
    int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir)
        mr_close(&fd);
    return dir;
}

static bool has_lock(int proc, const char *pid, const struct stat *st)
{
    char path[64];
    pid_t unused = 0;
    const struct dirent *fd = NULL;

    if (mr_format(path, sizeof(path), "%s/fdinfo", pid) < 0)
        return false;
    MR_CLEANUP(dir) DIR *fds = open_dir(proc, path);
    while (fds && (fd = readdir(fds)))
        if (is_number(fd->d_name) &&
            find_lock(dirfd(fds), fd->d_name, "lock:", st, &unused))
            return true;
    return false;
}

static bool read_comm(pid_t pid, char comm[MR_COMM_TEXT])
{
    char path[64];
    return mr_format(path, sizeof(path), "/proc/%d/comm", (int)pid) == 0 &&
           mr_read_text(AT_FDCWD, path, comm, MR_COMM_TEXT) >= 0;
}

int mr_lock_owner(int fd, pid_t *ret_pid, char comm[MR_COMM_TEXT])
{
    struct stat st;
    const struct dirent *process = NULL;

    if (fstat(fd, &st) != 0)
        return -errno;
    if (find_lock(AT_FDCWD, "/proc/locks", "", &st, ret_pid) && *ret_pid > 0 &&
        read_comm(*ret_pid, comm))
        return 0;
    MR_CLEANUP(dir) DIR *proc = open_dir(AT_FDCWD, "/proc");
    while (proc && (process = readdir(proc))) {
        if (!is_number(process->d_name) || !has_lock(dirfd(proc), process->d_name, &st))
            continue;
        *ret_pid = (pid_t)strtol(process->d_name, NULL, 10);
        if (read_comm(*ret_pid, comm))
            return 0;
    }
    return -ENOENT;
}
