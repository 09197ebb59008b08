/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/base/json.h"

#include <string.h>

struct json_object *mr_json_get(struct json_object *json, const char *key)
{
    struct json_object *value = NULL;
    if (!json_object_is_type(json, json_type_object))
        return NULL;
    return json_object_object_get_ex(json, key, &value) ? value : NULL;
}

size_t mr_json_count(struct json_object *json, const char *key)
{
    struct json_object *array = mr_json_get(json, key);
    return json_object_is_type(array, json_type_array) ? json_object_array_length(array)
                                                       : 0;
}

struct json_object *mr_json_at(struct json_object *json, const char *key, size_t i)
{
    return i < mr_json_count(json, key)
               ? json_object_array_get_idx(mr_json_get(json, key), i)
               : NULL;
}

const char *mr_json_get_string(struct json_object *json, const char *key)
{
    struct json_object *value = mr_json_get(json, key);
    if (!json_object_is_type(value, json_type_string))
        return NULL;
    const char *text = json_object_get_string(value);
    return strlen(text) == (size_t)json_object_get_string_len(value) ? text : NULL;
}

int64_t mr_json_get_int(struct json_object *json, const char *key, int64_t fallback)
{
    struct json_object *value = mr_json_get(json, key);
    return json_object_is_type(value, json_type_int) ? json_object_get_int64(value)
                                                     : fallback;
}

bool mr_json_get_bool(struct json_object *json, const char *key, bool fallback)
{
    struct json_object *value = mr_json_get(json, key);
    return json_object_is_type(value, json_type_boolean) ? json_object_get_boolean(value)
                                                         : fallback;
}

void mr_json_copy_string(struct json_object *json, const char *key, char *dst,
                         size_t size)
{
    const char *text = mr_json_get_string(json, key);
    size_t len = text ? strlen(text) : 0;
    if (len >= size)
        len = 0;
    if (len > 0)
        memcpy(dst, text, len);
    dst[len] = '\0';
}

void mr_json_set(struct json_object *json, const char *key, struct json_object *value)
{
    if (json_object_object_add(json, key, value) != 0)
        (void)json_object_put(value);
}

void mr_json_set_string(struct json_object *json, const char *key, const char *value)
{
    mr_json_set(json, key, value ? json_object_new_string(value) : NULL);
}

/* Bytes of the UTF-8 character at s (RFC 3629 section 4, overlong forms not looked for),
 * 0: none. */
static size_t utf8_bytes(const char *s)
{
    unsigned char lead = (unsigned char)*s;
    size_t bytes = lead < 0x80                   ? 1
                   : lead >= 0xc2 && lead < 0xe0 ? 2
                   : lead >= 0xe0 && lead < 0xf0 ? 3
                   : lead >= 0xf0 && lead < 0xf5 ? 4
                                                 : 0;
    for (size_t i = 1; i < bytes; i++)
        if (((unsigned char)s[i] & 0xc0) != 0x80)
            return 0;
    return bytes;
}

void mr_json_set_text(struct json_object *json, const char *key, const char *text)
{
    MR_AUTO_FREE char *clean = malloc(strlen(text) + 1);
    size_t used = 0;

    if (!clean)
        return;
    while (*text) {
        size_t bytes = utf8_bytes(text);
        if (bytes == 0)
            clean[used++] = '?';
        for (size_t i = 0; i < bytes; i++)
            clean[used++] = text[i];
        text += bytes ? bytes : 1;
    }
    clean[used] = '\0';
    mr_json_set_string(json, key, clean);
}

void mr_json_set_int(struct json_object *json, const char *key, int64_t value)
{
    mr_json_set(json, key, json_object_new_int64(value));
}

void mr_json_set_bool(struct json_object *json, const char *key, bool value)
{
    mr_json_set(json, key, json_object_new_boolean(value));
}
