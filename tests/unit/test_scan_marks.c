/* SPDX-License-Identifier: Apache-2.0
 *
 * A scan marks the foreign mount namespaces that hold a device; the checker hears when
 * the copy goes away, and nobody is kept alive by that.
 */
#include "tests/unit/test_scan_env.h"

#include "storage/base/loop.h"
#include "storage/checker.h"
#include "storage/scanner.h"

#define WAIT_NS (3 * MR_NS_PER_S)

struct listener {
    struct mr_loop *loop;
    struct mr_checker *checker;
    unsigned copies;
    struct json_object *rows;
};

static void on_copies(void *ctx)
{
    struct listener *listener = ctx;

    listener->copies++;
    mr_loop_stop(listener->loop);
}

static void ignore(void *ctx)
{
    (void)ctx;
}

static void ignore_watch(void *ctx, int wd)
{
    (void)ctx;
    (void)wd;
}

static void ignore_device(void *ctx, uint32_t dev_major, uint32_t dev_minor)
{
    (void)ctx;
    (void)dev_major;
    (void)dev_minor;
}

static const struct mr_checker_events events = {
    .unmounted = ignore_watch,
    .overflow = ignore,
    .mounts_changed = ignore,
    .copies_changed = on_copies,
    .device_changed = ignore_device,
};

static void stop(void *ctx)
{
    mr_loop_stop(ctx);
}

/* Runs the loop until copies_changed(), or so long. */
static unsigned wait_for_copies(struct listener *listener, int64_t limit_ns)
{
    struct mr_timer limit;
    unsigned before = listener->copies;

    mr_timer_init(&limit, listener->loop, stop, listener->loop);
    mr_timer_set(&limit, mr_now_ns() + limit_ns);
    assert_int_equal(mr_loop_run(listener->loop, NULL), 0);
    mr_timer_cancel(&limit);
    return listener->copies - before;
}

static bool has_marks(const struct listener *listener)
{
    char path[64];
    char text[4096];

    (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d",
                   mr_checker_fanotify_fd(listener->checker));
    assert_true(mr_read_text(AT_FDCWD, path, text, sizeof(text)) > 0);
    return strstr(text, "mnt_ns:") != NULL;
}

static void listen_start(struct listener *listener)
{
    *listener = (struct listener){0};
    assert_int_equal(mr_loop_new(&listener->loop, NULL), 0);
    assert_int_equal(
        mr_checker_new(listener->loop, &events, listener, &listener->checker, NULL), 0);
    env_fanotify = mr_checker_fanotify_fd(listener->checker);
}

static void listen_end(struct listener *listener)
{
    mr_checker_free(listener->checker);
    mr_loop_free(listener->loop);
    env_fanotify = -1;
    env_held = false;
}

/* A copy in another namespace, with our own mount gone, and one scan. */
static pid_t hold_and_scan(bool held)
{
    pid_t pid = env_start(env_hold, "space-to-unmount", env_mnt);

    env_umount(0);
    env_held = held;
    MR_AUTO_JSON struct json_object *rows = env_scan();
    (void)env_expect(rows, "mount-copy", env_mnt, pid);
    return pid;
}

static bool can_be_claimed(void)
{
    for (int64_t end = mr_now_ns() + WAIT_NS; mr_now_ns() < end;) {
        MR_AUTO_CLOSE int fd = open(env_dev.node, O_RDONLY | O_EXCL | O_CLOEXEC);
        if (fd >= 0)
            return true;
        mr_sleep_ns(MR_NS_PER_MS);
    }
    return false;
}

static void test_unmount_of_a_copy_is_heard(void **state)
{
    struct listener listener;

    (void)state;
    listen_start(&listener);
    if (env_fanotify < 0)
        skip();
    pid_t pid = hold_and_scan(true);
    bool marked = has_marks(&listener);
    unsigned too_early = wait_for_copies(&listener, 50 * MR_NS_PER_MS);
    assert_int_equal(kill(pid, SIGUSR1), 0);
    unsigned heard = wait_for_copies(&listener, WAIT_NS);
    bool free_now = can_be_claimed();
    env_stop(pid);
    listen_end(&listener);
    assert_true(marked);
    assert_int_equal(too_early, 0);
    assert_int_equal(heard, 1);
    assert_true(free_now);
}

static void test_end_of_a_namespace_is_heard_and_not_put_off(void **state)
{
    struct listener listener;

    (void)state;
    listen_start(&listener);
    if (env_fanotify < 0)
        skip();
    pid_t pid = hold_and_scan(true);
    bool marked = has_marks(&listener);
    env_stop(pid);
    unsigned heard = wait_for_copies(&listener, WAIT_NS);
    bool free_now = can_be_claimed();
    bool still_marked = true;
    for (int i = 0; i < 3000 && (still_marked = has_marks(&listener)); i++)
        mr_sleep_ns(MR_NS_PER_MS); /* the kernel frees it a moment later */
    listen_end(&listener);
    assert_true(marked);
    assert_int_equal(heard, 1);
    assert_true(free_now);
    assert_false(still_marked);
}

static void test_forgotten_copies_wake_nobody(void **state)
{
    struct listener listener;

    (void)state;
    listen_start(&listener);
    if (env_fanotify < 0)
        skip();
    pid_t pid = hold_and_scan(true);
    bool marked = has_marks(&listener);
    mr_checker_forget_copies(listener.checker);
    bool still_marked = has_marks(&listener);
    env_stop(pid);
    unsigned heard = wait_for_copies(&listener, 100 * MR_NS_PER_MS);
    listen_end(&listener);
    assert_true(marked);
    assert_false(still_marked);
    assert_int_equal(heard, 0);
}

static void test_copies_of_what_is_not_held_are_not_marked(void **state)
{
    struct listener listener;

    (void)state;
    listen_start(&listener);
    if (env_fanotify < 0)
        skip();
    pid_t pid = hold_and_scan(false);
    bool marked = has_marks(&listener);
    env_stop(pid);
    listen_end(&listener);
    assert_false(marked);
}

static void on_scanned(void *ctx, struct json_object *holders, bool complete,
                       const struct mr_err *err)
{
    struct listener *listener = ctx;

    (void)complete;
    if (err)
        print_error("%s\n", err->message);
    listener->rows = json_object_get(holders);
    mr_loop_stop(listener->loop);
}

/* All the way: through the program that the agent starts. */
static void test_scanner_hands_the_group_to_its_scans(void **state)
{
    struct listener listener;
    struct mr_scanner *scanner = NULL;

    (void)state;
    listen_start(&listener);
    if (env_fanotify < 0)
        skip();
    assert_int_equal(
        mr_scanner_new(listener.loop, MR_WORKER_DIR, env_fanotify, &scanner, NULL), 0);
    pid_t pid = env_start(env_hold, "space", "/");
    env_umount(0);
    env_held = true;
    assert_non_null(
        mr_scanner_request(scanner, env_target(&env_dev), on_scanned, &listener));
    (void)wait_for_copies(&listener, WAIT_NS);
    bool marked = has_marks(&listener);
    env_stop(pid);
    mr_scanner_free(scanner);
    MR_AUTO_JSON struct json_object *rows = listener.rows;
    listen_end(&listener);
    assert_non_null(rows);
    (void)env_expect(rows, "mount-copy", env_mnt, pid);
    assert_true(marked);
}

static void test_own_namespace_is_not_marked(void **state)
{
    struct listener listener;

    (void)state;
    listen_start(&listener);
    if (env_fanotify < 0)
        skip();
    env_own = (struct mr_mount_id){0};
    env_held = true;
    MR_AUTO_JSON struct json_object *rows = env_scan();
    bool marked = has_marks(&listener);
    listen_end(&listener);
    assert_non_null(env_row(rows, "mount-copy", env_mnt));
    assert_false(marked);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, env_mount, env_unmount)

static int run(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_unmount_of_a_copy_is_heard),
        TEST(test_end_of_a_namespace_is_heard_and_not_put_off),
        TEST(test_forgotten_copies_wake_nobody),
        TEST(test_copies_of_what_is_not_held_are_not_marked),
        TEST(test_own_namespace_is_not_marked),
        TEST(test_scanner_hands_the_group_to_its_scans),
    };
    return cmocka_run_group_tests(tests, env_make_device, env_drop_device);
}

int main(int argc, char **argv)
{
    return env_main(argc, argv, run);
}
