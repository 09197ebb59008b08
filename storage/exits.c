/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of processes that hold a volume: no event tells when a busy umount would
 * succeed, but a pidfd tells that one of those who are in the way is gone. Only a reason
 * to look again: with io_uring the kernel lets go later than the process ends.
 */
#include <stdlib.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/json.h"
#include "storage/engine_internal.h"

#define MR_EXITS_MAX 32 /* of one detach */

static void exit_free(struct mr_exit *exit)
{
    mr_io_remove(exit->io);
    mr_close(&exit->pidfd);
    free(exit);
}

void mr_exits_forget(struct mr_operation *op)
{
    while (op->exits) {
        struct mr_exit *exit = op->exits;
        op->exits = exit->next;
        exit_free(exit);
    }
}

static void on_exit_event(void *ctx, uint32_t events)
{
    struct mr_exit *exit = ctx;
    struct mr_operation *op = exit->op;

    (void)events;
    for (struct mr_exit **at = &op->exits; *at; at = &(*at)->next) {
        if (*at == exit) {
            *at = exit->next;
            break;
        }
    }
    mr_holders_exited(op, exit->pid, exit->start_time);
    exit_free(exit);
    op->backoff_ns = 0; /* what is left of it goes in milliseconds */
    mr_detach_look_again(op);
}

static void watch(struct mr_operation *op, pid_t pid, int64_t start_time)
{
    unsigned count = 0;

    for (const struct mr_exit *exit = op->exits; exit; exit = exit->next, count++)
        if (exit->pid == pid && exit->start_time == start_time)
            return;
    struct mr_exit *exit = count < MR_EXITS_MAX ? calloc(1, sizeof(*exit)) : NULL;
    if (!exit)
        return;
    *exit = (struct mr_exit){.op = op, .pid = pid, .start_time = start_time};
    /* Should the number belong to another process by now, one look is wasted. */
    exit->pidfd = pidfd_open(pid, 0);
    if (exit->pidfd < 0 || mr_loop_add(op->engine->loop, exit->pidfd, EPOLLIN,
                                       on_exit_event, exit, &exit->io, NULL) < 0) {
        exit_free(exit);
        return;
    }
    exit->next = op->exits;
    op->exits = exit;
}

void mr_exits_watch(struct mr_operation *op, struct json_object *rows)
{
    for (size_t i = 0; i < json_object_array_length(rows); i++) {
        struct json_object *row = json_object_array_get_idx(rows, i);
        int64_t pid = mr_json_get_int(row, "pid", 0);
        if (pid > 0 && pid <= INT32_MAX)
            watch(op, (pid_t)pid, mr_json_get_int(row, "start_time", 0));
    }
}
