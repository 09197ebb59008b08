/* SPDX-License-Identifier: Apache-2.0
 *
 * The way down: present, sync, arm, unmount. Each first proves that the topmost mount at
 * the recorded place is the recorded one.
 */
#include "storage/worker/mounter.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libmount.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/worker/mounter_path.h"

#define EXT4_CHECKPOINT _IOW('f', 43, uint32_t) /* Documentation/filesystems/ext4 */
#define DETAIL_BYTES 200

MR_DEFINE_CLEANUP(table, struct libmnt_table *, mnt_unref_table);

static bool same_mount(const struct mr_mount_id *a, const struct mr_mount_id *b)
{
    return a->id == b->id && a->unique == b->unique && a->major == b->major &&
           a->minor == b->minor;
}

/* Opens the place and says whether our mount is the topmost there: 1 it is, 0 not
 * (*ret_top is what is, id 0: nothing), negative errno. A missing path is "not". */
static int find_on_top(const struct mr_mount_record *record, struct mr_place *place,
                       struct mr_mount_id *ret_top, struct mr_err *err)
{
    *ret_top = (struct mr_mount_id){0};
    int r = mr_place_open(record->root, record->path, place, err);
    if (r == 0) {
        r = mr_place_mount(place, ret_top);
        if (r < 0 && r != -ENOENT)
            (void)mr_fail(err, MR_E_DEVICE_ERROR, -r, "mount table at '%s/%s'",
                          record->root, record->path);
    }
    if (r == -ENOENT) {
        *ret_top = (struct mr_mount_id){0};
        return 0;
    }
    return r < 0 ? r : same_mount(ret_top, &record->mount);
}

enum mr_presence mr_mounter_present(const struct mr_mount_record *record,
                                    bool *ret_on_top)
{
    MR_AUTO_PLACE struct mr_place place = MR_PLACE_NONE;
    struct mr_mount_id top;
    enum mr_presence present = mr_mount_present(&record->mount);

    *ret_on_top = present == MR_PRESENT && find_on_top(record, &place, &top, NULL) == 1;
    return present;
}

int mr_mounter_open_root(const struct mr_mount_record *record, int flags,
                         struct mr_err *err)
{
    MR_AUTO_PLACE struct mr_place place = MR_PLACE_NONE;
    MR_AUTO_CLOSE int fd = -1;
    struct mr_mount_id id;
    int r = find_on_top(record, &place, &id, err);

    if (r == 0)
        return -ENOENT;
    if (r < 0)
        return r;
    fd = mr_open_beneath(place.parent_fd, place.name, flags | O_DIRECTORY);
    if (fd < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, -fd, "open '%s/%s'", record->root,
                       record->path);
    r = mr_mount_id_at(fd, "", &id);
    if (r < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, -r, "mount id of '%s/%s'", record->root,
                       record->path);
    return same_mount(&id, &record->mount) ? mr_take_fd(&fd) : -ENOENT;
}

static int fail_sync(struct mr_err *err, int errnum, const char *call)
{
    const char *name = strerrorname_np(errnum);
    int r = mr_fail(err, MR_E_DATA_NOT_WRITTEN, errnum, "%s reported %s", call,
                    name ? name : "an error");

    return mr_err_remedy(err, r,
                         "what was written last may be lost; detach all the same with "
                         "accept_data_loss=true");
}

/* ext4 has given up its journal when a commit failed, which it makes by itself every few
 * seconds: what was in it is lost, there is nothing left to write, and syncfs(2) is
 * content. EIO of jbd2_journal_flush() (fs/jbd2/journal.c) stays. Any other answer, as
 * that there is no journal, says nothing. */
static bool lost_its_journal(int fd)
{
    struct statfs fs;
    uint32_t flags = 0;

    return fstatfs(fd, &fs) == 0 && fs.f_type == EXT4_SUPER_MAGIC &&
           ioctl(fd, EXT4_CHECKPOINT, &flags) < 0 && errno == EIO;
}

int mr_mounter_sync(const struct mr_mount_record *record, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = mr_mounter_open_root(record, O_RDONLY, err);

    if (fd == -ENOENT)
        return 0;
    if (fd == -EIO || fd == -EUCLEAN) /* a file system that has shut down */
        return fail_sync(err, -fd, "open of the file system's root");
    if (fd < 0)
        return fd;
    if (syncfs(fd) < 0)
        return fail_sync(err, errno, "syncfs");
    if (lost_its_journal(fd))
        return fail_sync(err, EIO, "the journal of ext4");
    return 0;
}

int mr_mounter_arm(const struct mr_mount_record *record, int inotify_fd,
                   struct mr_err *err)
{
    char path[32];
    MR_AUTO_CLOSE int fd = mr_mounter_open_root(record, O_PATH, err);

    if (fd < 0)
        return fd;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int wd = inotify_add_watch(inotify_fd, path, IN_UNMOUNT);
    if (wd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "inotify watch on '%s/%s'",
                       record->root, record->path);
    return wd;
}

static void describe_cover(const struct mr_mount_id *top, char detail[DETAIL_BYTES])
{
    MR_CLEANUP(table)
    struct libmnt_table *table = mnt_new_table_from_file("/proc/self/mountinfo");
    struct libmnt_fs *fs =
        table ? mnt_table_find_devno(table, makedev(top->major, top->minor),
                                     MNT_ITER_BACKWARD)
              : NULL;
    const char *type = fs ? mnt_fs_get_fstype(fs) : NULL;

    (void)snprintf(detail, DETAIL_BYTES,
                   "covered by mount %" PRIu64 " of %" PRIu32 ":%" PRIu32 " (%.32s)",
                   top->id, top->major, top->minor, type ? type : "unknown type");
}

/* Only mounts by our id are taken down: what else is there is named and waited for. */
static enum mr_unmount_result umount_ours(const struct mr_mount_record *record,
                                          struct mr_place *place,
                                          char detail[DETAIL_BYTES], struct mr_err *err)
{
    struct mr_mount_id top;
    int r = find_on_top(record, place, &top, err);

    if (r < 0)
        return MR_UNMOUNT_FAILED;
    if (r == 0) {
        if (top.id != 0)
            describe_cover(&top, detail);
        else
            (void)snprintf(detail, DETAIL_BYTES,
                           "our mount is not at its path any more "
                           "(moved, or its parent is covered)");
        return MR_UNMOUNT_BUSY;
    }
    r = mr_place_umount(place, 0);
    if (r == -EBUSY) {
        (void)snprintf(detail, DETAIL_BYTES, "umount answered EBUSY");
        return MR_UNMOUNT_BUSY;
    }
    if (r < 0 && r != -EINVAL) { /* EINVAL: no mount point any more, asked below */
        (void)mr_fail(err, MR_E_DEVICE_ERROR, -r, "umount '%s/%s'", record->root,
                      record->path);
        return MR_UNMOUNT_FAILED;
    }
    return MR_UNMOUNT_DONE;
}

static enum mr_unmount_result fail_presence(const struct mr_mount_record *record,
                                            struct mr_err *err)
{
    (void)mr_fail(err, MR_E_DEVICE_ERROR, 0,
                  "cannot tell whether mount %" PRIu64 " at '%s/%s' is there",
                  record->mount.id, record->root, record->path);
    return MR_UNMOUNT_FAILED;
}

void mr_mounter_tidy(const struct mr_mount_record *record)
{
    MR_AUTO_CLOSE int root_fd =
        open(record->root, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (root_fd >= 0)
        mr_place_remove(root_fd, record->path, record->created);
}

bool mr_mounter_busy(const struct mr_mount_record *record)
{
    MR_AUTO_PLACE struct mr_place place = MR_PLACE_NONE;
    struct mr_mount_id top;

    if (find_on_top(record, &place, &top, NULL) != 1)
        return false;
    return mr_place_umount(&place, MNT_EXPIRE) == -EBUSY;
}

enum mr_unmount_result mr_mounter_unmount(const struct mr_mount_record *record,
                                          char detail[200], struct mr_err *err)
{
    MR_AUTO_PLACE struct mr_place place = MR_PLACE_NONE;
    enum mr_unmount_result result = MR_UNMOUNT_ABSENT;
    enum mr_presence present = mr_mount_present(&record->mount);

    detail[0] = '\0';
    if (present == MR_PRESENT) {
        result = umount_ours(record, &place, detail, err);
        if (result != MR_UNMOUNT_DONE)
            return result;
        present = mr_mount_present(&record->mount);
    }
    if (present == MR_PRESENCE_UNKNOWN)
        return fail_presence(record, err);
    if (present == MR_PRESENT) {
        (void)snprintf(detail, DETAIL_BYTES,
                       "another mount came on top of ours meanwhile");
        return MR_UNMOUNT_BUSY;
    }
    return result;
}
