/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/fuse_abort.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/base/cleanup.h"

/* The file system has one instance, so this is the one that the host may have, too. */
static int mount_fusectl(int *ret_fd)
{
    MR_AUTO_CLOSE int fs = fsopen("fusectl", FSOPEN_CLOEXEC);
    int fd;

    if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    fd = fsmount(fs, FSMOUNT_CLOEXEC,
                 MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

int mr_fuse_abort_open(int mount_fd, uint32_t *ret_connection, int *ret_fd)
{
    MR_AUTO_CLOSE int control_fd = -1;
    struct statx sx;
    char path[24];
    int r;

    *ret_connection = 0;
    if (statx(mount_fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &sx) < 0)
        return -errno;
    *ret_connection = sx.stx_dev_minor; /* an anonymous device: the major number is 0 */
    r = mount_fusectl(&control_fd);
    if (r < 0)
        return r;
    (void)snprintf(path, sizeof(path), "%u/abort", *ret_connection);
    *ret_fd = openat(control_fd, path, O_WRONLY | O_CLOEXEC);
    return *ret_fd < 0 ? -errno : 0;
}

int mr_fuse_abort(int abort_fd)
{
    return write(abort_fd, "1", 1) == 1 ? 0 : -errno;
}
