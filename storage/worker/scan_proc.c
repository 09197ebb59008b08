/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/worker/own_process.h"
#include "storage/worker/scan_parse.h"

#define MR_SECOND_LOOKS 10
#define MR_SECOND_LOOK_NS (2 * MR_NS_PER_MS)

MR_DEFINE_CLEANUP(dir, DIR *, (void)closedir);

/* Tasks whose table (files, cwd and root) was looked at: the first and the latest. */
struct seen_tasks {
    pid_t tids[2];
};

enum look {
    MR_LOOK_AT_ALL,
    MR_LOOK_AT_STATES,     /* again: nothing but the states and the maps */
    MR_LOOK_AT_SOCKETS,    /* again: who has the bound ones? */
    MR_LOOK_AT_CANDIDATES, /* again: fds that may hold what nobody was found for */
};

/* What looks at each fd, where nothing but the fds is looked at. */
static const mr_scan_fd_fn look_again[] = {
    [MR_LOOK_AT_ALL] = NULL,
    [MR_LOOK_AT_STATES] = NULL,
    [MR_LOOK_AT_SOCKETS] = mr_scan_socket_fd,
    [MR_LOOK_AT_CANDIDATES] = mr_scan_candidate_fd,
};

struct walk {
    struct mr_scan_process process;
    struct seen_tasks files;
    struct seen_tasks fs;
    enum look look;
    bool in_d; /* a thread sleeps uninterruptibly and may have the address space locked */
    int memory_dir; /* task directory of the first live thread, -1 none */
};

/* Processes in D when it was their turn. */
struct deferred {
    pid_t *pids;
    size_t count;
};

static int read_stat(int task_dir, struct mr_task_stat *ret)
{
    char text[1024];

    ssize_t len = mr_read_text(task_dir, "stat", text, sizeof(text));
    return len < 0 ? (int)len : mr_parse_stat(text, ret);
}

static bool is_dead(const struct mr_task_stat *stat)
{
    return stat->state == 'Z' || stat->state == 'X';
}

/* True when the task shares that table with one that was looked at. */
static bool is_shared(struct seen_tasks *seen, pid_t tid, int type)
{
    for (int i = 0; i < 2; i++)
        if (seen->tids[i] != 0 &&
            syscall(SYS_kcmp, seen->tids[i], tid, type, 0UL, 0UL) == 0)
            return true;
    seen->tids[seen->tids[0] != 0] = tid;
    return false;
}

static int read_space(int task_dir, uint64_t *ret)
{
    char link[64] = "";

    if (readlinkat(task_dir, "ns/mnt", link, sizeof(link) - 1) < 0)
        return -errno;
    *ret = mr_parse_ns_link(link);
    return *ret ? 0 : -EBADMSG;
}

static void note_space(const struct mr_scan_process *process, bool first_task)
{
    struct mr_scan_space *space = mr_scan_space(process->scan, process->space);

    if (!space)
        return;
    space->processes += first_task;
    if (space->pid != 0)
        return;
    space->pid = process->pid;
    space->tid = process->tid;
    space->start_time = process->stat.start_time;
    memcpy(space->comm, process->stat.comm, sizeof(space->comm));
}

static bool has_view(const struct mr_scan *scan, const struct mr_scan_view *view)
{
    for (size_t i = 0; i < scan->view_count; i++)
        if (scan->views[i].space == view->space &&
            scan->views[i].root_dev == view->root_dev &&
            scan->views[i].root_inode == view->root_inode)
            return true;
    return false;
}

/* Only where the namespaces cannot be listed. mountinfo shows what lies below the
 * reader's root, so one reader for each root. */
static void read_view(struct mr_scan_process *process, int task_dir)
{
    struct mr_scan *scan = process->scan;
    struct statx sx;

    int rc = mr_scan_statx(task_dir, "root", &sx);
    if (rc < 0) {
        mr_scan_missed(scan, -rc);
        return;
    }
    const struct mr_scan_view view = {
        .space = process->space,
        .root_dev = makedev(sx.stx_dev_major, sx.stx_dev_minor),
        .root_inode = sx.stx_ino,
    };
    if (has_view(scan, &view))
        return;
    rc = mr_scan_read_mountinfo(scan, task_dir, view.space);
    if (rc < 0) { /* EINVAL: it is exiting */
        mr_scan_missed(scan, rc == -EINVAL ? ESRCH : -rc);
        return;
    }
    struct mr_scan_view *views =
        reallocarray(scan->views, scan->view_count + 1, sizeof(*views));
    if (!views) {
        scan->complete = false;
        return;
    }
    scan->views = views;
    views[scan->view_count++] = view;
}

/* stat is the task's own; that of the process stays in walk->process. */
static void scan_task(struct walk *walk, int task_dir, pid_t tid,
                      const struct mr_task_stat *stat)
{
    struct mr_scan_process *process = &walk->process;
    bool first = walk->memory_dir < 0;

    if (is_dead(stat))
        return;
    walk->in_d |= stat->state == 'D';
    process->tid = tid == process->pid ? 0 : tid;
    int rc = read_space(task_dir, &process->space);
    if (rc == 0 && look_again[walk->look]) {
        if (!is_shared(&walk->files, tid, KCMP_FILES))
            mr_scan_task_fds(process, task_dir, look_again[walk->look]);
        return;
    }
    if (rc == 0 && first)
        walk->memory_dir = fcntl(task_dir, F_DUPFD_CLOEXEC, 0);
    if (rc < 0 || (first && walk->memory_dir < 0)) {
        mr_scan_missed(process->scan, rc < 0 ? -rc : errno);
        return;
    }
    if (walk->look == MR_LOOK_AT_STATES)
        return;
    note_space(process, first);
    if (!is_shared(&walk->files, tid, KCMP_FILES))
        mr_scan_task_fds(process, task_dir, mr_scan_fd);
    if (process->has_sockets)
        mr_scan_net_space(process->scan, task_dir);
    if (!is_shared(&walk->fs, tid, KCMP_FS)) {
        mr_scan_task_link(process, task_dir, "cwd", MR_HOLDER_CWD);
        mr_scan_task_link(process, task_dir, "root", MR_HOLDER_ROOT);
        if (!process->scan->walked) /* its own namespace implies its own fs */
            read_view(process, task_dir);
    }
}

static void scan_threads(struct walk *walk)
{
    struct mr_scan *scan = walk->process.scan;
    MR_AUTO_CLOSE int fd =
        openat(walk->process.dir, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MR_CLEANUP(dir) DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (!dir) {
        mr_scan_missed(scan, errno);
        return;
    }
    int tasks = mr_take_fd(&fd); /* closedir() closes it */
    for (const struct dirent *entry; (entry = readdir(dir)) && !mr_scan_late(scan);) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
        struct mr_task_stat stat;
        if (tid <= 0)
            continue;
        MR_AUTO_CLOSE int task =
            openat(tasks, entry->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        int rc = task < 0 ? -errno : read_stat(task, &stat);
        if (rc < 0)
            mr_scan_missed(scan, -rc);
        else
            scan_task(walk, task, tid, &stat);
    }
}

static void defer(struct mr_scan *scan, struct deferred *deferred, pid_t pid)
{
    pid_t *pids = reallocarray(deferred->pids, deferred->count + 1, sizeof(*pids));

    if (!pids) {
        scan->complete = false;
        return;
    }
    deferred->pids = pids;
    pids[deferred->count++] = pid;
}

static void scan_memory(struct walk *walk, struct deferred *deferred)
{
    struct mr_scan_process *process = &walk->process;

    if (walk->memory_dir < 0)
        return;
    process->tid = 0;
    if (walk->look == MR_LOOK_AT_ALL)
        mr_scan_task_link(process, walk->memory_dir, "exe", MR_HOLDER_EXE);
    if (walk->in_d)
        defer(process->scan, deferred, process->pid);
    else
        mr_scan_task_maps(process, walk->memory_dir);
    mr_close(&walk->memory_dir);
}

static void scan_process(struct mr_scan *scan, pid_t pid, enum look look,
                         struct deferred *deferred)
{
    static struct walk walk; /* large */
    char path[32];

    (void)snprintf(path, sizeof(path), "/proc/%d", pid);
    MR_AUTO_CLOSE int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    walk = (struct walk){
        .process = {.scan = scan, .pid = pid, .dir = dir},
        .look = look,
        .memory_dir = -1,
    };
    struct mr_task_stat *stat = &walk.process.stat;
    int rc = dir < 0 ? -errno : read_stat(dir, stat);
    if (rc < 0) {
        mr_scan_missed(scan, -rc);
        return;
    }
    if (stat->kernel_thread || mr_is_own_process(pid, dir))
        return;
    if (stat->threads > 1)
        scan_threads(&walk);
    else
        scan_task(&walk, dir, pid, stat);
    scan_memory(&walk, deferred);
}

/* Most processes in D only wait for a disk: look again for a few milliseconds. */
static void scan_deferred(struct mr_scan *scan, struct deferred *deferred)
{
    for (int i = 0; deferred->count > 0 && i < MR_SECOND_LOOKS; i++) {
        struct deferred still = {0};
        mr_sleep_ns(MR_SECOND_LOOK_NS);
        for (size_t p = 0; p < deferred->count; p++)
            scan_process(scan, deferred->pids[p], MR_LOOK_AT_STATES, &still);
        free(deferred->pids);
        *deferred = still;
        if (mr_scan_late(scan))
            break;
    }
    if (deferred->count > 0)
        scan->complete = false;
    free(deferred->pids);
}

static void each_process(struct mr_scan *scan, enum look look, struct deferred *deferred)
{
    MR_CLEANUP(dir) DIR *dir = opendir("/proc");

    if (!dir) {
        scan->complete = false;
        return;
    }
    for (const struct dirent *entry; (entry = readdir(dir)) && !mr_scan_late(scan);) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 0 && pid != getpid())
            scan_process(scan, pid, look, deferred);
    }
}

static bool wants_candidates(const struct mr_scan *scan)
{
    for (size_t i = 0; i < scan->target_count; i++)
        if (mr_scan_wants_candidates(&scan->targets[i]))
            return true;
    return false;
}

void mr_scan_processes(struct mr_scan *scan)
{
    struct deferred deferred = {0};
    MR_AUTO_CLOSE int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

    each_process(scan, MR_LOOK_AT_ALL, &deferred);
    scan_deferred(scan, &deferred);
    deferred = (struct deferred){0}; /* from here on no maps are read */
    mr_scan_net_space(scan, self);
    if (scan->socket_count > 0)
        each_process(scan, MR_LOOK_AT_SOCKETS, &deferred);
    mr_scan_unowned_sockets(scan);
    mr_scan_overlay_guesses(scan);
    if (wants_candidates(scan))
        each_process(scan, MR_LOOK_AT_CANDIDATES, &deferred);
}
