/* SPDX-License-Identifier: Apache-2.0
 *
 * FUSE servers that answer until they are told to be mute, and loop devices on their
 * files, as mooring-lun makes them.
 */
#ifndef MR_TESTS_UNIT_TEST_WORKER_SURVEY_ENV_H
#define MR_TESTS_UNIT_TEST_WORKER_SURVEY_ENV_H

#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "storage/lun/fuse_dev.h"
#include "storage/worker/loopdev.h"
#include "tests/unit/test_worker_env.h"

/* Its root is one regular file. */
struct fuse_server {
    int fd;
    int mount_fd;     /* attached nowhere */
    atomic_bool mute; /* takes requests and answers none */
    atomic_bool end;
    bool running;
    pthread_t thread;
    struct mr_identity device; /* on its file */
    int guard_fd;              /* keeps the device, which has AUTOCLEAR */
};

static inline void fuse_reply(int fd, const struct fuse_in_header *in, int error,
                              void *data, size_t len)
{
    const struct iovec body = {.iov_base = data, .iov_len = len};
    int r = mr_fuse_reply(fd, in->unique, error, &body, len > 0 ? 1 : 0);

    if (r < 0 && r != -ENOENT)
        perror("answer as FUSE server");
}

static inline void fuse_answer(int fd, const struct fuse_in_header *in)
{
    struct fuse_init_out init = {
        .major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096};
    struct fuse_attr_out attr = {
        .attr = {.ino = 1, .size = ENV_SMALL_BYTES, .mode = S_IFREG | 0600, .nlink = 1}};
    struct fuse_open_out opened = {0};

    if (in->opcode == FUSE_INIT)
        fuse_reply(fd, in, 0, &init, sizeof(init));
    else if (in->opcode == FUSE_GETATTR)
        fuse_reply(fd, in, 0, &attr, sizeof(attr)); /* valid for no time */
    else if (in->opcode == FUSE_OPEN)
        fuse_reply(fd, in, 0, &opened, sizeof(opened));
    else
        fuse_reply(fd, in, -ENOSYS, NULL, 0);
}

static inline void *fuse_serve(void *arg)
{
    _Alignas(8) char buffer[FUSE_MIN_READ_BUFFER * 2];
    struct fuse_server *server = arg;

    while (!server->end) {
        struct pollfd ready = {.fd = server->fd, .events = POLLIN};
        struct fuse_in_header in;
        if (poll(&ready, 1, 10) <= 0)
            continue;
        ssize_t len = read(server->fd, buffer, sizeof(buffer));
        if (len < (ssize_t)sizeof(in))
            continue;
        memcpy(&in, buffer, sizeof(in));
        if (!server->mute)
            fuse_answer(server->fd, &in);
    }
    return NULL;
}

/* source: what the mount says it is. */
static inline void fuse_start(struct fuse_server *server, const char *source)
{
    struct mr_err err = {0};

    *server = (struct fuse_server){.fd = -1, .mount_fd = -1, .guard_fd = -1};
    if (mr_fuse_open(&server->fd, &err) < 0)
        skip();
    assert_int_equal(mr_fuse_mount(server->fd, source, 4096, &server->mount_fd, &err), 0);
    assert_int_equal(pthread_create(&server->thread, NULL, fuse_serve, server), 0);
    server->running = true;
}

static inline void fuse_go_mute(struct fuse_server *server)
{
    server->mute = true;
}

/* Closing the last fd of the connection ends every request. */
static inline void fuse_end(struct fuse_server *server)
{
    server->end = true;
    if (server->running)
        assert_int_equal(pthread_join(server->thread, NULL), 0);
    server->running = false;
    mr_close(&server->mount_fd);
    mr_close(&server->fd);
    mr_close(&server->guard_fd);
    if (server->device.diskseq != 0)
        assert_true(env_wait_gone(&server->device));
}

/* Mounts it where others see it. */
static inline void fuse_attach(const struct fuse_server *server, const char *path)
{
    MR_AUTO_CLOSE int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(
        move_mount(server->mount_fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH), 0);
}

/* Makes a device on its file, with our mark; it goes with the server. */
static inline void fuse_map(struct fuse_server *server, const char *token)
{
    char path[40];
    struct mr_err err = {0};
    struct loop_info64 info;
    struct stat st;

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", server->mount_fd);
    MR_AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0); /* the kernel learns its size */
    const struct mr_loop_setup setup = {
        .backing_fd = fd, .token = token, .runtime_dir = env_dir, .read_only = true};
    if (mr_loop_attach(&setup, &server->device, &err) < 0)
        fail_msg("attach: %s", err.message);
    server->guard_fd = open(server->device.node, O_RDONLY | O_CLOEXEC);
    assert_int_equal(ioctl(server->guard_fd, LOOP_GET_STATUS64, &info), 0);
    info.lo_flags |= LO_FLAGS_AUTOCLEAR;
    assert_int_equal(ioctl(server->guard_fd, LOOP_SET_STATUS64, &info), 0);
}

#endif
