/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/spec_fields.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/fs_options.h"

#define DEFAULT_ISCSI_PORT "3260" /* RFC 7143 section 14: IANA */

bool mr_path_valid(const char *path)
{
    if (path[0] != '/' || strlen(path) >= PATH_MAX)
        return false;
    for (const char *part = path + 1;;) {
        size_t len = strcspn(part, "/");
        if (len == 0 || len > NAME_MAX)
            return false;
        if (strncmp(part, "..", len) == 0 && len <= 2) /* "." or ".." */
            return false;
        if (part[len] == '\0')
            return true;
        part += len + 1;
    }
}

static bool host_valid(const char *host, size_t len)
{
    if (len == 0 || !isalnum((unsigned char)host[0]))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)host[i]) && host[i] != '-' && host[i] != '.')
            return false;
    return true;
}

static bool ipv6_valid(const char *text, size_t len)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr unused;
    if (len >= sizeof(address))
        return false;
    memcpy(address, text, len);
    address[len] = '\0';
    return inet_pton(AF_INET6, address, &unused) == 1;
}

static bool port_valid(const char *text)
{
    unsigned value = 0;
    size_t len = strspn(text, "0123456789");
    if (len == 0 || len > 5 || text[len] || text[0] == '0')
        return false;
    for (size_t i = 0; i < len; i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    return value <= UINT16_MAX;
}

/* Where ":PORT" begins, or the end of text. */
static const char *portal_rest(const char *text)
{
    const char *bracket = text[0] == '[' ? strchr(text, ']') : NULL;
    if (bracket)
        return bracket + 1;
    return text + strcspn(text, ":");
}

static bool check_portal(const char *text)
{
    const char *rest = portal_rest(text);
    size_t len = (size_t)(rest - text);
    bool host =
        text[0] == '[' ? len > 2 && ipv6_valid(text + 1, len - 2) : host_valid(text, len);
    return host && (*rest == '\0' || (*rest == ':' && port_valid(rest + 1)));
}

static void normalise_portal(const char *text, char dst[MR_FIELD_TEXT_MAX])
{
    (void)snprintf(dst, MR_FIELD_TEXT_MAX, "%s%s", text,
                   *portal_rest(text) ? "" : ":" DEFAULT_ISCSI_PORT);
}

static bool all_of(const char *text, int (*is)(int), const char *also)
{
    for (; *text; text++)
        if (!isascii(*text) || (!is((unsigned char)*text) && !strchr(also, *text)))
            return false;
    return true;
}

/* "iqn.YYYY-MM.naming-authority[:anything]" */
static bool iqn_valid(const char *name)
{
    static const char shape[] = "dddd-dd.";
    for (size_t i = 0; shape[i]; i++)
        if (shape[i] == 'd' ? !isdigit((unsigned char)name[i]) : name[i] != shape[i])
            return false;
    return isalnum((unsigned char)name[sizeof(shape) - 1]);
}

/* RFC 7143 section 4.2.7. Upper case should have been mapped to lower case by whoever
 * typed it, but targets with upper-case names exist and compare bytes: it is left alone.
 */
static bool check_iscsi_name(const char *name)
{
    size_t len = strlen(name);
    if (strncmp(name, "iqn.", 4) == 0)
        return iqn_valid(name + 4) && all_of(name, isalnum, "-.:");
    if (strncmp(name, "eui.", 4) == 0)
        return len == 4 + 16 && all_of(name + 4, isxdigit, "");
    if (strncmp(name, "naa.", 4) == 0)
        return (len == 4 + 16 || len == 4 + 32) && all_of(name + 4, isxdigit, "");
    return false;
}

static bool check_option(const char *text)
{
    return all_of(text, isalnum, "_-=.");
}

static bool check_format(const char *text)
{
    return strcmp(text, "never") == 0 || strcmp(text, "if-blank") == 0;
}

static bool check_digest(const char *text)
{
    return strcmp(text, "none") == 0 || strcmp(text, "crc32c") == 0;
}

static bool check_fencing(const char *text)
{
    return strcmp(text, "off") == 0 || strcmp(text, "reserve") == 0;
}

/* 0 is no key: registering it takes the registration back (SPC-4, REGISTER). */
static bool check_reservation_key(const char *text)
{
    return strncmp(text, "0x", 2) == 0 && text[2] && all_of(text + 2, isxdigit, "") &&
           text[2 + strspn(text + 2, "0")];
}

/* The messages name fields, no values: of passwords only that they are the same. */
static int iscsi_check(struct json_object *source, struct mr_err *err)
{
    struct json_object *chap = mr_json_get(source, "chap");
    const char *ours = mr_json_get_string(chap, "password");
    const char *theirs = mr_json_get_string(mr_json_get(chap, "mutual"), "password");

    if (ours && theirs && strcmp(ours, theirs) == 0) /* RFC 7143 section 9.2.1 */
        return mr_fail_at(err, MR_E_INVALID_SPEC, "/source/chap/mutual/password",
                          "/source/chap/mutual/password: expected another one than "
                          "/source/chap/password");
    if (mr_json_get(source, "preempt") &&
        strcmp(mr_json_get_string(source, "fencing"), "reserve") != 0)
        return mr_fail_at(err, MR_E_INVALID_SPEC, "/source/preempt",
                          "/source/preempt: only with fencing: reserve");
    return 0;
}

static int file_key(struct json_object *source, char *dst, size_t size)
{
    return mr_format(dst, size, "path:%s", mr_json_get_string(source, "path"));
}

static int iscsi_key(struct json_object *source, char *dst, size_t size)
{
    int r = mr_format(dst, size, "iscsi:%s:%d", mr_json_get_string(source, "target"),
                      (int)mr_json_get_int(source, "lun", 0));
    for (char *c = dst; r == 0 && *c; c++) /* one name, however it is written */
        *c = (char)tolower((unsigned char)*c);
    return r;
}

#define DRIVER_FIELD                                                                     \
    {                                                                                    \
        .name = "driver", .type = MR_FIELD_STRING, .required = true, .min = 1,           \
        .max = 32, .expected = "the name of a driver"                                    \
    }

static const struct mr_field file_fields[] = {
    DRIVER_FIELD,
    {.name = "path",
     .type = MR_FIELD_STRING,
     .required = true,
     .min = 2,
     .max = PATH_MAX - 1,
     .check = mr_path_valid,
     .expected = "the absolute path of a regular file without '.', '..' or empty parts"},
    {0},
};

#define CHAP_TEXT_FIELD(field, is_secret)                                                \
    {                                                                                    \
        .name = field, .type = MR_FIELD_STRING, .required = true, .secret = is_secret,   \
        .min = 1, .max = 255,                                                            \
        .expected = "a string of 1 to 255 bytes without control characters"              \
    }

/* Who the target says that it is. */
static const struct mr_field mutual_fields[] = {
    CHAP_TEXT_FIELD("username", false),
    CHAP_TEXT_FIELD("password", true),
    {0},
};

static const struct mr_field chap_fields[] = {
    CHAP_TEXT_FIELD("username", false),
    CHAP_TEXT_FIELD("password", true),
    {.name = "mutual",
     .type = MR_FIELD_OBJECT,
     .fields = mutual_fields,
     .expected = "an object"},
    {0},
};

static const struct mr_field iscsi_fields[] = {
    DRIVER_FIELD,
    {.name = "portals",
     .type = MR_FIELD_STRINGS,
     .required = true,
     .min = 1,
     .max = 249,
     .min_count = 1,
     .max_count = 8,
     .check = check_portal,
     .normalise = normalise_portal,
     .expected = "1 to 8 different portals: HOST, HOST:PORT, [IPv6] or [IPv6]:PORT"},
    {.name = "target",
     .type = MR_FIELD_STRING,
     .required = true,
     .min = 1,
     .max = 223,
     .check = check_iscsi_name,
     .expected =
         "an iSCSI name (iqn.YYYY-MM.authority:name, eui. or naa., at most 223 bytes)"},
    {.name = "lun",
     .type = MR_FIELD_INT,
     .required = true,
     .min = 0,
     .max = 65535,
     .expected = "an integer from 0 to 65535"},
    {.name = "chap",
     .type = MR_FIELD_OBJECT,
     .fields = chap_fields,
     .expected = "an object"},
    {.name = "header_digest",
     .type = MR_FIELD_STRING,
     .min = 1,
     .max = 16,
     .check = check_digest,
     .fallback = "\"none\"",
     .expected = "none or crc32c"},
    {.name = "replacement_timeout_s",
     .type = MR_FIELD_INT,
     .min = -1,
     .max = 86400,
     .fallback = "120",
     .expected = "an integer from -1 to 86400"},
    {.name = "fencing",
     .type = MR_FIELD_STRING,
     .min = 1,
     .max = 16,
     .check = check_fencing,
     .fallback = "\"off\"",
     .expected = "off or reserve"},
    {.name = "preempt",
     .type = MR_FIELD_STRING,
     .once = true,
     .min = 3,
     .max = 18,
     .check = check_reservation_key,
     .expected = "the key of a reservation: 0x and 1 to 16 hex digits, not 0"},
    {0},
};

static const struct mr_field filesystem_fields[] = {
    {.name = "type",
     .type = MR_FIELD_STRING,
     .required = true,
     .min = 1,
     .max = 32,
     .check = mr_fs_type_known,
     .code = MR_E_FILESYSTEM_UNSUPPORTED,
     .expected = "xfs or ext4"},
    {.name = "format",
     .type = MR_FIELD_STRING,
     .min = 1,
     .max = 16,
     .check = check_format,
     .fallback = "\"never\"",
     .expected = "never or if-blank"},
    {.name = "options",
     .type = MR_FIELD_STRINGS,
     .min = 1,
     .max = 64,
     .max_count = 32,
     .check = check_option,
     .fallback = "[]",
     .expected = "at most 32 different mount options, one per string"},
    {0},
};

const struct mr_field mr_spec_fields[] = {
    {.name = "source",
     .type = MR_FIELD_SOURCE,
     .required = true,
     .expected = "an object"},
    {.name = "filesystem",
     .type = MR_FIELD_OBJECT,
     .required = true,
     .fields = filesystem_fields,
     .expected = "an object"},
    {.name = "mount_path",
     .type = MR_FIELD_STRING,
     .min = 2,
     .max = PATH_MAX - 1,
     .check = mr_path_valid,
     .expected = "an absolute path without '.', '..' or empty parts"},
    {.name = "read_only",
     .type = MR_FIELD_BOOL,
     .fallback = "false",
     .expected = "true or false"},
    {0},
};

static const struct mr_source_driver drivers[] = {
    {"file", file_fields, file_key, NULL},
    {"iscsi", iscsi_fields, iscsi_key, iscsi_check},
};

const struct mr_source_driver *mr_source_driver(const char *name)
{
    for (size_t i = 0; name && i < sizeof(drivers) / sizeof(drivers[0]); i++)
        if (strcmp(name, drivers[i].name) == 0)
            return &drivers[i];
    return NULL;
}

const char *mr_source_driver_names(char *dst, size_t size)
{
    dst[0] = '\0';
    for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
        size_t len = strlen(dst);
        (void)snprintf(dst + len, size - len, "%s%s", i ? ", " : "", drivers[i].name);
    }
    return dst;
}
