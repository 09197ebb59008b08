/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/own_process.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* statx(2) that asks no server: the file may lie on anything (fs/fuse/dir.c). */
static bool ask(int dir, const char *name, struct statx *ret)
{
    return statx(dir, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, ret) == 0;
}

static bool same(const struct statx *a, const struct statx *b)
{
    return a->stx_ino == b->stx_ino && a->stx_dev_major == b->stx_dev_major &&
           a->stx_dev_minor == b->stx_dev_minor;
}

static bool is_root(int dir)
{
    struct statx sx;

    return statx(dir, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_UID, &sx) == 0 &&
           sx.stx_uid == 0;
}

/* Without " (deleted)". Returns where the name begins, NULL when there is none. */
static const char *read_exe(int dir, char dst[PATH_MAX])
{
    static const char deleted[] = " (deleted)";
    const size_t tail = sizeof(deleted) - 1;
    ssize_t len = readlinkat(dir, "exe", dst, PATH_MAX - 1);

    dst[len > 0 ? len : 0] = '\0';
    if (len > (ssize_t)tail && strcmp(dst + len - tail, deleted) == 0)
        dst[(size_t)len - tail] = '\0';
    const char *slash = strrchr(dst, '/');
    return slash ? slash + 1 : NULL;
}

/* Is the program one of ours, by its path? */
static bool is_our_path(int self, int dir)
{
    static const char *const names[] = {"mooringd", "mooring-worker", "mooring-lun"};
    char ours[PATH_MAX];
    char theirs[PATH_MAX];
    const char *our_name = read_exe(self, ours);
    const char *name = read_exe(dir, theirs);

    if (!our_name || !name || name - theirs != our_name - ours ||
        memcmp(theirs, ours, (size_t)(name - theirs)) != 0)
        return false;
    bool known = strcmp(name, our_name) == 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        known |= strcmp(name, names[i]) == 0;
    return known;
}

bool mr_is_own_process(pid_t pid, int dir)
{
    static int self = -1;
    static struct statx our_exe;
    static struct statx our_space;
    struct statx sx;

    if (pid == getpid() || pid == getppid())
        return true;
    if (self < 0) {
        self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (self < 0 || !ask(self, "exe", &our_exe) || !ask(self, "ns/mnt", &our_space))
            return true;
    }
    if (!is_root(dir))
        return false;
    if (ask(dir, "exe", &sx) && same(&sx, &our_exe))
        return true;
    return ask(dir, "ns/mnt", &sx) && same(&sx, &our_space) && is_our_path(self, dir);
}
