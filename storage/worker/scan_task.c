/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_state.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"

#define MR_FDS_PER_CLOCK 256

MR_DEFINE_CLEANUP(dir, DIR *, (void)closedir);

/* The row's texts stay the process's and the caller's. */
static struct mr_holder make_row(struct mr_scan_process *process,
                                 enum mr_holder_kind kind, char *path)
{
    if (!process->owner.known)
        mr_scan_read_owner(process->pid, &process->owner);
    struct mr_holder row = {
        .kind = kind,
        .pid = process->pid,
        .tid = process->tid,
        .start_time = process->stat.start_time,
        .mount_ns = process->space,
        .comm = process->stat.comm,
        .path = path,
        .device = kind == MR_HOLDER_RAW_DEVICE ? path : NULL,
    };
    mr_scan_set_owner(&row, &process->owner);
    return row;
}

void mr_scan_add_process(struct mr_scan_process *process, struct mr_scan_target *target,
                         enum mr_holder_kind kind, const char *path)
{
    char seen[PATH_MAX];

    (void)snprintf(seen, sizeof(seen), "%s", path);
    const struct mr_holder row = make_row(process, kind, seen);
    mr_scan_add(target, &row);
}

void mr_scan_add_candidate(struct mr_scan_process *process, enum mr_holder_kind kind,
                           const char *path)
{
    char seen[PATH_MAX];

    (void)snprintf(seen, sizeof(seen), "%s", path);
    struct mr_holder row = make_row(process, kind, *seen ? seen : NULL);
    for (size_t i = 0; i < process->scan->target_count; i++)
        mr_scan_add_maybe(&process->scan->targets[i], &row);
}

const char *mr_scan_read_link(int dirfd, const char *name, char dst[PATH_MAX])
{
    ssize_t len = readlinkat(dirfd, name, dst, PATH_MAX - 1);

    dst[len > 0 ? len : 0] = '\0';
    return dst;
}

bool mr_scan_is_detached(struct mr_scan_process *process, int fd_dir, const char *name,
                         const struct statx *sx)
{
    char link[PATH_MAX];

    return (sx->stx_mask & STATX_MNT_ID) != 0 &&
           !mr_scan_has_mount(process->scan, sx->stx_mnt_id) &&
           strcmp(mr_scan_read_link(fd_dir, name, link), "/") == 0 &&
           mr_scan_is_path_fd(fd_dir, name);
}

/* XFS answers EIO to every statx after a shutdown (fs/xfs/xfs_iops.c xfs_vn_getattr()):
 * then the path has to do. */
static void look_by_text(struct mr_scan_process *process, int dirfd, const char *name,
                         enum mr_holder_kind kind, int errnum)
{
    char path[PATH_MAX];

    if (errnum == ENOENT || errnum == ESRCH)
        return;
    struct mr_scan_target *target =
        mr_scan_find_path(process->scan, mr_scan_read_link(dirfd, name, path));
    if (target)
        mr_scan_add_process(process, target, kind, path);
    else
        mr_scan_missed(process->scan, errnum);
}

static void note_pin(const struct mr_scan_process *process, uint64_t inode)
{
    struct mr_scan *scan = process->scan;

    for (size_t i = 0; i < scan->space_count; i++) {
        struct mr_scan_space *space = &scan->spaces[i];
        if (space->inode != inode || space->pinned_by != 0)
            continue;
        space->pinned_by = process->pid;
        space->pin_start_time = process->stat.start_time;
        memcpy(space->pin_comm, process->stat.comm, sizeof(space->pin_comm));
    }
}

static void look_at_user(struct mr_scan_process *process, struct mr_scan_target *target,
                         int fd_dir, const char *name, const struct statx *sx)
{
    char path[PATH_MAX];
    bool detached = mr_scan_is_detached(process, fd_dir, name, sx);

    mr_scan_add_process(process, target,
                        detached ? MR_HOLDER_DETACHED_MOUNT : MR_HOLDER_OPEN_FILE,
                        mr_scan_read_link(fd_dir, name, path));
}

/* An O_PATH fd on a device node is on the node only, not on the device. */
static void look_at_node(struct mr_scan_process *process, int fd_dir, const char *name,
                         dev_t device)
{
    struct mr_scan_target *target = mr_scan_find_dev(process->scan, device);
    char path[PATH_MAX];

    if (target && !mr_scan_is_path_fd(fd_dir, name))
        mr_scan_add_process(process, target, MR_HOLDER_RAW_DEVICE,
                            mr_scan_read_link(fd_dir, name, path));
}

void mr_scan_fd(struct mr_scan_process *process, int fd_dir, const char *name)
{
    const struct mr_scan *scan = process->scan;
    struct statx sx;

    int rc = mr_scan_statx(fd_dir, name, &sx);
    if (rc < 0) {
        look_by_text(process, fd_dir, name, MR_HOLDER_OPEN_FILE, -rc);
        return;
    }
    dev_t dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
    struct mr_scan_target *target = mr_scan_find_dev(scan, dev);
    if (target)
        look_at_user(process, target, fd_dir, name, &sx);
    if (dev == scan->nsfs)
        note_pin(process, sx.stx_ino);
    process->has_sockets |= dev == scan->sockfs;
    if (dev == scan->anon && sx.stx_ino != scan->anon_shared)
        mr_scan_ring_fd(process, fd_dir, name);
    if (S_ISBLK(sx.stx_mode))
        look_at_node(process, fd_dir, name,
                     makedev(sx.stx_rdev_major, sx.stx_rdev_minor));
}

void mr_scan_task_fds(struct mr_scan_process *process, int task_dir, mr_scan_fd_fn look)
{
    MR_AUTO_CLOSE int fd = openat(task_dir, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MR_CLEANUP(dir) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    unsigned count = 0;

    if (!dir) {
        mr_scan_missed(process->scan, errno);
        return;
    }
    int fd_dir = mr_take_fd(&fd); /* closedir() closes it */
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry)
            break;
        if (isdigit((unsigned char)entry->d_name[0]))
            look(process, fd_dir, entry->d_name);
        if (++count % MR_FDS_PER_CLOCK == 0 && mr_scan_late(process->scan))
            return;
    }
    if (errno != 0)
        mr_scan_missed(process->scan, errno);
}

void mr_scan_task_link(struct mr_scan_process *process, int task_dir, const char *name,
                       enum mr_holder_kind kind)
{
    char path[PATH_MAX];
    struct statx sx;

    int rc = mr_scan_statx(task_dir, name, &sx);
    if (rc < 0) {
        look_by_text(process, task_dir, name, kind, -rc);
        return;
    }
    struct mr_scan_target *target =
        mr_scan_find_dev(process->scan, makedev(sx.stx_dev_major, sx.stx_dev_minor));
    if (target)
        mr_scan_add_process(process, target, kind,
                            mr_scan_read_link(task_dir, name, path));
}
