/* SPDX-License-Identifier: Apache-2.0
 *
 * mooringd: reads what it is told, opens the sockets, starts engine and API on one event
 * loop, and ends in the opposite order. The only place that decides about the exit code.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "agent/config.h"
#include "agent/initiator.h"
#include "agent/listen.h"
#include "agent/options.h"
#include "api/server.h"
#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/log.h"
#include "storage/engine.h"

/* 2 listeners of 512 connections, workers, watches: 1024 is too few. select(2) is not
 * used. */
#define FDS_WANTED 16384

struct agent {
    struct mr_options options;
    struct mr_config config;
    struct mr_listens listens;
    struct mr_loop *loop;
    struct mr_engine *engine;
    struct mr_api *api;
    int signal_fd;
    struct mr_io *signal_io;
};

static int complain(enum mr_exit code, const struct mr_err *err)
{
    mr_log(MR_LOG_ERR, "%s%s%s", err->message, err->remedy[0] ? "; " : "", err->remedy);
    return (int)code;
}

/* --- what we were told --- */

static int find_helpers(struct mr_config *config, struct mr_err *err)
{
    char own[PATH_MAX];
    char path[PATH_MAX + 64];

    ssize_t bytes = readlink("/proc/self/exe", own, sizeof(own) - 1);
    if (bytes < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "find our own binary");
    own[bytes] = '\0';
    *strrchr(own, '/') = '\0';
    (void)snprintf(path, sizeof(path), "%s/../libexec/mooring", own);
    if (!realpath(path, config->libexec_dir))
        return mr_fail(err, MR_E_INTERNAL, errno, "find our helpers in '%s'", path);
    (void)snprintf(path, sizeof(path), "%s/mooring-worker", config->libexec_dir);
    if (access(path, X_OK) != 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "find our helper '%s'", path);
    return 0;
}

static int make_directory(const char *path, struct mr_err *err)
{
    /* Users must be able to pass through to their volumes; what is private has its own
     * mode. */
    mode_t old = umask(022);
    int r = mr_mkdir_p(path, 0755);
    (void)umask(old);
    return r == 0 ? 0 : mr_fail(err, MR_E_INTERNAL, -r, "create '%s'", path);
}

/* Its path is part of the mark on everything of ours: one name for each directory. */
static int resolve_runtime_dir(struct mr_config *config, struct mr_err *err)
{
    char resolved[PATH_MAX];

    if (!realpath(config->runtime_dir, resolved))
        return mr_fail(err, MR_E_INTERNAL, errno, "resolve '%s'", config->runtime_dir);
    memcpy(config->runtime_dir, resolved, sizeof(resolved));
    return 0;
}

/* 0, or the exit code. */
static int configure(struct agent *agent, bool run)
{
    const struct mr_options *options = &agent->options;
    struct mr_config *config = &agent->config;
    const char *file = options->config_file ? options->config_file : MR_CONFIG_FILE;
    enum mr_exit code = MR_EXIT_CONFIG;
    struct mr_err err;

    if (mr_format(config->state_dir, sizeof(config->state_dir), "%s",
                  options->state_dir) < 0 ||
        mr_format(config->runtime_dir, sizeof(config->runtime_dir), "%s",
                  options->runtime_dir) < 0) {
        (void)mr_fail_at(&err, MR_E_INVALID_REQUEST, "", "a path is too long");
        return complain(MR_EXIT_USAGE, &err);
    }
    if (mr_listen_check(options, &code, &err) < 0)
        return complain(code, &err);
    if (mr_config_load(file, options->config_file != NULL, config, &err) < 0 ||
        mr_config_resolve_roots(config, run, &err) < 0)
        return complain(MR_EXIT_CONFIG, &err);
    if (run &&
        (find_helpers(config, &err) < 0 || make_directory(config->state_dir, &err) < 0 ||
         make_directory(config->runtime_dir, &err) < 0 ||
         resolve_runtime_dir(config, &err) < 0))
        return complain(MR_EXIT_SYSTEM, &err);
    if (!config->initiator_name[0] &&
        mr_initiator_find(config->state_dir, run, config->initiator_name,
                          sizeof(config->initiator_name), &err) < 0)
        return complain(err.code == MR_E_INTERNAL ? MR_EXIT_SYSTEM : MR_EXIT_CONFIG,
                        &err);
    return 0;
}

/* --- life --- */

static void raise_fd_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= FDS_WANTED)
        return;
    limit.rlim_cur = limit.rlim_max < FDS_WANTED ? limit.rlim_max : FDS_WANTED;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static void on_signal(void *ctx, uint32_t events)
{
    struct agent *agent = ctx;
    struct signalfd_siginfo info;
    (void)events;

    while (read(agent->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGHUP) {
            mr_log(MR_LOG_NOTICE,
                   "SIGHUP: ignored; restart to read the configuration again");
            continue;
        }
        mr_log(MR_LOG_NOTICE, "%s from pid %u: stopping", strsignal((int)info.ssi_signo),
               info.ssi_pid);
        mr_loop_stop(agent->loop);
    }
}

static int catch_signals(struct agent *agent, struct mr_err *err)
{
    sigset_t set;

    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    agent->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (agent->signal_fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "signalfd");
    return mr_loop_add(agent->loop, agent->signal_fd, EPOLLIN, on_signal, agent,
                       &agent->signal_io, err);
}

/* The engine first: it locks the directories, so that a second agent fails before it
 * touches anything, the socket of the first included. */
static int start(struct agent *agent, enum mr_exit *ret_exit, struct mr_err *err)
{
    int rc = mr_loop_new(&agent->loop, err);
    if (rc == 0)
        rc = catch_signals(agent, err);
    if (rc == 0)
        rc = mr_engine_new(agent->loop, &agent->config, &agent->engine, err);
    if (rc == 0)
        rc = mr_listen_open(&agent->options, &agent->listens, ret_exit, err);
    if (rc < 0)
        return rc;
    *ret_exit = MR_EXIT_SYSTEM;
    rc = mr_api_new(agent->loop, agent->engine, &agent->config, &agent->api, err);
    for (size_t i = 0; rc == 0 && i < agent->listens.count; i++) {
        rc = mr_api_listen(agent->api, agent->listens.socket[i].fd, err);
        if (rc == 0)
            agent->listens.socket[i].fd = -1;
    }
    return rc;
}

static void stop(struct agent *agent)
{
    (void)sd_notify(0, "STOPPING=1");
    if (agent->api)
        mr_api_stop(agent->api);
    mr_listen_done(&agent->listens);
    mr_api_free(agent->api);
    mr_engine_free(agent->engine);
    mr_io_remove(agent->signal_io);
    mr_close(&agent->signal_fd);
    mr_loop_free(agent->loop);
}

static int run(struct agent *agent)
{
    enum mr_exit code = MR_EXIT_SYSTEM;
    struct mr_err err;

    raise_fd_limit();
    mr_log(MR_LOG_NOTICE, "version " MR_VERSION " starts, initiator %s",
           agent->config.initiator_name);
    int rc = start(agent, &code, &err);
    if (rc == 0) {
        (void)sd_notify(0, "READY=1");
        rc = mr_loop_run(agent->loop, &err);
    }
    stop(agent);
    return rc < 0 ? complain(code, &err) : MR_EXIT_OK;
}

/* Only returns when it cannot be started. */
static int selftest(struct agent *agent)
{
    char path[PATH_MAX + 32];
    char program[] = "mooring-selftest";
    char job[] = "run";
    char *argv[] = {program, job, NULL};
    struct mr_err err;

    if (find_helpers(&agent->config, &err) < 0)
        return complain(MR_EXIT_SYSTEM, &err);
    (void)snprintf(path, sizeof(path), "%s/%s", agent->config.libexec_dir, program);
    (void)execv(path, argv);
    (void)mr_fail(&err, MR_E_INTERNAL, errno, "start '%s'", path);
    return complain(MR_EXIT_SYSTEM, &err);
}

static int dispatch(struct agent *agent)
{
    int code = MR_EXIT_OK;

    switch (agent->options.mode) {
    case MR_MODE_HELP:
        mr_options_help(stdout);
        break;
    case MR_MODE_VERSION:
        (void)puts("mooringd " MR_VERSION);
        break;
    case MR_MODE_DUMP_ROUTES:
        mr_api_dump_routes(stdout);
        break;
    case MR_MODE_SELFTEST:
        code = selftest(agent);
        break;
    case MR_MODE_CHECK_CONFIG:
        code = configure(agent, false);
        if (code == 0)
            (void)puts("configuration ok");
        break;
    case MR_MODE_RUN:
        code = configure(agent, true);
        if (code == 0)
            code = run(agent);
        break;
    }
    return code == 0 && fflush(stdout) != 0 ? MR_EXIT_SYSTEM : code;
}

int main(int argc, char **argv)
{
    static struct agent agent = {.signal_fd = -1}; /* too large for the stack */
    struct mr_err err;

    (void)umask(077);
    mr_log_init("mooringd");
    if (mr_options_parse(argc, argv, &agent.options, &err) < 0)
        return complain(MR_EXIT_USAGE, &err);
    int code = dispatch(&agent);
    mr_config_done(&agent.config);
    return code;
}
