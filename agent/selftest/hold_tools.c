/* SPDX-License-Identifier: Apache-2.0
 *
 * What several holders need.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "agent/selftest/hold.h"
#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"

#define FILE_BYTES 65536
#define BUSY_TRIES 200 /* of 10 ms: scans and udev look at things for a moment */
#define LOOP_TRIES 64
#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

int mr_hold_new_file(const struct mr_hold_site *site, const char *name, int *ret_fd,
                     struct mr_err *err)
{
    static const char block[FILE_BYTES] = "held\n";
    char path[PATH_MAX];

    if (mr_format(path, sizeof(path), "%s/%s", site->mount_path, name) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "name a file on the volume");
    (void)unlink(path);
    MR_AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create '%s'", path);
    int rc = mr_write_all(fd, block, sizeof(block));
    if (rc < 0)
        return mr_fail(err, MR_E_INTERNAL, -rc, "write '%s'", path);
    *ret_fd = mr_take_fd(&fd);
    return 0;
}

int mr_hold_make_dir(const char *dir, const char *name, char dst[PATH_MAX],
                     struct mr_err *err)
{
    if (mr_format(dst, PATH_MAX, "%s/%s", dir, name) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "name a directory");
    if (mkdir(dst, 0755) < 0 && errno != EEXIST)
        return mr_fail(err, MR_E_INTERNAL, errno, "create '%s'", dst);
    return 0;
}

/* --- a thread that holds --- */

enum thread_state {
    THREAD_STARTS = 0,
    THREAD_HOLDS,
    THREAD_FAILED,
    THREAD_MAY_END,
};

struct thread_job {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    enum thread_state state;
    pid_t tid;
    int rc;
    int (*enter)(const struct mr_hold_site *site, struct mr_err *err);
    const struct mr_hold_site *site;
    struct mr_err *err;
};

static void *thread_main(void *ctx)
{
    struct thread_job *job = ctx;
    int rc = job->enter(job->site, job->err);

    (void)pthread_mutex_lock(&job->mutex);
    job->rc = rc;
    job->tid = gettid();
    job->state = rc < 0 ? THREAD_FAILED : THREAD_HOLDS;
    (void)pthread_cond_broadcast(&job->changed);
    while (job->state == THREAD_HOLDS)
        (void)pthread_cond_wait(&job->changed, &job->mutex);
    (void)pthread_mutex_unlock(&job->mutex);
    return NULL;
}

int mr_hold_in_thread(int (*enter)(const struct mr_hold_site *, struct mr_err *),
                      const struct mr_hold_site *site, struct mr_err *err)
{
    struct thread_job job = {.mutex = PTHREAD_MUTEX_INITIALIZER,
                             .changed = PTHREAD_COND_INITIALIZER,
                             .enter = enter,
                             .site = site,
                             .err = err};
    char facts[32];
    pthread_t thread;

    int rc = pthread_create(&thread, NULL, thread_main, &job);
    if (rc != 0)
        return mr_fail(err, MR_E_INTERNAL, rc, "start a thread");
    (void)pthread_mutex_lock(&job.mutex);
    while (job.state == THREAD_STARTS)
        (void)pthread_cond_wait(&job.changed, &job.mutex);
    (void)pthread_mutex_unlock(&job.mutex);
    if (job.rc == 0) {
        (void)snprintf(facts, sizeof(facts), "tid=%d", (int)job.tid);
        mr_hold_wait(facts);
    }
    (void)pthread_mutex_lock(&job.mutex);
    job.state = THREAD_MAY_END;
    (void)pthread_cond_broadcast(&job.changed);
    (void)pthread_mutex_unlock(&job.mutex);
    (void)pthread_join(thread, NULL);
    return job.rc;
}

/* --- sockets --- */

int mr_hold_send_fd(int socket_fd, int fd, struct mr_err *err)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = ""};
    char byte = 0;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    if (sendmsg(socket_fd, &message, MSG_NOSIGNAL) != 1)
        return mr_fail(err, MR_E_INTERNAL, errno, "send an fd");
    return 0;
}

int mr_hold_in_flight(int *fd, struct mr_err *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create a socket pair");
    MR_AUTO_CLOSE int sender = pair[0];
    MR_AUTO_CLOSE int receiver = pair[1];
    int rc = mr_hold_send_fd(sender, *fd, err);
    mr_close(fd);
    if (rc == 0)
        mr_hold_wait("");
    return rc;
}

/* --- mounts --- */

const char *mr_hold_fs_type(const char *path)
{
    struct statfs fs;

    if (statfs(path, &fs) < 0)
        return NULL;
    return fs.f_type == EXT4_SUPER_MAGIC  ? "ext4"
           : fs.f_type == XFS_SUPER_MAGIC ? "xfs"
                                          : NULL;
}

int mr_hold_join(const char *node, const char *fs_type, int *ret_fd, struct mr_err *err)
{
    MR_AUTO_CLOSE int context = fsopen(fs_type ? fs_type : "", FSOPEN_CLOEXEC);
    if (context < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "fsopen '%s'", fs_type ? fs_type : "?");
    if (fsconfig(context, FSCONFIG_SET_STRING, "source", node, 0) < 0 ||
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "join the file system on '%s'", node);
    int fd = fsmount(context, FSMOUNT_CLOEXEC, 0);
    if (fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "fsmount '%s'", node);
    *ret_fd = fd;
    return 0;
}

int mr_hold_unmount(const char *path, struct mr_err *err)
{
    for (int i = 0; i < BUSY_TRIES; i++) {
        if (umount2(path, UMOUNT_NOFOLLOW) == 0 || errno == EINVAL || errno == ENOENT)
            return 0;
        if (errno != EBUSY)
            break;
        mr_sleep_ns(10 * MR_NS_PER_MS);
    }
    return mr_fail(err, MR_E_INTERNAL, errno, "umount '%s'", path);
}

/* The type of the file system that lives on the device, or NULL. */
static const char *alive_on(const char *node)
{
    static const char *const types[] = {"ext4", "xfs"};
    char path[PATH_MAX];

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (mr_format(path, sizeof(path), "/sys/fs/%s/%s", types[i],
                      strrchr(node, '/') + 1) == 0 &&
            access(path, F_OK) == 0)
            return types[i];
    return NULL;
}

int mr_hold_thaw(const char *node, struct mr_err *err)
{
    MR_AUTO_CLOSE int mount_fd = -1;
    const char *type = alive_on(node);

    if (!type)
        return 0;
    int rc = mr_hold_join(node, type, &mount_fd, err);
    if (rc < 0)
        return rc;
    MR_AUTO_CLOSE int root = openat(mount_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "open the root of '%s'", node);
    /* EINVAL: not frozen. */
    if (ioctl(root, FITHAW, 0) < 0 && errno != EINVAL)
        return mr_fail(err, MR_E_INTERNAL, errno, "thaw '%s'", node);
    return 0;
}

/* --- loop devices --- */

int mr_hold_bind_loop(int *fd, bool read_only, char node[32], int *ret_fd,
                      struct mr_err *err)
{
    struct loop_config config = {
        .fd = (__u32)*fd,
        .info.lo_flags = LO_FLAGS_AUTOCLEAR | (read_only ? LO_FLAGS_READ_ONLY : 0U),
    };
    MR_AUTO_CLOSE int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "open '/dev/loop-control'");
    for (int i = 0; i < LOOP_TRIES; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        (void)snprintf(node, 32, "/dev/loop%d", number);
        MR_AUTO_CLOSE int loop = number < 0 ? -1 : open(node, O_RDWR | O_CLOEXEC);
        if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &config) == 0) {
            mr_close(fd); /* the device has a reference of its own */
            *ret_fd = mr_take_fd(&loop);
            return 0;
        }
        if (errno != EBUSY) /* somebody was quicker */
            break;
    }
    return mr_fail(err, MR_E_INTERNAL, errno, "bind a loop device");
}
