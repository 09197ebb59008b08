/* SPDX-License-Identifier: Apache-2.0 */
#include "api/server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "api/internal.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/log.h"

/* Turns of libmicrohttpd that write the last answers at a stop: resume, queue, send, and
 * one to spare. */
#define LAST_TURNS 4

static void log_library(void *cls, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));
static void log_library(void *cls, const char *fmt, va_list ap)
{
    char text[256];
    (void)cls;
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    text[strcspn(text, "\n")] = '\0';
    mr_log(MR_LOG_INFO, "libmicrohttpd: %s", text);
}

/* Paths and queries reach us as sent: api/uri.h decodes. */
static size_t keep_escapes(void *cls, struct MHD_Connection *connection, char *text)
{
    (void)cls;
    (void)connection;
    return strlen(text);
}

/* One turn of libmicrohttpd. Its timer is only moved when it would fire too late: firing
 * early costs one turn, setting it for each request would cost a system call each. */
static void turn(struct mr_listener *listener)
{
    MHD_UNSIGNED_LONG_LONG ms = 0;

    (void)MHD_run(listener->daemon);
    if (MHD_get_timeout(listener->daemon, &ms) != MHD_YES) {
        mr_timer_cancel(&listener->timer);
        return;
    }
    int64_t at_ns = mr_now_ns() + (int64_t)ms * MR_NS_PER_MS;
    if (listener->timer.heap_index == 0 || at_ns < listener->timer.at_ns)
        mr_timer_set(&listener->timer, at_ns);
}

static void on_epoll(void *ctx, uint32_t events)
{
    (void)events;
    turn(ctx);
}

static void on_timer(void *ctx)
{
    turn(ctx);
}

int mr_api_new(struct mr_loop *loop, struct mr_engine *engine,
               const struct mr_config *config, struct mr_api **ret, struct mr_err *err)
{
    struct mr_api *api = calloc(1, sizeof(*api));

    if (!api)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "create the API");
    api->loop = loop;
    api->engine = engine;
    api->config = config;
    int rc = mr_random_hex(8, api->epoch);
    if (rc < 0) {
        free(api);
        return mr_fail(err, MR_E_INTERNAL, -rc, "read random bytes");
    }
    *ret = api;
    return 0;
}

static struct MHD_Daemon *start_daemon(struct mr_listener *listener, int fd)
{
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;

    return MHD_start_daemon(
        flags, 0, NULL, NULL, mr_request_handle, listener, MHD_OPTION_EXTERNAL_LOGGER,
        log_library, NULL, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)MR_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)MR_CONNECTION_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)MR_CONNECTION_MEMORY_BYTES, MHD_OPTION_URI_LOG_CALLBACK, mr_request_begin,
        listener, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, mr_request_end, NULL,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
}

int mr_api_listen(struct mr_api *api, int fd, struct mr_err *err)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t bytes = sizeof(address);
    struct mr_listener *listener = calloc(1, sizeof(*listener));

    if (!listener)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "create a listener");
    listener->api = api;
    mr_timer_init(&listener->timer, api->loop, on_timer, listener);
    /* Whatever cannot be named counts as TCP, the stricter of the two. */
    (void)getsockname(fd, (struct sockaddr *)&address, &bytes);
    listener->tcp = address.ss_family != AF_UNIX;
    listener->daemon = start_daemon(listener, fd);
    if (!listener->daemon) {
        free(listener);
        return mr_fail(err, MR_E_INTERNAL, errno, "start the HTTP server");
    }
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(listener->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    int rc = info ? mr_loop_add(api->loop, info->epoll_fd, EPOLLIN, on_epoll, listener,
                                &listener->io, err)
                  : mr_fail(err, MR_E_INTERNAL, 0, "the HTTP server has no epoll fd");
    if (rc < 0) {
        (void)MHD_quiesce_daemon(listener->daemon); /* fd stays the caller's */
        MHD_stop_daemon(listener->daemon);
        free(listener);
        return rc;
    }
    listener->next = api->listeners;
    api->listeners = listener;
    return 0;
}

void mr_api_stop(struct mr_api *api)
{
    api->stopping = true;
    mr_wait_stop_all(api);
    while (api->listeners) {
        struct mr_listener *listener = api->listeners;
        api->listeners = listener->next;
        for (int i = 0; i < LAST_TURNS; i++)
            (void)MHD_run(listener->daemon);
        mr_timer_cancel(&listener->timer);
        mr_io_remove(listener->io);
        MHD_stop_daemon(listener->daemon);
        free(listener);
    }
}

void mr_api_free(struct mr_api *api)
{
    if (!api)
        return;
    mr_api_stop(api);
    mr_cache_done(&api->cache);
    free(api);
}

void mr_api_dump_routes(FILE *out)
{
    mr_route_dump(out);
}
