/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"

#define NAME "mooring-lun-"
#define TEXT_MAX ((size_t)4 << 20)
#define LOOK_NS (5 * MR_NS_PER_MS)

/* --- where we are --- */

/* Is the word in a list that is separated by commas? */
static bool has_word(const char *list, size_t len, const char *word)
{
    const size_t size = strlen(word);

    for (const char *end = list + len; list < end;) {
        const char *comma = memchr(list, ',', (size_t)(end - list));
        const char *stop = comma ? comma : end;

        if ((size_t)(stop - list) == size && memcmp(list, word, size) == 0)
            return true;
        list = stop + 1;
    }
    return false;
}

/* The path in "N:CONTROLLERS:PATH" of the memory controller, or with none of "0::PATH".
 * Returns its length. */
static size_t find_group(const char *cgroup, bool v1, const char **ret)
{
    for (const char *line = cgroup; *line; line += strspn(line, "\n")) {
        const char *end = line + strcspn(line, "\n");
        const char *list = memchr(line, ':', (size_t)(end - line));
        const char *path = list ? memchr(list + 1, ':', (size_t)(end - list - 1)) : NULL;

        if (path && (v1 ? has_word(list + 1, (size_t)(path - list - 1), "memory")
                        : strncmp(line, "0::", 3) == 0)) {
            *ret = path + 1;
            return (size_t)(end - path - 1);
        }
        line = end;
    }
    return 0;
}

/* One line of mountinfo: proc_pid_mountinfo(5). Names with escapes are none of ours. */
static bool read_mount(const char *line, bool v1, char root[PATH_MAX],
                       char point[PATH_MAX])
{
    char type[16] = "";
    char options[256] = "";
    const char *dash = strstr(line, " - ");
    const char *end = line + strcspn(line, "\n");

    _Static_assert(PATH_MAX == 4096, "the widths below");
    if (!dash || dash > end ||
        sscanf(line, "%*d %*d %*s %4095s %4095s", root, point) != 2 ||
        sscanf(dash, " - %15s %*s %255s", type, options) != 2)
        return false;
    if (strchr(root, '\\') || strchr(point, '\\'))
        return false;
    return v1 ? strcmp(type, "cgroup") == 0 &&
                    has_word(options, strlen(options), "memory")
              : strcmp(type, "cgroup2") == 0;
}

/* The part of group below root; NULL when it is not below. */
static const char *below(const char *group, const char *root)
{
    size_t len = strcmp(root, "/") == 0 ? 0 : strlen(root);

    return strncmp(group, root, len) == 0 && (group[len] == '/' || group[len] == '\0')
               ? group + len
               : NULL;
}

static int find_mount(const char *group, const char *mountinfo, bool v1, char *dst,
                      size_t size)
{
    char root[PATH_MAX];
    char point[PATH_MAX];

    for (const char *line = mountinfo; *line; line += strspn(line, "\n")) {
        const char *rest = read_mount(line, v1, root, point) ? below(group, root) : NULL;

        if (rest)
            return mr_format(dst, size, "%s%s", point,
                             strcmp(rest, "/") == 0 ? "" : rest);
        line += strcspn(line, "\n");
    }
    return -ENOENT;
}

int mr_cgroup_own(const char *cgroup, const char *mountinfo, char *dst, size_t size)
{
    char group[PATH_MAX];
    const char *path = NULL;
    int r = -ENOENT;

    for (int v1 = 1; v1 >= 0 && r == -ENOENT; v1--) {
        size_t len = find_group(cgroup, v1, &path);

        if (len == 0 || len >= sizeof(group))
            continue;
        memcpy(group, path, len);
        group[len] = '\0';
        r = find_mount(group, mountinfo, v1, dst, size);
    }
    return r;
}

static int own_group(char *dst, size_t size)
{
    MR_AUTO_FREE char *cgroup = NULL;
    MR_AUTO_FREE char *mountinfo = NULL;
    ssize_t r = mr_read_file(AT_FDCWD, "/proc/self/cgroup", TEXT_MAX, &cgroup);

    if (r >= 0)
        r = mr_read_file(AT_FDCWD, "/proc/self/mountinfo", TEXT_MAX, &mountinfo);
    return r < 0 ? (int)r : mr_cgroup_own(cgroup, mountinfo, dst, size);
}

/* --- the group of a token --- */

static int link_path(char dst[PATH_MAX], const char *runtime_dir, const char *token)
{
    return mr_format(dst, PATH_MAX, "%s/lun/%s.cgroup", runtime_dir, token);
}

/* Version 2: the group has memory of its own only where the one above hands the
 * controller down; cgroups(7). */
static int check_memory(const char *path)
{
    char name[PATH_MAX];
    MR_AUTO_FREE char *text = NULL;
    ssize_t r = mr_format(name, sizeof(name), "%s/cgroup.controllers", path);

    if (r == 0)
        r = mr_read_file(AT_FDCWD, name, TEXT_MAX, &text);
    if (r < 0)
        return r == -ENOENT ? 0 : (int)r; /* version 1 */
    for (char *rest = text, *word; (word = strsep(&rest, " \n"));)
        if (strcmp(word, "memory") == 0)
            return 0;
    return -ENOTSUP;
}

static int put_into(const char *path, pid_t pid)
{
    char text[16];
    int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    MR_AUTO_CLOSE int dir_fd = dir;
    MR_AUTO_CLOSE int fd =
        dir < 0 ? -1 : openat(dir, "cgroup.procs", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    (void)snprintf(text, sizeof(text), "%d", pid);
    return mr_write_all(fd, text, strlen(text));
}

int mr_cgroup_join(const char *runtime_dir, const char *token, pid_t pid, char *path,
                   size_t size, struct mr_err *err)
{
    char own[PATH_MAX];
    char link[PATH_MAX];
    const char *what = "find the memory control group";
    int r = own_group(own, sizeof(own));

    if (r == 0)
        r = link_path(link, runtime_dir, token);
    if (r == 0)
        r = mr_format(path, size, "%s/" NAME "%s", own, token);
    if (r < 0)
        return mr_fail(err, MR_E_INTERNAL, -r, "%s", what);
    what = "make the control group";
    if (symlink(path, link) < 0 && errno != EEXIST)
        return mr_fail(err, MR_E_INTERNAL, errno, "symlink '%s'", link);
    r = mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
    if (r == 0) {
        what = "no memory controller for the control group";
        r = check_memory(path);
    }
    if (r == 0) {
        what = "enter the control group";
        r = put_into(path, pid);
    }
    if (r < 0) {
        (void)rmdir(path);
        (void)unlink(link);
        return mr_fail(err, MR_E_INTERNAL, -r, "%s '%s'", what, path);
    }
    return 0;
}

/* Whatever the link says: only a group of this token. */
static bool is_ours(const char *path, const char *token)
{
    const char *slash = strrchr(path, '/');

    return slash && strncmp(slash + 1, NAME, sizeof(NAME) - 1) == 0 &&
           strcmp(slash + sizeof(NAME), token) == 0;
}

/* 1 and where it is, 0 when there is none, or a negative errno. */
static int find_group_of(const char *runtime_dir, const char *token, char link[PATH_MAX],
                         char path[PATH_MAX])
{
    int r = link_path(link, runtime_dir, token);
    ssize_t len = r < 0 ? r : readlink(link, path, PATH_MAX - 1);

    if (r < 0 || len < 0)
        return r == 0 && errno != ENOENT ? -errno : 0;
    path[len] = '\0';
    return 1;
}

bool mr_cgroup_remove(const char *runtime_dir, const char *token, int64_t wait_ms)
{
    const int64_t until_ns = mr_now_ns() + wait_ms * MR_NS_PER_MS;
    char link[PATH_MAX];
    char path[PATH_MAX];
    int r = find_group_of(runtime_dir, token, link, path);

    if (r <= 0)
        return r == 0;
    while (is_ours(path, token) && rmdir(path) < 0 && errno != ENOENT) {
        if (errno != EBUSY || mr_now_ns() >= until_ns)
            return false;
        mr_sleep_ns(LOOK_NS); /* the end of a process is told before it has left */
    }
    return unlink(link) == 0 || errno == ENOENT;
}

void mr_cgroup_sweep(const char *runtime_dir, const char *token)
{
    char link[PATH_MAX];
    char path[PATH_MAX];

    /* The link alone may be that of an attach that is about to make the directory. */
    if (find_group_of(runtime_dir, token, link, path) > 0 && is_ours(path, token) &&
        rmdir(path) == 0)
        (void)unlink(link);
}
