/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/loopdev.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fault.h"
#include "storage/base/fd.h"
#include "storage/worker/device.h"
#include "storage/worker/scan_parse.h"

/* Others take free devices too: each try is a fresh LOOP_CTL_GET_FREE. */
#define CONFIGURE_TRIES 64

MR_DEFINE_CLEANUP(dir, DIR *, (void)closedir);

/* Reads the identity of the block device behind fd. */
static int read_identity(int fd, const char *node, struct mr_identity *ret,
                         struct mr_err *err)
{
    struct stat st;
    int block = 0;

    *ret = (struct mr_identity){.diskseq = 0};
    if (fstat(fd, &st) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "stat '%s'", node);
    if (!S_ISBLK(st.st_mode))
        return mr_fail(err, MR_E_INTERNAL, ENOTBLK, "'%s'", node);
    if (ioctl(fd, BLKGETDISKSEQ, &ret->diskseq) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "disk sequence number of '%s'", node);
    if (ioctl(fd, BLKGETSIZE64, &ret->size_bytes) < 0 || ioctl(fd, BLKSSZGET, &block) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "size of '%s'", node);
    ret->block_size = (uint32_t)block;
    ret->major = major(st.st_rdev);
    ret->minor = minor(st.st_rdev);
    if (mr_format(ret->node, sizeof(ret->node), "%s", node) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "'%s'", node);
    return 0;
}

/* Opens a free device and binds it. Returns its fd, or a negative errno (-EBUSY: somebody
 * was quicker). */
static int bind_free(int control_fd, const struct loop_config *config, char node[32],
                     struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    int number = ioctl(control_fd, LOOP_CTL_GET_FREE);

    if (number < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "find a free loop device");
    (void)snprintf(node, 32, "/dev/loop%d", number);
    fd = open(node, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "open '%s'", node);
    if (ioctl(fd, LOOP_CONFIGURE, config) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "bind '%s'", node);
    return mr_take_fd(&fd);
}

/* What the kernel made of it: direct I/O is dropped without an error when the file cannot
 * do it. */
static int check_bound(int fd, const struct mr_loop_setup *setup,
                       const struct mr_identity *identity, struct mr_err *err)
{
    struct loop_info64 info = {0};

    if (ioctl(fd, LOOP_GET_STATUS64, &info) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "status of '%s'", identity->node);
    if (setup->require_direct && !(info.lo_flags & LO_FLAGS_DIRECT_IO))
        return mr_fail(err, MR_E_DEVICE_ERROR, ENOTSUP, "'%s' does no direct I/O",
                       identity->node);
    if (!(info.lo_flags & LO_FLAGS_READ_ONLY) != !setup->read_only)
        return mr_fail(err, MR_E_DEVICE_ERROR, EROFS, "'%s' is %s", identity->node,
                       setup->read_only ? "writable" : "read-only");
    if (setup->block_size != 0 && setup->block_size != identity->block_size)
        return mr_fail(err, MR_E_DEVICE_ERROR, EINVAL,
                       "'%s' has blocks of %u bytes instead of %u", identity->node,
                       identity->block_size, setup->block_size);
    return 0;
}

/* Some file systems take O_DIRECT and fail at the first read (overlayfs on one that
 * cannot, Linux 6.1): the device then reads through the page cache instead. */
static void fall_back(int fd, uint32_t block_size)
{
    MR_AUTO_FREE char *block = malloc(block_size);

    if (block && pread(fd, block, block_size, 0) < 0)
        (void)ioctl(fd, LOOP_SET_DIRECT_IO, 0UL);
}

void mr_loop_undo(const char *node)
{
    int fd = open(node, O_RDONLY | O_EXCL | O_CLOEXEC);

    if (fd >= 0)
        (void)mr_loop_clear(fd, NULL);
}

int mr_loop_attach(const struct mr_loop_setup *setup, struct mr_identity *ret,
                   struct mr_err *err)
{
    struct loop_config config = {
        .fd = (__u32)setup->backing_fd,
        .block_size = setup->block_size,
    };
    MR_AUTO_CLOSE int control_fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    MR_AUTO_CLOSE int fd = -1;
    char mark[MR_MARK_TEXT];
    char node[32];
    int r;

    if (control_fd < 0) {
        r = mr_fail(err, MR_E_INTERNAL, errno, "open '/dev/loop-control'");
        return mr_err_remedy(err, r, "load the kernel module loop");
    }
    mr_mark(mark, setup->token, setup->runtime_dir);
    memcpy(config.info.lo_file_name, mark, sizeof(mark));
    config.info.lo_flags = (setup->read_only ? LO_FLAGS_READ_ONLY : 0u) |
                           (setup->direct_io ? LO_FLAGS_DIRECT_IO : 0u);
    /* LOOP_CONFIGURE syncs the file with the device locked, and until it ends others are
     * offered the same free number and wait in their open (drivers/block/loop.c
     * loop_configure, lo_open). What takes time is done before. */
    if (!setup->read_only && fsync(setup->backing_fd) < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "fsync of the backing file");
    for (int tries = 0; tries < CONFIGURE_TRIES; tries++) {
        fd = bind_free(control_fd, &config, node, err);
        if (fd != -EBUSY)
            break;
    }
    if (fd < 0)
        return fd;
    r = read_identity(fd, node, ret, err);
    if (r == 0 && setup->direct_io && !setup->require_direct)
        fall_back(fd, ret->block_size);
    if (r == 0)
        r = check_bound(fd, setup, ret, err);
    if (r < 0)
        mr_loop_undo(node);
    return r;
}

/* Is the device bound? Its sysfs directory "loop" is there exactly while it is. */
static bool is_bound(const char *name)
{
    char path[64];

    return mr_format(path, sizeof(path), "/sys/block/%s/loop", name) == 0 &&
           access(path, F_OK) == 0;
}

int mr_loop_open(const char *name, struct mr_err *err)
{
    char node[32];

    if (mr_format(node, sizeof(node), "/dev/%s", name) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "'%s'", name);
    int fd = open(node, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    int r = -errno;
    return is_bound(name) ? mr_fail(err, MR_E_INTERNAL, -r, "open '%s'", node) : -ENXIO;
}

int mr_loop_ask(int fd, const char *name, struct mr_loop_answer *ret, struct mr_err *err)
{
    struct loop_info64 info = {0};
    char node[32];

    if (mr_format(node, sizeof(node), "/dev/%s", name) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "'%s'", name);
    if (ioctl(fd, LOOP_GET_STATUS64, &info) < 0) {
        if (errno == ENXIO)
            return 0;
        return mr_fail(err, MR_E_INTERNAL, errno, "status of '%s'", node);
    }
    *ret = (struct mr_loop_answer){
        .file_dev = mr_decode_dev(info.lo_device),
        .file_inode = info.lo_inode,
    };
    memcpy(ret->file_name, info.lo_file_name, LO_NAME_SIZE); /* may lack a NUL */
    int r = read_identity(fd, node, &ret->identity, err);
    return r < 0 ? r : 1;
}

/* "loop" and a number. */
static bool is_loop_name(const char *name)
{
    if (strncmp(name, "loop", 4) != 0 || !isdigit((unsigned char)name[4]))
        return false;
    return name[4 + strspn(name + 4, "0123456789")] == '\0';
}

int mr_loop_each(mr_loop_fn fn, void *ctx, struct mr_err *err)
{
    MR_CLEANUP(dir) DIR *dir = opendir("/sys/block");

    if (!dir)
        return mr_fail(err, MR_E_INTERNAL, errno, "open '/sys/block'");
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry && errno != 0)
            return mr_fail(err, MR_E_INTERNAL, errno, "read '/sys/block'");
        if (!entry)
            return 0;
        if (is_loop_name(entry->d_name) && is_bound(entry->d_name) &&
            !fn(ctx, entry->d_name))
            return 0;
    }
}

struct backed {
    const char *path;
    char *node;
};

static bool look_for_path(void *ctx, const char *name)
{
    const struct backed *backed = ctx;
    char path[80];
    char text[PATH_MAX];

    if (mr_format(path, sizeof(path), "/sys/block/%s/loop/backing_file", name) < 0 ||
        mr_read_text(AT_FDCWD, path, text, sizeof(text)) < 0 ||
        strcmp(text, backed->path) != 0)
        return true;
    return mr_format(backed->node, 32, "/dev/%s", name) < 0;
}

void mr_loop_of_path(const char *path, char ret_node[32])
{
    struct backed backed = {.path = path, .node = ret_node};

    ret_node[0] = '\0';
    (void)mr_loop_each(look_for_path, &backed, NULL);
}

/* A file that is mounted nowhere has the path "/". A device that vanishes meanwhile is
 * skipped by either kind. */
static bool is_kind(const char *device, enum mr_loop_backing backing)
{
    char path[80];
    char text[8];

    if (mr_format(path, sizeof(path), "/sys/block/%s/loop/backing_file", device) < 0)
        return true;
    ssize_t len = mr_read_text(AT_FDCWD, path, text, sizeof(text));
    if (len < 0)
        return true; /* cannot tell: ask the device, which says if it is gone */
    return (len == 1 && text[0] == '/') == (backing == MR_LOOP_ON_LUN);
}

struct wanted {
    char mark[MR_MARK_TEXT];
    enum mr_loop_backing backing;
    struct mr_identity *ret;
    struct mr_err *err;
    int result; /* 1 found, 0 not yet, negative: one could not be asked */
};

/* One unreadable device: "none" is not proven, but look on. */
static bool look_for(void *ctx, const char *name)
{
    struct wanted *wanted = ctx;
    struct mr_loop_answer answer;

    if (!is_kind(name, wanted->backing))
        return true;
    MR_AUTO_CLOSE int fd = mr_loop_open(name, wanted->err);
    if (fd == -ENXIO)
        return true;
    int r = fd < 0 ? fd : mr_loop_ask(fd, name, &answer, wanted->err);
    if (r < 0)
        wanted->result = r;
    if (r <= 0 || strcmp(answer.file_name, wanted->mark) != 0)
        return true;
    *wanted->ret = answer.identity;
    wanted->result = 1;
    return false;
}

int mr_loop_find(const char *token, const char *runtime_dir, enum mr_loop_backing backing,
                 struct mr_identity *ret, struct mr_err *err)
{
    struct wanted wanted = {.backing = backing, .ret = ret, .err = err};

    mr_mark(wanted.mark, token, runtime_dir);
    int r = mr_loop_each(look_for, &wanted, err);
    return wanted.result > 0 || r == 0 ? wanted.result : r;
}

int mr_loop_clear(int claim_fd, struct mr_err *err)
{
    int r = ioctl(claim_fd, LOOP_CLR_FD) < 0 ? -errno : 0;

    if (r == 0)
        r = mr_fault("worker", "unmap", "inside");
    (void)close(claim_fd);
    /* ENXIO: not bound any more, which is what was asked for. */
    if (r < 0 && r != -ENXIO)
        return mr_fail(err, MR_E_DEVICE_ERROR, -r, "release the loop device");
    return 0;
}

/* What a failure means: gone only when sysfs says so. */
static int gone_or(const struct mr_identity *identity, int r)
{
    const char *why = NULL;

    return mr_device_state(identity, &why) == MR_ABSENT_NOW ? 0 : r;
}

/* Reads the flags. 0, or a negative errno. */
static int read_flags(int fd, const struct mr_identity *identity, struct loop_info64 *ret,
                      struct mr_err *err)
{
    *ret = (struct loop_info64){0};
    if (ioctl(fd, LOOP_GET_STATUS64, ret) < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "status of '%s'", identity->node);
    return 0;
}

int mr_loop_keep(const struct mr_identity *identity, struct mr_err *err)
{
    struct loop_info64 info;
    MR_AUTO_CLOSE int fd = -1;

    /* While it is open, the kernel puts the release off; the check of the diskseq comes
     * after the open. */
    int r = mr_device_open(identity, O_RDONLY | O_NONBLOCK, &fd, err);
    if (r == 0)
        r = read_flags(fd, identity, &info, err);
    if (r == 0)
        r = mr_fault_fail("worker", "keep", "inside", err);
    if (r == 0 && (info.lo_flags & LO_FLAGS_AUTOCLEAR)) {
        info.lo_flags &= ~(__u32)LO_FLAGS_AUTOCLEAR;
        if (ioctl(fd, LOOP_SET_STATUS64, &info) < 0)
            r = mr_fail(err, MR_E_DEVICE_ERROR, errno, "keep '%s'", identity->node);
        else
            r = read_flags(fd, identity, &info, err);
    }
    if (r == 0 && (info.lo_flags & LO_FLAGS_AUTOCLEAR))
        r = mr_fail(err, MR_E_DEVICE_ERROR, 0, "'%s' still goes with its last user",
                    identity->node);
    return r < 0 ? gone_or(identity, r) : 1;
}
