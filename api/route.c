/* SPDX-License-Identifier: Apache-2.0 */
#include "api/route.h"

#include <errno.h>
#include <string.h>

#include "api/uri.h"

#define SEGMENTS_MAX 8

static const struct mr_route routes[] = {
    {
        .method = "GET",
        .pattern = "/volumes",
        .handler = mr_handle_volume_list,
        .query = {[MR_LIST_LIMIT] = "limit", [MR_LIST_PAGE_TOKEN] = "page_token"},
    },
    {
        .method = "GET",
        .pattern = "/volumes/{id}",
        .handler = mr_handle_volume_get,
    },
    {
        .method = "PUT",
        .pattern = "/volumes/{id}",
        .handler = mr_handle_volume_put,
        .body = MR_BODY_REQUIRED,
        .query = {[MR_PUT_DRY_RUN] = "dry_run"},
    },
    {
        .method = "DELETE",
        .pattern = "/volumes/{id}",
        .handler = mr_handle_volume_delete,
        .query = {[MR_DELETE_MOUNT_PATH] = "mount_path",
                  [MR_DELETE_ACCEPT_DATA_LOSS] = "accept_data_loss"},
    },
    {
        .method = "GET",
        .pattern = "/volumes/{id}/holders",
        .handler = mr_handle_holders_get,
    },
    {
        .method = "POST",
        .pattern = "/volumes/{id}/holders/actions",
        .handler = mr_handle_action_post,
        .body = MR_BODY_REQUIRED,
    },
    {
        .method = "POST",
        .pattern = "/volumes/{id}/forget",
        .handler = mr_handle_forget_post,
        .body = MR_BODY_OPTIONAL,
    },
    {
        .method = "GET",
        .pattern = "/volumes/{id}/history",
        .handler = mr_handle_history_get,
        .query = {[MR_LIST_LIMIT] = "limit", [MR_LIST_PAGE_TOKEN] = "page_token"},
    },
    {
        .method = "GET",
        .pattern = "/orphans",
        .handler = mr_handle_orphan_list,
        .query = {[MR_LIST_LIMIT] = "limit", [MR_LIST_PAGE_TOKEN] = "page_token"},
    },
    {
        .method = "DELETE",
        .pattern = "/orphans/{id}",
        .handler = mr_handle_orphan_delete,
        .query = {[MR_DELETE_ACCEPT_DATA_LOSS] = "accept_data_loss"},
    },
    {
        .method = "GET",
        .pattern = "/discovery",
        .handler = mr_handle_discovery,
        .query = {[MR_DISCOVERY_DRIVER] = "driver",
                  [MR_DISCOVERY_PORTAL] = "portal",
                  [MR_DISCOVERY_TIMEOUT] = "timeout_s"},
    },
    {
        .method = "GET",
        .pattern = "/operations/{op}",
        .handler = mr_handle_operation_get,
    },
    {
        .method = "POST",
        .pattern = "/reconcile",
        .handler = mr_handle_reconcile_post,
        .body = MR_BODY_OPTIONAL,
    },
    {.method = "GET", .pattern = "/livez", .handler = mr_handle_livez},
    {.method = "GET", .pattern = "/readyz", .handler = mr_handle_readyz},
    {.method = "GET", .pattern = "/openapi.yaml", .handler = mr_handle_openapi},
};
#define ROUTE_COUNT (sizeof(routes) / sizeof(routes[0]))

struct path {
    char *segment[SEGMENTS_MAX];
    size_t count;
};

/* Splits at slashes, then decodes each segment. Returns 0 or -EINVAL. */
static int split_path(const char *target, size_t bytes, char *scratch, struct path *path,
                      char **ret_end)
{
    for (size_t at = 0; at < bytes;) {
        const char *segment = target + at + 1;
        size_t length = strcspn(segment, "/?");
        if (mr_uri_decode(segment, length, false, scratch) < 0)
            return -EINVAL;
        if (path->count < SEGMENTS_MAX)
            path->segment[path->count] = scratch;
        path->count++; /* beyond SEGMENTS_MAX no pattern fits */
        scratch += strlen(scratch) + 1;
        at += length + 1;
    }
    *ret_end = scratch;
    return 0;
}

static bool fits(const char *pattern, char *const *segment, size_t count, char **param)
{
    for (; *pattern; segment++, count--) {
        size_t length = strcspn(++pattern, "/");
        if (count == 0)
            return false;
        if (*pattern == '{')
            *param = *segment;
        else if (strlen(*segment) != length || memcmp(*segment, pattern, length) != 0)
            return false;
        pattern += length;
    }
    return count == 0;
}

static void allow(struct mr_match *match, const char *method)
{
    size_t used = strlen(match->allow);
    (void)snprintf(match->allow + used, sizeof(match->allow) - used, "%s%s%s",
                   used ? ", " : "", method, strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

static bool method_fits(const struct mr_route *route, const char *method)
{
    return strcmp(route->method, strcmp(method, "HEAD") == 0 ? "GET" : method) == 0;
}

static int wrong_query(struct mr_err *err, const char *name, size_t bytes,
                       const char *what)
{
    return mr_fail_at(err, MR_E_INVALID_REQUEST, "", "query parameter '%.*s' %s",
                      bytes < 64 ? (int)bytes : 64, name, what);
}

static int parse_query(const struct mr_route *route, const char *query, char *scratch,
                       struct mr_match *ret, struct mr_err *err)
{
    while (*query) {
        size_t bytes = strcspn(query, "&");
        size_t name = strcspn(query, "=&");
        size_t i = 0;
        while (i < MR_QUERY_MAX && !(route->query[i] && strlen(route->query[i]) == name &&
                                     memcmp(route->query[i], query, name) == 0))
            i++;
        if (i == MR_QUERY_MAX)
            return wrong_query(err, query, name, "is unknown");
        if (ret->query[i])
            return wrong_query(err, query, name, "is repeated");
        if (name == bytes ||
            mr_uri_decode(query + name + 1, bytes - name - 1, true, scratch) < 0)
            return wrong_query(err, query, name, "is malformed");
        ret->query[i] = scratch;
        scratch += strlen(scratch) + 1;
        query += bytes;
        query += *query == '&';
    }
    return 0;
}

int mr_route_find(const char *method, const char *target, char *scratch,
                  struct mr_match *ret, struct mr_err *err)
{
    struct path path = {.count = 0};
    size_t bytes = strcspn(target, "?");
    size_t skip = 0;

    *ret = (struct mr_match){.prefix = "", .param = scratch};
    *scratch++ = '\0';
    if (split_path(target, bytes, scratch, &path, &scratch) < 0)
        return mr_fail_at(err, MR_E_INVALID_REQUEST, "",
                          "bad percent-escape in the path");
    if (path.count > 0 && strcmp(path.segment[0], "v1") == 0) {
        ret->prefix = "/v1";
        skip = 1;
    }
    for (size_t i = 0; i < ROUTE_COUNT && path.count <= SEGMENTS_MAX; i++) {
        if (!fits(routes[i].pattern, path.segment + skip, path.count - skip, &ret->param))
            continue;
        allow(ret, routes[i].method);
        if (!method_fits(&routes[i], method))
            continue;
        ret->route = &routes[i];
        return parse_query(&routes[i], target[bytes] ? target + bytes + 1 : "", scratch,
                           ret, err);
    }
    if (ret->allow[0])
        return mr_fail_at(err, MR_E_METHOD_NOT_ALLOWED, "", "allowed here: %s",
                          ret->allow);
    return mr_fail_at(err, MR_E_NOT_FOUND, "", "no such path; see /openapi.yaml");
}

void mr_route_dump(FILE *out)
{
    for (size_t i = 0; i < ROUTE_COUNT; i++)
        (void)fprintf(out, "%s %s\n", routes[i].method, routes[i].pattern);
}
