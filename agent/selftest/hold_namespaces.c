/* SPDX-License-Identifier: Apache-2.0
 *
 * Holders that are copies of the mount in other mount namespaces: umount(2) ends ours,
 * and theirs stay.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/selftest/hold.h"
#include "storage/base/cleanup.h"
#include "storage/base/fd.h"

#define NOBODY 65534

static int enter_copy(const struct mr_hold_site *site, struct mr_err *err)
{
    struct stat before;
    struct stat after;

    if (stat(site->mount_path, &before) < 0 || unshare(CLONE_FS | CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "copy the mount namespace");
    if (stat(site->mount_path, &after) < 0 || before.st_dev != after.st_dev)
        return mr_fail(err, MR_E_INTERNAL, ENOENT, "the copy has no '%s'",
                       site->mount_path);
    return 0;
}

static int mount_copy(const struct mr_hold_site *site, struct mr_err *err)
{
    int rc = enter_copy(site, err);
    if (rc == 0)
        mr_hold_wait("");
    return rc;
}

static int thread_copy(const struct mr_hold_site *site, struct mr_err *err)
{
    return mr_hold_in_thread(enter_copy, site, err);
}

/* As any user can have it: the mounts in it are locked, nobody inside can unmount them.
 */
static int userns_copy(const struct mr_hold_site *site, struct mr_err *err)
{
    (void)site;
    if (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "become nobody");
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "make an unprivileged user namespace");
    mr_hold_wait("");
    return 0;
}

/* --- copies without a process: a child makes the namespace, and something else keeps it
 * --- */

struct copy_child {
    pid_t pid;
    int alive_fd; /* the child ends when it closes */
};

static void end_child(struct copy_child *child)
{
    mr_close(&child->alive_fd);
    while (child->pid > 0 && waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    child->pid = 0;
}

static _Noreturn void child_main(const struct mr_hold_site *site, int cpu, int ready_fd,
                                 int alive_fd)
{
    struct mr_err err;
    cpu_set_t set;
    char byte = 0;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0 || enter_copy(site, &err) < 0)
        _exit(1);
    if (write(ready_fd, &byte, 1) == 1)
        (void)!read(alive_fd, &byte, 1);
    _exit(0);
}

/* A child in a copy that was made on this CPU. */
static int start_child(const struct mr_hold_site *site, int cpu, struct copy_child *ret,
                       struct mr_err *err)
{
    int ready[2];
    int alive[2];
    char byte;

    if (pipe2(ready, O_CLOEXEC) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create a pipe");
    MR_AUTO_CLOSE int ready_read = ready[0];
    MR_AUTO_CLOSE int ready_write = ready[1];
    if (pipe2(alive, O_CLOEXEC) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create a pipe");
    MR_AUTO_CLOSE int alive_read = alive[0];
    MR_AUTO_CLOSE int alive_write = alive[1];
    pid_t pid = fork();
    if (pid < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "fork");
    if (pid == 0) {
        (void)close(ready_read);
        (void)close(alive_write);
        child_main(site, cpu, ready_write, alive_read);
    }
    *ret = (struct copy_child){.pid = pid, .alive_fd = mr_take_fd(&alive_write)};
    mr_close(&ready_write);
    if (read(ready_read, &byte, 1) != 1) {
        end_child(ret);
        return mr_fail(err, MR_E_INTERNAL, EIO, "a copy of the mount namespace failed");
    }
    return 0;
}

/* Opens /proc/CHILD/NAME, then lets the child die. */
static int hold_through_child(const struct mr_hold_site *site, const char *name,
                              int flags, struct mr_err *err)
{
    struct copy_child child = {.alive_fd = -1};
    char path[PATH_MAX];

    int rc = start_child(site, 0, &child, err);
    if (rc < 0)
        return rc;
    (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)child.pid, name);
    MR_AUTO_CLOSE int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        rc = mr_fail(err, MR_E_INTERNAL, errno, "open '%s'", path);
    end_child(&child);
    if (rc == 0)
        mr_hold_wait("");
    return rc;
}

static int namespace_fd(const struct mr_hold_site *site, struct mr_err *err)
{
    return hold_through_child(site, "ns/mnt", O_RDONLY, err);
}

static int mountinfo_fd(const struct mr_hold_site *site, struct mr_err *err)
{
    return hold_through_child(site, "mountinfo", O_RDONLY, err);
}

static int path_in_dead_copy(const struct mr_hold_site *site, struct mr_err *err)
{
    char name[PATH_MAX];

    if (mr_format(name, sizeof(name), "root%s", site->mount_path) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "'%s'", site->mount_path);
    return hold_through_child(site, name, O_PATH, err);
}

/* The root of the same dead namespace holds that root, not what was mounted below. */
static int root_of_dead_copy(const struct mr_hold_site *site, struct mr_err *err)
{
    return hold_through_child(site, "root", O_PATH, err);
}

/* A namespace can only be bound in one with a lower id (fs/namespace.c mnt_ns_loop()),
 * and Linux 6.18 hands out ids in batches by CPU, so that a younger one may have a lower
 * id: every CPU is tried. */
static int bind_namespace(const struct mr_hold_site *site, const char *pin,
                          struct mr_err *err)
{
    for (int cpu = 0; cpu < get_nprocs(); cpu++) {
        struct copy_child child = {.alive_fd = -1};
        char path[64];

        int rc = start_child(site, cpu, &child, err);
        if (rc < 0)
            return rc;
        (void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)child.pid);
        rc = mount(path, pin, NULL, MS_BIND, NULL) == 0 ? 0 : errno;
        end_child(&child);
        if (rc == 0)
            return 0;
        if (rc != EINVAL)
            return mr_fail(err, MR_E_INTERNAL, rc, "bind a namespace on '%s'", pin);
    }
    return mr_fail(err, MR_E_INTERNAL, EINVAL, "bind a namespace on '%s'", pin);
}

static int namespace_bind(const struct mr_hold_site *site, struct mr_err *err)
{
    char pin[PATH_MAX];

    if (mr_format(pin, sizeof(pin), "%s/nsfs-pin", site->dir) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "'%s'", site->dir);
    MR_AUTO_CLOSE int fd = open(pin, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create '%s'", pin);
    mr_close(&fd);
    int rc = bind_namespace(site, pin, err);
    if (rc < 0)
        return rc;
    mr_hold_wait("");
    return mr_hold_unmount(pin, err);
}

static const struct mr_hold_kind kinds[] = {
    {"mount-copy",
     "a process in a copy of the mount namespace",
     MR_HOLD_DRAIN,
     {"mount-copy"},
     mount_copy},
    {"thread-copy", "one thread in a copy", MR_HOLD_DRAIN, {"mount-copy"}, thread_copy},
    {"userns-copy",
     "a locked copy in a user's namespace",
     MR_HOLD_DRAIN,
     {"mount-copy"},
     userns_copy},
    {"nsfs-bind",
     "a copy without process, bound on a file",
     MR_HOLD_DRAIN,
     {"mount-copy"},
     namespace_bind},
    {"ns-fd",
     "a copy without process, in an fd",
     MR_HOLD_DRAIN,
     {"mount-copy"},
     namespace_fd},
    {"mountinfo-fd",
     "a copy kept by an open mountinfo file",
     MR_HOLD_DRAIN,
     {"mount-copy"},
     mountinfo_fd},
    {"dead-path",
     "an O_PATH fd into a copy that is gone",
     MR_HOLD_DRAIN,
     {"detached-mount"},
     path_in_dead_copy},
    {"dead-root",
     "an O_PATH fd on the root of one (no holder)",
     MR_HOLD_NOTHING,
     {NULL},
     root_of_dead_copy},
};

const struct mr_hold_family mr_hold_namespaces = {
    "copies in other mount namespaces", kinds, sizeof(kinds) / sizeof(kinds[0])};
