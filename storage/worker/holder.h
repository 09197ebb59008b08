/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows of the Holders document: who keeps a device from being released. A row's id names
 * the same holder in every scan, so that first and last seen can be told. All text comes
 * from other people's processes: what is no printable UTF-8 is replaced before it is
 * kept.
 */
#ifndef MR_STORAGE_WORKER_HOLDER_H
#define MR_STORAGE_WORKER_HOLDER_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "storage/holder_kind.h"

/* Zero or NULL is "does not apply" or "not known" and becomes JSON null. */
struct mr_holder {
    enum mr_holder_kind kind;
    uint64_t id;    /* 0: not computed yet */
    bool candidate; /* may be innocent: certain = false */
    bool only_pins; /* of mounts: the process is not in the namespace, it has an fd on it
                     */
    bool has_uid;
    uid_t uid; /* effective, as in our own user namespace */
    pid_t pid;
    pid_t tid;           /* only of a thread that differs from its process */
    uint64_t start_time; /* field 22 of /proc/PID/stat */
    uint64_t mount_ns;   /* inode number of the mount namespace */
    uint64_t mount_id;   /* of mounts: id field of mountinfo */
    uint64_t processes;  /* of mounts: how many are in the namespace */
    char *comm;
    char *user;
    char *cgroup;
    char *container;
    char *runtime; /* docker, containerd, podman or cri-o */
    char *unit;    /* of systemd */
    char *path;    /* as seen by the holder */
    char *device;
};

struct mr_holders {
    struct mr_holder *rows;
    size_t count;
};

/* Is it a mount in some namespace? */
bool mr_holder_is_mount(enum mr_holder_kind kind);

/* 64-bit FNV-1a of what makes the holder this one: a mount is named by namespace and
 * mount id (its processes come and go, its path changes when a directory above is
 * renamed), the rest by process, path and device. Never 0. */
uint64_t mr_holder_id(const struct mr_holder *row);

/* Adds a cleaned copy of the row (text stays the caller's); one with the same id is kept
 * once. Returns 0, -ENOSPC at MR_SCAN_HOLDERS_MAX rows, or -ENOMEM. */
int mr_holders_add(struct mr_holders *list, const struct mr_holder *row);

/* Frees the rows; the list is empty afterwards. */
void mr_holders_clear(struct mr_holders *list);

/* JSON array of at most max_bytes as text; what does not fit is left out and
 * *ret_complete becomes false (else it stays). New reference, NULL when out of memory. */
struct json_object *mr_holders_to_json(const struct mr_holders *list, size_t max_bytes,
                                       bool *ret_complete);

/* Heap copy in which every byte that is not part of printable UTF-8 became '?'. NULL for
 * NULL or when out of memory. */
char *mr_holder_text(const char *text);

#endif
