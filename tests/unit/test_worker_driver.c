/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract of the file driver and of the claim, on real loop devices.
 */
#include "storage/worker/driver.h"

#include <linux/fs.h>
#include <sys/sysmacros.h>

#include "tests/unit/test_worker_env.h"

static void assert_map_fails(const char *path, enum mr_code code, const char *pointer)
{
    char token[MR_TOKEN_TEXT];
    struct mr_identity identity;
    struct mr_err err = {0};

    assert_true(env_try_map(env_token(token), path, false, &identity, &err) < 0);
    assert_string_equal(mr_code_slug(err.code), mr_code_slug(code));
    assert_string_equal(err.pointer, pointer);
    assert_int_equal(mr_driver_file.find(token, env_dir, &identity, &err), 0);
}

static void test_table_knows_the_drivers(void **state)
{
    (void)state;
    assert_ptr_equal(mr_driver_find("file"), &mr_driver_file);
    assert_ptr_equal(mr_driver_find("iscsi"), &mr_driver_iscsi);
    assert_null(mr_driver_find("nvme"));
}

static void test_map_fills_the_identity_and_find_gives_the_same_device(void **state)
{
    char token[MR_TOKEN_TEXT];
    char other[MR_TOKEN_TEXT];
    char path[ENV_PATH];
    char key[MR_KEY_TEXT];
    struct mr_identity mapped;
    struct mr_identity found;
    struct mr_err err = {0};
    struct stat st;

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &mapped);
    assert_int_equal(mapped.size_bytes, ENV_SMALL_BYTES);
    assert_true(mapped.diskseq > 0);
    assert_int_equal(stat(env_path(path, env_images, "a.img"), &st), 0);
    (void)snprintf(key, sizeof(key), "file:%u:%u:%ju", major(st.st_dev), minor(st.st_dev),
                   (uintmax_t)st.st_ino);
    assert_string_equal(mapped.source_key, key);
    assert_int_equal(mr_device_present(&mapped), MR_PRESENT);

    assert_int_equal(mr_driver_file.find(token, env_dir, &found, &err), 1);
    assert_string_equal(found.node, mapped.node);
    assert_int_equal(found.minor, mapped.minor);
    assert_int_equal(found.diskseq, mapped.diskseq);
    assert_int_equal(mr_driver_file.find(env_token(other), env_dir, &found, &err), 0);

    env_unmap(token, &mapped);
    assert_int_equal(mr_driver_file.find(token, env_dir, &found, &err), 0);
}

static void test_same_file_is_mapped_once(void **state)
{
    char token[MR_TOKEN_TEXT];
    char second[MR_TOKEN_TEXT];
    char path[ENV_PATH];
    struct mr_identity mapped;
    struct mr_identity refused = {0};
    struct mr_err err = {0};

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &mapped);
    env_path(path, env_images, "a.img");
    assert_true(env_try_map(env_token(second), path, false, &refused, &err) < 0);
    assert_int_equal(err.code, MR_E_SOURCE_IN_USE);
    assert_non_null(strstr(err.message, mapped.node)); /* where it is */
    assert_string_equal(refused.source_key, mapped.source_key);
    /* The same file by another name is the same source. */
    char link_path[ENV_PATH];
    assert_int_equal(link(path, env_path(link_path, env_images, "hard.img")), 0);
    assert_true(env_try_map(second, link_path, false, &refused, &err) < 0);
    assert_int_equal(err.code, MR_E_SOURCE_IN_USE);
    assert_int_equal(unlink(link_path), 0);

    env_unmap(token, &mapped);
    assert_int_equal(env_try_map(second, path, false, &refused, &err), 0);
    env_unmap(second, &refused);
}

static void test_unmap_again_finds_the_device_gone(void **state)
{
    char token[MR_TOKEN_TEXT];
    struct mr_identity mapped;
    struct mr_err err = {0};
    unsigned tries = 0;
    int fd = -1;

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &mapped);
    env_unmap(token, &mapped);
    assert_int_equal(mr_claim(&mapped, 0, &fd, &tries, &err), MR_CLAIM_GONE);
    assert_int_equal(fd, -1);
}

static void test_read_only_spec_gives_a_read_only_device(void **state)
{
    char token[MR_TOKEN_TEXT];
    char path[ENV_PATH];
    struct mr_identity mapped;
    struct mr_err err = {0};
    int read_only = 0;

    (void)state;
    env_image(path, "a.img", ENV_SMALL_BYTES);
    assert_int_equal(env_try_map(env_token(token), path, true, &mapped, &err), 0);
    int fd = open(mapped.node, O_RDONLY | O_CLOEXEC);
    assert_int_equal(ioctl(fd, BLKROGET, &read_only), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(read_only, 1);
    env_unmap(token, &mapped);
}

static void test_paths_outside_of_the_roots_are_refused(void **state)
{
    char path[ENV_PATH];

    (void)state;
    assert_map_fails("/etc/passwd", MR_E_PATH_NOT_ALLOWED, "/source/path");
    assert_map_fails(env_path(path, env_images, "../escape.img"), MR_E_PATH_NOT_ALLOWED,
                     "/source/path");
    (void)snprintf(path, sizeof(path), "%sX/a.img", env_images);
    assert_map_fails(path, MR_E_PATH_NOT_ALLOWED, "/source/path");
    assert_map_fails("relative.img", MR_E_INVALID_SPEC, "/source/path");
}

static void test_symlinks_below_the_root_are_refused(void **state)
{
    char path[ENV_PATH];
    char link_path[ENV_PATH];

    (void)state;
    env_image(path, "a.img", ENV_SMALL_BYTES);
    assert_int_equal(symlink("a.img", env_path(link_path, env_images, "link.img")), 0);
    assert_map_fails(link_path, MR_E_PATH_NOT_ALLOWED, "/source/path");
    assert_int_equal(unlink(link_path), 0);
    assert_int_equal(symlink(env_images, env_path(link_path, env_images, "dir")), 0);
    assert_map_fails(env_path(path, env_images, "dir/a.img"), MR_E_PATH_NOT_ALLOWED,
                     "/source/path");
    assert_int_equal(unlink(link_path), 0);
}

static void test_only_regular_files_of_whole_sectors_are_mapped(void **state)
{
    char path[ENV_PATH];

    (void)state;
    assert_map_fails(env_path(path, env_images, "missing.img"), MR_E_INVALID_SPEC,
                     "/source/path");
    assert_map_fails(env_image(path, "empty.img", 0), MR_E_INVALID_SPEC, "/source/path");
    assert_map_fails(env_image(path, "odd.img", 1000), MR_E_INVALID_SPEC, "/source/path");
    assert_int_equal(mkfifo(env_path(path, env_images, "pipe"), 0600), 0);
    assert_map_fails(path, MR_E_INVALID_SPEC, "/source/path"); /* and does not hang */
    assert_int_equal(mkdir(env_path(path, env_images, "folder"), 0700), 0);
    assert_map_fails(path, MR_E_INVALID_SPEC, "/source/path");
}

static void test_claim_is_busy_while_another_claim_exists(void **state)
{
    char token[MR_TOKEN_TEXT];
    struct mr_identity mapped;
    struct mr_err err = {0};
    unsigned tries = 0;
    int first = -1;
    int second = -1;

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &mapped);
    assert_int_equal(mr_claim(&mapped, 0, &first, &tries, &err), MR_CLAIM_OK);
    assert_int_equal(tries, 1);
    assert_int_equal(mr_claim(&mapped, 0, &second, &tries, &err), MR_CLAIM_BUSY);
    assert_int_equal(tries, 1);
    assert_int_equal(mr_claim(&mapped, 50, &second, &tries, &err), MR_CLAIM_BUSY);
    assert_true(tries > 3);
    assert_int_equal(second, -1);
    assert_true(fcntl(first, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(close(first), 0);
    env_unmap(token, &mapped);
}

static void test_claim_never_takes_a_device_bound_again(void **state)
{
    char token[MR_TOKEN_TEXT];
    struct mr_identity mapped;
    struct mr_identity recorded;
    struct mr_err err = {0};
    unsigned tries = 0;
    int fd = -1;

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &mapped);
    recorded = mapped;
    recorded.diskseq--; /* an earlier life of this number */
    assert_int_equal(mr_device_present(&recorded), MR_ABSENT_NOW);
    assert_int_equal(mr_claim(&recorded, 0, &fd, &tries, &err), MR_CLAIM_GONE);
    assert_int_equal(fd, -1);
    env_unmap(token, &mapped);
}

static void test_claim_of_a_wrong_node_is_unknown_not_free(void **state)
{
    char token[MR_TOKEN_TEXT];
    struct mr_identity mapped;
    struct mr_identity wrong;
    struct mr_err err = {0};
    unsigned tries = 0;
    int fd = -1;

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &mapped);
    wrong = mapped;
    (void)snprintf(wrong.node, sizeof(wrong.node), "/dev/null");
    assert_int_equal(mr_claim(&wrong, 0, &fd, &tries, &err), MR_CLAIM_UNKNOWN);
    assert_int_equal(err.code, MR_E_DEVICE_MISMATCH);
    (void)snprintf(wrong.node, sizeof(wrong.node), "/dev/no-such-node");
    assert_int_equal(mr_claim(&wrong, 0, &fd, &tries, &err), MR_CLAIM_UNKNOWN);
    assert_int_equal(fd, -1);
    env_unmap(token, &mapped);
}

static void test_presence_without_a_diskseq_is_unknown(void **state)
{
    char token[MR_TOKEN_TEXT];
    struct mr_identity mapped;

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &mapped);
    struct mr_identity nothing = mapped;
    nothing.diskseq = 0;
    assert_int_equal(mr_device_present(&nothing), MR_PRESENCE_UNKNOWN);
    struct mr_identity no_disk = mapped;
    no_disk.major = 4000;
    assert_int_equal(mr_device_present(&no_disk), MR_ABSENT_NOW);
    env_unmap(token, &mapped);
}

/* The kernel keeps the mapping for users that the claim cannot see. */
static void test_unmap_with_a_plain_opener_stays_bound_until_it_closes(void **state)
{
    char token[MR_TOKEN_TEXT];
    struct mr_identity mapped;
    struct mr_err err = {0};
    unsigned tries = 0;
    int claim = -1;

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &mapped);
    int opener = open(mapped.node, O_RDONLY | O_CLOEXEC);
    assert_int_equal(mr_claim(&mapped, 0, &claim, &tries, &err), MR_CLAIM_OK);
    assert_int_equal(mr_driver_file.unmap(token, env_dir, &mapped, claim, &err), 0);
    assert_int_equal(mr_device_present(&mapped), MR_PRESENT);
    assert_int_equal(close(opener), 0);
    assert_true(env_wait_gone(&mapped));
}

static void test_keep_leaves_a_device_bound_again_alone(void **state)
{
    char token[MR_TOKEN_TEXT];
    struct mr_identity mapped;
    struct mr_identity recorded;
    struct mr_identity wrong;
    struct mr_err err = {0};
    unsigned tries = 0;
    int claim = -1;

    (void)state;
    env_map("a.img", ENV_SMALL_BYTES, token, &mapped);
    int opener = open(mapped.node, O_RDONLY | O_CLOEXEC);
    assert_int_equal(mr_claim(&mapped, 0, &claim, &tries, &err), MR_CLAIM_OK);
    assert_int_equal(mr_driver_file.unmap(token, env_dir, &mapped, claim, &err), 0);
    recorded = mapped;
    recorded.diskseq--;
    assert_int_equal(mr_driver_file.keep(&recorded, &err), 0);
    wrong = mapped;
    (void)snprintf(wrong.node, sizeof(wrong.node), "/dev/null");
    assert_true(mr_driver_file.keep(&wrong, &err) < 0); /* cannot tell */
    assert_int_equal(close(opener), 0);
    assert_true(env_wait_gone(&mapped)); /* still put off, not kept */
    assert_int_equal(mr_driver_file.keep(&mapped, &err), 0);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_knows_the_drivers),
        cmocka_unit_test(test_map_fills_the_identity_and_find_gives_the_same_device),
        cmocka_unit_test(test_same_file_is_mapped_once),
        cmocka_unit_test(test_unmap_again_finds_the_device_gone),
        cmocka_unit_test(test_read_only_spec_gives_a_read_only_device),
        cmocka_unit_test(test_paths_outside_of_the_roots_are_refused),
        cmocka_unit_test(test_symlinks_below_the_root_are_refused),
        cmocka_unit_test(test_only_regular_files_of_whole_sectors_are_mapped),
        cmocka_unit_test(test_claim_is_busy_while_another_claim_exists),
        cmocka_unit_test(test_claim_never_takes_a_device_bound_again),
        cmocka_unit_test(test_claim_of_a_wrong_node_is_unknown_not_free),
        cmocka_unit_test(test_presence_without_a_diskseq_is_unknown),
        cmocka_unit_test(test_unmap_with_a_plain_opener_stays_bound_until_it_closes),
        cmocka_unit_test(test_keep_leaves_a_device_bound_again_alone),
    };

    return cmocka_run_group_tests_name("worker driver and claim", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
