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

void mr_scan_add_process(struct mr_scan_process *process, struct mr_scan_target *target,
                         enum mr_holder_kind kind, const char *path)
{
    char seen[PATH_MAX];

    if (!process->described) {
        mr_scan_cgroup(process->pid, process->cgroup, sizeof(process->cgroup),
                       process->container);
        process->described = true;
    }
    (void)snprintf(seen, sizeof(seen), "%s", path);
    struct mr_holder row = {
        .kind = kind,
        .pid = process->pid,
        .tid = process->tid,
        .start_time = process->stat.start_time,
        .mount_ns = process->space,
        .comm = process->stat.comm,
        .cgroup = *process->cgroup ? process->cgroup : NULL,
        .container = *process->container ? process->container : NULL,
        .path = seen,
        .device = kind == MR_HOLDER_RAW_DEVICE ? seen : NULL,
    };
    mr_scan_add(target, &row);
}

static const char *read_link(int dirfd, const char *name, char dst[PATH_MAX])
{
    ssize_t len = readlinkat(dirfd, name, dst, PATH_MAX - 1);

    dst[len > 0 ? len : 0] = '\0';
    return dst;
}

/* An O_PATH fd on a device node is on the node only, not on the device. */
static bool opens_device(int fd_dir, const char *name)
{
    char path[64];
    char text[512];

    (void)snprintf(path, sizeof(path), "../fdinfo/%s", name);
    return mr_read_text(fd_dir, path, text, sizeof(text)) < 0 || !mr_fdinfo_is_path(text);
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
        mr_scan_find_path(process->scan, read_link(dirfd, name, path));
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

static void look_at_fd(struct mr_scan_process *process, int fd_dir, const char *name)
{
    char path[PATH_MAX];
    struct statx sx;

    int rc = mr_scan_statx(fd_dir, name, &sx);
    if (rc < 0) {
        look_by_text(process, fd_dir, name, MR_HOLDER_OPEN_FILE, -rc);
        return;
    }
    dev_t dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
    struct mr_scan_target *target = mr_scan_find_dev(process->scan, dev);
    if (target)
        mr_scan_add_process(process, target, MR_HOLDER_OPEN_FILE,
                            read_link(fd_dir, name, path));
    if (dev == process->scan->nsfs)
        note_pin(process, sx.stx_ino);
    if (!S_ISBLK(sx.stx_mode))
        return;
    target =
        mr_scan_find_dev(process->scan, makedev(sx.stx_rdev_major, sx.stx_rdev_minor));
    if (target && opens_device(fd_dir, name))
        mr_scan_add_process(process, target, MR_HOLDER_RAW_DEVICE,
                            read_link(fd_dir, name, path));
}

void mr_scan_task_fds(struct mr_scan_process *process, int task_dir)
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
            look_at_fd(process, fd_dir, entry->d_name);
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
        mr_scan_add_process(process, target, kind, read_link(task_dir, name, path));
}
