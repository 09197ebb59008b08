/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP API inside the event loop: one libmicrohttpd daemon per listening socket,
 * driven by its epoll fd. Core thread only; no call blocks. Knows the engine by its
 * header only.
 */
#ifndef MR_API_SERVER_H
#define MR_API_SERVER_H

#include <stdio.h>

#include "storage/base/err.h"
#include "storage/base/loop.h"
#include "storage/config.h"
#include "storage/engine.h"

struct mr_api;

/* All three are borrowed for the api's life. Returns 0, or a negative errno with
 * MR_E_INTERNAL. */
int mr_api_new(struct mr_loop *loop, struct mr_engine *engine,
               const struct mr_config *config, struct mr_api **ret, struct mr_err *err);

/* Serves a listening, non-blocking stream socket (unix or TCP). On TCP the Host field
 * must name this machine's loopback (a web page could reach it by DNS rebinding). Takes
 * fd on success. */
int mr_api_listen(struct mr_api *api, int fd, struct mr_err *err);

/* Answers all waiting requests with 503 `shutting-down`, writes what the sockets take,
 * closes everything. The engine must still live. */
void mr_api_stop(struct mr_api *api);
/* Stops if that was not done yet. NULL is fine. */
void mr_api_free(struct mr_api *api);

/* "METHOD /pattern" lines of the route table, for the test that compares them with
 * openapi.yaml. */
void mr_api_dump_routes(FILE *out);

#endif
