/* SPDX-License-Identifier: Apache-2.0
 *
 * Holds a volume in one way, says "ready", and lets go when stdin closes, so that it
 * cannot outlive the test. holder MODE ARGUMENT...: see the table at the end. Exit 0, or
 * 1 with the reason on stderr.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_BYTES 4096

static void say_ready(void)
{
    puts("ready");
    fflush(stdout);
}

/* True when stdin is closed within this time. */
static bool asked_to_end(int timeout_ms)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&input, 1, timeout_ms) > 0;
}

static void hold_until_asked(void)
{
    say_ready();
    while (!asked_to_end(-1))
        continue;
}

static void enter_copy(const char *mount_path)
{
    struct stat before;
    struct stat after;
    if (stat(mount_path, &before) < 0 || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        err(1, "copy of the mount namespace");
    if (stat(mount_path, &after) < 0 || before.st_dev != after.st_dev)
        errx(1, "the copy has no '%s'", mount_path);
}

static void mount_copy(char **argument)
{
    enter_copy(argument[0]);
    hold_until_asked();
}

static void *thread_main(void *argument)
{
    if (unshare(CLONE_FS) < 0)
        err(1, "unshare(CLONE_FS)");
    enter_copy(argument);
    say_ready();
    pause();
    return NULL;
}

static void thread_copy(char **argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, thread_main, argument[0]) != 0)
        errx(1, "pthread_create");
    while (!asked_to_end(-1))
        continue;
}

/* A child with a copy of the namespace, made on this CPU. *ret_ready is readable when it
 * is there. */
static pid_t start_copy(const char *mount_path, int cpu, int *ret_ready)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0)
        err(1, "pipe2");
    pid_t child = fork();
    if (child < 0)
        err(1, "fork");
    if (child == 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
            sched_setaffinity(0, sizeof(set), &set) < 0)
            err(1, "CPU %d", cpu);
        enter_copy(mount_path);
        if (write(ready[1], "", 1) != 1)
            err(1, "write");
        pause();
        _exit(0);
    }
    close(ready[1]);
    *ret_ready = ready[0];
    return child;
}

/* The child's namespace stays after the child, because it is bound on a file. A namespace
 * can only be bound in one with a lower id (fs/namespace.c mnt_ns_loop()), and Linux 6.18
 * hands out ids in batches by CPU, so that a younger one may have a lower id: every CPU
 * is tried. */
static void nsfs_bind(char **argument)
{
    bool bound = false;
    for (int cpu = 0; cpu < get_nprocs() && !bound; cpu++) {
        char path[64];
        char byte;
        int ready;
        pid_t child = start_copy(argument[0], cpu, &ready);
        if (read(ready, &byte, 1) != 1)
            errx(1, "the child failed");
        snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)child);
        bound = mount(path, argument[1], NULL, MS_BIND, NULL) == 0;
        if (!bound && errno != EINVAL)
            err(1, "bind '%s' on '%s'", path, argument[1]);
        close(ready);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    if (!bound)
        errx(1, "no namespace could be bound on '%s'", argument[1]);
    say_ready();
}

static void open_tree_clone(char **argument)
{
    long fd = syscall(SYS_open_tree, AT_FDCWD, argument[0],
                      OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd < 0)
        err(1, "open_tree '%s'", argument[0]);
    hold_until_asked();
}

static void open_path(char **argument)
{
    int fd = open(argument[0], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        err(1, "open '%s'", argument[0]);
    hold_until_asked();
}

/* The fd is in a message that nobody reads, and nowhere else. */
static void in_flight(char **argument)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec data = {.iov_base = "x", .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    int pair[2];
    int fd = open(argument[0], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        err(1, "open '%s'", argument[0]);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    if (sendmsg(pair[0], &message, 0) != 1)
        err(1, "sendmsg");
    close(fd);
    hold_until_asked();
}

static void change_directory(char **argument)
{
    if (chdir(argument[0]) < 0)
        err(1, "chdir '%s'", argument[0]);
    hold_until_asked();
}

static void write_all_the_time(char **argument)
{
    static char block[BLOCK_BYTES];
    unsigned long count = 0;
    int failed = 0;
    int fd = open(argument[0], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        err(1, "open '%s'", argument[0]);
    say_ready();
    while (!asked_to_end(2)) {
        memset(block, (int)(count & 0xff), sizeof(block));
        if (!failed &&
            (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block) || fsync(fd) < 0))
            failed = errno ? errno : EIO;
        if (!failed)
            count++;
    }
    if (failed)
        printf("error %d after %lu\n", failed, count);
    else
        printf("ok %lu\n", count);
}

static bool flag_is_one(const char *name, const char *file)
{
    char path[128];
    char byte = '0';
    snprintf(path, sizeof(path), "/sys/block/%.20s/loop/%s", name, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, &byte, 1) != 1)
            byte = '0';
        close(fd);
    }
    return byte == '1';
}

static bool superblock_alive(const char *name)
{
    char path[64];
    snprintf(path, sizeof(path), "/sys/fs/xfs/%.20s", name);
    return access(path, F_OK) == 0;
}

/* Watches one loop device: it must not be on its way out (autoclear) while an xfs lives
 * on it. */
static void observe(char **argument)
{
    unsigned long seen_alive = 0;
    unsigned long early = 0;
    struct timespec nap = {.tv_nsec = 300 * 1000};
    say_ready();
    while (!asked_to_end(0)) {
        if (superblock_alive(argument[0])) {
            seen_alive++;
            if (flag_is_one(argument[0], "autoclear") && superblock_alive(argument[0]))
                early++;
        }
        nanosleep(&nap, NULL);
    }
    printf("early %lu of %lu\n", early, seen_alive);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *mode;
        int arguments;
        void (*run)(char **argument);
    } modes[] = {
        {"mount-copy", 1, mount_copy},   /* MOUNT_PATH */
        {"thread-copy", 1, thread_copy}, /* MOUNT_PATH */
        {"nsfs-bind", 2, nsfs_bind}, /* MOUNT_PATH FILE; holds by the bind mount, ends */
        {"open-tree", 1, open_tree_clone}, /* MOUNT_PATH */
        {"open", 1, open_path},            /* FILE or device node */
        {"in-flight", 1, in_flight},       /* device node */
        {"cwd", 1, change_directory},      /* DIRECTORY */
        {"writer", 1, write_all_the_time}, /* FILE */
        {"observe", 1, observe},           /* loopN */
    };
    for (size_t i = 0; argc > 1 && i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(argv[1], modes[i].mode) == 0 && argc == 2 + modes[i].arguments) {
            modes[i].run(argv + 2);
            return 0;
        }
    }
    errx(1, "usage: holder MODE ARGUMENT...");
}
