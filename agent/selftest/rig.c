/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/selftest/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/selftest/sweep.h"
#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"

#define TICK_NS (2 * MR_NS_PER_MS)
#define WORKER_LIMIT_NS (20 * MR_NS_PER_S)

/* --- waiting --- */

static void on_tick(void *ctx)
{
    struct mr_rig *rig = ctx;

    if (rig->until(rig->ctx))
        rig->waited = 0;
    else if (rig->signal && !rig->patient)
        rig->waited = -EINTR;
    else if (mr_now_ns() > rig->give_up_ns)
        rig->waited = -ETIMEDOUT;
    else {
        mr_timer_set(&rig->tick, mr_now_ns() + TICK_NS);
        return;
    }
    mr_loop_stop(rig->loop);
}

int mr_rig_wait(struct mr_rig *rig, bool (*until)(void *ctx), void *ctx, int64_t limit_ms)
{
    rig->until = until;
    rig->ctx = ctx;
    rig->give_up_ns = mr_now_ns() + limit_ms * MR_NS_PER_MS;
    mr_timer_set(&rig->tick, 0);
    int rc = mr_loop_run(rig->loop, NULL);
    mr_timer_cancel(&rig->tick);
    return rc < 0 ? rc : rig->waited;
}

static void on_signal(void *ctx, uint32_t events)
{
    struct mr_rig *rig = ctx;
    struct signalfd_siginfo info;
    (void)events;

    while (read(rig->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        rig->signal = (int)info.ssi_signo;
}

static int catch_signals(struct mr_rig *rig, struct mr_err *err)
{
    sigset_t set;

    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    rig->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (rig->signal_fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "signalfd");
    return mr_loop_add(rig->loop, rig->signal_fd, EPOLLIN, on_signal, rig,
                       &rig->signal_io, err);
}

/* --- what it takes --- */

static bool in_user_namespace(void)
{
    char map[128] = "";

    if (mr_read_text(AT_FDCWD, "/proc/self/uid_map", map, sizeof(map)) < 0)
        return false; /* a kernel without them */
    /* user_namespaces(7): the initial one maps everything to itself. */
    return strcmp(map + strspn(map, " "), "0          0 4294967295") != 0;
}

static int check_rights(struct mr_err *err)
{
    char link[64] = "";

    if (geteuid() != 0)
        return mr_fail(err, MR_E_INTERNAL, 0,
                       "the self test maps and mounts devices: it must run as root");
    if (in_user_namespace())
        return mr_fail(err, MR_E_INTERNAL, 0,
                       "this is a user namespace: its root may not map devices; run the "
                       "self test on the host");
    /* include/linux/proc_ns.h PROC_PID_INIT_INO */
    if (readlink("/proc/self/ns/pid", link, sizeof(link) - 1) < 0 ||
        strcmp(link, "pid:[4026531836]") != 0)
        return mr_fail(err, MR_E_INTERNAL, 0,
                       "this is a child PID namespace: the kernel hides the processes "
                       "and mounts of others here; run the self test on the host "
                       "(docker: --pid=host)");
    return 0;
}

/* What we mount is seen by nobody else, and the other way. */
static int hide_mounts(struct mr_err *err)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno,
                       "make a mount namespace (CAP_SYS_ADMIN is needed)");
    return 0;
}

static int find_program(struct mr_rig *rig, struct mr_err *err)
{
    ssize_t bytes = readlink("/proc/self/exe", rig->program, sizeof(rig->program) - 1);
    if (bytes < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "find our own program");
    rig->program[bytes] = '\0';
    (void)snprintf(rig->config.libexec_dir, sizeof(rig->config.libexec_dir), "%.*s",
                   (int)(strrchr(rig->program, '/') - rig->program), rig->program);
    return 0;
}

static int make_directories(struct mr_rig *rig, struct mr_err *err)
{
    const char *base = getenv("TMPDIR");
    struct mr_config *config = &rig->config;
    const struct {
        const char *name;
        char *path;
    } dirs[] = {{"state", config->state_dir},
                {"run", config->runtime_dir},
                {"mnt", rig->mount_root},
                {"images", rig->file_root}};
    char dir[sizeof(rig->dir)];

    if (mr_format(dir, sizeof(dir), "%s/mooring-selftest-XXXXXX",
                  base && base[0] == '/' ? base : "/tmp") < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "TMPDIR");
    if (!mkdtemp(dir))
        return mr_fail(err, MR_E_INTERNAL, errno, "create '%s'", dir);
    (void)snprintf(rig->dir, sizeof(rig->dir), "%s", dir);
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        (void)snprintf(dirs[i].path, PATH_MAX, "%s/%s", dir, dirs[i].name);
        /* Nobody but root gets through the directory above; the copy in a user's
         * namespace belongs to somebody else. */
        if (mkdir(dirs[i].path, 0755) < 0)
            return mr_fail(err, MR_E_INTERNAL, errno, "create '%s'", dirs[i].path);
    }
    config->mount_roots = (struct mr_roots){.path = {rig->mount_root}, .count = 1};
    config->file_roots = (struct mr_roots){.path = {rig->file_root}, .count = 1};
    return 0;
}

static bool recovered(void *ctx)
{
    const struct mr_rig *rig = ctx;
    return !mr_engine_recovering(rig->engine);
}

int mr_rig_start(struct mr_rig *rig, struct mr_err *err)
{
    rig->signal_fd = -1;
    rig->config.worker_deadline_ns = WORKER_LIMIT_NS;
    rig->config.format_deadline_ns = WORKER_LIMIT_NS;
    rig->config.iscsi_timeout_ns = MR_NS_PER_S;
    (void)snprintf(rig->config.initiator_name, sizeof(rig->config.initiator_name),
                   "iqn.2026-11.org.mooring:selftest");
    int rc = check_rights(err);
    if (rc == 0)
        rc = find_program(rig, err);
    if (rc == 0)
        rc = hide_mounts(err);
    if (rc == 0)
        rc = mr_loop_new(&rig->loop, err);
    if (rc < 0)
        return rc;
    mr_timer_init(&rig->tick, rig->loop, on_tick, rig);
    rc = catch_signals(rig, err);
    if (rc == 0)
        rc = make_directories(rig, err);
    if (rc == 0)
        rc = mr_engine_new(rig->loop, &rig->config, &rig->engine, err);
    if (rc == 0)
        rc = mr_rig_wait(rig, recovered, rig, MR_STEP_LIMIT_MS);
    return rc;
}

void mr_rig_stop(struct mr_rig *rig, char *left, size_t size)
{
    mr_engine_free(rig->engine);
    mr_io_remove(rig->signal_io);
    mr_close(&rig->signal_fd);
    mr_loop_free(rig->loop);
    left[0] = '\0';
    if (rig->dir[0])
        mr_sweep(rig->dir, left, size);
}

int mr_rig_new_image(struct mr_rig *rig, const char *name, int64_t bytes,
                     char ret_path[PATH_MAX], struct mr_err *err)
{
    if (mr_format(ret_path, PATH_MAX, "%s/%s.img", rig->file_root, name) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "name an image");
    MR_AUTO_CLOSE int fd = open(ret_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, bytes) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create '%s'", ret_path);
    return 0;
}
