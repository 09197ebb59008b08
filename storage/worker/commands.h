/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of protocol.h, one function each, and the state that lasts between them:
 * the claim. The peer is not trusted to be free of bugs: every member is checked before
 * use, a wrong one is an error reply. Single-threaded; everything here may block.
 */
#ifndef MR_STORAGE_WORKER_COMMANDS_H
#define MR_STORAGE_WORKER_COMMANDS_H

#include <json-c/json.h>
#include <stdbool.h>

#include "storage/base/err.h"
#include "storage/identity.h"
#include "storage/worker/driver.h"

/* What the process was started for: which commands it takes. */
enum mr_worker_mode {
    MR_WORKER_VOLUME = 0,
    MR_WORKER_ACTION, /* only one of them */
    MR_WORKER_SURVEY,
    MR_WORKER_PROBE, /* only one of them */
};

struct mr_worker {
    enum mr_worker_mode mode;
    int channel_fd;
    int inotify_fd;
    int lock_fd;                /* inherited by mkfs, by nothing else; -1 in tests */
    int claim_fd;               /* -1: no claim */
    struct mr_identity claimed; /* the device of claim_fd */
    uint64_t unmapped_diskseq;  /* unmap was called under a claim on this one; 0: none */
};

/* Answers commands until the channel closes. Returns 0 then (also when the peer closed
 * it with a reply unread), or a negative errno when it broke. */
int mr_worker_run(struct mr_worker *worker, struct mr_err *err);

/* One command. Members for the reply go into reply (an object, borrowed). 0, or a
 * negative errno with err: then the reply is an error reply that keeps these members. */
typedef int (*mr_command_fn)(struct mr_worker *worker, struct json_object *cmd,
                             struct json_object *reply, struct mr_err *err);

int mr_command_inspect(struct mr_worker *worker, struct json_object *cmd,
                       struct json_object *reply, struct mr_err *err);
int mr_command_map(struct mr_worker *worker, struct json_object *cmd,
                   struct json_object *reply, struct mr_err *err);
int mr_command_identify(struct mr_worker *worker, struct json_object *cmd,
                        struct json_object *reply, struct mr_err *err);
int mr_command_check(struct mr_worker *worker, struct json_object *cmd,
                     struct json_object *reply, struct mr_err *err);
int mr_command_format(struct mr_worker *worker, struct json_object *cmd,
                      struct json_object *reply, struct mr_err *err);
int mr_command_mount(struct mr_worker *worker, struct json_object *cmd,
                     struct json_object *reply, struct mr_err *err);
int mr_command_unmount(struct mr_worker *worker, struct json_object *cmd,
                       struct json_object *reply, struct mr_err *err);
int mr_command_claim(struct mr_worker *worker, struct json_object *cmd,
                     struct json_object *reply, struct mr_err *err);
int mr_command_keep(struct mr_worker *worker, struct json_object *cmd,
                    struct json_object *reply, struct mr_err *err);
int mr_command_unmap(struct mr_worker *worker, struct json_object *cmd,
                     struct json_object *reply, struct mr_err *err);
int mr_command_gone(struct mr_worker *worker, struct json_object *cmd,
                    struct json_object *reply, struct mr_err *err);
int mr_command_examine(struct mr_worker *worker, struct json_object *cmd,
                       struct json_object *reply, struct mr_err *err);
int mr_command_act(struct mr_worker *worker, struct json_object *cmd,
                   struct json_object *reply, struct mr_err *err);

int mr_command_look(struct mr_worker *worker, struct json_object *cmd,
                    struct json_object *reply, struct mr_err *err);
int mr_command_search(struct mr_worker *worker, struct json_object *cmd,
                      struct json_object *reply, struct mr_err *err);
int mr_command_discover(struct mr_worker *worker, struct json_object *cmd,
                        struct json_object *reply, struct mr_err *err);
int mr_command_preflight(struct mr_worker *worker, struct json_object *cmd,
                         struct json_object *reply, struct mr_err *err);

/* "present", "absent" or "unknown". */
const char *mr_presence_name(enum mr_presence presence);

/* Members of a command; a missing or wrong one is MR_E_INTERNAL that names it. Results
 * are borrowed from cmd. */
int mr_arg_text(struct json_object *cmd, const char *key, const char **ret,
                struct mr_err *err);
int mr_arg_token(struct json_object *cmd, const char **ret, struct mr_err *err);
int mr_arg_driver(struct json_object *cmd, const struct mr_driver **ret,
                  struct mr_err *err);
/* A mapped device: a node below /dev and a diskseq. */
int mr_arg_identity(struct json_object *cmd, struct mr_identity *ret, struct mr_err *err);
/* An absolute root and a valid path below it; the mount id may be 0 (not mounted yet). */
int mr_arg_mount(struct json_object *cmd, struct mr_mount_record *ret,
                 struct mr_err *err);

#define MR_FILE_ROOTS_MAX 64
/* token, spec and config of `map` and `preflight`. *ret_spec is to be freed; *ret refers
 * to it, to roots and to cmd. */
int mr_arg_map_request(struct json_object *cmd, const char *roots[MR_FILE_ROOTS_MAX + 1],
                       struct mr_spec **ret_spec, struct mr_map_request *ret,
                       struct mr_err *err);

#endif
