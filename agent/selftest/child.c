/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/selftest/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/spawn.h"

int mr_child_start(struct mr_child *child, const char *program,
                   const struct mr_hold_kind *kind, const struct mr_hold_site *site,
                   struct mr_err *err)
{
    const char *const argv[] = {program,    "hold",    kind->name, site->mount_path,
                                site->node, site->dir, NULL};
    int in[2];
    int out[2];

    *child = (struct mr_child){.stdin_fd = -1, .stdout_fd = -1};
    if (pipe2(in, O_CLOEXEC) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create a pipe");
    MR_AUTO_CLOSE int in_read = in[0];
    child->stdin_fd = in[1];
    if (pipe2(out, O_CLOEXEC) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "create a pipe");
    MR_AUTO_CLOSE int out_write = out[1];
    child->stdout_fd = out[0];
    if (fcntl(child->stdout_fd, F_SETFL, O_NONBLOCK) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "prepare a pipe");
    const struct mr_spawn spawn = {
        .argv = argv,
        .stdin_fd = in_read,
        .stdout_fd = out_write,
        .stderr_fd = -1,
        .new_session = true, /* the interrupt key is for us; then it lets go in order */
    };
    return mr_spawn_start(&spawn, &child->pid, NULL, err);
}

bool mr_child_has_spoken(void *ctx)
{
    struct mr_child *child = ctx;

    while (!child->said) {
        size_t room = sizeof(child->line) - child->used - 1;
        ssize_t got = read(child->stdout_fd, child->line + child->used, room);
        if (got < 0)
            return false;
        child->used += (size_t)got;
        child->line[child->used] = '\0';
        char *end = strchr(child->line, '\n');
        if (end)
            *end = '\0';
        child->said = end || got == 0;
    }
    return true;
}

bool mr_child_has_ended(void *ctx)
{
    struct mr_child *child = ctx;

    if (child->pid > 0 && waitpid(child->pid, &child->status, WNOHANG) != 0)
        child->pid = 0;
    return child->pid == 0;
}

bool mr_child_holds(const struct mr_child *child)
{
    return strncmp(child->line, "ready", 5) == 0;
}

const char *mr_child_cannot(const struct mr_child *child)
{
    static const char cannot[] = "cannot: ";
    const size_t len = sizeof(cannot) - 1;

    return strncmp(child->line, cannot, len) == 0 ? child->line + len : NULL;
}

void mr_child_let_go(struct mr_child *child)
{
    mr_close(&child->stdin_fd);
}

void mr_child_done(struct mr_child *child)
{
    mr_close(&child->stdin_fd);
    mr_close(&child->stdout_fd);
    if (child->pid > 0) {
        (void)kill(child->pid, SIGKILL);
        while (waitpid(child->pid, &child->status, 0) < 0 && errno == EINTR)
            continue;
        child->pid = 0;
    }
}
