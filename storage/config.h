/* SPDX-License-Identifier: Apache-2.0
 *
 * What the agent was told at start, after the configuration file and the command line
 * were read and the roots resolved. Read-only afterwards.
 */
#ifndef MR_STORAGE_CONFIG_H
#define MR_STORAGE_CONFIG_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#define MR_ROOTS_MAX 16

struct mr_roots {
    char *given[MR_ROOTS_MAX]; /* as configured, or NULL: requests may use either name */
    char *path[MR_ROOTS_MAX];  /* symlinks resolved at start, no trailing slash */
    size_t count;
};

struct mr_config {
    char state_dir[PATH_MAX];
    char runtime_dir[PATH_MAX];
    char libexec_dir[PATH_MAX];  /* where mooring-worker and mooring-lun are */
    struct mr_roots mount_roots; /* [mount] roots */
    struct mr_roots file_roots;  /* [file] roots */
    char initiator_name[224]; /* iSCSI name, RFC 7143 section 4.2.7: at most 223 bytes */
    int64_t worker_deadline_ns; /* [worker] deadline_seconds: a command that takes longer
                                   is `wedged` */
    int64_t
        format_deadline_ns; /* [worker] format_deadline_seconds: mkfs is ended past it */
    int64_t history_age_ms; /* [journal] history_days, default 30 */
    int64_t history_bytes;  /* [journal] history_mib, default 64 */
    int64_t proofs_kept;    /* [journal] proofs_kept: volumes that are gone, whose
                               proof of release is still known; default 1000 */
    int64_t iscsi_timeout_ns; /* [iscsi] timeout_seconds: a silent target is dead after
                                 this */
};

#endif
