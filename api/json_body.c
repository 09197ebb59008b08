/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "api/internal.h"
#include "storage/base/json.h"
#include "storage/spec_fields.h"

/* A spec needs 4 levels; the parser recurses, so the depth is bounded. */
#define DEPTH_MAX 16

MR_DEFINE_CLEANUP(tokener, struct json_tokener *, json_tokener_free);

/* What json-c's strict mode lets through: single quotes, NaN, control characters, and
 * NUL, raw or escaped (it keeps keys as C strings, so "a\u0000b" would be the key "a").
 * NULL: nothing of it. */
static const char *beyond_json(const char *body, size_t bytes)
{
    bool quoted = false;

    for (size_t i = 0; i < bytes; i++) {
        if (body[i] == '\0')
            return "the body has a NUL character";
        if (body[i] == '\'' && !quoted)
            return "JSON strings have double quotes";
        if ((body[i] == 'N' || body[i] == 'I') && !quoted)
            return "JSON numbers are finite";
        if ((unsigned char)body[i] < 0x20 && quoted)
            return "control character in a JSON string";
        if (body[i] == '"')
            quoted = !quoted;
        if (body[i] != '\\')
            continue;
        if (bytes - i > 5 && memcmp(body + i + 1, "u0000", 5) == 0)
            return "the body has an escaped NUL character";
        i++; /* the escaped character */
    }
    return NULL;
}

struct json_object *mr_json_body(const char *body, size_t bytes, struct mr_err *err)
{
    MR_CLEANUP(tokener) struct json_tokener *tokener = json_tokener_new_ex(DEPTH_MAX);
    if (!tokener) {
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "parse the body");
        return NULL;
    }
    if (bytes == 0) {
        (void)mr_fail_at(err, MR_E_INVALID_REQUEST, "", "the request has no body");
        return NULL;
    }
    const char *beyond = beyond_json(body, bytes);
    if (beyond) {
        (void)mr_fail_at(err, MR_E_INVALID_REQUEST, "", "%s", beyond);
        return NULL;
    }
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    MR_AUTO_JSON struct json_object *json =
        json_tokener_parse_ex(tokener, body, (int)bytes);
    enum json_tokener_error wrong = json_tokener_get_error(tokener);
    size_t end = json_tokener_get_parse_end(tokener);
    if (wrong == json_tokener_continue)
        (void)mr_fail_at(err, MR_E_INVALID_REQUEST, "", "the JSON ends too early");
    else if (wrong != json_tokener_success)
        (void)mr_fail_at(err, MR_E_INVALID_REQUEST, "", "JSON error at byte %zu: %s", end,
                         json_tokener_error_desc(wrong));
    else if (end + strspn(body + end, " \t\r\n") < bytes)
        (void)mr_fail_at(err, MR_E_INVALID_REQUEST, "", "bytes after the JSON document");
    else if (!json_object_is_type(json, json_type_object))
        (void)mr_fail_at(err, MR_E_INVALID_SPEC, "", "the body must be a JSON object");
    else
        return mr_take_ptr(json);
    return NULL;
}

struct json_object *mr_body_decode(const struct mr_request *req,
                                   const struct mr_field *fields, struct mr_err *err)
{
    bool none = req->route->body == MR_BODY_OPTIONAL && req->body_bytes == 0;
    struct json_object *decoded = NULL;
    MR_AUTO_JSON struct json_object *json =
        none ? json_object_new_object() : mr_json_body(req->body, req->body_bytes, err);

    if (!json && none)
        (void)mr_fail(err, MR_E_INTERNAL, ENOMEM, "decode the body");
    if (!json || mr_fields_decode(fields, json, MR_DECODE_REQUEST, &decoded, err) < 0)
        return NULL;
    return decoded;
}
