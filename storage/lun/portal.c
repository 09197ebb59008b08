/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/portal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "storage/base/cleanup.h"

MR_DEFINE_CLEANUP(addrinfo, struct addrinfo *, freeaddrinfo);

/* Decimal, 1 to 65535, nothing around it. */
static int parse_port(const char *text, uint16_t *ret)
{
    unsigned port = 0;

    if (!*text || strlen(text) > 5)
        return -EINVAL;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -EINVAL;
        port = port * 10 + (unsigned)(*text - '0');
    }
    if (port == 0 || port > UINT16_MAX)
        return -EINVAL;
    *ret = (uint16_t)port;
    return 0;
}

int mr_portal_parse(const char *text, struct mr_portal *ret)
{
    const char *host = text;
    const char *rest;
    size_t len;

    *ret = (struct mr_portal){.port = MR_PORTAL_PORT};
    if (*text == '[') {
        host = text + 1;
        len = strcspn(host, "]");
        if (host[len] != ']')
            return -EINVAL;
        rest = host + len + 1;
    } else {
        len = strcspn(host, ":");
        rest = host + len;
    }
    if (len == 0 || len >= sizeof(ret->host))
        return -EINVAL;
    /* A comma would be a portal group tag to libiscsi, brackets would confuse its parser.
     */
    if (strcspn(host, ", []/\t\r\n") < len)
        return -EINVAL;
    memcpy(ret->host, host, len);
    if (!*rest)
        return 0;
    if (*rest != ':')
        return -EINVAL;
    return parse_port(rest + 1, &ret->port);
}

static int numeric(const struct addrinfo *address, uint16_t port,
                   char dst[MR_PORTAL_TEXT])
{
    char host[64];
    int r = getnameinfo(address->ai_addr, address->ai_addrlen, host, sizeof(host), NULL,
                        0, NI_NUMERICHOST);

    if (r != 0)
        return r;
    r = snprintf(dst, MR_PORTAL_TEXT,
                 address->ai_family == AF_INET6 ? "[%s]:%u" : "%s:%u", host,
                 (unsigned)port);
    return r < 0 || r >= MR_PORTAL_TEXT ? EAI_OVERFLOW : 0;
}

int mr_portal_resolve_all(const char *text, char (*dst)[MR_PORTAL_TEXT], size_t max,
                          struct mr_err *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    MR_CLEANUP(addrinfo) struct addrinfo *list = NULL;
    struct mr_portal portal;
    size_t count = 0;
    int r;

    if (mr_portal_parse(text, &portal) < 0)
        return mr_fail(err, MR_E_INVALID_SPEC, EINVAL,
                       "portal '%s' is neither HOST:PORT nor [IPV6]:PORT", text);
    r = getaddrinfo(portal.host, NULL, &hints, &list);
    for (const struct addrinfo *a = list; r == 0 && a && count < max; a = a->ai_next)
        r = numeric(a, portal.port, dst[count++]);
    if (r == 0)
        return (int)count;
    r = mr_fail(err, MR_E_PORTAL_UNREACHABLE, EHOSTUNREACH,
                "portal '%s' cannot be resolved: %s", text, gai_strerror(r));
    return mr_err_remedy(err, r, "use a numeric address or fix name resolution");
}

int mr_portal_resolve(const char *text, char dst[MR_PORTAL_TEXT], struct mr_err *err)
{
    char first[1][MR_PORTAL_TEXT];
    int r = mr_portal_resolve_all(text, first, 1, err);

    if (r < 0)
        return r;
    memcpy(dst, first[0], MR_PORTAL_TEXT);
    return 0;
}

bool mr_portal_is_name(const char *text)
{
    struct mr_portal portal;
    struct in6_addr address;

    if (mr_portal_parse(text, &portal) < 0)
        return false;
    portal.host[strcspn(portal.host, "%")] = '\0'; /* scope */
    return inet_pton(AF_INET, portal.host, &address) != 1 &&
           inet_pton(AF_INET6, portal.host, &address) != 1;
}

int mr_portal_resolve_list(const char *const *texts, size_t count,
                           char (*dst)[MR_PORTAL_TEXT], size_t max, bool *ret_all,
                           struct mr_err *err)
{
    struct mr_err why = {0};
    size_t found = 0;
    int r = 0;

    *ret_all = true;
    for (size_t i = 0; i < count && found < max; i++) {
        int n = mr_portal_resolve_all(texts[i], dst + found, max - found, &why);

        if (n > 0)
            found += (size_t)n;
        else if (r == 0)
            r = n;
        *ret_all = *ret_all && n > 0;
    }
    if (found == 0 && err)
        *err = why;
    return found > 0 ? (int)found : r;
}
