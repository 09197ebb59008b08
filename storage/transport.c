/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/transport.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/clock.h"
#include "storage/base/json.h"

#define TEXT_MAX 256   /* bytes, with the NUL */
#define KEY_DIGITS 16  /* a reservation key has 64 bits */
#define TYPES_MAX 0xff /* of a reservation: 4 bits by SPC-4 */

static const char *const names[MR_TRANSPORT_COUNT] = {
    [MR_TRANSPORT_UNKNOWN] = "unknown",
    [MR_TRANSPORT_CONNECTING] = "connecting",
    [MR_TRANSPORT_UP] = "up",
    [MR_TRANSPORT_DOWN] = "down",
    [MR_TRANSPORT_FAILED] = "failed",
    [MR_TRANSPORT_CUT] = "cut",
    [MR_TRANSPORT_MISMATCH] = "mismatch",
    [MR_TRANSPORT_FENCED] = "fenced",
    [MR_TRANSPORT_STOPPING] = "stopping",
    [MR_TRANSPORT_RESTARTING] = "restarting",
    [MR_TRANSPORT_UNRESPONSIVE] = "unresponsive",
};

const char *mr_transport_name(enum mr_transport state)
{
    return names[(unsigned)state < MR_TRANSPORT_COUNT ? state : MR_TRANSPORT_UNKNOWN];
}

enum mr_transport mr_transport_from_name(const char *name)
{
    for (unsigned i = 1; name && i < MR_TRANSPORT_COUNT; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum mr_transport)i;
    return MR_TRANSPORT_UNKNOWN;
}

bool mr_transport_is_final(enum mr_transport state)
{
    return state == MR_TRANSPORT_CUT || state == MR_TRANSPORT_MISMATCH ||
           state == MR_TRANSPORT_FENCED;
}

/* --- fields of a known form; what has another one is null --- */

static void copy_text(struct json_object *from, const char *key, struct json_object *to)
{
    const char *text = mr_json_get_string(from, key);
    char copy[TEXT_MAX];

    (void)snprintf(copy, sizeof(copy), "%s", text ? text : "");
    for (char *c = copy; *c; c++)
        if (isascii(*c) && iscntrl((unsigned char)*c))
            *c = '?';
    if (copy[0])
        mr_json_set_text(to, key, copy);
    else
        mr_json_set_string(to, key, NULL);
}

static void copy_int(struct json_object *from, const char *key, int64_t min, int64_t max,
                     struct json_object *to)
{
    int64_t value = mr_json_get_int(from, key, min - 1);

    if (value >= min && value <= max)
        mr_json_set_int(to, key, value);
    else
        mr_json_set(to, key, NULL);
}

static void copy_time(struct json_object *from, const char *key, struct json_object *to)
{
    char text[MR_TIME_TEXT];
    int64_t wall_ms = mr_time_ms(mr_json_get_string(from, key));

    mr_json_set_string(to, key, wall_ms > 0 ? mr_time_text(wall_ms, text) : NULL);
}

static bool is_key(const char *text)
{
    size_t digits = text && strncmp(text, "0x", 2) == 0 ? strlen(text + 2) : 0;

    return digits > 0 && digits <= KEY_DIGITS &&
           strspn(text + 2, "0123456789abcdefABCDEF") == digits;
}

static void copy_key(struct json_object *from, const char *key, struct json_object *to)
{
    const char *text = mr_json_get_string(from, key);

    mr_json_set_string(to, key, is_key(text) ? text : NULL);
}

/* --- the two documents --- */

static struct json_object *read_keys(struct json_object *fencing)
{
    struct json_object *keys = json_object_new_array();
    size_t count = mr_json_count(fencing, "keys");

    for (size_t i = 0; keys && i < count && i < MR_TRANSPORT_KEYS_MAX; i++) {
        struct json_object *item = mr_json_at(fencing, "keys", i);
        const char *text = json_object_is_type(item, json_type_string)
                               ? json_object_get_string(item)
                               : NULL;
        /* What follows a NUL is no part of a key. */
        if (is_key(text) && strlen(text) == (size_t)json_object_get_string_len(item))
            (void)json_object_array_add(keys, json_object_get(item));
    }
    return keys;
}

static struct json_object *read_fencing(struct json_object *in)
{
    struct json_object *out = json_object_new_object();

    if (!out)
        return NULL;
    mr_json_set_string(out, "mode", "reserve");
    copy_key(in, "key", out);
    mr_json_set_bool(out, "registered", mr_json_get_bool(in, "registered", false));
    copy_key(in, "holder", out);
    copy_int(in, "type", 0, TYPES_MAX, out);
    copy_int(in, "generation", 0, UINT32_MAX, out);
    mr_json_set(out, "keys", read_keys(in));
    copy_time(in, "checked_at", out);
    return out;
}

static struct json_object *read_transport(struct json_object *in, enum mr_transport state)
{
    struct json_object *out = json_object_new_object();

    if (!out)
        return NULL;
    mr_json_set_string(out, "state", mr_transport_name(state));
    copy_time(in, "since", out);
    copy_text(in, "reason", out);
    copy_text(in, "portal", out);
    copy_int(in, "timeout_ms", 0, INT32_MAX, out);
    copy_int(in, "replacement_ms", -1, INT32_MAX, out);
    copy_text(in, "header_digest", out);
    return out;
}

struct json_object *mr_transport_unknown(const char *reason)
{
    struct json_object *out = read_transport(NULL, MR_TRANSPORT_UNKNOWN);

    mr_json_set_text(out, "reason", reason);
    return out;
}

int mr_transport_read(struct json_object *status, struct mr_transport_report *ret,
                      struct mr_err *err)
{
    struct json_object *transport = mr_json_get(status, "transport");
    struct json_object *fencing = mr_json_get(status, "fencing");
    const char *mode = mr_json_get_string(fencing, "mode");
    bool reserve = mode && strcmp(mode, "reserve") == 0;

    *ret = (struct mr_transport_report){
        .state = mr_transport_from_name(mr_json_get_string(transport, "state")),
    };
    if (ret->state == MR_TRANSPORT_UNKNOWN)
        return mr_fail(err, MR_E_DEVICE_ERROR, EBADMSG,
                       "mooring-lun does not say what state its transport is in");
    ret->transport = read_transport(transport, ret->state);
    ret->fencing = reserve ? read_fencing(fencing) : NULL;
    if (ret->transport && (ret->fencing || !reserve))
        return 0;
    mr_transport_report_done(ret);
    return mr_fail(err, MR_E_INTERNAL, ENOMEM, "read a status of mooring-lun");
}

void mr_transport_report_done(struct mr_transport_report *report)
{
    (void)json_object_put(report->transport);
    (void)json_object_put(report->fencing);
    report->transport = NULL;
    report->fencing = NULL;
}
