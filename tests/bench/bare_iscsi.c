/* SPDX-License-Identifier: Apache-2.0
 *
 * libiscsi by itself: its asynchronous loop as its documentation has it, a fixed number
 * of commands in flight, one session, buffers allocated beforehand. What is above this
 * (FUSE, loop device, bookkeeping) is what a LUN server costs.
 */
#include "bare.h"

#include <err.h>
#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define NS_PER_MS 1000000
#define NS_PER_S 1000000000
#define DEPTH_MAX 256
#define LOGIN_S 10

struct load {
    struct iscsi_context *iscsi;
    int lun;
    int lun_block_bytes;
    bool write;
    bool random;
    uint64_t first_byte; /* of the part that is worked on */
    uint64_t blocks;     /* of block_bytes each, in that part */
    uint32_t block_bytes;
    uint64_t next; /* block, when sequential */
    uint64_t random_state;
    int64_t end_ns; /* no command is started any more */
    uint64_t done;
    unsigned in_flight;
};

struct slot {
    struct load *load;
    struct scsi_iovec iov;
    struct scsi_task *task;
};

/* xorshift64*, G. Marsaglia. */
static uint64_t any_number(struct load *load)
{
    load->random_state ^= load->random_state >> 12;
    load->random_state ^= load->random_state << 25;
    load->random_state ^= load->random_state >> 27;
    return load->random_state * 0x2545f4914f6cdd1dull;
}

static void command_done(struct iscsi_context *iscsi, int status, void *command_data,
                         void *private_data);

static void issue(struct slot *slot)
{
    struct load *load = slot->load;
    uint64_t block = (load->random ? any_number(load) : load->next++) % load->blocks;
    uint64_t lba =
        (load->first_byte + block * load->block_bytes) / (uint64_t)load->lun_block_bytes;

    if (load->write)
        slot->task = iscsi_write16_iov_task(
            load->iscsi, load->lun, lba, NULL, load->block_bytes, load->lun_block_bytes,
            0, 0, 0, 0, 0, command_done, slot, &slot->iov, 1);
    else
        slot->task = iscsi_read16_iov_task(load->iscsi, load->lun, lba, load->block_bytes,
                                           load->lun_block_bytes, 0, 0, 0, 0, 0,
                                           command_done, slot, &slot->iov, 1);
    if (!slot->task)
        errx(1, "no command: %s", iscsi_get_error(load->iscsi));
    load->in_flight++;
}

static void command_done(struct iscsi_context *iscsi, int status, void *command_data,
                         void *private_data)
{
    struct slot *slot = private_data;
    struct load *load = slot->load;

    (void)command_data;
    if (status != SCSI_STATUS_GOOD)
        errx(1, "status %d: %s", status, iscsi_get_error(iscsi));
    scsi_free_scsi_task(slot->task);
    slot->task = NULL;
    load->in_flight--;
    load->done++;
    if (mr_bare_now_ns() < load->end_ns)
        issue(slot);
}

static void serve(struct load *load)
{
    struct pollfd fd = {
        .fd = iscsi_get_fd(load->iscsi),
        .events = (short)iscsi_which_events(load->iscsi),
    };

    if (poll(&fd, 1, LOGIN_S * 1000) <= 0)
        errx(1, "the target is silent");
    if (iscsi_service(load->iscsi, fd.revents) < 0)
        errx(1, "session: %s", iscsi_get_error(load->iscsi));
    /* What the callbacks have queued is sent without asking poll first. */
    if ((iscsi_which_events(load->iscsi) & POLLOUT) &&
        iscsi_service(load->iscsi, POLLOUT) < 0)
        errx(1, "session: %s", iscsi_get_error(load->iscsi));
}

static int64_t cpu_ns(void)
{
    struct rusage used;

    if (getrusage(RUSAGE_SELF, &used) < 0)
        err(1, "getrusage");
    return ((int64_t)used.ru_utime.tv_sec + used.ru_stime.tv_sec) * NS_PER_S +
           ((int64_t)used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000;
}

/* COMMANDS NANOSECONDS CPU_NANOSECONDS */
static void measure(struct load *load, unsigned depth, int64_t duration_ns)
{
    static struct slot slots[DEPTH_MAX];
    const size_t pool_bytes = (size_t)depth * load->block_bytes;
    uint8_t *pool = aligned_alloc(4096, pool_bytes);
    int64_t begin_ns;
    int64_t cpu;

    if (!pool)
        err(1, "buffers");
    memset(pool, 0x5a, pool_bytes);
    cpu = cpu_ns();
    begin_ns = mr_bare_now_ns();
    load->end_ns = begin_ns + duration_ns;
    load->done = 0;
    for (unsigned i = 0; i < depth; i++) {
        slots[i] = (struct slot){
            .load = load,
            .iov = {pool + (size_t)i * load->block_bytes, load->block_bytes},
        };
        issue(&slots[i]);
    }
    while (load->in_flight > 0)
        serve(load);
    mr_bare_say("%llu %lld %lld", (unsigned long long)load->done,
                (long long)(mr_bare_now_ns() - begin_ns), (long long)(cpu_ns() - cpu));
    free(pool);
}

/* read|write random|sequential BLOCK_BYTES DEPTH MILLISECONDS */
static void order(struct load *load, uint64_t bytes, const char *text)
{
    char direction[8];
    char pattern[16];
    unsigned depth;
    unsigned ms;

    if (sscanf(text, "%7s %15s %u %u %u", direction, pattern, &load->block_bytes, &depth,
               &ms) != 5 ||
        depth == 0 || depth > DEPTH_MAX || load->block_bytes == 0 ||
        load->block_bytes % 4096 != 0 || load->block_bytes > bytes)
        errx(1, "bad order '%s'", text);
    load->write = strcmp(direction, "write") == 0;
    load->random = strcmp(pattern, "random") == 0;
    load->blocks = bytes / load->block_bytes;
    measure(load, depth, (int64_t)ms * NS_PER_MS);
}

static struct iscsi_context *log_in(const char *portal, const char *target, int lun)
{
    struct iscsi_context *iscsi = iscsi_create_context("iqn.2026-11.example.test:bare");

    if (!iscsi)
        errx(1, "no iSCSI context");
    iscsi_set_noautoreconnect(iscsi, 1);
    (void)iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
    (void)iscsi_set_targetname(iscsi, target);
    if (iscsi_full_connect_sync(iscsi, portal, lun) != 0)
        errx(1, "log in: %s", iscsi_get_error(iscsi));
    return iscsi;
}

/* The size of the LUN in bytes, and of its blocks. */
static uint64_t capacity(struct load *load)
{
    struct scsi_task *task = iscsi_readcapacity16_sync(load->iscsi, load->lun);
    const struct scsi_readcapacity16 *answer =
        task && task->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;
    uint64_t bytes;

    if (!answer || answer->block_length == 0)
        errx(1, "capacity: %s", iscsi_get_error(load->iscsi));
    load->lun_block_bytes = (int)answer->block_length;
    bytes = (answer->returned_lba + 1) * answer->block_length;
    scsi_free_scsi_task(task);
    return bytes;
}

void mr_bare_iscsi(char **argument)
{
    struct load load = {
        .lun = atoi(argument[2]),
        .first_byte = strtoull(argument[3], NULL, 10),
        .random_state = 0x9e3779b97f4a7c15ull,
    };
    const char *text;
    uint64_t bytes;

    load.iscsi = log_in(argument[0], argument[1], load.lun);
    bytes = capacity(&load);
    if (bytes <= load.first_byte)
        errx(1, "the LUN has %llu bytes", (unsigned long long)bytes);
    mr_bare_say("ready");
    while (mr_bare_order(&text))
        order(&load, bytes - load.first_byte, text);
    (void)iscsi_logout_sync(load.iscsi);
    (void)iscsi_destroy_context(load.iscsi);
}
