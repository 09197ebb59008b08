/* SPDX-License-Identifier: Apache-2.0 */
#include "lun_io_env.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "storage/base/clock.h"

struct env env;

/* --- instead of libiscsi --- */

static struct scsi_task *note(enum env_what what, uint64_t lba, uint32_t bytes,
                              struct scsi_iovec *iov, int pieces, iscsi_command_cb done,
                              void *ctx)
{
    struct env_command *command = &env.commands[env.command_count];
    struct scsi_task *task;

    if (env.cannot)
        return NULL;
    assert_true(env.command_count < ENV_COMMANDS);
    task = calloc(1, sizeof(*task));
    assert_non_null(task);
    task->xfer_dir = what == ENV_READ   ? SCSI_XFER_READ
                     : what == ENV_SYNC ? SCSI_XFER_NONE
                                        : SCSI_XFER_WRITE;
    *command = (struct env_command){what, lba, bytes, iov, pieces, true, task, done, ctx};
    env.command_count++;
    env.tasks++;
    env.pending = true;
    return task;
}

struct scsi_task *iscsi_read16_iov_task(struct iscsi_context *iscsi, int lun,
                                        uint64_t lba, uint32_t datalen, int blocksize,
                                        int rdprotect, int dpo, int fua, int fua_nv,
                                        int group_number, iscsi_command_cb cb,
                                        void *private_data, struct scsi_iovec *iov,
                                        int niov)
{
    (void)iscsi, (void)lun, (void)blocksize, (void)rdprotect, (void)dpo, (void)fua;
    (void)fua_nv, (void)group_number;
    return note(ENV_READ, lba, datalen, iov, niov, cb, private_data);
}

struct scsi_task *iscsi_write16_iov_task(struct iscsi_context *iscsi, int lun,
                                         uint64_t lba, unsigned char *data,
                                         uint32_t datalen, int blocksize, int wrprotect,
                                         int dpo, int fua, int fua_nv, int group_number,
                                         iscsi_command_cb cb, void *private_data,
                                         struct scsi_iovec *iov, int niov)
{
    (void)iscsi, (void)lun, (void)blocksize, (void)wrprotect, (void)dpo, (void)fua;
    (void)fua_nv, (void)group_number, (void)data;
    return note(ENV_WRITE, lba, datalen, iov, niov, cb, private_data);
}

struct scsi_task *iscsi_synchronizecache16_task(struct iscsi_context *iscsi, int lun,
                                                uint64_t lba, uint32_t num_blocks,
                                                int syncnv, int immed,
                                                iscsi_command_cb cb, void *private_data)
{
    (void)iscsi, (void)lun, (void)num_blocks, (void)syncnv, (void)immed;
    return note(ENV_SYNC, lba, 0, NULL, 0, cb, private_data);
}

struct scsi_task *iscsi_writesame16_task(struct iscsi_context *iscsi, int lun,
                                         uint64_t lba, unsigned char *data,
                                         uint32_t datalen, uint32_t num_blocks,
                                         int anchor, int unmap, int wrprotect, int group,
                                         iscsi_command_cb cb, void *private_data)
{
    (void)iscsi, (void)lun, (void)anchor, (void)wrprotect, (void)group;
    for (uint32_t i = 0; i < datalen; i++)
        assert_int_equal(data[i], 0);
    return note(unmap ? ENV_SAME_UNMAP : ENV_SAME, lba, num_blocks * ENV_BLOCK, NULL, 0,
                cb, private_data);
}

void scsi_free_scsi_task(struct scsi_task *task)
{
    env.tasks -= task != NULL;
    free(task);
}

int iscsi_out_queue_length(struct iscsi_context *iscsi)
{
    (void)iscsi;
    return env.pending ? 2 : 0;
}

/* --- instead of session.c --- */

int mr_session_fd(const struct mr_session *s)
{
    (void)s;
    return -1;
}

short mr_session_events(const struct mr_session *s)
{
    (void)s;
    return (short)(env.pending ? POLLIN | POLLOUT : POLLIN);
}

bool mr_session_sent_all(const struct mr_session *s)
{
    (void)s;
    return !env.pending;
}

void mr_session_flush(struct mr_session *s, int64_t now_ns)
{
    (void)s, (void)now_ns;
    env.pending = env.queue_full;
}

void mr_session_lose(struct mr_session *s, const char *fmt, ...)
{
    (void)fmt;
    s->lost = true;
}

/* --- the kernel --- */

uint64_t env_send(uint32_t opcode, const void *argument, size_t len)
{
    struct fuse_in_header head = {
        .len = (uint32_t)(sizeof(head) + len),
        .opcode = opcode,
        .unique = ++env.unique,
        .nodeid = FUSE_ROOT_ID,
    };
    struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)argument, len}};

    assert_int_equal(writev(env.kernel_fd, iov, 2), (int)head.len);
    if (mr_io_ready(&env.io))
        mr_io_receive(&env.io);
    return env.unique;
}

uint64_t env_read(uint64_t offset, uint32_t bytes)
{
    struct fuse_read_in in = {.offset = offset, .size = bytes};

    return env_send(FUSE_READ, &in, sizeof(in));
}

uint64_t env_write(uint64_t offset, uint32_t bytes, uint8_t fill)
{
    struct fuse_write_in in = {.offset = offset, .size = bytes};
    uint8_t *message = malloc(sizeof(in) + bytes);
    uint64_t unique;

    assert_non_null(message);
    memcpy(message, &in, sizeof(in));
    memset(message + sizeof(in), fill, bytes);
    unique = env_send(FUSE_WRITE, message, sizeof(in) + bytes);
    free(message);
    return unique;
}

uint64_t env_sync(void)
{
    struct fuse_fsync_in in = {0};

    return env_send(FUSE_FSYNC, &in, sizeof(in));
}

uint64_t env_fallocate(int mode, uint64_t offset, uint64_t bytes)
{
    struct fuse_fallocate_in in = {
        .offset = offset, .length = bytes, .mode = (uint32_t)mode};

    return env_send(FUSE_FALLOCATE, &in, sizeof(in));
}

static void collect(void)
{
    static uint8_t message[MR_FUSE_DATA_MAX];
    ssize_t n;

    mr_replies_send(&env.io.replies); /* as at the end of each turn */
    while ((n = recv(env.kernel_fd, message, sizeof(message), MSG_DONTWAIT)) > 0) {
        struct fuse_out_header head;
        const uint32_t body = (uint32_t)((size_t)n - sizeof(head));

        memcpy(&head, message, sizeof(head));
        assert_int_equal(head.len, n);
        assert_true(env.reply_count < ENV_REPLIES);
        env.replies[env.reply_count].unique = head.unique;
        env.replies[env.reply_count].error = head.error;
        env.replies[env.reply_count].bytes = body;
        env.replies[env.reply_count].first = body > 0 ? message[sizeof(head)] : 0;
        env.replies[env.reply_count].last = body > 0 ? message[n - 1] : 0;
        env.reply_count++;
    }
}

unsigned env_replies(uint64_t unique)
{
    unsigned count = 0;

    collect();
    for (unsigned i = 0; i < env.reply_count; i++)
        count += env.replies[i].unique == unique;
    return count;
}

void env_expect(uint64_t unique, int error)
{
    assert_int_equal(env_replies(unique), 1);
    for (unsigned i = 0; i < env.reply_count; i++) {
        if (env.replies[i].unique == unique)
            assert_int_equal(env.replies[i].error, error);
    }
}

void env_expect_none(uint64_t unique)
{
    assert_int_equal(env_replies(unique), 0);
}

/* --- the target --- */

static struct env_command *take(unsigned command)
{
    struct env_command *taken = &env.commands[command];

    assert_true(command < env.command_count && taken->open);
    taken->open = false;
    return taken;
}

void env_good(unsigned command, uint8_t fill)
{
    struct env_command *taken = take(command);

    for (int i = 0; taken->what == ENV_READ && i < taken->pieces; i++)
        memset(taken->iov[i].iov_base, fill, taken->iov[i].iov_len);
    taken->done(NULL, SCSI_STATUS_GOOD, taken->task, taken->ctx);
}

void env_sense(unsigned command, unsigned key, unsigned asc)
{
    struct env_command *taken = take(command);

    taken->task->sense.key = (unsigned char)key;
    taken->task->sense.ascq = (int)asc;
    taken->done(NULL, SCSI_STATUS_CHECK_CONDITION, taken->task, taken->ctx);
}

void env_answer(unsigned command, int status)
{
    struct env_command *taken = take(command);

    taken->done(NULL, status, taken->task, taken->ctx);
}

void env_good_all(void)
{
    for (unsigned i = 0; i < env.command_count; i++) {
        if (env.commands[i].open)
            env_good(i, 0x77);
    }
}

struct env_command *env_last(void)
{
    assert_true(env.command_count > 0);
    return &env.commands[env.command_count - 1];
}

/* --- the link --- */

void env_run(void)
{
    env.session = (struct mr_session){
        .iscsi = (struct iscsi_context *)(void *)&env, /* never looked at */
        .timeout_ns = 10 * MR_NS_PER_S,
    };
    mr_io_run(&env.io, &env.session);
    mr_io_step(&env.io);
}

void env_lose(bool callbacks)
{
    env.session.lost = true;
    for (unsigned i = 0; i < env.command_count; i++) {
        struct env_command *command = &env.commands[i];

        if (command->open && callbacks)
            command->done(NULL, SCSI_STATUS_CANCELLED, NULL, command->ctx);
        command->open = false;
    }
    env.session.iscsi = NULL;
    env.pending = false;
    mr_io_hold(&env.io);
}

void env_turn(int64_t ms)
{
    env.io.now_ns += ms * MR_NS_PER_MS;
    (void)mr_io_check(&env.io);
    if (mr_io_ready(&env.io))
        mr_io_receive(&env.io);
    mr_io_step(&env.io);
    assert_int_equal(env.io.replies.count, 0); /* the next turn may be long in coming */
}

static void start_server(int fuse_fd)
{
    struct mr_err err;

    assert_int_equal(mr_io_init(&env.io, fuse_fd, &env.page, &err), 0);
    mr_io_serve(&env.io);
}

void env_restart(void)
{
    int fuse_fd = env.io.fuse_fd;

    for (unsigned i = 0; i < env.command_count; i++) {
        if (env.commands[i].open)
            scsi_free_scsi_task(env.commands[i].task);
        env.commands[i].open = false;
    }
    mr_io_done(&env.io);
    start_server(fuse_fd);
}

int env_set_up(void **state)
{
    const int room = 64 << 20; /* /dev/fuse is never full */
    struct mr_err err;
    int fds[2];

    (void)state;
    memset(&env, 0, sizeof(env));
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
        return -1;
    assert_int_equal(setsockopt(fds[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)),
                     0);
    env.kernel_fd = fds[0];
    env.page.facts = (struct mr_lun_facts){
        .size_bytes = ENV_SIZE,
        .block_size = ENV_BLOCK,
        .thin = true,
        .max_write_same_blocks = 16,
    };
    atomic_store(&env.page.replacement_ms, 20000);
    assert_int_equal(mr_io_geometry(&env.page.facts, false, &env.page.geometry, &err), 0);
    atomic_store(&env.page.known, true);
    start_server(fds[1]);
    return 0;
}

int env_tear_down(void **state)
{
    unsigned slots = 0;
    const struct mr_slot *slot;

    (void)state;
    if (env.io.mode == MR_IO_RUNNING) {
        env.queue_full = false;
        env_good_all();
        env_turn(0);
        env_lose(false);
    }
    mr_io_refuse(&env.io);
    mr_io_step(&env.io);
    TAILQ_FOREACH(slot, &env.io.pool.free, work)
    slots++;
    assert_int_equal(slots, MR_POOL_SLOTS);
    assert_int_equal(env.io.pool.block_count, MR_POOL_BLOCKS);
    assert_int_equal(env.tasks, 0);
    assert_int_equal(atomic_load(&env.page.in_flight), 0);
    mr_io_done(&env.io);
    (void)close(env.io.fuse_fd);
    (void)close(env.kernel_fd);
    return 0;
}
