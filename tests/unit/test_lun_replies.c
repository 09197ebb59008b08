/* SPDX-License-Identifier: Apache-2.0
 *
 * A datagram socket stands for /dev/fuse: one message per reply, or none.
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "storage/lun/replies.h"

static struct {
    struct mr_replies replies;
    int kernel_fd;
    struct {
        struct fuse_out_header head;
        uint8_t body[8192];
    } message;
} env;

static int set_up(void **state)
{
    const int room = 16 << 20;
    int fds[2];

    (void)state;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0 ||
        setsockopt(fds[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0)
        return -1;
    env.kernel_fd = fds[0];
    mr_replies_init(&env.replies, fds[1]);
    return 0;
}

/* Containers are often denied it: seccomp(2), kernel.io_uring_disabled. */
static void need_io_uring(void)
{
    struct io_uring ring;

    if (io_uring_queue_init(1, &ring, IORING_SETUP_SUBMIT_ALL) < 0)
        skip();
    io_uring_queue_exit(&ring);
    assert_true(env.replies.batched);
}

static int tear_down(void **state)
{
    (void)state;
    mr_replies_done(&env.replies);
    (void)close(env.replies.fuse_fd);
    (void)close(env.kernel_fd);
    return 0;
}

/* The length of the next message, or -1. */
static ssize_t next(void)
{
    return recv(env.kernel_fd, &env.message, sizeof(env.message), MSG_DONTWAIT);
}

static void expect(uint64_t unique, int error, size_t body)
{
    ssize_t n = next();

    assert_int_equal(n, sizeof(env.message.head) + body);
    assert_int_equal(env.message.head.len, n);
    assert_int_equal(env.message.head.unique, unique);
    assert_int_equal(env.message.head.error, error);
}

/* One of each, in two pieces where it has some. */
static void send_three(void)
{
    static uint8_t first[4096];
    static uint8_t second[100];
    const struct iovec pieces[] = {{first, sizeof(first)}, {second, sizeof(second)}};

    memset(first, 1, sizeof(first));
    memset(second, 2, sizeof(second));
    mr_replies_add(&env.replies, 1, -ENOSPC);
    mr_replies_add_written(&env.replies, 2, 512);
    mr_replies_add_data(&env.replies, 3, pieces, 2);
    assert_int_equal(next(), -1);
    mr_replies_send(&env.replies);
}

static void expect_three(void)
{
    struct fuse_write_out written;

    expect(1, -ENOSPC, 0);
    expect(2, 0, sizeof(written));
    memcpy(&written, env.message.body, sizeof(written));
    assert_int_equal(written.size, 512);
    expect(3, 0, 4196);
    assert_int_equal(env.message.body[4095], 1);
    assert_int_equal(env.message.body[4096], 2);
    assert_int_equal(next(), -1);
}

static void test_what_was_gathered_is_sent_once_as_it_was(void **state)
{
    (void)state;
    need_io_uring();
    send_three();
    expect_three();
    mr_replies_send(&env.replies);
    assert_int_equal(next(), -1);
}

static void test_without_io_uring_each_is_sent_by_itself(void **state)
{
    (void)state;
    mr_replies_done(&env.replies);
    send_three();
    expect_three();
}

static void test_more_than_fit_are_sent_meanwhile(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 3 * MR_REPLIES + 1; i++)
        mr_replies_add(&env.replies, i, 0);
    mr_replies_send(&env.replies);
    for (uint64_t i = 1; i <= 3 * MR_REPLIES + 1; i++)
        expect(i, 0, 0);
    assert_int_equal(next(), -1);
}

/* Its data cannot be read: the kernel takes none of it. */
static void test_a_reply_that_is_not_taken_becomes_an_error(void **state)
{
    (void)state;
    struct iovec nowhere = {NULL, 4096};

    need_io_uring();
    mr_replies_add(&env.replies, 1, 0);
    mr_replies_add_data(&env.replies, 2, &nowhere, 1);
    mr_replies_add(&env.replies, 3, 0);
    mr_replies_send(&env.replies);
    expect(1, 0, 0);
    expect(3, 0, 0);
    expect(2, -EIO, 0);
    assert_int_equal(next(), -1);
    assert_true(env.replies.batched);
}

/* Nothing that was queued may be sent later, over memory that is another request's. */
static void test_a_ring_that_breaks_loses_no_reply(void **state)
{
    int nothing;

    (void)state;
    need_io_uring();
    nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_true(nothing >= 0);
    assert_true(dup3(nothing, env.replies.ring.ring_fd, O_CLOEXEC) >= 0);
    (void)close(nothing);
    send_three();
    expect_three();
    assert_false(env.replies.batched);
    send_three();
    expect_three();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_what_was_gathered_is_sent_once_as_it_was),
        TEST(test_without_io_uring_each_is_sent_by_itself),
        TEST(test_more_than_fit_are_sent_meanwhile),
        TEST(test_a_reply_that_is_not_taken_becomes_an_error),
        TEST(test_a_ring_that_breaks_loses_no_reply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
