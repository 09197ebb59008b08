/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/worker/scan_parse.h"

#define MR_FDINFO_MAX (16UL * 1024 * 1024)
#define MR_RING_LOOKS 3
#define FANOTIFY_LINK "anon_inode:[fanotify]"
/* include/uapi/linux/fanotify.h: FAN_REPORT_FID, _DIR_FID, _NAME, _TARGET_FID and _MNT.
 * Events of such groups carry file handles or ids, not references. */
#define MR_FAN_NO_REFERENCES 0x5e00U

static char *read_fdinfo(int fd_dir, const char *name)
{
    char path[64];
    char *text = NULL;

    (void)snprintf(path, sizeof(path), "../fdinfo/%s", name);
    return mr_read_file(fd_dir, path, MR_FDINFO_MAX, &text) < 0 ? NULL : text;
}

bool mr_scan_is_path_fd(int fd_dir, const char *name)
{
    MR_AUTO_FREE char *text = read_fdinfo(fd_dir, name);

    return text && mr_fdinfo_is_path(text);
}

/* The kernel shows no files while somebody has the ring locked. *ret_files points into
 * the result, which the caller frees; NULL when that did not pass. */
static char *read_ring(int fd_dir, const char *name, char **ret_files)
{
    char *text = NULL;

    *ret_files = NULL;
    for (int i = 0; i < MR_RING_LOOKS && !*ret_files; i++) {
        free(text);
        text = read_fdinfo(fd_dir, name);
        *ret_files = text ? mr_fdinfo_ring_files(text) : NULL;
    }
    return text;
}

/* Files of a ring's fixed table are held without any fd. Only their paths are shown:
 * those of a file on a mount that is gone match nothing. */
static void look_at_ring(struct mr_scan_process *process, int fd_dir, const char *name,
                         bool name_candidates)
{
    char *files = NULL;
    MR_AUTO_FREE char *text = read_ring(fd_dir, name, &files);
    const char *unmatched = NULL;

    if (text && !files) {
        process->scan->complete = false;
        unmatched = "";
    }
    for (const char *path; (path = mr_fdinfo_next_file(&files));) {
        struct mr_scan_target *target =
            mr_scan_find_path_in(process->scan, process->space, path);
        if (target)
            mr_scan_add_process(process, target, MR_HOLDER_IO_URING, path);
        else if (!unmatched)
            unmatched = path;
    }
    if (unmatched && name_candidates)
        mr_scan_add_candidate(process, MR_HOLDER_IO_URING, unmatched);
}

void mr_scan_ring_fd(struct mr_scan_process *process, int fd_dir, const char *name)
{
    char link[PATH_MAX];

    if (strcmp(mr_scan_read_link(fd_dir, name, link), "anon_inode:[io_uring]") == 0)
        look_at_ring(process, fd_dir, name, false);
}

/* Has the fanotify group events that nobody read? Only its owner can ask, so we become
 * one for a moment. 1, 0, or a negative errno. */
static int has_events(const struct mr_scan_process *process, const char *name)
{
    char path[32];
    char link[PATH_MAX];
    int bytes = 0;

    if (process->tid != 0)
        return -ENOSYS; /* in the table of a single thread */
    MR_AUTO_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0U);
    if (pidfd < 0)
        return -errno;
    MR_AUTO_CLOSE int fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(name), 0U);
    if (fd < 0)
        return -errno;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (strcmp(mr_scan_read_link(AT_FDCWD, path, link), FANOTIFY_LINK) != 0)
        return -ESTALE; /* the number means another file by now, which may block */
    if (ioctl(fd, FIONREAD, &bytes) < 0)
        return -errno;
    return bytes > 0;
}

static bool has_mount(const struct mr_scan_target *target, uint64_t mount_id)
{
    if (mount_id != 0 && mount_id == target->own_mount)
        return true;
    for (size_t i = 0; i < target->holders.count; i++)
        if (target->holders.rows[i].kind == MR_HOLDER_MOUNT_COPY &&
            target->holders.rows[i].mount_id == mount_id)
            return true;
    return false;
}

static struct mr_scan_target *marked_target(const struct mr_scan *scan,
                                            const struct mr_fanotify_mark *mark)
{
    struct mr_scan_target *target = mark->dev ? mr_scan_find_dev(scan, mark->dev) : NULL;

    for (size_t i = 0; !target && i < scan->target_count; i++)
        if (has_mount(&scan->targets[i], mark->mount_id))
            target = &scan->targets[i];
    return target && target->held ? target : NULL;
}

/* Marks hold nothing, unread events of a group that opens files for its reader do. */
static void look_at_fanotify(struct mr_scan_process *process, int fd_dir,
                             const char *name, const char *link)
{
    MR_AUTO_FREE char *text = read_fdinfo(fd_dir, name);
    const char *lines = text;
    struct mr_fanotify_mark mark;
    bool matched = false;

    if (!text || (mr_fdinfo_fanotify_flags(text) & MR_FAN_NO_REFERENCES) != 0)
        return;
    int events = has_events(process, name);
    if (events == 0)
        return;
    while (events > 0 && mr_fdinfo_next_mark(&lines, &mark)) {
        struct mr_scan_target *target = marked_target(process->scan, &mark);
        if (!target)
            continue;
        matched = true;
        mr_scan_add_process(process, target, MR_HOLDER_FANOTIFY, link);
    }
    if (!matched)
        mr_scan_add_candidate(process, MR_HOLDER_FANOTIFY, link);
}

/* Sockets in which fds are under way. */
static void look_at_socket(struct mr_scan_process *process, int fd_dir, const char *name)
{
    char link[PATH_MAX];
    MR_AUTO_FREE char *text = read_fdinfo(fd_dir, name);

    if (text && mr_fdinfo_in_flight(text) > 0)
        mr_scan_add_candidate(process, MR_HOLDER_IN_FLIGHT_FD,
                              mr_scan_read_link(fd_dir, name, link));
}

static void look_at_anonymous(struct mr_scan_process *process, int fd_dir,
                              const char *name)
{
    char buffer[PATH_MAX];
    const char *link = mr_scan_read_link(fd_dir, name, buffer);

    if (strcmp(link, "anon_inode:[io_uring]") == 0)
        look_at_ring(process, fd_dir, name, true);
    else if (strcmp(link, FANOTIFY_LINK) == 0)
        look_at_fanotify(process, fd_dir, name, link);
    else if (strcmp(link, "anon_inode:[fscontext]") == 0)
        mr_scan_add_candidate(process, MR_HOLDER_FS_CONTEXT, link);
}

/* A detached tree may have the volume somewhere inside, on whatever its root lies. */
static void look_at_directory(struct mr_scan_process *process, int fd_dir,
                              const char *name, const struct statx *sx)
{
    if (process->scan->walked && mr_scan_is_detached(process, fd_dir, name, sx))
        mr_scan_add_candidate(process, MR_HOLDER_DETACHED_MOUNT, "/");
}

void mr_scan_candidate_fd(struct mr_scan_process *process, int fd_dir, const char *name)
{
    struct statx sx;

    if (mr_scan_statx(fd_dir, name, &sx) < 0)
        return; /* the first pass said so */
    dev_t dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
    if (dev == process->scan->sockfs)
        look_at_socket(process, fd_dir, name);
    else if (dev == process->scan->anon)
        look_at_anonymous(process, fd_dir, name);
    else if (S_ISDIR(sx.stx_mode))
        look_at_directory(process, fd_dir, name, &sx);
}
