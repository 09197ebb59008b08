/* SPDX-License-Identifier: Apache-2.0
 *
 * A real loop device with ext4, programs that hold it, and the scan itself in a child,
 * for the holder-scan tests. All in a private mount namespace; the loop devices clear
 * themselves when the test ends (AUTOCLEAR), its children die with it. Needs root:
 * skipped (77) without.
 */
#ifndef MR_TESTS_UNIT_TEST_SCAN_ENV_H
#define MR_TESTS_UNIT_TEST_SCAN_ENV_H

#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/mountid.h"
#include "storage/base/msg.h"
#include "storage/base/spawn.h"
#include "storage/base/statmount.h"
#include "storage/worker/scan.h"
#include "tests/unit/deny_syscall.h"
#include "tests/unit/test_scan_hold.h"

#define MIB (1024LL * 1024)
#define ENV_PATH 256
#define ENV_LIMIT_S 300
#define ENV_SCAN_LIMIT_MS 5000
#define ENV_DEADLINE_MS 4000

struct env_loop {
    int fd; /* keeps it bound */
    char node[32];
    dev_t dev;
    uint64_t diskseq;
};

/* The answer of one scan for one target. */
struct env_answer {
    bool complete;
    int64_t elapsed_ms;
    struct json_object *rows;
};

static char env_dir[64];  /* a tmpfs of our own */
static char env_mnt[80];  /* where the volume is mounted */
static char env_hold[80]; /* copy of this program */
static struct env_loop env_dev;
static struct mr_mount_id env_own; /* our mount, id 0 none */
static int64_t env_slowest_ms;
static bool env_pid_space;    /* run in a pid namespace of its own */
static bool env_held;         /* the targets are said to be held */
static bool env_no_statmount; /* the scan may not use statmount(2) */
static int env_fanotify = -1;

static inline const char *env_path(char dst[ENV_PATH], const char *dir, const char *name)
{
    assert_int_equal(mr_format(dst, ENV_PATH, "%s/%s", dir, name), 0);
    return dst;
}

static inline void env_run(const char *const *argv)
{
    char output[2000] = "";
    struct mr_err err = {0};

    int r = mr_spawn_run(argv, NULL, 0, mr_now_ns() + 60 * MR_NS_PER_S, output,
                         sizeof(output), &err);
    if (r != 0)
        print_error("%s: %d %s %s\n", argv[0], r, output, err.message);
    assert_int_equal(r, 0);
}
#define ENV_RUN(...) env_run((const char *const[]){__VA_ARGS__, NULL})

/* Binds a free loop device to the open file; it clears itself after env_loop_close(). */
static inline void env_loop_open(struct env_loop *loop, int backing_fd)
{
    const struct loop_config config = {.fd = (uint32_t)backing_fd,
                                       .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
    MR_AUTO_CLOSE int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    struct stat st;
    char seq[32];

    loop->fd = -1;
    for (int i = 0; loop->fd < 0 && i < 50; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        assert_true(number >= 0);
        (void)snprintf(loop->node, sizeof(loop->node), "/dev/loop%d", number);
        loop->fd = open(loop->node, O_RDWR | O_CLOEXEC);
        if (loop->fd >= 0 && ioctl(loop->fd, LOOP_CONFIGURE, &config) < 0)
            mr_close(&loop->fd); /* somebody was faster */
    }
    assert_true(loop->fd >= 0);
    assert_int_equal(fstat(loop->fd, &st), 0);
    loop->dev = st.st_rdev;
    assert_true(mr_sysfs_block_attr(major(loop->dev), minor(loop->dev), "diskseq", seq,
                                    sizeof(seq)) > 0);
    loop->diskseq = strtoull(seq, NULL, 10);
}

static inline void env_loop_file(struct env_loop *loop, const char *name, off_t bytes)
{
    char path[ENV_PATH];
    MR_AUTO_CLOSE int fd =
        open(env_path(path, env_dir, name), O_CREAT | O_RDWR | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, bytes), 0);
    env_loop_open(loop, fd);
}

static inline bool env_loop_is_bound(const struct env_loop *loop)
{
    char path[ENV_PATH];

    assert_int_equal(mr_format(path, sizeof(path), "/sys/block/%s/loop", loop->node + 5),
                     0);
    return access(path, F_OK) == 0;
}

static inline void env_loop_close(struct env_loop *loop)
{
    mr_close(&loop->fd);
    for (int i = 0; i < 2000 && env_loop_is_bound(loop); i++)
        mr_sleep_ns(MR_NS_PER_MS);
    assert_false(env_loop_is_bound(loop));
}

static inline void env_mount_as(const char *type)
{
    assert_int_equal(mount(env_dev.node, env_mnt, type, 0, NULL), 0);
    assert_int_equal(mr_mount_id_at(AT_FDCWD, env_mnt, &env_own), 0);
}

static inline void env_umount(int flags)
{
    int r;

    for (int i = 0; (r = umount2(env_mnt, flags)) < 0 && errno == EBUSY && i < 100; i++)
        mr_sleep_ns(10 * MR_NS_PER_MS);
    assert_int_equal(r, 0);
    env_own = (struct mr_mount_id){0};
}

/* Starts a program that holds PATH in this way, and waits until it does. */
static inline pid_t env_start(const char *program, const char *kind, const char *path)
{
    const char *const argv[] = {program, "--hold", kind, path, NULL};
    struct mr_spawn spawn = {.argv = argv, .stderr_fd = -1};
    char text[200] = "";
    int out[2];
    pid_t pid = 0;

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    MR_AUTO_CLOSE int reader = out[0];
    MR_AUTO_CLOSE int writer = out[1];
    spawn.stdout_fd = writer;
    assert_int_equal(mr_spawn_start(&spawn, &pid, NULL, NULL), 0);
    mr_close(&writer);
    struct pollfd ready = {.fd = reader, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 10000), 1);
    assert_true(read(reader, text, sizeof(text) - 1) > 0);
    if (strcmp(text, "ok\n") != 0)
        fail_msg("%s %s: %s", kind, path, text);
    return pid;
}

static inline void env_stop(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static inline struct json_object *env_target(const struct env_loop *loop)
{
    struct json_object *target = json_object_new_object();
    struct json_object *own = json_object_new_object();

    mr_json_set_int(own, "id", (int64_t)env_own.id);
    mr_json_set_bool(own, "unique", env_own.unique);
    mr_json_set_string(own, "root", "/");
    mr_json_set_string(own, "path", env_mnt + 1);
    mr_json_set_string(target, "volume", loop->node);
    mr_json_set_int(target, "major", (int64_t)major(loop->dev));
    mr_json_set_int(target, "minor", (int64_t)minor(loop->dev));
    mr_json_set_int(target, "diskseq", (int64_t)loop->diskseq);
    mr_json_set_string(target, "node", loop->node);
    mr_json_set_string(target, "mount_path", env_mnt);
    mr_json_set(target, "own_mount", own);
    mr_json_set_bool(target, "held", env_held);
    return target;
}

static inline struct json_object *env_receive(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    struct json_object *message = NULL;

    assert_int_equal(poll(&ready, 1, ENV_SCAN_LIMIT_MS), 1); /* else the scan hangs */
    assert_int_equal(mr_msg_recv(fd, &message, NULL, 0, NULL), 1);
    return message;
}

/* One scan of several devices. The rows are the caller's to put. */
static inline void env_scan_all(const struct env_loop *const *loops, size_t count,
                                int deadline_ms, struct env_answer *ret)
{
    MR_AUTO_JSON struct json_object *command = json_object_new_object();
    struct json_object *targets = json_object_new_array();
    int pair[2];
    int status = -1;

    for (size_t i = 0; i < count; i++)
        (void)json_object_array_add(targets, env_target(loops[i]));
    mr_json_set_string(command, "cmd", "scan");
    mr_json_set_int(command, "deadline_ms", deadline_ms);
    mr_json_set(command, "targets", targets);
    assert_int_equal(mr_msg_pair(pair, NULL), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(pair[0]);
        if (env_no_statmount && !deny_syscall(SYS_statmount))
            _exit(1);
        _exit(mr_scan_main(pair[1], env_fanotify));
    }
    (void)close(pair[1]);
    assert_int_equal(mr_msg_send(pair[0], command, -1, 0, NULL), 0);
    for (size_t i = 0; i < count; i++) {
        MR_AUTO_JSON struct json_object *message = env_receive(pair[0]);
        assert_string_equal(mr_json_get_string(message, "scan"), loops[i]->node);
        ret[i].complete = mr_json_get_bool(message, "complete", false);
        ret[i].rows = json_object_get(mr_json_get(message, "holders"));
    }
    MR_AUTO_JSON struct json_object *done = env_receive(pair[0]);
    assert_true(mr_json_get_bool(done, "done", false));
    for (size_t i = 0; i < count; i++)
        ret[i].elapsed_ms = mr_json_get_int(done, "elapsed_ms", -1);
    if (ret[0].elapsed_ms > env_slowest_ms)
        env_slowest_ms = ret[0].elapsed_ms;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    (void)close(pair[0]);
}

static inline struct env_answer env_scan_of(const struct env_loop *loop)
{
    struct env_answer answer = {0};

    env_scan_all(&loop, 1, ENV_DEADLINE_MS, &answer);
    return answer;
}

static inline struct json_object *env_scan(void)
{
    return env_scan_of(&env_dev).rows;
}

static inline size_t env_count(struct json_object *rows)
{
    return json_object_array_length(rows);
}

/* The row of this kind and, unless NULL, path; NULL when there is none. Borrowed. */
static inline struct json_object *env_row(struct json_object *rows, const char *kind,
                                          const char *path)
{
    for (size_t i = 0; i < env_count(rows); i++) {
        struct json_object *row = json_object_array_get_idx(rows, i);
        const char *has = mr_json_get_string(row, "path");
        if (strcmp(mr_json_get_string(row, "kind"), kind) == 0 &&
            (!path || (has && strcmp(has, path) == 0)))
            return row;
    }
    return NULL;
}

/* There must be a row of this kind and path, and it must name that process. */
static inline struct json_object *env_expect(struct json_object *rows, const char *kind,
                                             const char *path, pid_t pid)
{
    struct json_object *row = env_row(rows, kind, path);

    if (!row || mr_json_get_int(row, "pid", 0) != pid)
        fail_msg("no %s of pid %d at %s in %s", kind, pid, path ? path : "(any)",
                 json_object_to_json_string(rows));
    return row;
}

static inline void env_expect_none(struct json_object *rows)
{
    if (env_count(rows) != 0)
        fail_msg("nothing holds it, but: %s", json_object_to_json_string(rows));
}

static inline int env_make_device(void **state)
{
    (void)state;
    env_loop_file(&env_dev, "volume.img", 48 * MIB);
    ENV_RUN("/sbin/mkfs.ext4", "-q", "-F", env_dev.node);
    return 0;
}

static inline int env_drop_device(void **state)
{
    (void)state;
    env_loop_close(&env_dev);
    print_message("slowest scan: %lld ms\n", (long long)env_slowest_ms);
    return 0;
}

/* The volume with one file in it. */
static inline int env_mount(void **state)
{
    char path[ENV_PATH];

    (void)state;
    env_mount_as("ext4");
    int fd = open(env_path(path, env_mnt, "file"), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, 8192) < 0)
        return -1;
    return close(fd);
}

/* Whatever a test left: nothing may hold the device in the next one. */
static inline int env_unmount(void **state)
{
    (void)state;
    while (umount2(env_mnt, MNT_DETACH) == 0)
        ;
    env_own = (struct mr_mount_id){0};
    return 0;
}

static inline int env_copy_self(void)
{
    MR_AUTO_CLOSE int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    MR_AUTO_CLOSE int to = open(env_hold, O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
    char chunk[8192];
    ssize_t len;

    while ((len = read(from, chunk, sizeof(chunk))) > 0)
        if (mr_write_all(to, chunk, (size_t)len) < 0)
            return -1;
    return (int)len;
}

static inline int env_in_pid_space(int (*run)(void))
{
    int status = 1;

    pid_t pid = unshare(CLONE_NEWPID) == 0 ? fork() : -1;
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(mount("none", "/proc", "proc", 0, NULL) == 0 ? run() : 1);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* A mount namespace may be bound to a file only where it is newer than the one it is
 * bound in (fs/namespace.c mnt_ns_loop()). Linux 6.18 hands out their ids in batches per
 * CPU, so newer is certain only on the same CPU. */
static inline void env_stay_on_this_cpu(void)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET((unsigned)sched_getcpu(), &cpus);
    (void)sched_setaffinity(0, sizeof(cpus), &cpus);
}

static inline int env_child(int (*run)(void))
{
    (void)alarm(ENV_LIMIT_S);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    env_stay_on_this_cpu();
    (void)snprintf(env_mnt, sizeof(env_mnt), "%s/mnt", env_dir);
    (void)snprintf(env_hold, sizeof(env_hold), "%s/hold", env_dir);
    if (unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", env_dir, "tmpfs", 0, "size=600m") < 0 || mkdir(env_mnt, 0755) < 0 ||
        env_copy_self() < 0) {
        perror("private mount namespace");
        return 1;
    }
    return env_pid_space ? env_in_pid_space(run) : run();
}

static inline int env_main(int argc, char **argv, int (*run)(void))
{
    int status = 1;

    if (argc == 4 && strcmp(argv[1], "--hold") == 0)
        return hold_main(argv);
    if (geteuid() != 0) {
        (void)fprintf(stderr, "SKIPPED: needs root for loop devices and mounts\n");
        return 77;
    }
    (void)snprintf(env_dir, sizeof(env_dir), "/tmp/mooring-scan-XXXXXX");
    if (!mkdtemp(env_dir))
        return 1;
    pid_t pid = fork();
    if (pid == 0)
        _exit(env_child(run));
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return 1;
    (void)rmdir(env_dir);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

#endif
