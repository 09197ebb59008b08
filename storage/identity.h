/* SPDX-License-Identifier: Apache-2.0
 *
 * What the journal remembers of the kernel objects of one attachment. Written once at
 * attach, compared with the kernel before anything is touched. Shared by core and worker;
 * pure data, no I/O.
 */
#ifndef MR_STORAGE_IDENTITY_H
#define MR_STORAGE_IDENTITY_H

#include <json-c/json.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "storage/base/mountid.h"

#define MR_TOKEN_TEXT 33 /* 128 random bits in hex, and NUL */
#define MR_KEY_TEXT 400  /* source key */

/* The mapped block device. diskseq 0 means: nothing is mapped. */
struct mr_identity {
    char node[32]; /* "/dev/loop3" */
    uint32_t major;
    uint32_t minor;
    uint64_t diskseq; /* BLKGETDISKSEQ: never reused within a boot (Linux 5.15) */
    uint64_t size_bytes;
    uint32_t block_size;          /* logical block size, bytes */
    char serial[128];             /* VPD 0x80, trimmed, or "" */
    char wwn[128];                /* VPD 0x83 NAA/EUI, or "" */
    char fs_uuid[40];             /* "" until known */
    char source_key[MR_KEY_TEXT]; /* names the source on this node: "file:DEV:INO",
                                     "iscsi:IQN:LUN" */
    pid_t lun_pid;                /* mooring-lun, 0 for drivers without one */
    uint64_t lun_start_time;      /* field 22 of its /proc/PID/stat */
};

/* Of each part of a mount path: a node has thousands of records. */
#define MR_MOUNT_TEXT 1024

/* Our mount of it. mount.id 0 means: not mounted by us. */
struct mr_mount_record {
    struct mr_mount_id mount;
    char root[MR_MOUNT_TEXT]; /* the resolved configured root it lives under */
    char path[MR_MOUNT_TEXT]; /* below root, relative, no "..", no empty parts */
    unsigned
        created; /* how many trailing path components we made (to be removed by rmdir) */
};

/* Is it an attach token? NULL is none. */
bool mr_token_valid(const char *token);

/* FNV-1a, 64 bits. For names, not against forgers. */
uint64_t mr_text_hash(const char *text, size_t len);

/* "mooring:TOKEN:OWNER", the mark on every kernel object of ours: lo_file_name of a loop
 * device (63 bytes), source of mooring-lun's FUSE mount. OWNER tells agents apart that
 * share a kernel: the 64 bit FNV-1a hash of their runtime directory's path, in hex. It
 * must be known without any journal, and no two agents can have the same one. */
#define MR_MARK_TEXT 58
/* The token is a valid one. */
void mr_mark(char dst[MR_MARK_TEXT], const char *token, const char *runtime_dir);
/* Is it the mark of the agent with this runtime directory? Then its token is in token. */
bool mr_mark_read(const char *text, const char *runtime_dir, char token[MR_TOKEN_TEXT]);

/* New reference, or NULL when out of memory. */
struct json_object *mr_identity_to_json(const struct mr_identity *identity);
/* Missing or wrong members stay zero. NULL json zeroes. */
void mr_identity_from_json(struct mr_identity *identity, struct json_object *json);
struct json_object *mr_mount_record_to_json(const struct mr_mount_record *record);
void mr_mount_record_from_json(struct mr_mount_record *record, struct json_object *json);
/* Is this absolute path its place? By text. */
bool mr_mount_record_is_at(const struct mr_mount_record *record, const char *path);

#endif
