/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"

struct fixture {
    int fds[2];
    size_t open_before;
};

static size_t count_open_fds(void)
{
    size_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    (void)closedir(dir);
    return count;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->open_before = count_open_fds();
    assert_int_equal(mr_msg_pair(f->fds, NULL), 0);
    *state = f;
    return 0;
}

/* No test may leave an fd behind, whatever was sent. */
static int teardown(void **state)
{
    struct fixture *f = *state;
    mr_close(&f->fds[0]);
    mr_close(&f->fds[1]);
    assert_int_equal(count_open_fds(), f->open_before);
    free(f);
    return 0;
}

static void send_raw(struct fixture *f, const void *data, size_t len)
{
    assert_int_equal(send(f->fds[0], data, len, MSG_NOSIGNAL), len);
}

static void test_both_ends_are_close_on_exec(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(fcntl(f->fds[i], F_GETFD), FD_CLOEXEC);
}

static void test_a_document_arrives(void **state)
{
    struct fixture *f = *state;
    MR_AUTO_JSON struct json_object *json =
        parse_json("{'cmd': 'map', 'n': [1, {'a': null}]}");
    MR_AUTO_JSON struct json_object *got = NULL;
    assert_int_equal(mr_msg_send(f->fds[0], json, -1, 0, NULL), 0);
    assert_int_equal(mr_msg_recv(f->fds[1], &got, NULL, 0, NULL), 1);
    assert_true(json_object_equal(json, got));
}

static void test_documents_stay_apart_and_in_order(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 5; i++) {
        MR_AUTO_JSON struct json_object *json = json_object_new_object();
        mr_json_set_int(json, "i", i);
        assert_int_equal(mr_msg_send(f->fds[0], json, -1, 0, NULL), 0);
    }
    for (int i = 0; i < 5; i++) {
        MR_AUTO_JSON struct json_object *got = NULL;
        assert_int_equal(mr_msg_recv(f->fds[1], &got, NULL, 0, NULL), 1);
        assert_int_equal(mr_json_get_int(got, "i", -1), i);
    }
}

static void test_an_fd_arrives_close_on_exec(void **state)
{
    struct fixture *f = *state;
    MR_AUTO_JSON struct json_object *json = parse_json("{}");
    MR_AUTO_JSON struct json_object *got = NULL;
    MR_AUTO_CLOSE int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    MR_AUTO_CLOSE int passed = -1;
    struct stat a;
    struct stat b;
    assert_int_equal(mr_msg_send(f->fds[0], json, file, 0, NULL), 0);
    assert_int_equal(mr_msg_recv(f->fds[1], &got, &passed, 0, NULL), 1);
    assert_true(passed >= 0 && passed != file);
    assert_int_equal(fcntl(passed, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fstat(file, &a), 0);
    assert_int_equal(fstat(passed, &b), 0);
    assert_true(a.st_rdev == b.st_rdev);
}

static void test_no_fd_is_minus_one(void **state)
{
    struct fixture *f = *state;
    MR_AUTO_JSON struct json_object *json = parse_json("{}");
    MR_AUTO_JSON struct json_object *got = NULL;
    int passed = 5;
    assert_int_equal(mr_msg_send(f->fds[0], json, -1, 0, NULL), 0);
    assert_int_equal(mr_msg_recv(f->fds[1], &got, &passed, 0, NULL), 1);
    assert_int_equal(passed, -1);
}

static void test_an_unexpected_fd_is_refused_and_closed(void **state)
{
    struct fixture *f = *state;
    MR_AUTO_JSON struct json_object *json = parse_json("{}");
    MR_AUTO_JSON struct json_object *got = NULL;
    MR_AUTO_CLOSE int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(mr_msg_send(f->fds[0], json, file, 0, NULL), 0);
    size_t before = count_open_fds();
    assert_int_equal(mr_msg_recv(f->fds[1], &got, NULL, 0, NULL), -EBADMSG);
    assert_int_equal(count_open_fds(), before);
    assert_null(got);
}

static void test_several_fds_do_not_leak(void **state)
{
    struct fixture *f = *state;
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(3 * sizeof(int))];
    } control = {0};
    char text[] = "{}";
    struct iovec iov = {.iov_base = text, .iov_len = 2};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    const int three[] = {0, 1, 2};
    MR_AUTO_JSON struct json_object *got = NULL;
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(three));
    memcpy(CMSG_DATA(cmsg), three, sizeof(three));
    assert_int_equal(sendmsg(f->fds[0], &msg, MSG_NOSIGNAL), 2);
    MR_AUTO_CLOSE int passed = -1;
    size_t before = count_open_fds();
    (void)mr_msg_recv(f->fds[1], &got, &passed, 0, NULL);
    assert_int_equal(count_open_fds(), before + (passed >= 0));
}

static void test_what_is_no_json_object_is_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"x", "[]",   "null",       "5",
                                      "{", "{} x", "{\"a\":1,}", "\0\0"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        MR_AUTO_JSON struct json_object *got = NULL;
        struct mr_err err;
        send_raw(f, bad[i], bad[i][0] ? strlen(bad[i]) : 2);
        if (mr_msg_recv(f->fds[1], &got, NULL, 0, &err) != -EBADMSG)
            fail_msg("accepted: %s", bad[i]);
        assert_null(got);
    }
}

static void test_deep_nesting_is_refused(void **state)
{
    struct fixture *f = *state;
    MR_AUTO_JSON struct json_object *got = NULL;
    char deep[10000];
    memset(deep, '[', sizeof(deep));
    memcpy(deep, "{\"a\":", 5);
    send_raw(f, deep, sizeof(deep));
    assert_int_equal(mr_msg_recv(f->fds[1], &got, NULL, 0, NULL), -EBADMSG);
}

static void test_the_largest_message_fits_and_more_does_not(void **state)
{
    struct fixture *f = *state;
    MR_AUTO_FREE char *text = malloc(MR_MSG_MAX);
    MR_AUTO_JSON struct json_object *json = json_object_new_object();
    MR_AUTO_JSON struct json_object *got = NULL;
    size_t len = MR_MSG_MAX - strlen("{\"s\":\"\"}");
    memset(text, 'x', len);
    text[len] = '\0';
    mr_json_set_string(json, "s", text);
    assert_int_equal(mr_msg_send(f->fds[0], json, -1, MSG_DONTWAIT, NULL), 0);
    assert_int_equal(mr_msg_recv(f->fds[1], &got, NULL, MSG_DONTWAIT, NULL), 1);
    assert_true(json_object_equal(json, got));
    mr_json_set_int(json, "one_more", 1);
    assert_int_equal(mr_msg_send(f->fds[0], json, -1, MSG_DONTWAIT, NULL), -EMSGSIZE);
}

static void test_too_long_a_message_is_refused_whole(void **state)
{
    struct fixture *f = *state;
    MR_AUTO_JSON struct json_object *got = NULL;
    MR_AUTO_FREE char *text = malloc(MR_MSG_MAX + 10);
    memset(text, ' ', MR_MSG_MAX + 10);
    memcpy(text, "{}", 2);
    if (send(f->fds[0], text, MR_MSG_MAX + 10, MSG_NOSIGNAL) < 0)
        skip(); /* the socket buffer is smaller: cannot be sent at all */
    assert_int_equal(mr_msg_recv(f->fds[1], &got, NULL, 0, NULL), -EBADMSG);
    send_raw(f, "{}", 2);
    assert_int_equal(mr_msg_recv(f->fds[1], &got, NULL, 0, NULL), 1);
}

static void test_end_of_file_and_broken_pipe(void **state)
{
    struct fixture *f = *state;
    MR_AUTO_JSON struct json_object *json = parse_json("{}");
    MR_AUTO_JSON struct json_object *got = NULL;
    assert_int_equal(mr_msg_recv(f->fds[1], &got, NULL, MSG_DONTWAIT, NULL), -EAGAIN);
    mr_close(&f->fds[0]);
    assert_int_equal(mr_msg_recv(f->fds[1], &got, NULL, 0, NULL), 0);
    assert_int_equal(mr_msg_send(f->fds[1], json, -1, 0, NULL),
                     -EPIPE); /* and no SIGPIPE */
}

static void test_a_full_socket_is_eagain(void **state)
{
    struct fixture *f = *state;
    MR_AUTO_JSON struct json_object *json = parse_json("{'some': 'text'}");
    int r = 0;
    for (int i = 0; i < 100000 && r == 0; i++)
        r = mr_msg_send(f->fds[0], json, -1, MSG_DONTWAIT, NULL);
    assert_int_equal(r, -EAGAIN);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_both_ends_are_close_on_exec),
        TEST(test_a_document_arrives),
        TEST(test_documents_stay_apart_and_in_order),
        TEST(test_an_fd_arrives_close_on_exec),
        TEST(test_no_fd_is_minus_one),
        TEST(test_an_unexpected_fd_is_refused_and_closed),
        TEST(test_several_fds_do_not_leak),
        TEST(test_what_is_no_json_object_is_refused),
        TEST(test_deep_nesting_is_refused),
        TEST(test_the_largest_message_fits_and_more_does_not),
        TEST(test_too_long_a_message_is_refused_whole),
        TEST(test_end_of_file_and_broken_pipe),
        TEST(test_a_full_socket_is_eagain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
