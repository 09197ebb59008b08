/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel's interface of statmount(2) and listmount(2), which the headers of Debian 12
 * lack: include/uapi/linux/mount.h of Linux 6.12. Field names are the kernel's.
 */
#ifndef MR_STORAGE_BASE_STATMOUNT_H
#define MR_STORAGE_BASE_STATMOUNT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#ifndef SYS_statmount
#define SYS_statmount 457
#endif
#ifndef SYS_listmount
#define SYS_listmount 458
#endif

#define MR_LSMT_ROOT UINT64_MAX
#define MR_STATMOUNT_SB_BASIC 0x01U
#define MR_STATMOUNT_MNT_BASIC 0x02U
#define MR_STATMOUNT_MNT_POINT 0x10U
#define MR_STATMOUNT_MNT_OPTS 0x80U

struct mr_mnt_id_req {
    uint32_t size;
    uint32_t spare;
    uint64_t mnt_id;
    uint64_t param;     /* statmount: mask; listmount: last id */
    uint64_t mnt_ns_id; /* Linux 6.11 */
};
/* The first version, Linux 6.8: enough for our own namespace. */
#define MR_MNT_ID_REQ_SIZE_VER0 offsetof(struct mr_mnt_id_req, mnt_ns_id)

struct mr_statmount { /* text follows */
    uint32_t size;
    uint32_t mnt_opts; /* offset into the text, like mnt_point */
    uint64_t mask;
    uint32_t sb_dev_major;
    uint32_t sb_dev_minor;
    uint64_t sb_magic;
    uint32_t sb_flags;
    uint32_t fs_type;
    uint64_t mnt_id;
    uint64_t mnt_parent_id;
    uint32_t mnt_id_old;
    uint32_t mnt_parent_id_old;
    uint64_t mnt_attr;
    uint64_t mnt_propagation;
    uint64_t mnt_peer_group;
    uint64_t mnt_master;
    uint64_t propagate_from;
    uint32_t mnt_root;
    uint32_t mnt_point;
    uint64_t spare[50];
};
_Static_assert(sizeof(struct mr_statmount) == 512, "the kernel's struct statmount");

#endif
