/* SPDX-License-Identifier: Apache-2.0
 *
 * What actions on mounts must leave alone: our own mount, also where it would only go
 * along, those of other volumes, and what has nothing to do with the volume.
 */
#include "tests/unit/test_worker_action_env.h"

#include <sys/mman.h>

#include "storage/base/mountid.h"
#include "storage/base/statmount.h"
#include "storage/worker/action.h"
#include "tests/unit/deny_syscall.h"

static void assert_own_mount_stays(void)
{
    bool on_top = false;

    assert_int_equal(mr_mounter_present(&vol.record, &on_top), MR_PRESENT);
    assert_true(on_top);
}

static void set_propagation(unsigned long how)
{
    assert_int_equal(mount("none", "/", NULL, MS_REC | how, NULL), 0);
}

/* --- shared propagation --- */

static bool hold_peer(const void *arg)
{
    (void)arg;
    return unshare(CLONE_NEWNS) == 0;
}

static void expect_our_mount_would_go_along(pid_t pid)
{
    act("unmount-copies", true, row_mount("mount-copy", pid, vol.path), false,
        "shared propagation");
    assert_own_mount_stays();
}

static void test_peer_of_our_mount_is_left_to_the_detach(void **state)
{
    (void)state;
    set_propagation(MS_SHARED);
    volume_up("ext4");
    pid_t pid = helper_start(hold_peer, NULL);
    expect_our_mount_would_go_along(pid);
    set_propagation(MS_SLAVE); /* they tell us, we do not tell them */
    expect_our_mount_would_go_along(pid);
    set_propagation(MS_PRIVATE);
    act("unmount-copies", true, row_mount("mount-copy", pid, vol.path), true,
        "unmounted");
    assert_own_mount_stays();
}

static void test_copy_at_another_place_of_a_shared_mount_is_unmounted(void **state)
{
    char bind[ENV_PATH];

    (void)state;
    set_propagation(MS_SHARED);
    volume_up("ext4");
    assert_int_equal(mkdir(env_path(bind, env_mounts, "b"), 0755), 0);
    assert_int_equal(mount(vol.path, bind, NULL, MS_BIND, NULL), 0);
    pid_t pid = helper_start(hold_peer, NULL);
    act("unmount-copies", true, row_mount("mount-copy", pid, bind), true, "unmounted");
    assert_int_equal(mount_id_in(getpid(), bind), 0);
    assert_own_mount_stays();
    set_propagation(MS_PRIVATE);
}

/* --- ours --- */

static bool prepare_nothing(void)
{
    return true;
}

static bool deny_statmount(void)
{
    return deny_syscall(SYS_statmount);
}

/* What the worker says, where `prepare` changed its world; "" when it went wrong. */
static const char *detail_of(bool (*prepare)(void), struct json_object *row)
{
    static char detail[MR_OUTCOME_TEXT];
    int out[2];
    int status = -1;

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)alarm(ENV_LIMIT_S);
        if (!prepare())
            _exit(1);
        struct json_object *results =
            act_results(command_act("unmount-copies", true, rows_of(row)));
        say(out[1], mr_json_get_string(json_object_array_get_idx(results, 0), "detail"));
        _exit(0);
    }
    (void)close(out[1]);
    ssize_t len = read(out[0], detail, sizeof(detail) - 1);
    detail[len > 0 ? len : 0] = '\0';
    (void)close(out[0]);
    (void)json_object_put(row);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status == 0 ? detail : "";
}

static void test_our_mount_stays_when_it_cannot_be_told_from_others(void **state)
{
    (void)state;
    volume_up("ext4");
    const char *detail =
        detail_of(prepare_nothing, row_mount("mount-copy", getpid(), vol.path));
    assert_non_null(strstr(detail, "the volume's own mount"));
    detail = detail_of(deny_statmount, row_mount("mount-copy", getpid(), vol.path));
    assert_non_null(strstr(detail, "cannot be told from others: EPERM"));
    assert_own_mount_stays();
}

static void test_mount_of_another_volume_is_spared(void **state)
{
    struct mr_mount_record other = {.root = "/", .path = "sub"};
    struct json_object *spare = json_object_new_array();
    char sub[ENV_PATH];

    (void)state;
    volume_up("ext4");
    assert_int_equal(mkdir(env_path(sub, vol.path, "sub"), 0755), 0);
    assert_int_equal(mount("none", sub, "tmpfs", 0, NULL), 0);
    assert_int_equal(mr_mount_id_at(AT_FDCWD, sub, &other.mount), 0);
    (void)json_object_array_add(spare, mr_mount_record_to_json(&other));
    struct json_object *command = command_act(
        "unmount-copies", true, rows_of(row_mount("nested-mount", getpid(), sub)));
    mr_json_set(command, "spare", spare);
    assert_result(act_results(command), 0, false, "DELETE that volume");
    assert_true(mount_id_in(getpid(), sub) != 0);
}

/* --- overlays --- */

/* Options for an overlay with two directories of dir as its layers. */
static bool mount_overlay(const char *dir, const char *point)
{
    char one[ENV_PATH + 8];
    char two[ENV_PATH + 8];
    char options[3 * ENV_PATH];

    (void)snprintf(one, sizeof(one), "%s/one", dir);
    (void)snprintf(two, sizeof(two), "%s/two", dir);
    (void)snprintf(options, sizeof(options), "lowerdir=%s:%s", one, two);
    return mkdir(one, 0755) == 0 && mkdir(two, 0755) == 0 &&
           mount("overlay", point, "overlay", MS_RDONLY, options) == 0;
}

static bool hold_unrelated_overlay(const void *path)
{
    return enter_private_ns() && umount2(path, 0) == 0 &&
           mount("none", path, "tmpfs", 0, NULL) == 0 && mount_overlay(path, env_mounts);
}

static bool hold_overlay_on_copy(const void *path)
{
    char point[ENV_PATH];

    return enter_private_ns() && mkdir(env_path(point, env_mounts, "o"), 0755) == 0 &&
           mount_overlay(path, point);
}

static void test_overlay_with_the_same_path_elsewhere_is_refused(void **state)
{
    (void)state;
    volume_up("ext4");
    pid_t pid = helper_start(hold_unrelated_overlay, vol.path);
    uint64_t id = mount_id_in(pid, env_mounts);
    act("unmount-overlay", true, row_mount("overlay", pid, env_mounts), false,
        "can be tied to the volume");
    volume_unmount();
    act("unmount-overlay", false, row_mount("overlay", pid, env_mounts), false,
        "can be tied to the volume");
    assert_int_equal(mount_id_in(pid, env_mounts), id);
}

static void test_overlay_on_a_foreign_copy_is_unmounted(void **state)
{
    char point[ENV_PATH];

    (void)state;
    volume_up("ext4");
    pid_t pid = helper_start(hold_overlay_on_copy, vol.path);
    volume_unmount();
    act("unmount-overlay", false,
        row_mount("overlay", pid, env_path(point, env_mounts, "o")), true, "unmounted");
}

static void test_overlay_that_was_inherited_is_unmounted(void **state)
{
    char point[ENV_PATH];

    (void)state;
    volume_up("ext4");
    assert_int_equal(mkdir(env_path(point, env_mounts, "o"), 0755), 0);
    assert_true(mount_overlay(vol.path, point));
    volume_unmount();
    pid_t pid = helper_start(hold_copy, NULL);
    act("unmount-overlay", false, row_mount("overlay", pid, point), true, "unmounted");
    act("unmount-overlay", false, row_mount("overlay", getpid(), point), true,
        "unmounted");
    assert_free();
}

/* --- not in sight is not gone --- */

static uint64_t *hidden_id; /* shared with the helper */

static bool hold_below_a_moved_root(const void *path)
{
    if (!enter_private_ns())
        return false;
    *hidden_id = mount_id_in(getpid(), path);
    return mount("none", env_images, "tmpfs", 0, NULL) == 0 && chdir(env_images) == 0 &&
           mount(".", "/", NULL, MS_MOVE, NULL) == 0 && chroot(".") == 0;
}

static void test_copy_that_no_path_leads_to_is_not_taken_for_gone(void **state)
{
    (void)state;
    volume_up("ext4");
    pid_t pid = helper_start(hold_below_a_moved_root, vol.path);
    struct json_object *row = row_new("mount-copy", pid);
    mr_json_set_int(row, "mount_ns", (int64_t)ns_of(pid));
    mr_json_set_int(row, "mount_id", (int64_t)*hidden_id);
    volume_unmount();
    act("unmount-copies", false, row, false, "out of reach in that namespace");
    assert_held();
    helper_stop(pid);
    assert_free();
}

/* --- signal --- */

static bool hold_ns_fd(const void *path)
{
    return open(path, O_RDONLY | O_CLOEXEC) >= 0;
}

static void test_process_that_only_keeps_the_namespace_is_not_signalled(void **state)
{
    char path[ENV_PATH];

    (void)state;
    volume_up("ext4");
    pid_t inside = helper_start(hold_copy, NULL);
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)inside);
    pid_t pin = helper_start(hold_ns_fd, path);
    struct json_object *rows = rows_of(row_mount("mount-copy", inside, vol.path));
    struct json_object *row = row_new("mount-copy", pin);
    mr_json_set_int(row, "mount_ns", (int64_t)ns_of(inside));
    (void)json_object_array_add(rows, row);
    struct json_object *command = command_act("signal", true, rows);
    mr_json_set_string(command, "signal", "KILL");
    struct json_object *results = act_results(command);
    assert_result(results, 0, true, "has ended");
    assert_result(results, 1, false, "only keeps the namespace open");
    assert_true(helper_lives(pin));
}

/* --- the child that acts --- */

static void hang(void *ctx, struct mr_outcome *ret)
{
    (void)ctx;
    (void)ret;
    for (;;)
        (void)pause();
}

static void test_child_without_a_pidfd_is_ended(void **state)
{
    struct mr_act act = {.channel_fd = -1, .inotify_fd = -1, .device_fd = -1};
    struct mr_outcome outcome = {.detail = ""};
    int status = -1;

    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        (void)alarm(ENV_LIMIT_S);
        bool ok = deny_syscall(SYS_pidfd_open) &&
                  !mr_act_in_child(&act, hang, NULL, 1000, &outcome) && !outcome.done &&
                  waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD;
        _exit(!ok);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        ACTION_TEST(test_peer_of_our_mount_is_left_to_the_detach),
        ACTION_TEST(test_copy_at_another_place_of_a_shared_mount_is_unmounted),
        ACTION_TEST(test_our_mount_stays_when_it_cannot_be_told_from_others),
        ACTION_TEST(test_mount_of_another_volume_is_spared),
        ACTION_TEST(test_overlay_with_the_same_path_elsewhere_is_refused),
        ACTION_TEST(test_overlay_on_a_foreign_copy_is_unmounted),
        ACTION_TEST(test_overlay_that_was_inherited_is_unmounted),
        ACTION_TEST(test_copy_that_no_path_leads_to_is_not_taken_for_gone),
        ACTION_TEST(test_process_that_only_keeps_the_namespace_is_not_signalled),
        cmocka_unit_test(test_child_without_a_pidfd_is_ended),
    };

    hidden_id = mmap(NULL, sizeof(*hidden_id), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (hidden_id == MAP_FAILED)
        return 1;
    return cmocka_run_group_tests_name("refused actions", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
