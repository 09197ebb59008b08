/* SPDX-License-Identifier: Apache-2.0
 *
 * The lock of a source lasts as long as the process that inherited it, and names who has
 * it.
 */
#include <signal.h>
#include <sys/prctl.h>

#include "storage/worker/source_lock.h"
#include "tests/unit/test_worker_env.h"

#define KEY "iscsi:iqn.2026-11.example.test:disk1:1"
#define FIRST "00112233445566778899aabbccddeeff"
#define SECOND "ffffffffffffffffffffffffffffffff"

static int lock(const char *key, const char *token, int64_t wait_ms, int *ret_fd,
                char holder[MR_TOKEN_TEXT])
{
    struct mr_err err = {0};
    int r = mr_source_lock(env_dir, key, token, wait_ms, ret_fd, holder, &err);

    assert_int_equal(r < 0, err.message[0] != '\0');
    if (r == -EWOULDBLOCK)
        assert_int_equal(err.code, MR_E_SOURCE_IN_USE);
    return r;
}

static void test_second_user_is_refused_and_told_the_first(void **state)
{
    MR_AUTO_CLOSE int first = -1;
    MR_AUTO_CLOSE int other = -1;
    MR_AUTO_CLOSE int second = -1;
    char holder[MR_TOKEN_TEXT];

    (void)state;
    assert_int_equal(lock(KEY, FIRST, 0, &first, holder), 0);
    assert_true(fcntl(first, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(lock(KEY, SECOND, 0, &second, holder), -EWOULDBLOCK);
    assert_string_equal(holder, FIRST);
    assert_int_equal(second, -1);
    assert_int_equal(lock(KEY "0", SECOND, 0, &other, holder), 0);
    mr_close(&first);
    assert_int_equal(lock(KEY, SECOND, 0, &second, holder), 0);
    assert_int_equal(lock(KEY, FIRST, 0, &first, holder), -EWOULDBLOCK);
    assert_string_equal(holder, SECOND);
}

static pid_t start_keeper(int64_t life_ms)
{
    pid_t pid = fork();

    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (life_ms == 0)
            for (;;)
                (void)pause();
        mr_sleep_ns(life_ms * MR_NS_PER_MS);
        _exit(0);
    }
    assert_true(pid > 0);
    return pid;
}

static void test_process_that_inherited_it_keeps_it_until_its_end(void **state)
{
    MR_AUTO_CLOSE int first = -1;
    MR_AUTO_CLOSE int second = -1;
    char holder[MR_TOKEN_TEXT];

    (void)state;
    assert_int_equal(lock(KEY, FIRST, 0, &first, holder), 0);
    pid_t pid = start_keeper(0);
    mr_close(&first);
    assert_int_equal(lock(KEY, SECOND, 0, &second, holder), -EWOULDBLOCK);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(lock(KEY, SECOND, 0, &second, holder), 0);
}

static void test_end_of_the_one_before_is_waited_for(void **state)
{
    MR_AUTO_CLOSE int first = -1;
    MR_AUTO_CLOSE int second = -1;
    char holder[MR_TOKEN_TEXT];

    (void)state;
    assert_int_equal(lock(KEY, FIRST, 0, &first, holder), 0);
    pid_t pid = start_keeper(200);
    mr_close(&first);
    assert_int_equal(lock(KEY, SECOND, 5000, &second, holder), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_lock_that_is_no_file_of_ours_is_an_error(void **state)
{
    MR_AUTO_CLOSE int fd = -1;
    char holder[MR_TOKEN_TEXT];
    char path[ENV_PATH];
    char name[40];

    (void)state;
    (void)snprintf(name, sizeof(name), "lun/%016jx.lock",
                   (uintmax_t)mr_text_hash(KEY, strlen(KEY)));
    assert_int_equal(lock(KEY, FIRST, 0, &fd, holder), 0);
    mr_close(&fd);
    assert_int_equal(unlink(env_path(path, env_dir, name)), 0);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_int_equal(lock(KEY, FIRST, 0, &fd, holder), -ELOOP);
    assert_int_equal(unlink(path), 0);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_second_user_is_refused_and_told_the_first),
        cmocka_unit_test(test_process_that_inherited_it_keeps_it_until_its_end),
        cmocka_unit_test(test_end_of_the_one_before_is_waited_for),
        cmocka_unit_test(test_lock_that_is_no_file_of_ours_is_an_error),
    };

    return cmocka_run_group_tests_name("the lock of a source", tests, NULL, NULL);
}

int main(void)
{
    return env_main(run);
}
