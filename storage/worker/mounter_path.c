/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/mounter_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define MODE_DIRECTORY 0755

int mr_open_beneath(int dirfd, const char *path, int flags)
{
    struct open_how how = {
        .flags = (unsigned)flags | (unsigned)O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    long fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

bool mr_relative_path_valid(const char *path)
{
    if (*path == '\0' || strlen(path) >= PATH_MAX)
        return false;
    for (;;) {
        size_t n = strcspn(path, "/");
        if (n == 0 || n > NAME_MAX || (n == 1 && path[0] == '.') ||
            (n == 2 && path[0] == '.' && path[1] == '.'))
            return false;
        if (path[n] == '\0')
            return true;
        path += n + 1;
    }
}

static int fail_walk(struct mr_err *err, int errnum, const char *root, const char *path)
{
    enum mr_code code = MR_E_DEVICE_ERROR;

    if (errnum == ELOOP || errnum == EXDEV)
        code = MR_E_PATH_NOT_ALLOWED;
    else if (errnum == ENOTDIR || errnum == ENOENT || errnum == EEXIST)
        code = MR_E_MOUNT_PATH_BUSY;
    (void)mr_fail(err, code, errnum, "mount path '%s/%s'%s", root, path,
                  errnum == ELOOP     ? " has a symbolic link below the configured root"
                  : errnum == ENOTDIR ? " is no directory"
                                      : "");
    return -errnum;
}

static int open_root(const char *root, struct mr_err *err)
{
    int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return mr_fail(err, MR_E_PATH_NOT_ALLOWED, errno, "mount root '%s'", root);
    return fd;
}

/* Copies the next part and returns what follows it, NULL after the last. */
static const char *next_part(const char *path, char part[NAME_MAX + 1])
{
    size_t n = strcspn(path, "/");

    memcpy(part, path, n); /* valid: at most NAME_MAX */
    part[n] = '\0';
    return path[n] == '\0' ? NULL : path + n + 1;
}

int mr_place_open(const char *root, const char *path, struct mr_place *ret,
                  struct mr_err *err)
{
    MR_AUTO_PLACE struct mr_place place = MR_PLACE_NONE;
    char dir[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');

    if (!mr_relative_path_valid(path))
        return mr_fail(err, MR_E_PATH_NOT_ALLOWED, EINVAL, "mount path '%s'", path);
    place.root_fd = open_root(root, err);
    if (place.root_fd < 0)
        return place.root_fd;
    if (slash) {
        memcpy(dir, path, (size_t)(slash - path));
        dir[slash - path] = '\0';
    }
    place.parent_fd = mr_open_beneath(place.root_fd, dir, O_PATH | O_DIRECTORY);
    if (place.parent_fd < 0)
        return fail_walk(err, -place.parent_fd, root, path);
    *ret = place;
    ret->name = slash ? slash + 1 : path;
    place = MR_PLACE_NONE; /* given away */
    return 0;
}

static int make_directory(int dirfd, const char *name)
{
    mode_t old = umask(022); /* the mount point must be passable for its users */
    int r = mkdirat(dirfd, name, MODE_DIRECTORY) < 0 ? -errno : 0;

    (void)umask(old);
    return r;
}

/* Opens one part below dirfd, makes it if it is missing. An fd or a negative errno. */
static int open_or_make(int dirfd, const char *part, unsigned *created)
{
    int fd = mr_open_beneath(dirfd, part, O_PATH | O_DIRECTORY);

    if (fd == -ENOENT) {
        int r = make_directory(dirfd, part);
        if (r == 0)
            ++*created;
        else if (r == -EEXIST)
            *created = 0; /* somebody else was faster: then what is above is shared too */
        else
            return r;
        fd = mr_open_beneath(dirfd, part, O_PATH | O_DIRECTORY);
    }
    return fd;
}

int mr_place_create(const char *root, const char *path, struct mr_place *ret,
                    unsigned *ret_created, struct mr_err *err)
{
    MR_AUTO_CLOSE int root_fd = -1;
    MR_AUTO_CLOSE int dir_fd = -1;
    char part[NAME_MAX + 1];
    unsigned created = 0;
    int r = 0;

    *ret_created = 0;
    if (!mr_relative_path_valid(path))
        return mr_fail(err, MR_E_PATH_NOT_ALLOWED, EINVAL, "mount path '%s'", path);
    root_fd = open_root(root, err);
    if (root_fd < 0)
        return root_fd;
    const char *rest = path;
    while (rest) {
        const char *begin = rest;
        rest = next_part(rest, part);
        int fd = open_or_make(dir_fd >= 0 ? dir_fd : root_fd, part, &created);
        if (fd < 0) {
            char made[PATH_MAX] = "";
            if (begin > path)
                memcpy(made, path, (size_t)(begin - path) - 1);
            mr_place_remove(root_fd, made, created);
            return fail_walk(err, -fd, root, path);
        }
        mr_close(&dir_fd);
        dir_fd = fd;
    }
    r = mr_place_open(root, path, ret, err);
    if (r < 0)
        mr_place_remove(root_fd, path, created);
    else
        *ret_created = created;
    return r;
}

void mr_place_remove(int root_fd, const char *path, unsigned count)
{
    char left[PATH_MAX];

    if (strlen(path) >= sizeof(left))
        return;
    strcpy(left, path);
    for (; count > 0 && mr_relative_path_valid(left); count--) {
        char *slash = strrchr(left, '/');
        const char *name = slash ? slash + 1 : left;
        if (slash)
            *slash = '\0';
        MR_AUTO_CLOSE int dir_fd =
            mr_open_beneath(root_fd, slash ? left : ".", O_PATH | O_DIRECTORY);
        if (dir_fd < 0)
            return;
        if (unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
            return;
        if (!slash)
            return;
    }
}

int mr_place_mount(const struct mr_place *place, struct mr_mount_id *ret)
{
    struct mr_mount_id below;
    int r = mr_mount_id_at(place->parent_fd, place->name, ret);

    if (r == 0)
        r = mr_mount_id_at(place->parent_fd, "", &below);
    if (r == 0 && ret->id == below.id)
        r = -ENOENT;
    return r;
}

int mr_place_umount(const struct mr_place *place, int flags)
{
    if (fchdir(place->parent_fd) < 0)
        return -errno;
    int r = umount2(place->name, UMOUNT_NOFOLLOW | flags) < 0 ? -errno : 0;
    if (chdir("/") < 0 && r == 0)
        r = -errno;
    return r;
}
