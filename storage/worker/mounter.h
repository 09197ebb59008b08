/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounting below a configured root and taking only that mount away again. Paths are
 * walked with openat2(2) RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
 * libmount mounts on "." of the opened directory.
 */
#ifndef MR_STORAGE_WORKER_MOUNTER_H
#define MR_STORAGE_WORKER_MOUNTER_H

#include <json-c/json.h>
#include <stdbool.h>

#include "storage/base/err.h"
#include "storage/identity.h"

struct mr_mount_request {
    const struct mr_identity *identity;
    const char *fs_type;
    const char *root;            /* resolved */
    const char *path;            /* relative to root */
    struct json_object *options; /* array of strings, already allowed */
    bool read_only;
};

/* Creates the missing directories, refuses a target that is no empty directory or has a
 * mount on it (MR_E_MOUNT_PATH_BUSY), mounts with nosuid,nodev unless `suid` / `dev` is
 * asked for, verifies that the topmost mount there is our device, fills *ret. Undone on
 * failure. */
int mr_mounter_mount(const struct mr_mount_request *request, struct mr_mount_record *ret,
                     struct mr_err *err);

/* Would it find the place as it needs it? Nothing is made; what is missing is fine.
 * request->identity is not looked at. Errors as above. */
int mr_mounter_check(const struct mr_mount_request *request, struct mr_err *err);

enum mr_unmount_result {
    MR_UNMOUNT_FAILED = 0, /* err says why */
    MR_UNMOUNT_BUSY,       /* EBUSY, or covered by another mount: detail says which */
    MR_UNMOUNT_ABSENT,     /* our mount is not in the table any more */
    MR_UNMOUNT_DONE,
};

/* Opens the root of this mount with these flags and proves that it is the one. An fd,
 * -ENOENT when it is absent or covered, or another negative errno. */
int mr_mounter_open_root(const struct mr_mount_record *record, int flags,
                         struct mr_err *err);

/* syncfs(2) on a real fd of the root of this mount. MR_E_DATA_NOT_WRITTEN when it fails,
 * and when ext4 has lost its journal before.
 * 0 when the mount is absent or covered (then there is no way in; detail of the unmount
 * says so). */
int mr_mounter_sync(const struct mr_mount_record *record, struct mr_err *err);

/* Adds an IN_UNMOUNT watch for the root inode to inotify_fd (inotify(7)), through an
 * O_PATH fd. Returns the watch descriptor (0 or above), -ENOENT when the mount is absent
 * or covered, or another negative errno. */
int mr_mounter_arm(const struct mr_mount_record *record, int inotify_fd,
                   struct mr_err *err);

/* Would umount(2) say EBUSY right now? Asks with MNT_EXPIRE (umount(2)), which only marks
 * an idle mount as expired; the mark goes with the next use, such as mr_mounter_sync().
 * False when it cannot be told. */
bool mr_mounter_busy(const struct mr_mount_record *record);

/* umount2(UMOUNT_NOFOLLOW) of exactly this mount, never lazily. detail (200 bytes) says
 * what is in the way for BUSY. The directory stays: see mr_mounter_tidy(). */
enum mr_unmount_result mr_mounter_unmount(const struct mr_mount_record *record,
                                          char detail[200], struct mr_err *err);

/* rmdir of the directories that we made. Only after the device is gone: removing a mount
 * point detaches the copies of the mount in all other mount namespaces, under the feet of
 * their processes (fs/namei.c vfs_rmdir()). */
void mr_mounter_tidy(const struct mr_mount_record *record);

/* Is it there, and on top? */
enum mr_presence mr_mounter_present(const struct mr_mount_record *record,
                                    bool *ret_on_top);

/* A half-done attach: our mount may exist without its id. Finds a mount of this device on
 * top of root/path and fills record->mount. 1 found, 0 none, negative errno. */
int mr_mounter_adopt(const struct mr_identity *identity, struct mr_mount_record *record,
                     struct mr_err *err);

#endif
