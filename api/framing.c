/* SPDX-License-Identifier: Apache-2.0 */
#include "api/framing.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "api/uri.h"

/* The strict parser of 1.0 refuses what the addresses would show, and no longer promises
 * them. */
#define MR_CHECK_GAPS (MHD_VERSION < 0x01000000)

struct look {
    struct mr_headers *headers;
    const char *wrong;    /* what to say, NULL: nothing wrong so far */
    const char *previous; /* end of what was parsed before: its NUL */
    unsigned hosts, lengths, codings;
};

static bool is_token(const char *s, size_t bytes)
{
    static const char special[] = "!#$%&'*+-.^_`|~";

    for (size_t i = 0; i < bytes; i++) {
        char c = s[i];
        bool alnum =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && (c == '\0' || !strchr(special, c)))
            return false;
    }
    return bytes > 0;
}

static bool has_control(const char *s, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
            return true;
    return false;
}

static bool named(const char *name, size_t bytes, const char *wanted)
{
    return strlen(wanted) == bytes && strncasecmp(name, wanted, bytes) == 0;
}

/* One line end, CR LF or LF, each byte of which became a NUL. */
static bool follows(const char *previous, const char *next)
{
    uintptr_t gap = (uintptr_t)next - (uintptr_t)previous;
    return !MR_CHECK_GAPS || gap == 1 || gap == 2;
}

static void collect(struct look *look, const char *name, size_t bytes, const char *value)
{
    struct mr_headers *h = look->headers;

    if (named(name, bytes, "Host")) {
        h->host = value;
        look->hosts++;
    } else if (named(name, bytes, "Content-Length")) {
        h->content_length = value;
        look->lengths++;
    } else if (named(name, bytes, "Transfer-Encoding")) {
        h->transfer_encoding = value;
        look->codings++;
    } else if (named(name, bytes, "Content-Type")) {
        h->content_type = value;
    } else if (named(name, bytes, "Content-Encoding")) {
        h->content_encoding = value;
    } else if (named(name, bytes, "If-None-Match")) {
        h->if_none_match = value;
    } else if (named(name, bytes, "Prefer")) {
        mr_prefer_parse(&h->prefer, value);
    }
}

static enum MHD_Result look_at(void *cls, enum MHD_ValueKind kind, const char *name,
                               size_t name_bytes, const char *value, size_t value_bytes)
{
    struct look *look = cls;
    (void)kind;

    if (!value)
        value = name + name_bytes;
    if (!is_token(name, name_bytes))
        look->wrong = "a header field name is not a token (a blank before the colon?)";
    else if (has_control(value, value_bytes))
        look->wrong = "control character in a header field";
    else if (!follows(look->previous, name))
        look->wrong = "NUL or folded line in the header fields";
    look->previous = value + value_bytes;
    if (look->wrong)
        return MHD_NO;
    collect(look, name, name_bytes, value);
    return MHD_YES;
}

/* The blank line ends where libmicrohttpd says that the header section ends. */
static bool ends_there(struct MHD_Connection *connection, const char *method,
                       const char *previous)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    uintptr_t gap =
        info ? (uintptr_t)method + info->header_size - (uintptr_t)previous : 0;
    return !MR_CHECK_GAPS || (gap >= 2 && gap <= 4);
}

static const char *wrong_request_line(const char *method, const char *version,
                                      const char *target, uintptr_t target_at)
{
    if (!is_token(method, strlen(method)))
        return "the method is not a token";
    if (!mr_uri_origin_form(target))
        return "the request target is not a path in origin form";
    if (MR_CHECK_GAPS && ((uintptr_t)method + strlen(method) + 1 != target_at ||
                          target_at + strlen(target) + 1 != (uintptr_t)version))
        return "NUL or extra blanks in the request line";
    return NULL;
}

static const char *wrong_extent(const struct look *look, bool http_1_0)
{
    const struct mr_headers *h = look->headers;

    if (look->lengths > 1)
        return "more than one Content-Length";
    if (look->codings > 1 ||
        (h->transfer_encoding && strcasecmp(h->transfer_encoding, "chunked") != 0))
        return "Transfer-Encoding is not just 'chunked'";
    if (h->transfer_encoding && h->content_length)
        return "both Content-Length and Transfer-Encoding";
    if (h->transfer_encoding && http_1_0)
        return "Transfer-Encoding in HTTP/1.0";
    if (look->hosts > 1)
        return "more than one Host";
    if (look->hosts == 0 && !http_1_0)
        return "Host is missing";
    return NULL;
}

bool mr_host_is_loopback(const char *host)
{
    bool ipv6 = strncmp(host, "[::1]", 5) == 0;
    size_t bytes = ipv6 ? 5 : strcspn(host, ":");
    const char *port = host + bytes;
    char name[INET_ADDRSTRLEN] = "";
    struct in_addr ipv4;

    if (bytes < sizeof(name))
        memcpy(name, host, bytes);
    bool loopback =
        inet_pton(AF_INET, name, &ipv4) == 1 && ntohl(ipv4.s_addr) >> 24 == 127;
    if (!ipv6 && !loopback && !named(host, bytes, "localhost"))
        return false;
    return *port == '\0' ||
           (*port == ':' && strspn(port + 1, "0123456789") == strlen(port + 1));
}

int mr_framing_check(struct MHD_Connection *connection, const char *method,
                     const char *version, const char *target, uintptr_t target_at,
                     bool tcp, struct mr_headers *ret, struct mr_err *err)
{
    struct look look = {.headers = ret, .previous = version + strlen(version)};
    bool http_1_0 = strcmp(version, "HTTP/1.0") == 0;

    look.wrong = wrong_request_line(method, version, target, target_at);
    if (!look.wrong)
        (void)MHD_get_connection_values_n(connection, MHD_HEADER_KIND, look_at, &look);
    if (!look.wrong && !ends_there(connection, method, look.previous))
        look.wrong = "NUL or folded line in the header fields";
    if (!look.wrong)
        look.wrong = wrong_extent(&look, http_1_0);
    if (look.wrong)
        return mr_fail_at(err, MR_E_INVALID_REQUEST, "", "%s", look.wrong);
    if (tcp && (!ret->host || !mr_host_is_loopback(ret->host))) {
        int rc = mr_fail_at(err, MR_E_INVALID_REQUEST, "", "Host is not loopback");
        return mr_err_remedy(err, rc, "use localhost, 127.0.0.1 or [::1]");
    }
    return 0;
}
