/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "storage/lun/fuse_proto.h"

static const struct mr_fuse_geometry lun = {
    .size_bytes = 10 * 4096,
    .block_size = 512,
    .max_bytes = MR_FUSE_DATA_MAX,
    .granularity_bytes = 4096,
    .writable = true,
};

/* Builds a message of exactly the right length on the heap and decodes it. */
static struct mr_fuse_request decode(const struct mr_fuse_geometry *geometry,
                                     uint32_t opcode, const void *argument, size_t len,
                                     size_t extra)
{
    struct fuse_in_header head = {
        .len = (uint32_t)(sizeof(head) + len + extra),
        .opcode = opcode,
        .unique = 77,
        .nodeid = FUSE_ROOT_ID,
    };
    struct mr_fuse_request request;
    uint8_t *message = calloc(1, head.len);

    assert_non_null(message);
    memcpy(message, &head, sizeof(head));
    if (len > 0)
        memcpy(message + sizeof(head), argument, len);
    assert_int_equal(mr_fuse_decode(message, head.len, geometry, &request), 0);
    free(message);
    assert_true(request.unique == 77);
    return request;
}

static struct mr_fuse_request do_read(uint64_t offset, uint32_t size)
{
    struct fuse_read_in in = {.offset = offset, .size = size};

    return decode(&lun, FUSE_READ, &in, sizeof(in), 0);
}

static struct mr_fuse_request do_write(const struct mr_fuse_geometry *geometry,
                                       uint64_t offset, uint32_t size, size_t data)
{
    struct fuse_write_in in = {.offset = offset, .size = size};

    return decode(geometry, FUSE_WRITE, &in, sizeof(in), data);
}

static struct mr_fuse_request do_fallocate(uint32_t mode, uint64_t offset,
                                           uint64_t length)
{
    struct fuse_fallocate_in in = {.mode = mode, .offset = offset, .length = length};

    return decode(&lun, FUSE_FALLOCATE, &in, sizeof(in), 0);
}

static void expect_error(struct mr_fuse_request request, int error)
{
    assert_int_equal(request.kind, MR_FUSE_ANSWER);
    assert_int_equal(request.error, error);
}

static void test_reads_are_cut_at_the_end(void **state)
{
    (void)state;
    struct mr_fuse_request request = do_read(4096, 8192);

    assert_int_equal(request.kind, MR_FUSE_READ);
    assert_true(request.offset == 4096 && request.length == 8192);
    request = do_read(9 * 4096, 8192);
    assert_true(request.kind == MR_FUSE_READ && request.length == 4096);
    request = do_read(10 * 4096, 512);
    assert_true(request.kind == MR_FUSE_READ && request.length == 0);
    request = do_read(10 * 4096 + 512, 512);
    assert_true(request.kind == MR_FUSE_READ && request.length == 0);
    request = do_read(UINT64_MAX - 511, 512);
    assert_true(request.kind == MR_FUSE_READ && request.length == 0);
}

static void test_unaligned_or_oversized_transfers_are_refused(void **state)
{
    (void)state;
    expect_error(do_read(1, 512), -EINVAL);
    expect_error(do_read(0, 100), -EINVAL);
    expect_error(do_read(0, MR_FUSE_DATA_MAX + 512), -EINVAL);
    expect_error(do_write(&lun, 256, 512, 512), -EINVAL);
    expect_error(do_write(&lun, 0, 513, 513), -EINVAL);
    expect_error(do_write(&lun, 0, 0, 0), -EINVAL);
}

static void test_writes_must_lie_inside(void **state)
{
    (void)state;
    struct mr_fuse_request request = do_write(&lun, 9 * 4096, 4096, 4096);

    assert_int_equal(request.kind, MR_FUSE_WRITE);
    assert_true(request.offset == 9 * 4096 && request.length == 4096);
    expect_error(do_write(&lun, 9 * 4096, 4608, 4608), -EIO);
    expect_error(do_write(&lun, 10 * 4096, 512, 512), -EIO);
    expect_error(do_write(&lun, UINT64_MAX - 511, 512, 512), -EIO);
}

static void test_a_write_whose_data_is_missing_is_refused(void **state)
{
    (void)state;
    expect_error(do_write(&lun, 0, 4096, 2048), -EINVAL);
    expect_error(do_write(&lun, 0, 512, 1024), -EINVAL);
}

static void test_a_read_only_lun_takes_no_changes(void **state)
{
    (void)state;
    struct mr_fuse_geometry ro = lun;
    struct fuse_fallocate_in punch = {.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                      .length = 512};
    struct fuse_open_in in = {.flags = O_RDWR};

    ro.writable = false;
    expect_error(do_write(&ro, 0, 512, 512), -EROFS);
    expect_error(decode(&ro, FUSE_FALLOCATE, &punch, sizeof(punch), 0), -EROFS);
    expect_error(decode(&ro, FUSE_OPEN, &in, sizeof(in), 0), -EROFS);
    in.flags = O_RDONLY;
    assert_int_equal(decode(&ro, FUSE_OPEN, &in, sizeof(in), 0).kind, MR_FUSE_OPEN);
}

static void test_only_two_ways_of_fallocate_exist(void **state)
{
    (void)state;
    const uint32_t keep = FALLOC_FL_KEEP_SIZE;
    struct mr_fuse_request request = do_fallocate(FALLOC_FL_PUNCH_HOLE | keep, 512, 1024);

    assert_int_equal(request.kind, MR_FUSE_PUNCH);
    assert_true(request.offset == 512 && request.length == 1024);
    assert_int_equal(do_fallocate(FALLOC_FL_ZERO_RANGE | keep, 0, 40960).kind,
                     MR_FUSE_ZERO);
    expect_error(do_fallocate(0, 0, 512), -EOPNOTSUPP);
    expect_error(do_fallocate(FALLOC_FL_ZERO_RANGE, 0, 512), -EOPNOTSUPP);
    expect_error(do_fallocate(FALLOC_FL_COLLAPSE_RANGE, 0, 512), -EOPNOTSUPP);
    expect_error(do_fallocate(FALLOC_FL_PUNCH_HOLE | keep, 0, 0), -EINVAL);
    expect_error(do_fallocate(FALLOC_FL_PUNCH_HOLE | keep, 0, 100), -EINVAL);
    expect_error(do_fallocate(FALLOC_FL_PUNCH_HOLE | keep, 0, 40960 + 512), -EIO);
    expect_error(do_fallocate(FALLOC_FL_PUNCH_HOLE | keep, 512, UINT64_MAX - 511), -EIO);
}

static void test_the_size_cannot_be_set(void **state)
{
    (void)state;
    struct fuse_setattr_in in = {.valid = FATTR_SIZE, .size = 0};

    expect_error(decode(&lun, FUSE_SETATTR, &in, sizeof(in), 0), -EPERM);
    in.valid = FATTR_MTIME;
    assert_int_equal(decode(&lun, FUSE_SETATTR, &in, sizeof(in), 0).kind, MR_FUSE_ATTR);
}

static void test_an_fsync_always_reaches_the_target(void **state)
{
    (void)state;
    struct fuse_fsync_in in = {.fsync_flags = 1};

    assert_int_equal(decode(&lun, FUSE_FSYNC, &in, sizeof(in), 0).kind, MR_FUSE_SYNC);
    assert_int_equal(decode(&lun, FUSE_FSYNC, NULL, 0, 0).kind, MR_FUSE_SYNC);
}

static void test_requests_without_a_reply_get_none(void **state)
{
    (void)state;
    static const uint32_t mute[] = {FUSE_FORGET, FUSE_BATCH_FORGET, FUSE_INTERRUPT};

    for (size_t i = 0; i < sizeof(mute) / sizeof(mute[0]); i++)
        assert_int_equal(decode(&lun, mute[i], NULL, 0, 16).kind, MR_FUSE_NO_REPLY);
}

static void test_unknown_requests_are_not_implemented(void **state)
{
    (void)state;
    static const uint32_t other[] = {FUSE_LOOKUP, FUSE_GETXATTR, FUSE_IOCTL, FUSE_MKDIR,
                                     52,          9999,          UINT32_MAX};

    for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++)
        expect_error(decode(&lun, other[i], NULL, 0, 8), -ENOSYS);
}

static void test_cut_arguments_are_refused(void **state)
{
    (void)state;
    static const uint32_t all[] = {FUSE_READ, FUSE_WRITE, FUSE_FALLOCATE, FUSE_SETATTR,
                                   FUSE_OPEN};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        expect_error(decode(&lun, all[i], NULL, 0, 4), -EINVAL);
}

static void test_a_message_that_lies_about_its_length_is_dropped(void **state)
{
    (void)state;
    struct fuse_in_header head = {.len = sizeof(head) + 1, .opcode = FUSE_GETATTR};
    struct mr_fuse_request request;

    assert_int_equal(mr_fuse_decode(&head, sizeof(head), &lun, &request), -EPROTO);
    assert_int_equal(mr_fuse_decode(&head, 8, &lun, &request), -EPROTO);
}

static void test_init_offers_only_what_the_kernel_has(void **state)
{
    (void)state;
    struct fuse_init_in in = {.major = 7, .minor = 45, .flags = FUSE_ASYNC_DIO};
    struct mr_fuse_request request = decode(&lun, FUSE_INIT, &in, sizeof(in), 0);
    struct fuse_init_out out;

    assert_int_equal(request.kind, MR_FUSE_INIT);
    mr_fuse_init_out(&request, &lun, &out);
    assert_int_equal(out.flags, FUSE_ASYNC_DIO);
    assert_int_equal(out.max_write, MR_FUSE_DATA_MAX);
    assert_int_equal(out.max_pages, 256);
    assert_int_equal(decode(&lun, FUSE_INIT, &in, 16, 0).kind, MR_FUSE_INIT);
    expect_error(decode(&lun, FUSE_INIT, &in, 8, 0), -EPROTO);
    in.major = 8;
    expect_error(decode(&lun, FUSE_INIT, &in, sizeof(in), 0), -EPROTO);
}

static void test_init_tells_whether_requests_can_be_given_again(void **state)
{
    (void)state;
    struct fuse_init_in in = {
        .major = 7, .minor = 40, .flags = FUSE_INIT_EXT, .flags2 = UINT32_MAX};
    struct mr_fuse_request request = decode(&lun, FUSE_INIT, &in, sizeof(in), 0);
    struct fuse_init_out out;

    assert_true(mr_fuse_can_resend(&request));
    mr_fuse_init_out(&request, &lun, &out);
    assert_true(out.flags & FUSE_INIT_EXT);
    assert_int_equal(out.flags2, MR_FUSE_HAS_RESEND >> 32);
    in.flags = 0; /* flags2 means nothing */
    request = decode(&lun, FUSE_INIT, &in, sizeof(in), 0);
    assert_false(mr_fuse_can_resend(&request));
    in.flags = FUSE_INIT_EXT;
    request = decode(&lun, FUSE_INIT, &in, 16, 0); /* an older kernel's */
    assert_false(mr_fuse_can_resend(&request));
    in.flags2 = 0;
    request = decode(&lun, FUSE_INIT, &in, sizeof(in), 0);
    assert_false(mr_fuse_can_resend(&request));
    mr_fuse_init_out(&request, &lun, &out);
    assert_int_equal(out.flags2, 0);
}

static void test_a_resent_request_keeps_its_mark(void **state)
{
    (void)state;
    struct fuse_in_header head = {
        .len = sizeof(head), .opcode = FUSE_STATFS, .unique = MR_FUSE_UNIQUE_RESEND | 6};
    struct mr_fuse_request request;

    assert_int_equal(mr_fuse_decode(&head, sizeof(head), &lun, &request), 0);
    assert_int_equal(request.kind, MR_FUSE_STATFS);
    assert_true(request.unique == head.unique);
}

static void test_the_file_looks_like_the_lun(void **state)
{
    (void)state;
    struct fuse_attr_out attr;
    struct fuse_statfs_out statfs;

    mr_fuse_attr_out(&lun, &attr);
    assert_true(attr.attr.size == lun.size_bytes && attr.attr.ino == FUSE_ROOT_ID);
    assert_true(S_ISREG(attr.attr.mode));
    assert_int_equal(attr.attr.blksize, 512);
    mr_fuse_statfs_out(&lun, &statfs);
    assert_int_equal(statfs.st.bsize, 4096);
    assert_true(statfs.st.blocks == 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_are_cut_at_the_end),
        cmocka_unit_test(test_unaligned_or_oversized_transfers_are_refused),
        cmocka_unit_test(test_writes_must_lie_inside),
        cmocka_unit_test(test_a_write_whose_data_is_missing_is_refused),
        cmocka_unit_test(test_a_read_only_lun_takes_no_changes),
        cmocka_unit_test(test_only_two_ways_of_fallocate_exist),
        cmocka_unit_test(test_the_size_cannot_be_set),
        cmocka_unit_test(test_an_fsync_always_reaches_the_target),
        cmocka_unit_test(test_requests_without_a_reply_get_none),
        cmocka_unit_test(test_unknown_requests_are_not_implemented),
        cmocka_unit_test(test_cut_arguments_are_refused),
        cmocka_unit_test(test_a_message_that_lies_about_its_length_is_dropped),
        cmocka_unit_test(test_init_offers_only_what_the_kernel_has),
        cmocka_unit_test(test_init_tells_whether_requests_can_be_given_again),
        cmocka_unit_test(test_a_resent_request_keeps_its_mark),
        cmocka_unit_test(test_the_file_looks_like_the_lun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
