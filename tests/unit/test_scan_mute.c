/* SPDX-License-Identifier: Apache-2.0
 *
 * File systems that do not answer: a FUSE server gone silent hangs whoever asks it, a
 * shut-down XFS answers EIO to every stat. The scan must get past the first and still
 * name users of the second.
 */
#include "tests/unit/test_scan_env.h"

#include <linux/fuse.h>
#include <stdatomic.h>

#include "storage/worker/scan_state.h"

#define XFS_IOC_SHUTDOWN _IOR('X', 125, uint32_t) /* xfs_fs.h XFS_IOC_GOINGDOWN */
#define XFS_SHUTDOWN_NOLOGFLUSH 2U

/* A FUSE mount whose root is a regular file. The server answers until it is told to be
 * mute. */
struct server {
    int fd;
    char path[ENV_PATH];
    atomic_bool mute;
    pthread_t thread;
};

static void reply(int fd, const struct fuse_in_header *in, int error, const void *data,
                  size_t len)
{
    struct {
        struct fuse_out_header header;
        char data[256];
    } out = {.header = {.error = error, .unique = in->unique}};

    out.header.len = (uint32_t)(sizeof(out.header) + len);
    if (len > 0)
        memcpy(out.data, data, len);
    if (write(fd, &out, out.header.len) < 0)
        perror("answer as FUSE server");
}

static void answer(int fd, const struct fuse_in_header *in)
{
    const struct fuse_init_out init = {
        .major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096};
    const struct fuse_attr_out attr = {
        .attr = {.ino = 1, .size = 1U << 20, .mode = S_IFREG | 0644, .nlink = 1}};
    const struct fuse_open_out opened = {0};

    if (in->opcode == FUSE_INIT)
        reply(fd, in, 0, &init, sizeof(init));
    else if (in->opcode == FUSE_GETATTR)
        reply(fd, in, 0, &attr, sizeof(attr)); /* valid for no time */
    else if (in->opcode == FUSE_OPEN)
        reply(fd, in, 0, &opened, sizeof(opened));
    else
        reply(fd, in, -ENOSYS, NULL, 0);
}

static void *serve(void *arg)
{
    static _Alignas(8) char buffer[FUSE_MIN_READ_BUFFER * 4];
    struct server *server = arg;

    while (!server->mute) {
        struct pollfd ready = {.fd = server->fd, .events = POLLIN};
        if (poll(&ready, 1, 10) <= 0)
            continue;
        ssize_t len = read(server->fd, buffer, sizeof(buffer));
        struct fuse_in_header in;
        if (len < (ssize_t)sizeof(in))
            continue;
        memcpy(&in, buffer, sizeof(in));
        answer(server->fd, &in);
    }
    return NULL;
}

static void server_start(struct server *server, unsigned uid)
{
    char options[200];

    server->mute = false;
    server->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (server->fd < 0)
        skip();
    int fd =
        open(env_path(server->path, env_dir, "mute"), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    (void)close(fd);
    (void)snprintf(options, sizeof(options),
                   "fd=%d,rootmode=100644,user_id=%u,group_id=0", server->fd, uid);
    assert_int_equal(mount("mute", server->path, "fuse", 0, options), 0);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void server_go_mute(struct server *server)
{
    server->mute = true;
    assert_int_equal(pthread_join(server->thread, NULL), 0);
}

/* Closing the last fd of the connection ends every request. */
static void server_end(struct server *server)
{
    mr_close(&server->fd);
}

static void server_unmount(const struct server *server)
{
    assert_int_equal(umount2(server->path, MNT_DETACH), 0);
    assert_int_equal(unlink(server->path), 0);
}

/* The magic link of the holder's fd on the server's file; other fds may be inherited. */
static const char *held_link(const struct server *server, pid_t holder, char dst[64])
{
    char target[ENV_PATH];

    for (int fd = 3; fd < 100; fd++) {
        (void)snprintf(dst, 64, "/proc/%d/fd/%d", holder, fd);
        ssize_t len = readlink(dst, target, sizeof(target) - 1);
        target[len > 0 ? len : 0] = '\0';
        if (strcmp(target, server->path) == 0)
            return dst;
    }
    fail_msg("process %d does not have %s open", holder, server->path);
    return dst;
}

/* Children that do what the scan must not do. They leave the connection first, or it
 * would not end before them. */
static pid_t start_plain_stat(struct server *server, pid_t holder)
{
    char path[64];
    struct stat st;

    (void)held_link(server, holder, path);
    pid_t pid = fork();
    if (pid == 0) {
        server_end(server);
        _exit(stat(path, &st) == 0 ? 0 : 2);
    }
    return pid;
}

static pid_t start_loop_status(struct server *server, const struct env_loop *loop)
{
    struct loop_info64 info;

    pid_t pid = fork();
    if (pid == 0) {
        server_end(server);
        _exit(ioctl(loop->fd, LOOP_GET_STATUS64, &info) == 0 ? 0 : 2);
    }
    return pid;
}

static void test_mute_server_does_not_hang_the_scan(void **state)
{
    struct server server;
    struct env_loop loop = {.fd = -1};

    (void)state;
    server_start(&server, 0);
    pid_t holder = env_start(env_hold, "file", server.path);
    MR_AUTO_CLOSE int fd = open(server.path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    env_loop_open(&loop, fd);
    mr_close(&fd);
    server_go_mute(&server);
    pid_t stats = start_plain_stat(&server, holder);
    pid_t asks = start_loop_status(&server, &loop);
    mr_sleep_ns(200 * MR_NS_PER_MS);
    bool both_hang =
        waitpid(stats, NULL, WNOHANG) == 0 && waitpid(asks, NULL, WNOHANG) == 0;

    struct env_answer answer_of_scan = env_scan_of(&env_dev);
    MR_AUTO_JSON struct json_object *rows = answer_of_scan.rows;
    env_held = true; /* looks closer, at everybody */
    struct env_answer held = env_scan_of(&env_dev);
    MR_AUTO_JSON struct json_object *held_rows = held.rows;
    env_held = false;

    server_end(&server);
    assert_int_equal(waitpid(stats, NULL, 0), stats);
    assert_int_equal(waitpid(asks, NULL, 0), asks);
    env_stop(holder);
    env_loop_close(&loop);
    server_unmount(&server);
    assert_true(both_hang);
    env_expect_none(rows);
    assert_true(answer_of_scan.elapsed_ms < 1000);
    assert_null(env_row(held_rows, "open-file", NULL));
    assert_true(held.elapsed_ms < 1000);
}

/* FUSE refuses root the attributes of another user's files: no reason to call a scan
 * incomplete. */
static void test_fuse_mount_of_another_user_can_be_looked_at(void **state)
{
    struct server server;
    struct statx sx = {0};
    char path[64];

    (void)state;
    server_start(&server, HOLD_UID);
    pid_t holder = env_start(env_hold, "file-as-user", server.path);
    server_go_mute(&server);
    (void)held_link(&server, holder, path);
    int rc = mr_scan_statx(AT_FDCWD, path, &sx);
    int with_type = statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE, &sx);
    int why = errno;
    server_end(&server);
    env_stop(holder);
    server_unmount(&server);
    assert_int_equal(rc, 0);
    assert_true(with_type < 0 && why == EACCES);
}

static void test_user_of_a_shut_down_xfs_is_named(void **state)
{
    struct env_loop disk = env_dev;
    const uint32_t flags = XFS_SHUTDOWN_NOLOGFLUSH;
    char file[ENV_PATH];
    struct stat st;

    (void)state;
    if (access("/sbin/mkfs.xfs", X_OK) < 0)
        skip();
    env_loop_file(&env_dev, "xfs.img", 320 * MIB);
    ENV_RUN("/sbin/mkfs.xfs", "-q", env_dev.node);
    env_mount_as("xfs");
    int fd = open(env_path(file, env_mnt, "file"), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    pid_t pid = env_start(env_hold, "file", file);
    pid_t cwd = env_start(env_hold, "cwd", env_mnt);
    assert_int_equal(ioctl(fd, XFS_IOC_SHUTDOWN, &flags), 0);
    bool refused = fstat(fd, &st) < 0 && errno == EIO;
    (void)close(fd);
    MR_AUTO_JSON struct json_object *rows = env_scan();
    env_stop(pid);
    env_stop(cwd);
    env_umount(0);
    env_loop_close(&env_dev);
    env_dev = disk;
    assert_true(refused);
    (void)env_expect(rows, "open-file", file, pid);
    (void)env_expect(rows, "cwd", env_mnt, cwd);
    assert_int_equal(env_count(rows), 2);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mute_server_does_not_hang_the_scan),
        cmocka_unit_test(test_fuse_mount_of_another_user_can_be_looked_at),
        cmocka_unit_test(test_user_of_a_shut_down_xfs_is_named),
    };
    return cmocka_run_group_tests(tests, env_make_device, env_drop_device);
}

int main(int argc, char **argv)
{
    return env_main(argc, argv, run);
}
