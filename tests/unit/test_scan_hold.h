/* SPDX-License-Identifier: Apache-2.0
 *
 * The other side of the holder-scan tests: a program that holds a device in one named
 * way, says "ok" on its standard output and waits to be killed. It is a copy of the test
 * program, because the scan overlooks processes that run its own program.
 */
#ifndef MR_TESTS_UNIT_TEST_SCAN_HOLD_H
#define MR_TESTS_UNIT_TEST_SCAN_HOLD_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/test_scan_hold_kernel.h"

#define HOLD_LIMIT_S 120
#define HOLD_UID 12345

static inline _Noreturn void hold_for_ever(void)
{
    for (;;)
        (void)pause();
}

static inline bool hold_say(bool ok)
{
    (void)dprintf(STDOUT_FILENO, ok ? "ok\n" : "failed: %s\n", strerror(errno));
    return ok;
}

static inline bool hold_map(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED;

    (void)close(fd);
    return ok;
}

static inline void *hold_thread_space(void *path)
{
    (void)path;
    (void)hold_say(unshare(CLONE_FS | CLONE_NEWNS) == 0);
    hold_for_ever();
}

static inline void *hold_thread_file(void *path)
{
    (void)hold_say(unshare(CLONE_FILES) == 0 && open(path, O_RDONLY | O_CLOEXEC) >= 0);
    hold_for_ever();
}

static inline void *hold_thread_socket(void *path)
{
    (void)hold_say(unshare(CLONE_NEWNET) == 0 && hold_bind(path) >= 0);
    hold_for_ever();
}

static inline void *hold_thread_idle(void *path)
{
    (void)path;
    hold_for_ever();
}

static inline bool hold_in_thread(void *(*fn)(void *), char *path)
{
    pthread_t thread;
    return pthread_create(&thread, NULL, fn, path) == 0;
}

/* Two processes in one namespace; the first is chrooted to PATH. */
static inline bool hold_space_by_two(const char *path)
{
    if (unshare(CLONE_NEWNS) < 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)alarm(HOLD_LIMIT_S);
        hold_for_ever();
    }
    return pid > 0 && chroot(path) == 0;
}

/* The parent of a vfork(2) sleeps in D until the child execs or ends. */
static inline void hold_in_d(void)
{
    if (vfork() == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)alarm(HOLD_LIMIT_S);
        hold_for_ever();
    }
}

/* True when it holds. The threads say so themselves. */
static inline bool hold(const char *kind, char *path, bool *ret_said)
{
    if (strcmp(kind, "space") == 0)
        return unshare(CLONE_NEWNS) == 0;
    if (strcmp(kind, "chrooted-space") == 0)
        return unshare(CLONE_NEWNS) == 0 && chroot(path) == 0;
    if (strcmp(kind, "space-by-two") == 0)
        return hold_space_by_two(path);
    if (strcmp(kind, "file") == 0)
        return open(path, O_RDONLY | O_CLOEXEC) >= 0;
    if (strcmp(kind, "file-with-thread") == 0)
        return open(path, O_RDONLY | O_CLOEXEC) >= 0 &&
               hold_in_thread(hold_thread_idle, path);
    if (strcmp(kind, "file-as-user") == 0)
        return setresuid(HOLD_UID, HOLD_UID, HOLD_UID) == 0 &&
               open(path, O_RDONLY | O_CLOEXEC) >= 0;
    if (strcmp(kind, "opath") == 0)
        return open(path, O_PATH | O_CLOEXEC) >= 0;
    if (strcmp(kind, "tree") == 0)
        return open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC) >= 0;
    if (strcmp(kind, "cwd") == 0)
        return chdir(path) == 0;
    if (strcmp(kind, "root") == 0)
        return chroot(path) == 0;
    if (strncmp(kind, "mmap", 4) == 0)
        return hold_map(path);
    if (strcmp(kind, "nothing") == 0)
        return true;
    *ret_said = true;
    if (strcmp(kind, "thread-space") == 0)
        return hold_in_thread(hold_thread_space, path);
    if (strcmp(kind, "thread-file") == 0)
        return hold_in_thread(hold_thread_file, path);
    if (strcmp(kind, "thread-socket") == 0)
        return hold_in_thread(hold_thread_socket, path);
    *ret_said = false;
    return hold_by_kernel(kind, path);
}

/* argv: PROGRAM --hold KIND PATH. */
static inline int hold_main(char **argv)
{
    bool said = false;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)alarm(HOLD_LIMIT_S);
    bool ok = hold(argv[2], argv[3], &said);
    if (!said && !hold_say(ok))
        return 1;
    if (strcmp(argv[2], "mmap-in-d") == 0)
        hold_in_d();
    hold_for_ever();
}

#endif
