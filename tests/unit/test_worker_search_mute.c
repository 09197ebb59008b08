/* SPDX-License-Identifier: Apache-2.0
 *
 * search: a device that hangs when it is asked costs the answer its completeness, and
 * nothing else.
 */
#include "tests/unit/test_worker_search_env.h"

static void assert_children_end(void)
{
    for (int i = 0; i < 500 && waitpid(-1, NULL, WNOHANG) >= 0; i++)
        mr_sleep_ns(10 * MR_NS_PER_MS);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static unsigned living_children(void)
{
    DIR *proc = opendir("/proc");
    unsigned count = 0;
    char path[300];
    char text[512];

    assert_non_null(proc);
    for (struct dirent *entry = readdir(proc); entry; entry = readdir(proc)) {
        char state = '\0';
        int parent = 0;
        (void)snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
        if (mr_read_text(AT_FDCWD, path, text, sizeof(text)) <= 0 ||
            sscanf(text, "%*d (%*[^)]) %c %d", &state, &parent) != 2)
            continue;
        if (parent == getpid() && state != 'Z')
            count++;
    }
    (void)closedir(proc);
    return count;
}

/* Those that were killed and do not end. Fewer when an agent on this machine searches,
 * too, and its own children hang there. */
static void assert_hanging_at_most(unsigned count)
{
    for (int i = 0; i < 200 && living_children() > count; i++)
        mr_sleep_ns(10 * MR_NS_PER_MS);
    assert_true(living_children() <= count);
}

static void test_device_that_hangs_hides_no_other(void **state)
{
    struct fuse_server servers[2];
    char mute_token[2][MR_TOKEN_TEXT];

    (void)state;
    for (int i = 0; i < 2; i++) {
        fuse_start(&servers[i], "test");
        fuse_map(&servers[i], env_token(mute_token[i]));
    }
    env_map("a.img", ENV_SMALL_BYTES, token, &device);
    struct json_object *orphan = find_one(true, mute_token[0]);
    assert_text(orphan, "driver", "iscsi"); /* its file is mounted nowhere */
    assert_text(orphan, "backing_file", "/");
    assert_null_member(orphan, "source");

    for (int i = 0; i < 2; i++)
        fuse_go_mute(&servers[i]);
    int64_t start_ns = mr_now_ns();
    struct json_object *orphans = search(false);
    assert_true(mr_now_ns() - start_ns < 3 * MR_NS_PER_S);
    assert_non_null(find(orphans, token));
    assert_int_equal(json_object_array_length(orphans), 1);
    assert_hanging_at_most(2);
    /* Another search adds none: one that waits for the same device is enough. */
    assert_non_null(find(search(false), token));
    assert_hanging_at_most(2);
    for (int i = 0; i < 2; i++)
        fuse_end(&servers[i]);
    assert_children_end();
}

/* Devices of files with a path are asked first. */
static void test_file_that_hangs_hides_no_device_that_is_asked_later(void **state)
{
    struct fuse_server mute[2];
    struct fuse_server server;
    char mute_token[MR_TOKEN_TEXT];
    char path[2][ENV_PATH];

    (void)state;
    for (int i = 0; i < 2; i++) {
        fuse_start(&mute[i], "test");
        fuse_attach(&mute[i], env_path(path[i], env_mounts, i ? "f" : "g"));
        fuse_map(&mute[i], env_token(mute_token));
    }
    fuse_start(&server, "test");
    fuse_map(&server, env_token(token));
    for (int i = 0; i < 2; i++)
        fuse_go_mute(&mute[i]);
    struct json_object *orphans = search(false);
    assert_non_null(find(orphans, token));
    assert_int_equal(json_object_array_length(orphans), 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(umount2(path[i], MNT_DETACH), 0);
        assert_int_equal(unlink(path[i]), 0);
        fuse_end(&mute[i]);
    }
    assert_children_end();
    fuse_end(&server);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        SEARCH_TEST(test_device_that_hangs_hides_no_other),
        SEARCH_TEST(test_file_that_hangs_hides_no_device_that_is_asked_later),
    };

    return cmocka_run_group_tests_name("survey: search among mute devices", tests, NULL,
                                       NULL);
}

int main(void)
{
    return env_main(run);
}
