/* SPDX-License-Identifier: Apache-2.0
 *
 * The kinds of holders, and the verbs that can end a hold: one table for the scan that
 * names them, the engine that decides, the action worker that acts, and the API. Pure
 * data.
 */
#ifndef MR_STORAGE_HOLDER_KIND_H
#define MR_STORAGE_HOLDER_KIND_H

#include <json-c/json.h>
#include <stdbool.h>

enum mr_holder_kind {
    MR_HOLDER_MOUNT_COPY = 0, /* a mount of it, in any mount namespace */
    MR_HOLDER_NESTED_MOUNT,   /* another file system, mounted inside of the volume */
    MR_HOLDER_COVERING_MOUNT, /* another mount on top of ours */
    MR_HOLDER_DETACHED_MOUNT, /* an fd of open_tree(2) or fsmount(2): in no namespace */
    MR_HOLDER_OVERLAY,        /* an overlay with a layer on it */
    MR_HOLDER_OPEN_FILE,
    MR_HOLDER_CWD,
    MR_HOLDER_ROOT,
    MR_HOLDER_EXE,
    MR_HOLDER_MMAP,
    MR_HOLDER_IO_URING,     /* a file in the fixed table of a ring */
    MR_HOLDER_IN_FLIGHT_FD, /* an fd under way in a socket (SCM_RIGHTS) */
    MR_HOLDER_FS_CONTEXT,   /* an fd of fspick(2) or fsopen(2) */
    MR_HOLDER_UNIX_SOCKET,  /* an AF_UNIX socket bound to a name on it */
    MR_HOLDER_FANOTIFY,     /* a group with unread events */
    MR_HOLDER_RAW_DEVICE,   /* the block device itself is open */
    MR_HOLDER_LOOP,
    MR_HOLDER_SWAP,
    MR_HOLDER_DM,
    MR_HOLDER_MD,
    MR_HOLDER_UPROBE,
    MR_HOLDER_NFS_EXPORT,
    MR_HOLDER_TARGET_EXPORT, /* an NVMe or SCSI target of this kernel serves it */
    MR_HOLDER_FROZEN,        /* the file system is frozen: fsfreeze(8) */
    MR_HOLDER_UNOWNED,       /* held, and no one can be named */
    MR_HOLDER_KINDS
};

/* What an operator can ask for, never done by itself. */
enum mr_action {
    MR_ACTION_UNMOUNT_COPIES = 0,
    MR_ACTION_SIGNAL,
    MR_ACTION_THAW,
    MR_ACTION_UNMOUNT_OVERLAY,
    MR_ACTION_SHUTDOWN,      /* of the file system: FS_IOC_SHUTDOWN */
    MR_ACTION_CUT_TRANSPORT, /* the device fails from now on instead of hanging */
    MR_ACTION_COUNT
};

/* "open-file". Never NULL. */
const char *mr_holder_kind_name(enum mr_holder_kind kind);
/* MR_HOLDER_KINDS when there is none. */
enum mr_holder_kind mr_holder_kind_from_name(const char *name);
/* What would end such a hold, in a sentence without full stop. Never NULL. */
const char *mr_holder_remedy(enum mr_holder_kind kind);
/* Does this action apply to holders of this kind? Those that act on the whole volume
 * (thaw, shutdown, cut-transport) apply to `unowned`, too. */
bool mr_holder_allows(enum mr_holder_kind kind, enum mr_action action);
/* The names of all actions that apply, as a JSON array. has_pid: `signal` needs one. New
 * reference. */
struct json_object *mr_holder_actions(enum mr_holder_kind kind, bool has_pid);

/* "unmount-copies". Never NULL. */
const char *mr_action_name(enum mr_action action);
/* MR_ACTION_COUNT when there is none. */
enum mr_action mr_action_from_name(const char *name);
/* Does it act on listed holders (true), or on the volume as a whole? */
bool mr_action_needs_holders(enum mr_action action);
/* Can it cost data that was not yet written? Then the caller must accept that. */
bool mr_action_loses_data(enum mr_action action);

#endif
