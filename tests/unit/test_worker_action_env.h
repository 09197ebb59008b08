/* SPDX-License-Identifier: Apache-2.0
 *
 * A mounted volume, holders of it, and the real action worker that is asked about them.
 * MR_WORKER_PROGRAM is its path.
 */
#ifndef MR_TESTS_UNIT_TEST_WORKER_ACTION_ENV_H
#define MR_TESTS_UNIT_TEST_WORKER_ACTION_ENV_H

#include <linux/fs.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "storage/base/msg.h"
#include "storage/protocol.h"
#include "storage/worker/mount_table.h"
#include "tests/unit/test_worker_env.h"

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif

#define ANSWER_MS 20000

struct volume {
    char token[MR_TOKEN_TEXT];
    const char *driver;
    const char *fs_type;
    bool read_only;
    struct mr_identity identity;
    struct mr_mount_record record;
    char path[ENV_PATH]; /* of the mount */
};

static struct volume vol; /* of the running test */
static int watcher = -1;  /* what the worker inherits as the checker's inotify */
static pid_t helpers[8];  /* children of the test, ended by the teardown */
static struct json_object *last_reply;

/* --- the volume --- */

static inline void volume_mount(const char *option)
{
    MR_AUTO_JSON struct json_object *options = json_object_new_array();
    struct mr_err err = {0};
    struct mr_mount_request request = {
        .identity = &vol.identity,
        .fs_type = vol.fs_type,
        .root = env_mounts,
        .path = "v",
        .options = options,
        .read_only = vol.read_only,
    };

    if (option)
        (void)json_object_array_add(options, json_object_new_string(option));
    int r = mr_mounter_mount(&request, &vol.record, &err);
    if (r != 0)
        print_error("mount: %s\n", err.message);
    assert_int_equal(r, 0);
}

static inline void volume_format(void)
{
    if (strcmp(vol.fs_type, "xfs") == 0)
        ENV_RUN("/sbin/mkfs.xfs", "-q", "-f", vol.identity.node);
    else
        ENV_RUN("/sbin/mkfs.ext4", "-q", "-F", vol.identity.node);
}

static inline void volume_make(const char *fs_type)
{
    bool xfs = strcmp(fs_type, "xfs") == 0;

    vol = (struct volume){.driver = "file", .fs_type = fs_type};
    env_path(vol.path, env_mounts, "v");
    env_map("a.img", xfs ? ENV_XFS_BYTES : ENV_SMALL_BYTES, vol.token, &vol.identity);
    volume_format();
}

static inline void volume_up(const char *fs_type)
{
    volume_make(fs_type);
    volume_mount(NULL);
}

/* Our own mount goes, as in a detach. */
static inline void volume_unmount(void)
{
    struct mr_err err = {0};
    char detail[200] = "";

    for (int i = 0; i < 100; i++) {
        enum mr_unmount_result result = mr_mounter_unmount(&vol.record, detail, &err);
        if (result == MR_UNMOUNT_DONE)
            return;
        assert_int_equal(result, MR_UNMOUNT_BUSY);
        mr_sleep_ns(10 * MR_NS_PER_MS);
    }
    fail_msg("umount: %s", detail);
}

static inline bool volume_free(int64_t budget_ms)
{
    struct mr_err err = {0};
    unsigned tries = 0;
    MR_AUTO_CLOSE int fd = -1;

    return mr_claim(&vol.identity, budget_ms, &fd, &tries, &err) == MR_CLAIM_OK;
}

static inline void assert_free(void)
{
    assert_true(volume_free(3000));
}

static inline void assert_held(void)
{
    assert_false(volume_free(50));
}

/* --- helpers that hold it --- */

static inline void say(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0)
        _exit(1);
}

/* Starts fn(arg) in a child, which then sleeps; returns when fn is through. */
static inline pid_t helper_start(bool (*fn)(const void *arg), const void *arg)
{
    int pair[2];
    char text[8] = "";
    size_t i = 0;

    assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)alarm(ENV_LIMIT_S);
        say(pair[1], fn(arg) ? "ok" : "failed");
        (void)close(pair[1]);
        for (;;)
            (void)pause();
    }
    assert_true(pid > 0);
    (void)close(pair[1]);
    assert_true(read(pair[0], text, sizeof(text) - 1) > 0);
    (void)close(pair[0]);
    while (helpers[i] != 0)
        i++;
    helpers[i] = pid;
    assert_string_equal(text, "ok");
    return pid;
}

static inline void helper_reap(pid_t pid)
{
    for (size_t i = 0; i < sizeof(helpers) / sizeof(helpers[0]); i++) {
        if (helpers[i] == pid)
            helpers[i] = 0;
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static inline void helper_stop(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    helper_reap(pid);
}

static inline bool helper_lives(pid_t pid)
{
    return waitpid(pid, NULL, WNOHANG) == 0;
}

static inline bool enter_private_ns(void)
{
    return unshare(CLONE_NEWNS) == 0 &&
           mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static inline bool hold_nothing(const void *arg)
{
    (void)arg;
    return true;
}

static inline bool hold_copy(const void *arg)
{
    (void)arg;
    return enter_private_ns();
}

static inline bool hold_copy_and_cwd(const void *path)
{
    return enter_private_ns() && chdir(path) == 0;
}

static inline bool hold_copy_covered(const void *path)
{
    return enter_private_ns() && mount("none", path, "tmpfs", 0, NULL) == 0;
}

/* The directory above the copy is a symbolic link now. */
static inline bool hold_copy_behind_link(const void *arg)
{
    (void)arg;
    return enter_private_ns() && mount("none", env_dir, "tmpfs", 0, NULL) == 0 &&
           symlink("/", env_mounts) == 0;
}

static inline bool hold_locked_copy(const void *arg)
{
    (void)arg;
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
}

static inline uint64_t ns_of(pid_t pid)
{
    char path[ENV_PATH];
    struct stat st;

    (void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

/* The last mount at this path that the process sees. */
static inline uint64_t mount_id_in(pid_t pid, const char *point)
{
    struct mr_mount_table table;
    char path[ENV_PATH];
    uint64_t id = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    MR_AUTO_CLOSE int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mr_mount_table_read(dir, &table), 0);
    for (size_t i = 0; i < table.count; i++) {
        if (strcmp(table.entries[i].point, point) == 0)
            id = table.entries[i].id;
    }
    mr_mount_table_clear(&table);
    return id;
}

/* --- rows --- */

static inline struct json_object *row_new(const char *kind, pid_t pid)
{
    struct json_object *row = json_object_new_object();

    mr_json_set_string(row, "id", "0123456789abcdef");
    mr_json_set_string(row, "kind", kind);
    if (pid > 0) {
        mr_json_set_int(row, "pid", pid);
        mr_json_set_int(row, "start_time", (int64_t)mr_process_start_time(pid));
    }
    return row;
}

/* A mount at point in the namespace of pid; the row names the process itself only when it
 * is not our own. */
static inline struct json_object *row_mount(const char *kind, pid_t pid,
                                            const char *point)
{
    struct json_object *row = row_new(kind, pid == getpid() ? 0 : pid);
    uint64_t id = mount_id_in(pid, point);

    assert_true(id != 0);
    mr_json_set_int(row, "mount_ns", (int64_t)ns_of(pid));
    mr_json_set_int(row, "mount_id", (int64_t)id);
    mr_json_set_string(row, "path", point);
    return row;
}

static inline struct json_object *rows_of(struct json_object *row)
{
    struct json_object *rows = json_object_new_array();

    (void)json_object_array_add(rows, row);
    return rows;
}

/* --- the worker --- */

static inline struct json_object *worker_receive(int channel)
{
    struct pollfd ready = {.fd = channel, .events = POLLIN};
    struct json_object *message = NULL;
    struct mr_err err = {0};

    assert_int_equal(poll(&ready, 1, ANSWER_MS), 1);
    assert_int_equal(mr_msg_recv(channel, &message, NULL, 0, &err), 1);
    return message;
}

/* One worker, one command, one reply, its end. command is taken. *ret_wd (may be NULL) is
 * from the armed event, -1 none. The reply is borrowed until the next call. */
static inline struct json_object *worker_ask(struct json_object *command, int *ret_wd)
{
    const char *const argv[] = {MR_WORKER_PROGRAM, "action", NULL};
    struct mr_err err = {0};
    pid_t pid = 0;
    int status = -1;
    int wd = -1;
    int pair[2];

    assert_int_equal(mr_msg_pair(pair, &err), 0);
    const struct mr_spawn_fd fds[] = {
        {.from = pair[1], .to = MR_WORKER_CHANNEL_FD},
        {.from = watcher, .to = MR_WORKER_INOTIFY_FD},
    };
    const struct mr_spawn spawn = {
        .argv = argv, .fds = fds, .fd_count = 2, .stdout_fd = -1, .stderr_fd = -1};
    assert_int_equal(mr_spawn_start(&spawn, &pid, NULL, &err), 0);
    (void)close(pair[1]);
    assert_int_equal(mr_msg_send(pair[0], command, -1, 0, &err), 0);
    (void)json_object_put(command);
    struct json_object *message = worker_receive(pair[0]);
    if (mr_json_get(message, "event")) {
        wd = (int)mr_json_get_int(message, "wd", -1);
        (void)json_object_put(message);
        message = worker_receive(pair[0]);
    }
    if (ret_wd)
        *ret_wd = wd;
    assert_int_equal(waitpid(pid, &status, 0), pid); /* the channel is still open */
    assert_int_equal(status, 0);
    (void)close(pair[0]);
    (void)json_object_put(last_reply);
    last_reply = message;
    return message;
}

static inline struct json_object *command_new(const char *name)
{
    struct json_object *command = json_object_new_object();

    mr_json_set_string(command, "cmd", name);
    mr_json_set_string(command, "token", vol.token);
    mr_json_set_string(command, "driver", vol.driver);
    mr_json_set_string(command, "runtime_dir", env_dir);
    mr_json_set(command, "identity", mr_identity_to_json(&vol.identity));
    mr_json_set_string(command, "fs_type", vol.fs_type);
    mr_json_set_bool(command, "read_only", vol.read_only);
    return command;
}

/* own: our own mount is still there. rows (taken) may be NULL. */
static inline struct json_object *command_act(const char *action, bool own,
                                              struct json_object *rows)
{
    struct json_object *command = command_new("act");

    mr_json_set_string(command, "action", action);
    mr_json_set(command, "mount", own ? mr_mount_record_to_json(&vol.record) : NULL);
    mr_json_set_string(command, "mount_path", vol.path);
    mr_json_set(command, "holders", rows);
    return command;
}

/* The results of an act that must work. */
static inline struct json_object *act_results(struct json_object *command)
{
    struct json_object *reply = worker_ask(command, NULL);
    struct json_object *results = mr_json_get(reply, "results");

    if (!mr_json_get_bool(reply, "ok", false) || !results)
        fail_msg("%s", json_object_to_json_string(reply));
    return results;
}

static inline void assert_result(struct json_object *results, size_t i, bool done,
                                 const char *detail)
{
    struct json_object *result = json_object_array_get_idx(results, i);
    const char *text = mr_json_get_string(result, "detail");

    if (mr_json_get_bool(result, "done", !done) != done || !text || !strstr(text, detail))
        fail_msg("not done=%d '%s': %s", done, detail,
                 json_object_to_json_string(results));
}

/* Acts on one row (taken), or on the volume when there is none. */
static inline void act(const char *action, bool own, struct json_object *row, bool done,
                       const char *detail)
{
    struct json_object *results =
        act_results(command_act(action, own, row ? rows_of(row) : NULL));

    assert_int_equal(json_object_array_length(results), 1);
    assert_result(results, 0, done, detail);
}

/* --- before and after each test --- */

static inline int env_before(void **state)
{
    (void)state;
    watcher = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return watcher < 0 ? -1 : 0;
}

/* A failed test may leave a frozen super block, which nothing else would ever end. */
static inline void thaw_leftover(void)
{
    if (volume_free(500) || mkdir(vol.path, 0755) < 0 ||
        mount(vol.identity.node, vol.path, vol.fs_type, vol.read_only ? MS_RDONLY : 0,
              NULL) < 0)
        return;
    int fd = open(vol.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)ioctl(fd, FITHAW, 0);
    (void)close(fd);
    (void)umount2(vol.path, 0);
    (void)rmdir(vol.path);
}

static inline int env_after(void **state)
{
    static const char *const names[] = {"v/sub", "o", "v", "b"};
    char path[ENV_PATH];

    (void)state;
    for (size_t i = 0; i < sizeof(helpers) / sizeof(helpers[0]); i++) {
        if (helpers[i] > 0)
            helper_stop(helpers[i]);
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        env_path(path, env_mounts, names[i]);
        while (umount2(path, MNT_DETACH) == 0)
            ;
        (void)rmdir(path);
    }
    mr_close(&watcher);
    (void)json_object_put(last_reply);
    last_reply = NULL;
    if (mr_device_present(&vol.identity) != MR_PRESENT)
        return 0;
    thaw_leftover();
    env_unmap(vol.token, &vol.identity);
    return 0;
}

#define ACTION_TEST(test) cmocka_unit_test_setup_teardown(test, env_before, env_after)

#endif
