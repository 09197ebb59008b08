/* SPDX-License-Identifier: Apache-2.0
 *
 * A data path between two fakes: a socket for /dev/fuse, whose other end the test holds,
 * and functions with the names of libiscsi's and the session's that only take notes. What
 * they are given shadows the libraries.
 */
#ifndef MR_TESTS_UNIT_LUN_IO_ENV_H
#define MR_TESTS_UNIT_LUN_IO_ENV_H

#include "tests/unit/unit.h"

#include <linux/fuse.h>
#include <stdbool.h>

#include "storage/lun/io.h"

#define ENV_COMMANDS 4096
#define ENV_REPLIES 8192
#define ENV_BLOCK 512u
#define ENV_SIZE (1ull << 30)
#define ENV_LARGE (MR_SLOT_BYTES + 4096u) /* a request that needs a block */

enum env_what {
    ENV_READ = 1,
    ENV_WRITE,
    ENV_SYNC,
    ENV_SAME,
    ENV_SAME_UNMAP,
};

struct env_command {
    enum env_what what;
    uint64_t lba;
    uint32_t bytes;
    struct scsi_iovec *iov;
    int pieces;
    bool open; /* no callback yet */
    struct scsi_task *task;
    iscsi_command_cb done;
    void *ctx;
};

struct env {
    struct mr_page page;
    struct mr_session session;
    struct mr_io io;
    int kernel_fd;
    uint64_t unique; /* of the last request */
    struct env_command commands[ENV_COMMANDS];
    unsigned command_count;
    unsigned tasks;  /* alive */
    bool cannot;     /* queue a command */
    bool queue_full; /* what is queued is not sent */
    bool pending;
    unsigned corks;
    struct {
        uint64_t unique;
        int error;
        uint32_t bytes; /* of the body */
        uint8_t first;
        uint8_t last;
    } replies[ENV_REPLIES];
    unsigned reply_count;
};

extern struct env env;

/* Serving, no session. */
int env_set_up(void **state);
/* Fails unless every slot, block and task is back. */
int env_tear_down(void **state);
/* A second server on the same page. */
void env_restart(void);

/* Requests of the kernel; each returns its id and lets the data path read it. */
uint64_t env_read(uint64_t offset, uint32_t bytes);
uint64_t env_write(uint64_t offset, uint32_t bytes, uint8_t fill);
uint64_t env_sync(void);
uint64_t env_fallocate(int mode, uint64_t offset, uint64_t bytes);
uint64_t env_send(uint32_t opcode, const void *argument, size_t len);

/* The end of a turn. */
void env_turn(int64_t ms);
/* Answers of the target; data of READs is filled with fill. */
void env_good(unsigned command, uint8_t fill);
void env_sense(unsigned command, unsigned key, unsigned asc);
void env_answer(unsigned command, int status);
/* Everything that is open, in order. */
void env_good_all(void);

void env_run(void);
/* As the link does it: context destroyed (with or without callbacks), then hold. */
void env_lose(bool callbacks);

/* How often the request was answered, and the last error. */
unsigned env_replies(uint64_t unique);
void env_expect(uint64_t unique, int error);
void env_expect_none(uint64_t unique);
struct env_command *env_last(void);

#endif
