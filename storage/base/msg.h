/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON documents over a SOCK_SEQPACKET pair: one message is one document, with at most
 * one fd (unix(7), SCM_RIGHTS). Used between agent and worker, and worker and
 * mooring-lun.
 */
#ifndef MR_STORAGE_BASE_MSG_H
#define MR_STORAGE_BASE_MSG_H

#include <json-c/json.h>

#include "storage/base/err.h"

#define MR_MSG_MAX (192 * 1024)

/* A connected pair, both ends close-on-exec and blocking; buffers hold a message of
 * MR_MSG_MAX. */
int mr_msg_pair(int ret_fds[2], struct mr_err *err);

/* Sends one document (borrowed) and a copy of pass_fd (-1: none). Never raises SIGPIPE.
 * flags: MSG_DONTWAIT in the core. Returns 0, -EPIPE when the peer is gone, -EAGAIN,
 * -EMSGSIZE, ... */
int mr_msg_send(int fd, struct json_object *json, int pass_fd, int flags,
                struct mr_err *err);

/* Receives one document: *ret is a new reference, *ret_fd (may be NULL: an fd is refused)
 * the passed fd, close-on-exec, or -1. Returns 1, 0 at end of file, -EAGAIN with
 * MSG_DONTWAIT, -EBADMSG when it is not JSON or too long. */
int mr_msg_recv(int fd, struct json_object **ret, int *ret_fd, int flags,
                struct mr_err *err);

#endif
