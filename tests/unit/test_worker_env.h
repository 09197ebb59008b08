/* SPDX-License-Identifier: Apache-2.0
 *
 * Real loop devices and mounts for the worker's unit tests. The tests run in a child with
 * a mount namespace of its own and a time limit; the parent clears whatever loop device
 * is still bound to a file of the test's folder, also when the child crashed. Needs root:
 * skipped (77) without.
 */
#ifndef MR_TESTS_UNIT_TEST_WORKER_ENV_H
#define MR_TESTS_UNIT_TEST_WORKER_ENV_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/spawn.h"
#include "storage/worker/claim.h"
#include "storage/worker/driver.h"
#include "storage/worker/mounter.h"

#define MIB (1024LL * 1024)
#define ENV_XFS_BYTES (320 * MIB) /* mkfs.xfs makes nothing below 300 MiB */
#define ENV_SMALL_BYTES (16 * MIB)
#define ENV_LIMIT_S 50 /* below the time limit of the test run, so that we clean up */
#define ENV_PATH 256

static char env_dir[64];    /* the test's folder */
static char env_images[80]; /* configured file root */
static char env_mounts[80]; /* configured mount root */

static inline const char *env_path(char dst[ENV_PATH], const char *dir, const char *name)
{
    assert_int_equal(mr_format(dst, ENV_PATH, "%s/%s", dir, name), 0);
    return dst;
}

/* A token that no other test uses. */
static inline const char *env_token(char dst[MR_TOKEN_TEXT])
{
    assert_int_equal(mr_random_hex(16, dst), 0);
    return dst;
}

static inline const char *env_image(char dst[ENV_PATH], const char *name, off_t bytes)
{
    (void)unlink(env_path(dst, env_images, name));
    MR_AUTO_CLOSE int fd = open(dst, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, bytes), 0);
    return dst;
}

static inline int env_try_map(const char *token, const char *path, bool read_only,
                              struct mr_identity *ret, struct mr_err *err)
{
    const char *roots[] = {env_images, NULL};
    MR_AUTO_JSON struct json_object *source = json_object_new_object();
    struct mr_spec spec = {.driver = "file", .source = source, .read_only = read_only};
    struct mr_map_request request = {
        .token = token,
        .spec = &spec,
        .runtime_dir = env_dir,
        .libexec_dir = env_dir,
        .initiator_name = "",
        .file_roots = roots,
    };

    mr_json_set_string(source, "path", path);
    return mr_driver_file.map(&request, ret, err);
}

/* A fresh sparse image of this size, mapped. */
static inline void env_map(const char *name, off_t bytes, char token[MR_TOKEN_TEXT],
                           struct mr_identity *ret)
{
    char path[ENV_PATH];
    struct mr_err err = {0};

    int r = env_try_map(env_token(token), env_image(path, name, bytes), false, ret, &err);
    if (r != 0)
        print_error("map: %s\n", err.message);
    assert_int_equal(r, 0);
}

static inline bool env_wait_gone(const struct mr_identity *identity)
{
    for (int64_t end_ns = mr_now_ns() + 5 * MR_NS_PER_S; mr_now_ns() < end_ns;) {
        if (mr_device_present(identity) == MR_ABSENT_NOW)
            return true;
        mr_sleep_ns(MR_NS_PER_MS);
    }
    return false;
}

/* Claim, unmap, and wait until the kernel shows it gone. */
static inline void env_unmap(const char *token, const struct mr_identity *identity)
{
    struct mr_err err = {0};
    unsigned tries = 0;
    int fd = -1;

    enum mr_claim_result result = mr_claim(identity, 3000, &fd, &tries, &err);
    assert_int_equal(result, MR_CLAIM_OK);
    assert_int_equal(mr_driver_file.unmap(token, env_dir, identity, fd, &err), 0);
    assert_true(env_wait_gone(identity));
}

/* Runs a tool that must succeed. */
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

static inline void env_clear_loops(void)
{
    DIR *dir = opendir("/sys/block");
    char path[ENV_PATH];
    char backing[ENV_PATH];

    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        if (mr_format(path, sizeof(path), "/sys/block/%s/loop/backing_file",
                      entry->d_name) < 0 ||
            mr_read_text(AT_FDCWD, path, backing, sizeof(backing)) <= 0 ||
            strncmp(backing, env_dir, strlen(env_dir)) != 0 ||
            mr_format(path, sizeof(path), "/dev/%s", entry->d_name) < 0)
            continue;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            (void)ioctl(fd, LOOP_CLR_FD, 0);
            (void)close(fd);
        }
        (void)fprintf(stderr, "left bound by the test: %s\n", path);
    }
    if (dir)
        (void)closedir(dir);
}

static inline int env_child(int (*run)(void))
{
    (void)alarm(ENV_LIMIT_S);
    if (unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mkdir(env_images, 0755) < 0 || mkdir(env_mounts, 0755) < 0) {
        perror("private mount namespace");
        return 1;
    }
    return run();
}

static inline int env_main(int (*run)(void))
{
    int status = 1;

    if (geteuid() != 0) {
        (void)fprintf(stderr, "SKIPPED: needs root for loop devices and mounts\n");
        return 77;
    }
    (void)snprintf(env_dir, sizeof(env_dir), "/tmp/mooring-worker-XXXXXX");
    if (!mkdtemp(env_dir))
        return 1;
    (void)chmod(env_dir, 0755);
    (void)snprintf(env_images, sizeof(env_images), "%s/images", env_dir);
    (void)snprintf(env_mounts, sizeof(env_mounts), "%s/mounts", env_dir);
    pid_t pid = fork();
    if (pid == 0)
        _exit(env_child(run));
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return 1;
    env_clear_loops();
    char output[200];
    const char *const rm[] = {"/bin/rm", "-rf", "--one-file-system", env_dir, NULL};
    (void)mr_spawn_run(rm, NULL, 0, mr_now_ns() + 20 * MR_NS_PER_S, output,
                       sizeof(output), NULL);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

#endif
