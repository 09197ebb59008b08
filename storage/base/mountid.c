/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/base/mountid.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/statmount.h"

/* Newer than the headers of Debian 12; include/uapi/linux/stat.h of Linux 6.8. */
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U
#endif
#define LIST_CHUNK 256

MR_DEFINE_CLEANUP(stream, FILE *, (void)fclose);

/* Reads the kernel's own structures: no file system is asked. */
static int status_of(uint64_t id, struct mr_statmount *ret)
{
    struct mr_mnt_id_req request = {.size = MR_MNT_ID_REQ_SIZE_VER0,
                                    .mnt_id = id,
                                    .param =
                                        MR_STATMOUNT_SB_BASIC | MR_STATMOUNT_MNT_BASIC};

    return syscall(SYS_statmount, &request, ret, sizeof(*ret), 0U) < 0 ? -errno : 0;
}

/* Finds the mount with this reusable id in our table. -ENOSYS before Linux 6.8. */
static int find_by_statmount(uint64_t old_id, struct mr_mount_id *ret)
{
    struct mr_mnt_id_req request = {.size = MR_MNT_ID_REQ_SIZE_VER0,
                                    .mnt_id = MR_LSMT_ROOT};
    uint64_t ids[LIST_CHUNK];

    for (;;) {
        long n = syscall(SYS_listmount, &request, ids, (size_t)LIST_CHUNK, 0U);
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ENOENT;
        for (long i = 0; i < n && i < LIST_CHUNK; i++) {
            struct mr_statmount status = {0};
            request.param = ids[i];
            if (status_of(ids[i], &status) < 0 || status.mnt_id_old != old_id)
                continue; /* unmounted meanwhile, or another one */
            *ret = (struct mr_mount_id){
                .id = ids[i],
                .unique = true,
                .major = status.sb_dev_major,
                .minor = status.sb_dev_minor,
            };
            return 0;
        }
    }
}

/* The line of mountinfo with this id: 0, -ENOENT, or a negative errno. */
static int find_by_mountinfo(uint64_t id, struct mr_mount_id *ret)
{
    MR_CLEANUP(stream) FILE *table = fopen("/proc/self/mountinfo", "re");
    MR_AUTO_FREE char *line = NULL;
    size_t size = 0;

    if (!table)
        return -errno;
    while (getline(&line, &size, table) > 0) {
        *ret = (struct mr_mount_id){0};
        if (sscanf(line, "%" SCNu64 " %*u %" SCNu32 ":%" SCNu32, &ret->id, &ret->major,
                   &ret->minor) != 3)
            return -EBADMSG;
        if (ret->id == id)
            return 0;
    }
    return ferror(table) ? -EIO : -ENOENT;
}

/* proc(5), /proc/PID/fdinfo: "mnt_id: N", the reusable id. */
static int id_of_fd(int fd, uint64_t *ret)
{
    char path[48];
    char text[1024];
    const char *at = NULL;

    if (mr_format(path, sizeof(path), "/proc/self/fdinfo/%d", fd) < 0)
        return -EINVAL;
    ssize_t n = mr_read_text(AT_FDCWD, path, text, sizeof(text));
    if (n >= 0)
        at = strstr(text, "mnt_id:");
    if (!at || sscanf(at, "mnt_id: %" SCNu64, ret) != 1)
        return n < 0 ? (int)n : -EBADMSG;
    return 0;
}

/* statx(2) asks the file system too: xfs answers EIO once it has shut down
 * (fs/xfs/xfs_iops.c, xfs_vn_getattr), just the volume that must be unmounted; a user's
 * FUSE mount answers EACCES. An O_PATH fd asks nobody. */
static int mount_id_by_fd(int dirfd, const char *path, struct mr_mount_id *ret)
{
    MR_AUTO_CLOSE int opened = -1;
    uint64_t old_id = 0;

    if (*path != '\0') {
        opened = openat(dirfd, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (opened < 0)
            return -errno;
    }
    int r = id_of_fd(opened >= 0 ? opened : dirfd, &old_id);
    if (r == 0)
        r = find_by_statmount(old_id, ret);
    if (r == -ENOSYS)
        r = find_by_mountinfo(old_id, ret);
    if (r < 0)
        *ret = (struct mr_mount_id){0};
    return r == -ENOENT ? -ESTALE : r; /* it is open, but in no table of ours */
}

/* The path itself is wrong: asking by another way gives nothing else. */
static bool is_path_error(int errnum)
{
    return errnum == ENOENT || errnum == ENOTDIR || errnum == ELOOP || errnum == EBADF ||
           errnum == ENAMETOOLONG || errnum == EFAULT;
}

int mr_mount_id_at(int dirfd, const char *path, struct mr_mount_id *ret)
{
    const int flags = AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT |
                      (*path == '\0' ? AT_EMPTY_PATH : 0);
    struct statx stx = {0};

    *ret = (struct mr_mount_id){0};
    if (statx(dirfd, path, flags, STATX_MNT_ID_UNIQUE, &stx) < 0)
        return is_path_error(errno) ? -errno : mount_id_by_fd(dirfd, path, ret);
    bool unique = (stx.stx_mask & STATX_MNT_ID_UNIQUE) != 0;
    if (!unique) {
        if (statx(dirfd, path, flags, STATX_MNT_ID, &stx) < 0)
            return -errno;
        if (!(stx.stx_mask & STATX_MNT_ID))
            return -EOPNOTSUPP;
    }
    *ret = (struct mr_mount_id){
        .id = stx.stx_mnt_id,
        .unique = unique,
        .major = stx.stx_dev_major,
        .minor = stx.stx_dev_minor,
    };
    return 0;
}

/* Looks only at our own mount namespace; a mount that was detached but is still in use is
 * not in it. */
static enum mr_presence present_by_statmount(const struct mr_mount_id *id)
{
    struct mr_statmount status = {0};
    int r = status_of(id->id, &status);

    if (r == 0)
        return MR_PRESENT;
    return r == -ENOENT ? MR_ABSENT_NOW : MR_PRESENCE_UNKNOWN;
}

static enum mr_presence present_by_mountinfo(const struct mr_mount_id *id)
{
    struct mr_mount_id found;
    int r = find_by_mountinfo(id->id, &found);

    if (r == -ENOENT)
        return MR_ABSENT_NOW;
    if (r < 0)
        return MR_PRESENCE_UNKNOWN;
    return found.major == id->major && found.minor == id->minor ? MR_PRESENT
                                                                : MR_ABSENT_NOW;
}

enum mr_presence mr_mount_present(const struct mr_mount_id *id)
{
    if (id->id == 0)
        return MR_PRESENCE_UNKNOWN;
    return id->unique ? present_by_statmount(id) : present_by_mountinfo(id);
}

int mr_mount_old_id(const struct mr_mount_id *id, uint64_t *ret)
{
    struct mr_statmount status = {0};
    int r = id->unique ? status_of(id->id, &status) : 0;

    *ret = id->unique ? status.mnt_id_old : id->id;
    return r;
}
