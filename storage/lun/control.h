/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket RUNTIME/lun/TOKEN.sock: questions and orders to a running keeper,
 * JSON documents as in base/msg.h. Never blocks, serves a fixed number of clients (the
 * oldest gives way), and I/O does not depend on it. A socket that is left behind says
 * that the server did not log out of its session.
 *
 * The protocol has a version, because a keeper outlives the agent that started it. A
 * request is {"version": N, "cmd": NAME}; without a version it is 1. Every answer says
 * which versions the keeper understands, "oldest" to "version" (without "oldest": that
 * version alone), and "program_version". A request in another version is refused.
 */
#ifndef MR_STORAGE_LUN_CONTROL_H
#define MR_STORAGE_LUN_CONTROL_H

#include <json-c/json.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include "storage/base/err.h"

#define MR_CONTROL_OLDEST 1 /* no versions: {"cmd"} */
#define MR_CONTROL_VERSION                                                               \
    3 /* what this program speaks by itself; 2 knew but two verbs */
#define MR_CONTROL_CLIENTS 4
#define MR_CONTROL_WATCHERS 2 /* besides the clients */
#define MR_CONTROL_SLOTS (MR_CONTROL_CLIENTS + MR_CONTROL_WATCHERS)
#define MR_CONTROL_FDS (MR_CONTROL_SLOTS + 1)

/* What a client waits for; the meaning is the owner's. Gone with the client. */
struct mr_control_wait {
    int what; /* 0: nothing */
    int64_t seen;
    int64_t deadline_ns;
};

struct mr_control_client {
    int fd;       /* -1: free */
    bool watches; /* gets every mr_control_push() */
    uint64_t age; /* the smaller, the older */
    struct mr_control_wait wait;
};

struct mr_control {
    int listen_fd;
    struct mr_control_client clients[MR_CONTROL_SLOTS];
    uint64_t accepted;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

/* Answers one request (borrowed) with a new reference; NULL when the answer comes later
 * (client->wait.what is set) or never (the client is hung up on). */
typedef struct json_object *(*mr_control_fn)(void *ctx, struct mr_control_client *client,
                                             struct json_object *request);

/* Marks everything closed: before any other call. */
void mr_control_init(struct mr_control *control);
/* Creates directory (0700) and socket (0600); one of the same token that is left over is
 * replaced. */
int mr_control_open(struct mr_control *control, const char *runtime_dir,
                    const char *token, struct mr_err *err);
/* Fills MR_CONTROL_FDS entries; unused ones have fd -1. */
void mr_control_poll(const struct mr_control *control, struct pollfd *fds);
/* Handles what poll(2) reported for them. */
void mr_control_handle(struct mr_control *control, const struct pollfd *fds,
                       mr_control_fn fn, void *ctx);
/* A late answer (borrowed, NULL hangs up); ends the client's wait. */
void mr_control_answer(struct mr_control_client *client, struct json_object *answer);
/* From now on it watches; the oldest watcher may have to give way. */
void mr_control_watch(struct mr_control *control, struct mr_control_client *client);
/* To all watchers. Who does not read is hung up on: it missed something. */
void mr_control_push(struct mr_control *control, struct json_object *document);
/* Closes everything; the name stays. Fine twice. */
void mr_control_close(struct mr_control *control);
/* Removes the name. */
void mr_control_unlink(const struct mr_control *control);

/* What every answer has. */
void mr_control_say_version(struct json_object *answer);
/* The refusal of this request when it is in no version that we understand, a new
 * reference; NULL when it is fine (or we are out of memory). */
struct json_object *mr_control_refuse(struct json_object *request, const char *token);
/* An answer that is no status: {ok: false, token, version, oldest, program_version,
 * error}. */
struct json_object *mr_control_error(const char *token, const struct mr_err *err);

/* RUNTIME/lun/TOKEN.sock. -ENAMETOOLONG when it does not fit a unix(7) address. */
int mr_control_path(char *dst, size_t size, const char *runtime_dir, const char *token);

#endif
