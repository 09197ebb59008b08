/* SPDX-License-Identifier: Apache-2.0
 *
 * What lines of /proc mean: pure functions on text that other people's processes can
 * shape. Nothing here reads a file. Those that say "in place" cut and unescape the given
 * line.
 */
#ifndef MR_STORAGE_WORKER_SCAN_PARSE_H
#define MR_STORAGE_WORKER_SCAN_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* proc_pid_mountinfo(5). */
struct mr_mountinfo {
    uint64_t id;
    uint64_t parent;
    dev_t dev;
    uint64_t shared; /* peer group, 0 none */
    uint64_t master; /* peer group that it gets events from, 0 none */
    char *root;      /* unescaped, like point */
    char *point;
    char *fs_type;
    char *source;  /* unescaped, what the mounter said */
    char *options; /* of the superblock, still escaped */
};

/* One line, in place. 0 or -EINVAL. */
int mr_parse_mountinfo(char *line, struct mr_mountinfo *ret);

/* \040 and the like to bytes, in place (fs/seq_file.c mangle_path()). */
void mr_unescape_octal(char *text);

/* Layers of an overlay mount, from the superblock options (fs/overlayfs/params.c). */
struct mr_overlay_layers {
    char *options; /* what is left, in place; set by the caller */
    char *lower;   /* inside of a lowerdir= list; NULL at the start */
};

/* The next lower, data, upper or work directory, or NULL at the end. */
const char *mr_overlay_next(struct mr_overlay_layers *layers);

/* Is path prefix itself or below it? By whole components; "" and relative ones never are.
 */
bool mr_path_below(const char *path, const char *prefix);

/* proc_pid_maps(5). */
struct mr_maps_line {
    uint64_t start;
    uint64_t end;
    uint64_t inode;
    dev_t dev;
    const char *path; /* into the line, "" when there is none */
};

/* 0 or -EINVAL. */
int mr_parse_maps(const char *line, struct mr_maps_line *ret);

/* proc_pid_stat(5). */
struct mr_task_stat {
    char comm[64];
    char state;
    bool kernel_thread;
    uint64_t threads;
    uint64_t start_time;
};

/* 0 or -EINVAL. A comm may hold spaces and parentheses. */
int mr_parse_stat(const char *text, struct mr_task_stat *ret);

/* proc_swaps(5), one line, in place: the path without a " (deleted)", or NULL for the
 * heading. */
char *mr_parse_swap(char *line, bool *ret_partition);

/* proc_pid_cgroup(5), the whole file, in place: the path that names a container (with
 * both versions in use only one may), else that of the v2 hierarchy unless it is "/",
 * else the longest one, "" when there is none. Points into text. */
const char *mr_parse_cgroup(char *text);

/* The container id in a cgroup path: the last run of exactly 64 hex digits, as docker,
 * podman, containerd and CRI-O put it there. False when there is none. */
#define MR_CONTAINER_ID_LEN 64
bool mr_container_id(const char *cgroup, char ret[MR_CONTAINER_ID_LEN + 1]);

/* "docker", "podman", "containerd" or "cri-o", by what is put before the id; NULL when
 * it cannot be told. */
const char *mr_container_runtime(const char *cgroup);

/* The systemd unit: the last component that ends in .service or .scope and is no
 * container's. False when there is none that fits. */
bool mr_cgroup_unit(const char *cgroup, char *dst, size_t size);

/* "mnt:[4026531832]" -> 4026531832, 0 when it is something else. */
uint64_t mr_parse_ns_link(const char *text);

/* The kernel's huge_encode_dev(), as in struct loop_info64. */
dev_t mr_decode_dev(uint64_t encoded);

/* The kernel's dev_t, as in sdev: of fdinfo and in sock_diag (include/linux/kdev_t.h). */
dev_t mr_kernel_dev(uint32_t dev);

/* proc_pid_fdinfo(5): was the file opened with O_PATH? */
bool mr_fdinfo_is_path(const char *text);

/* How many fds wait in the socket to be received (net/unix/af_unix.c
 * unix_show_fdinfo()). */
uint64_t mr_fdinfo_in_flight(const char *text);

/* The lines about the registered files of a ring (io_uring/fdinfo.c), NULL when the text
 * has none: the ring was busy. */
char *mr_fdinfo_ring_files(char *text);
/* The path of the next one, in place; NULL at the end. What has no path is left out. */
char *mr_fdinfo_next_file(char **lines);

/* What the group was made with: FAN_REPORT_FID and the like (fs/notify/fdinfo.c). */
unsigned mr_fdinfo_fanotify_flags(const char *text);
struct mr_fanotify_mark {
    dev_t dev;         /* of the inode or file system that is marked, or 0 */
    uint64_t mount_id; /* of the mount that is marked, or 0 */
};
/* False at the end. */
bool mr_fdinfo_next_mark(const char **lines, struct mr_fanotify_mark *ret);

/* The program of one line of uprobe_events (kernel/trace/trace_uprobe.c), in place, or
 * NULL. */
char *mr_parse_uprobe(char *line);

/* The path of one line of the NFS server's exports (fs/nfsd/export.c), in place, or NULL
 * for a comment. */
char *mr_parse_export(char *line);

/* May asking a file of this type for its attributes wait for a server? */
bool mr_fs_may_block(const char *fs_type);

#endif
