/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/device.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/major.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"

#define LOCK_LIMIT_NS (5 * MR_NS_PER_S)
#define LOCK_RETRY_NS (10 * MR_NS_PER_MS)

int mr_device_check(const struct mr_identity *identity, int fd, struct mr_err *err)
{
    struct stat st;
    uint64_t diskseq = 0;

    if (fstat(fd, &st) < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "fstat '%s'", identity->node);
    if (!S_ISBLK(st.st_mode) || major(st.st_rdev) != identity->major ||
        minor(st.st_rdev) != identity->minor) {
        (void)mr_fail(err, MR_E_DEVICE_MISMATCH, 0,
                      "'%s' is not block device %" PRIu32 ":%" PRIu32, identity->node,
                      identity->major, identity->minor);
        return -ESTALE;
    }
    if (ioctl(fd, BLKGETDISKSEQ, &diskseq) < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "BLKGETDISKSEQ of '%s'",
                       identity->node);
    if (diskseq != identity->diskseq) {
        (void)mr_fail(err, MR_E_DEVICE_MISMATCH, 0,
                      "'%s' has disk sequence number %" PRIu64
                      ", the recorded one is %" PRIu64,
                      identity->node, diskseq, identity->diskseq);
        return -ESTALE;
    }
    return 0;
}

int mr_device_open(const struct mr_identity *identity, int flags, int *ret_fd,
                   struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = open(identity->node, flags | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "open '%s'", identity->node);
    int r = mr_device_check(identity, fd, err);
    if (r < 0)
        return r;
    *ret_fd = mr_take_fd(&fd);
    return 0;
}

/* No diskseq attribute: is there no such disk, or can we not tell? */
static enum mr_presence without_diskseq(const struct mr_identity *identity,
                                        const char **ret_why)
{
    char dir[64];

    if (mr_format(dir, sizeof(dir), "/sys/dev/block/%" PRIu32 ":%" PRIu32,
                  identity->major, identity->minor) == 0 &&
        access("/sys/dev/block", X_OK) == 0 && access(dir, F_OK) < 0 && errno == ENOENT) {
        *ret_why = "no such disk";
        return MR_ABSENT_NOW;
    }
    *ret_why = "sysfs shows no diskseq";
    return MR_PRESENCE_UNKNOWN;
}

/* An unbound loop device keeps its node; its loop/ folder in sysfs comes and goes with
 * the file. */
static enum mr_presence loop_bound(const struct mr_identity *identity,
                                   const char **ret_why)
{
    char backing[PATH_MAX];
    ssize_t n = mr_sysfs_block_attr(identity->major, identity->minor, "loop/backing_file",
                                    backing, sizeof(backing));

    if (n >= 0) {
        *ret_why = "same diskseq, bound";
        return MR_PRESENT;
    }
    if (n == -ENOENT) {
        *ret_why = "no backing";
        return MR_ABSENT_NOW;
    }
    *ret_why = "backing_file cannot be read";
    return MR_PRESENCE_UNKNOWN;
}

enum mr_presence mr_device_state(const struct mr_identity *identity, const char **ret_why)
{
    char text[32];
    ssize_t n = mr_sysfs_block_attr(identity->major, identity->minor, "diskseq", text,
                                    sizeof(text));

    if (n == -ENOENT)
        return without_diskseq(identity, ret_why);
    if (n <= 0 || identity->diskseq == 0) {
        *ret_why = "diskseq cannot be read";
        return MR_PRESENCE_UNKNOWN;
    }
    char *end = NULL;
    errno = 0;
    uint64_t diskseq = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') {
        *ret_why = "diskseq is no number";
        return MR_PRESENCE_UNKNOWN;
    }
    if (diskseq != identity->diskseq) {
        *ret_why = "diskseq changed";
        return MR_ABSENT_NOW;
    }
    if (identity->major == LOOP_MAJOR)
        return loop_bound(identity, ret_why);
    *ret_why = "same diskseq";
    return MR_PRESENT;
}

void mr_device_lock(int fd)
{
    int64_t deadline_ns = mr_now_ns() + LOCK_LIMIT_NS;

    while (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK &&
           mr_now_ns() < deadline_ns)
        mr_sleep_ns(LOCK_RETRY_NS);
}
