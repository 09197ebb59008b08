/* SPDX-License-Identifier: Apache-2.0
 *
 * The route table: what the API serves, as data. Every pattern is served with and without
 * the prefix /v1, and HEAD where GET is. openapi.yaml lists the same; a test compares.
 */
#ifndef MR_API_ROUTE_H
#define MR_API_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "storage/base/err.h"

#define MR_QUERY_MAX 3

struct mr_request;
typedef void (*mr_handler_fn)(struct mr_request *req);

enum mr_body {
    MR_BODY_NONE = 0,
    MR_BODY_OPTIONAL,
    MR_BODY_REQUIRED,
};

struct mr_route {
    const char *method;
    const char *pattern; /* at most one {parameter} */
    mr_handler_fn handler;
    enum mr_body body;               /* JSON */
    const char *query[MR_QUERY_MAX]; /* names of the query parameters, NULL: fewer */
};

struct mr_match {
    const struct mr_route *route;
    const char *prefix; /* "/v1" or "" */
    char *param;        /* decoded, in the caller's scratch; "" without a {parameter} */
    char *query[MR_QUERY_MAX];
    char allow[64]; /* for METHOD_NOT_ALLOWED: the Allow field */
};

/* Finds the route for a raw request target in origin form. scratch holds strlen(target) +
 * 2 bytes and keeps the decoded texts. Returns 0, or a negative errno with NOT_FOUND,
 * METHOD_NOT_ALLOWED (ret->allow is set) or INVALID_REQUEST (bad escape; query parameter
 * unknown, malformed or repeated). */
int mr_route_find(const char *method, const char *target, char *scratch,
                  struct mr_match *ret, struct mr_err *err);

/* "METHOD /pattern" lines. */
void mr_route_dump(FILE *out);

/* The handlers: volumes.c, actions.c, orphans.c, discovery.c, operations.c, reconcile.c,
 * health.c, openapi.c. */
void mr_handle_volume_put(struct mr_request *req);
void mr_handle_volume_get(struct mr_request *req);
void mr_handle_volume_delete(struct mr_request *req);
void mr_handle_volume_list(struct mr_request *req);
void mr_handle_holders_get(struct mr_request *req);
void mr_handle_history_get(struct mr_request *req);
void mr_handle_action_post(struct mr_request *req);
void mr_handle_forget_post(struct mr_request *req);
void mr_handle_orphan_list(struct mr_request *req);
void mr_handle_orphan_delete(struct mr_request *req);
void mr_handle_discovery(struct mr_request *req);
void mr_handle_operation_get(struct mr_request *req);
void mr_handle_reconcile_post(struct mr_request *req);
void mr_handle_livez(struct mr_request *req);
void mr_handle_readyz(struct mr_request *req);
void mr_handle_openapi(struct mr_request *req);

/* Indices of query values. */
enum {
    MR_LIST_LIMIT,
    MR_LIST_PAGE_TOKEN
};
enum {
    MR_PUT_DRY_RUN
};
enum {
    MR_DISCOVERY_DRIVER,
    MR_DISCOVERY_PORTAL,
    MR_DISCOVERY_TIMEOUT
};
enum {
    MR_DELETE_MOUNT_PATH,
    MR_DELETE_ACCEPT_DATA_LOSS
};

#endif
