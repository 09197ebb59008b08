/* SPDX-License-Identifier: Apache-2.0
 *
 * Holders that are processes with a file of the volume: umount(2) says EBUSY.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/selftest/hold.h"
#include "storage/base/cleanup.h"
#include "storage/base/fd.h"

#define MAP_BYTES 4096

static int open_file(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    int rc = mr_hold_new_file(site, "open-file", &fd, err);
    if (rc == 0)
        mr_hold_wait("");
    return rc;
}

/* Only in this thread's own table of fds; the end of the thread closes it. */
static int open_in_own_table(const struct mr_hold_site *site, struct mr_err *err)
{
    int fd;
    if (unshare(CLONE_FILES) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "unshare the table of fds");
    return mr_hold_new_file(site, "thread-file", &fd, err);
}

static int thread_file(const struct mr_hold_site *site, struct mr_err *err)
{
    return mr_hold_in_thread(open_in_own_table, site, err);
}

static int working_directory(const struct mr_hold_site *site, struct mr_err *err)
{
    if (chdir(site->mount_path) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "chdir '%s'", site->mount_path);
    mr_hold_wait("");
    return 0;
}

static int root_directory(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (old < 0 || chroot(site->mount_path) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "chroot '%s'", site->mount_path);
    mr_hold_wait("");
    if (fchdir(old) < 0 || chroot(".") < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "leave '%s'", site->mount_path);
    return 0;
}

static int mapping(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    int rc = mr_hold_new_file(site, "mapped-file", &fd, err);
    if (rc < 0)
        return rc;
    void *map = mmap(NULL, MAP_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return mr_fail(err, MR_E_INTERNAL, errno, "mmap");
    mr_close(&fd);
    mr_hold_wait("");
    (void)munmap(map, MAP_BYTES);
    return 0;
}

static int copy_own_program(const char *path, struct mr_err *err)
{
    struct stat st;

    MR_AUTO_CLOSE int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (from < 0 || fstat(from, &st) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "open our own program");
    (void)unlink(path);
    MR_AUTO_CLOSE int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    if (to < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create '%s'", path);
    for (off_t left = st.st_size; left > 0;) {
        ssize_t sent = sendfile(to, from, NULL, (size_t)left);
        if (sent <= 0)
            return mr_fail(err, MR_E_INTERNAL, sent < 0 ? errno : EIO, "write '%s'",
                           path);
        left -= sent;
    }
    return 0;
}

/* This process becomes a program on the volume, which then says "ready" itself. */
static int program(const struct mr_hold_site *site, struct mr_err *err)
{
    char path[PATH_MAX];
    char idle[] = "idle";
    char *argv[] = {path, idle, NULL};

    if (mr_format(path, sizeof(path), "%s/program", site->mount_path) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "'%s'", site->mount_path);
    int rc = copy_own_program(path, err);
    if (rc < 0)
        return rc;
    (void)execv(path, argv);
    return mr_fail(err, MR_E_INTERNAL, errno, "run '%s'", path);
}

static int unix_socket(const struct mr_hold_site *site, struct mr_err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (mr_format(address.sun_path, sizeof(address.sun_path), "%s/socket",
                  site->mount_path) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "name a socket in '%s'",
                       site->mount_path);
    (void)unlink(address.sun_path);
    MR_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "bind '%s'", address.sun_path);
    mr_hold_wait("");
    return 0;
}

static int file_in_flight(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    int rc = mr_hold_new_file(site, "sent-file", &fd, err);
    return rc < 0 ? rc : mr_hold_in_flight(&fd, err);
}

/* A socket that waits in its own queue, and the file behind it: no process has them,
 * until the kernel collects them, at the latest when another AF_UNIX socket closes. */
static int socket_cycle(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    int pair[2];

    int rc = mr_hold_new_file(site, "lost-file", &fd, err);
    if (rc < 0)
        return rc;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create a socket pair");
    rc = mr_hold_send_fd(pair[0], fd, err);
    if (rc == 0)
        rc = mr_hold_send_fd(pair[0], pair[1], err);
    mr_close(&fd);
    mr_close(&pair[0]);
    mr_close(&pair[1]);
    if (rc == 0)
        mr_hold_wait("");
    return rc;
}

static int inotify_watch(const struct mr_hold_site *site, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = inotify_init1(IN_CLOEXEC);
    if (fd < 0 || inotify_add_watch(fd, site->mount_path, IN_OPEN) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "watch '%s'", site->mount_path);
    mr_hold_wait("");
    return 0;
}

static const struct mr_hold_kind kinds[] = {
    {"open-file", "an open file", MR_HOLD_UNMOUNT, {"open-file"}, open_file},
    {"thread-file",
     "a file in one thread's own fd table",
     MR_HOLD_UNMOUNT,
     {"open-file"},
     thread_file},
    {"cwd", "a working directory", MR_HOLD_UNMOUNT, {"cwd"}, working_directory},
    {"root", "a root directory: chroot(2)", MR_HOLD_UNMOUNT, {"root"}, root_directory},
    {"mmap", "a mapped file, its fd closed", MR_HOLD_UNMOUNT, {"mmap"}, mapping},
    {"exe", "a running program", MR_HOLD_UNMOUNT, {"exe"}, program},
    {"unix-socket",
     "a bound AF_UNIX socket",
     MR_HOLD_UNMOUNT,
     {"unix-socket"},
     unix_socket},
    {"file-in-flight",
     "a file under way in a socket",
     MR_HOLD_UNMOUNT,
     {"in-flight-fd"},
     file_in_flight},
    {"socket-cycle",
     "a file in a cycle of closed sockets",
     MR_HOLD_PASSING,
     {NULL},
     socket_cycle},
    {"inotify", "an inotify watch (no holder)", MR_HOLD_NOTHING, {NULL}, inotify_watch},
};

const struct mr_hold_family mr_hold_files = {"files of processes", kinds,
                                             sizeof(kinds) / sizeof(kinds[0])};
