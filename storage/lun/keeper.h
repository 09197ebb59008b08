/* SPDX-License-Identifier: Apache-2.0
 *
 * mooring-lun serve, the keeper of one LUN: it holds the FUSE connection, the page, the
 * source's lock and the control socket, and starts the server that does the I/O
 * (mooring-lun io), again and again if need be, and the resolver of names. After the
 * start it asks for no memory. It ends when the kernel has released the file, or when the
 * connection had to be aborted. The end of the keeper is the end of the attachment: its
 * server dies with it.
 */
#ifndef MR_STORAGE_LUN_KEEPER_H
#define MR_STORAGE_LUN_KEEPER_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "storage/base/err.h"
#include "storage/lun/control.h"
#include "storage/lun/page.h"
#include "storage/lun/restart.h"
#include "storage/lun/start.h"

#define MR_KEEPER_STOP_MS 1000 /* after SIGKILL */

/* What a client of the control socket may wait for. */
enum mr_keeper_wait {
    MR_KEEPER_WAIT_NONE,
    MR_KEEPER_WAIT_CUT,
    MR_KEEPER_WAIT_FAIL_NOW,
    MR_KEEPER_WAIT_RESIZE,
    MR_KEEPER_WAIT_FENCE,
    MR_KEEPER_WAIT_HAND_OVER,
};

struct mr_keeper_server {
    pid_t pid; /* 0: none */
    uint64_t start_time;
    int pidfd;
    int channel; /* -1 once it serves */
    int64_t ready_by_ns;
    bool ready;
    bool late;         /* killed, because it was not ready in time */
    bool stopped;      /* by a signal */
    bool on_trial;     /* of trial_fd, not of program_fd */
    int64_t ready_ns;  /* since when it is ready */
    uint64_t requests; /* that there had been when it was ready */
    uint64_t bytes;    /* the same, of data that was read or written */
    int64_t usable_ns; /* on trial: since when it could serve; 0: it cannot */
};

struct mr_keeper_resolver {
    pid_t pid; /* 0: none */
    int pidfd;
    int64_t due_ns; /* the next one; 0: the target is there */
};

struct mr_keeper {
    struct mr_lun_start start;
    struct json_object *message; /* as it came, for the servers: holds secrets */
    int worker_fd;               /* -1 once it has its answer */
    int fuse_fd;
    int mount_fd; /* -1 once the worker has it */
    int abort_fd; /* -1: there is no other way than to end everything */
    uint32_t connection;
    int page_fd;
    int order_fd;
    int news_fd;
    int child_fd;   /* signalfd(2) of SIGCHLD */
    int program_fd; /* of the last server that has shown that it works */
    int trial_fd; /* of the one after the next hand-over, until it has shown it; or -1 */
    struct mr_page *page;
    struct mr_control control;
    struct mr_keeper_server server;
    struct mr_keeper_resolver resolver;
    struct mr_restart restart;
    int64_t restart_ns;     /* when the next server is due, 0: not */
    int64_t server_wall_ms; /* when the last one ended or was stopped */
    char server_end[40];    /* how the last crashed one ended */
    bool trial_failed;      /* the program of the last hand-over has not shown it */
    bool serving;           /* the worker was told that all is well */
    bool done;
    int exit_code;
};

/* The whole life; the exit status. */
int mr_keeper_main(void);

/* --- keeper_server.c --- */

/* An fd of the program that runs here, or of the one at path. At a number that no child
 * gets for something else. Negative errno. */
int mr_keeper_program(const char *path);
/* Starts a server with everything it needs. */
int mr_keeper_spawn(struct mr_keeper *k, struct mr_err *err);
/* Its answer may be there: 0 not yet, 1 it serves, -EPIPE: it gave none, or another
 * negative errno: *err is its answer. */
int mr_keeper_hear(struct mr_keeper *k, struct mr_err *err);
/* It ends, by force if it must; waits for that at most limit_ms. */
void mr_keeper_stop(struct mr_keeper *k, int64_t limit_ms);
/* It may have been stopped by a signal, or go on; true when that is news. */
bool mr_keeper_see_stop(struct mr_keeper *k);
/* It has ended: reaps it. Its exit status, or minus the signal. */
int mr_keeper_reap(struct mr_keeper *k);

/* --- keeper_resolve.c --- */

/* In every turn: starts and reaps the resolver (resolve.h). Returns when it wants to be
 * called again. */
int64_t mr_keeper_check_resolver(struct mr_keeper *k);

/* --- keeper_life.c --- */

/* Starts the next server, or says what follows when that fails. */
void mr_keeper_next(struct mr_keeper *k);
/* It serves. */
void mr_keeper_ready(struct mr_keeper *k);
/* A program that was handed over to is kept when its server has moved data, or could have
 * done so for some seconds: looks for that. One that does nothing at all is killed, and
 * one that has no session for long.
 * Returns when to look again. */
int64_t mr_keeper_check_trial(struct mr_keeper *k);
/* It has ended; *said is its answer, if there was one. */
void mr_keeper_ended(struct mr_keeper *k, const struct mr_err *said);
/* Everything fails from now on, whatever the server does; the keeper is done. */
void mr_keeper_abort(struct mr_keeper *k);
/* Tells all watchers. */
void mr_keeper_push(struct mr_keeper *k);

/* --- keeper_verbs.c --- */

/* mr_control_fn; ctx is the keeper. */
struct json_object *mr_keeper_answer(void *ctx, struct mr_control_client *client,
                                     struct json_object *request);
struct json_object *mr_keeper_status(const struct mr_keeper *k);
struct json_object *mr_keeper_refuse(const struct mr_keeper *k, int errnum,
                                     const char *why);

/* --- keeper_waits.c --- */

/* The client waits for that, at most limit_ms; seen is the state before. NULL. */
struct json_object *mr_keeper_later(struct mr_control_client *client,
                                    enum mr_keeper_wait what, int64_t seen,
                                    int64_t limit_ms);
/* Answers whoever waits for what is there now, or has waited for too long. Returns when
 * the next one has. */
int64_t mr_keeper_check_waits(struct mr_keeper *k);

/* --- keeper.c --- */

/* The worker's answer, best effort: with the worker gone the mount's fd dies in the
 * socket, and we end by that. */
void mr_keeper_tell_worker(struct mr_keeper *k, struct json_object *json);
/* The attach fails with that; the keeper is done. */
void mr_keeper_fail_start(struct mr_keeper *k, const struct mr_err *err);

#endif
