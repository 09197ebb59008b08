/* SPDX-License-Identifier: Apache-2.0
 *
 * One running scan, shared by its parts: scan_block.c (what the block layer stacks on a
 * device), scan_mounts.c (mount namespaces), scan_exports.c (what the kernel serves) and
 * scan_proc.c (processes); scan.c owns it.
 * Single-threaded, lives as long as the process. Nothing of a foreign process stays open
 * past the function that opened it: an fd on its namespace or mountinfo would itself be a
 * holder.
 */
#ifndef MR_STORAGE_WORKER_SCAN_STATE_H
#define MR_STORAGE_WORKER_SCAN_STATE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "storage/worker/holder.h"
#include "storage/worker/scan_parse.h"

#define MR_MOUNTS_PER_CLOCK 64 /* in loops that mr_scan_late() may end */

struct mr_scan_target {
    const char *volume; /* these three belong to the command */
    const char *node;
    const char *mount_path; /* "" when not mounted by us */
    dev_t disk;
    uint64_t diskseq;
    uint64_t own_mount;        /* our own mount is no holder: its mountinfo id, 0 none */
    char *own_place;           /* where it is, when its id cannot be told; else NULL */
    bool held;                 /* known from elsewhere: candidates are wanted */
    struct mr_holders holders; /* certain ones */
    struct mr_holders candidates; /* maybe innocent; shown when there is nobody else */
    bool complete;
    bool replaced; /* another device has these numbers now: nothing is matched */
};

/* A whole disk or a partition of it. */
struct mr_scan_dev {
    dev_t dev;
    struct mr_scan_target *target;
};

/* A mount namespace and the first process in it. */
struct mr_scan_space {
    uint64_t inode;
    pid_t pid; /* 0: none found */
    pid_t tid; /* 0: the whole process */
    uint64_t start_time;
    uint64_t processes;
    char comm[64];
    pid_t pinned_by; /* has an fd on it, 0 unknown */
    uint64_t pin_start_time;
    char pin_comm[64];
};

/* A view of a namespace whose mountinfo was read: what is shown depends on the reader's
 * root. */
struct mr_scan_view {
    uint64_t space;
    dev_t root_dev;
    uint64_t root_inode;
};

/* A socket that is bound to a name on a target. */
struct mr_scan_socket {
    uint64_t inode; /* on sockfs */
    struct mr_scan_target *target;
    char *path; /* as it was bound */
    bool owned; /* a process with an fd on it was found */
};

/* One whose layers look like a target's. */
struct mr_scan_overlay {
    dev_t dev;
    struct mr_scan_target *target;
    uint64_t space; /* 0: it is in our own namespace, and listed. Else this is a guess */
    uint64_t mount_id;
    char *point;
};

struct mr_scan {
    struct mr_scan_target *targets;
    size_t target_count;
    struct mr_scan_dev *devs; /* sorted */
    size_t dev_count;
    struct mr_scan_space *spaces;
    size_t space_count;
    struct mr_scan_view *views;
    size_t view_count;
    dev_t *node_fs; /* sorted: file systems that device nodes lie on, that is tmpfs */
    size_t node_fs_count;
    uint64_t *mount_ids; /* mountinfo ids of all namespaces that were read */
    size_t mount_id_count;
    size_t mount_id_room;
    bool mount_ids_sorted;
    uint64_t *net_spaces; /* network namespaces that were looked at */
    size_t net_space_count;
    struct mr_scan_socket *sockets;
    size_t socket_count;
    struct mr_scan_overlay *overlays;
    size_t overlay_count;
    int fanotify_fd; /* the checker's group, -1 none */
    bool walked;     /* every mount namespace was listed: no mountinfo needed */
    uint64_t own_space;
    dev_t nsfs; /* st_dev of namespace files */
    dev_t sockfs;
    dev_t anon;           /* of anonymous inodes: epoll, io_uring, ... */
    uint64_t anon_shared; /* the one that most of them share */
    int64_t deadline_ns;
    bool complete; /* false: something concerns every target */
};

/* Whose process it is; "" when unknown. */
struct mr_scan_owner {
    bool known; /* was read */
    bool has_uid;
    uid_t uid;
    char user[64];
    char runtime[16];
    char container[MR_CONTAINER_ID_LEN + 1];
    char unit[256];
    char cgroup[4096];
};

/* The process being looked at. */
struct mr_scan_process {
    struct mr_scan *scan;
    pid_t pid;
    pid_t tid; /* the thread being looked at, 0: it stands for the whole process */
    int dir;   /* /proc/PID, O_PATH; borrowed */
    struct mr_task_stat stat;
    uint64_t space;             /* mount namespace of the thread */
    bool has_sockets;           /* of any kind */
    struct mr_scan_owner owner; /* read when there is a first row */
};

/* For qsort(3): the order of scan->devs. */
int mr_scan_compare_devs(const void *a, const void *b);

/* The target whose disk or partition this is, or NULL. */
struct mr_scan_target *mr_scan_find_dev(const struct mr_scan *scan, dev_t dev);

/* The target that this absolute path lies on, by text alone, or NULL. */
struct mr_scan_target *mr_scan_find_path(const struct mr_scan *scan, const char *path);

/* The same for a process of this mount namespace, and only where the volume is mounted:
 * the path of a mount that is there. */
struct mr_scan_target *mr_scan_find_path_in(const struct mr_scan *scan, uint64_t space,
                                            const char *path);

/* Adds the row, or makes the target incomplete. */
void mr_scan_add(struct mr_scan_target *target, const struct mr_holder *row);
/* Adds it as a candidate, if the target wants any. */
void mr_scan_add_maybe(struct mr_scan_target *target, const struct mr_holder *row);
/* Held, and nobody certain was found. */
bool mr_scan_wants_candidates(const struct mr_scan_target *target);

/* True once the deadline has passed; then the scan is incomplete. */
bool mr_scan_late(struct mr_scan *scan);

/* Judges the errno of a failed look at another process: one that went away in the
 * meantime is normal, all else makes the scan incomplete. */
void mr_scan_missed(struct mr_scan *scan, int errnum);

/* The entry for this namespace, made when new; NULL when out of memory. Moves the others.
 */
struct mr_scan_space *mr_scan_space(struct mr_scan *scan, uint64_t inode);

/* statx(2) that asks no server. Only type, devices and inode are to be used, and they may
 * be 0: the empty mask keeps FUSE from refusing other users than its own (fs/fuse/dir.c).
 * 0 or a negative errno. */
int mr_scan_statx(int dirfd, const char *path, struct statx *ret);

/* scan_block.c: partitions of the target's disk are passed to fn. */
void mr_scan_partitions(dev_t disk, void (*fn)(void *ctx, dev_t dev), void *ctx);
/* scan_block.c: loop, swap, dm and md rows. */
void mr_scan_block(struct mr_scan *scan);

/* scan_mounts.c: lists the mounts of every namespace, also of those without a process
 * (Linux 6.12) and sets walked; where that does not work, those of our own. */
void mr_scan_mounts(struct mr_scan *scan);
/* scan_mounts.c: may a block device be mapped through a node on this file system? */
bool mr_scan_may_have_nodes(const struct mr_scan *scan, dev_t dev);
/* scan_mounts.c: reads the mountinfo of one task. 0 or a negative errno. */
int mr_scan_read_mountinfo(struct mr_scan *scan, int task_dir, uint64_t space);
/* scan_tree.c: is there a mount of this mountinfo id in any namespace that was read? */
bool mr_scan_has_mount(struct mr_scan *scan, uint64_t old_id);

/* scan_overlay.c: what became of those of which only the text fits, once all namespaces
 * were read. */
void mr_scan_overlay_guesses(struct mr_scan *scan);

/* scan_proc.c: goes through all processes and their threads; fills the spaces. If there
 * is a reason to, once more for the owners of sockets, and once more for what may hold a
 * target that is held and that nobody certain was found for. */
void mr_scan_processes(struct mr_scan *scan);

/* scan_owner.c */
void mr_scan_read_owner(pid_t pid, struct mr_scan_owner *ret);
/* scan_owner.c: the row's texts stay the owner's. */
void mr_scan_set_owner(struct mr_holder *row, struct mr_scan_owner *owner);

/* Looks at one fd of the process; fd_dir is its /proc/PID/task/TID/fd. */
typedef void (*mr_scan_fd_fn)(struct mr_scan_process *process, int fd_dir,
                              const char *name);
/* scan_task.c: each fd of one table; task_dir is /proc/PID/task/TID. */
void mr_scan_task_fds(struct mr_scan_process *process, int task_dir, mr_scan_fd_fn look);
/* scan_task.c: rows of users that can be told for certain. */
void mr_scan_fd(struct mr_scan_process *process, int fd_dir, const char *name);
/* scan_fdinfo.c: candidates. */
void mr_scan_candidate_fd(struct mr_scan_process *process, int fd_dir, const char *name);
/* scan_fdinfo.c: an anonymous inode that is perhaps a ring with a file of a target. */
void mr_scan_ring_fd(struct mr_scan_process *process, int fd_dir, const char *name);
/* scan_fdinfo.c: was it opened with O_PATH? False when that cannot be told. */
bool mr_scan_is_path_fd(int fd_dir, const char *name);
/* scan_task.c: is it the fd of a mount that is in no namespace (open_tree(2),
 * fsmount(2))? */
bool mr_scan_is_detached(struct mr_scan_process *process, int fd_dir, const char *name,
                         const struct statx *sx);
/* scan_task.c: the text of a link, cut at PATH_MAX, "" when it is gone. Returns dst. */
const char *mr_scan_read_link(int dirfd, const char *name, char dst[PATH_MAX]);
/* scan_task.c: the row of cwd, root or exe. */
void mr_scan_task_link(struct mr_scan_process *process, int task_dir, const char *name,
                       enum mr_holder_kind kind);
/* scan_task.c: adds a row about the process. */
void mr_scan_add_process(struct mr_scan_process *process, struct mr_scan_target *target,
                         enum mr_holder_kind kind, const char *path);
/* scan_task.c: adds a candidate to every target that wants them. */
void mr_scan_add_candidate(struct mr_scan_process *process, enum mr_holder_kind kind,
                           const char *path);

/* scan_sockets.c: finds the sockets that are bound on a target in the network namespace
 * of this task, unless that was looked at. Goes there for a moment: only in a process
 * of one thread. */
void mr_scan_net_space(struct mr_scan *scan, int task_dir);
/* scan_sockets.c: the rows of the sockets that this fd is. */
void mr_scan_socket_fd(struct mr_scan_process *process, int fd_dir, const char *name);
/* scan_sockets.c: the rows of those that no process has an fd on. */
void mr_scan_unowned_sockets(struct mr_scan *scan);

/* scan_exports.c: what the kernel serves or probes by itself: uprobes, the NFS server,
 * NVMe and SCSI targets. */
void mr_scan_exports(struct mr_scan *scan);

/* scan_maps.c: mmap rows. Takes the lock of the address space: not for a process in D. */
void mr_scan_task_maps(struct mr_scan_process *process, int task_dir);

#endif
