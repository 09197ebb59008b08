/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/spec_fields.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/json.h"

#define POINTER_SIZE sizeof(((struct mr_err *)0)->pointer)

struct decoder {
    enum mr_decode mode;
    struct mr_err *err;
};

static int decode_object(const struct decoder *d, const struct mr_field *fields,
                         struct json_object *in, const char *at,
                         struct json_object **ret);

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool utf8_valid(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    while (*s) {
        unsigned more = *s < 0x80 ? 0 : *s < 0xe0 ? 1 : *s < 0xf0 ? 2 : 3;
        if (more && (*s < 0xc2 || *s > 0xf4))
            return false;
        if ((*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] > 0x9f) ||
            (*s == 0xf0 && s[1] < 0x90) || (*s == 0xf4 && s[1] > 0x8f))
            return false;
        for (s++; more > 0; more--, s++)
            if ((*s & 0xc0) != 0x80)
                return false;
    }
    return true;
}

/* dst = at "/" key, escaped as in RFC 6901. Keys are hostile: a long one is cut between
 * characters, what could harm a log or is not UTF-8 becomes '?'. */
static void pointer_to(char dst[POINTER_SIZE], const char *at, const char *key)
{
    bool utf8 = utf8_valid(key);
    assert(strlen(at) < POINTER_SIZE / 2); /* made of our own field names */
    size_t n = (size_t)snprintf(dst, POINTER_SIZE, "%s/", at);

    for (; *key; key++) {
        unsigned char c = (unsigned char)*key;
        bool starts = (c & 0xc0) != 0x80;
        if ((starts || !utf8) && n + sizeof("abcd...") >= POINTER_SIZE) {
            (void)snprintf(dst + n, POINTER_SIZE - n, "...");
            return;
        }
        if (c == '~' || c == '/') {
            dst[n++] = '~';
            dst[n++] = c == '~' ? '0' : '1';
        } else {
            dst[n++] = (c < 0x80 ? iscntrl(c) : !utf8) ? '?' : (char)c;
        }
    }
    dst[n] = '\0';
}

static int refuse_type(const struct decoder *d, const struct mr_field *field,
                       const char *at, struct json_object *in)
{
    return mr_fail_at(d->err, MR_E_INVALID_SPEC, at, "%s: expected %s, got %s", at,
                      field->expected, json_type_to_name(json_object_get_type(in)));
}

/* The message says what is expected, never what was there: the field may be secret. */
static int refuse_value(const struct decoder *d, const struct mr_field *field,
                        const char *at)
{
    enum mr_code code = field->code ? field->code : MR_E_INVALID_SPEC;
    return mr_fail_at(d->err, code, at, "%s: expected %s", at, field->expected);
}

static bool text_valid(const struct decoder *d, const struct mr_field *field,
                       struct json_object *in)
{
    bool check = field->check && d->mode != MR_DECODE_ROW;
    const char *text = json_object_get_string(in);
    int len = json_object_get_string_len(in);
    if (len < field->min || len > field->max || strlen(text) != (size_t)len)
        return false;
    for (const char *c = text; *c; c++)
        if (isascii(*c) && iscntrl((unsigned char)*c))
            return false;
    return utf8_valid(text) && (!check || field->check(text));
}

static int decode_string(const struct decoder *d, const struct mr_field *field,
                         struct json_object *in, const char *at, struct json_object **ret)
{
    char normal[MR_FIELD_TEXT_MAX];
    if (!json_object_is_type(in, json_type_string))
        return refuse_type(d, field, at, in);
    if (!text_valid(d, field, in))
        return refuse_value(d, field, at);
    const char *text = json_object_get_string(in);
    if (field->normalise && d->mode != MR_DECODE_ROW) {
        field->normalise(text, normal);
        text = normal;
    }
    *ret = json_object_new_string(text);
    return *ret ? 0 : -ENOMEM;
}

static bool contains(struct json_object *array, struct json_object *value)
{
    for (size_t i = 0; i < json_object_array_length(array); i++)
        if (json_object_equal(json_object_array_get_idx(array, i), value))
            return true;
    return false;
}

static int decode_strings(const struct decoder *d, const struct mr_field *field,
                          struct json_object *in, const char *at,
                          struct json_object **ret)
{
    if (!json_object_is_type(in, json_type_array))
        return refuse_type(d, field, at, in);
    size_t count = json_object_array_length(in);
    if (count < field->min_count || count > field->max_count)
        return refuse_value(d, field, at);

    MR_AUTO_JSON struct json_object *out = json_object_new_array();
    if (!out)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        char item_at[POINTER_SIZE];
        char index[24];
        struct json_object *item = NULL;
        (void)snprintf(index, sizeof(index), "%zu", i);
        pointer_to(item_at, at, index);
        int r = decode_string(d, field, json_object_array_get_idx(in, i), item_at, &item);
        if (r == 0 && contains(out, item))
            r = mr_fail_at(d->err, MR_E_INVALID_SPEC, item_at, "%s: given twice",
                           item_at);
        if (r == 0 && json_object_array_add(out, item) != 0)
            r = -ENOMEM;
        if (r < 0) {
            (void)json_object_put(item);
            return r;
        }
    }
    *ret = mr_take_ptr(out);
    return 0;
}

static int decode_int(const struct decoder *d, const struct mr_field *field,
                      struct json_object *in, const char *at, struct json_object **ret)
{
    if (!json_object_is_type(in, json_type_int))
        return refuse_type(d, field, at, in);
    int64_t value = json_object_get_int64(in); /* too large for 64 bits: saturates */
    if (d->mode != MR_DECODE_ROW && (value < field->min || value > field->max))
        return refuse_value(d, field, at);
    *ret = json_object_new_int64(value);
    return *ret ? 0 : -ENOMEM;
}

static int decode_bool(const struct decoder *d, const struct mr_field *field,
                       struct json_object *in, const char *at, struct json_object **ret)
{
    if (!json_object_is_type(in, json_type_boolean))
        return refuse_type(d, field, at, in);
    *ret = json_object_new_boolean(json_object_get_boolean(in));
    return *ret ? 0 : -ENOMEM;
}

static int decode_source(const struct decoder *d, const struct mr_field *field,
                         struct json_object *in, const char *at, struct json_object **ret)
{
    char names[128];
    char driver_at[POINTER_SIZE];
    if (!json_object_is_type(in, json_type_object))
        return refuse_type(d, field, at, in);
    const struct mr_source_driver *driver =
        mr_source_driver(mr_json_get_string(in, "driver"));
    pointer_to(driver_at, at, "driver");
    if (!driver)
        return mr_fail_at(d->err, MR_E_INVALID_SPEC, driver_at, "%s: expected one of: %s",
                          driver_at, mr_source_driver_names(names, sizeof(names)));
    int r = decode_object(d, driver->fields, in, at, ret);
    if (r == 0 && driver->check && d->mode != MR_DECODE_ROW) {
        r = driver->check(*ret, d->err);
        if (r < 0)
            (void)json_object_put(mr_take_ptr(*ret));
    }
    return r;
}

static int decode_value(const struct decoder *d, const struct mr_field *field,
                        struct json_object *in, const char *at, struct json_object **ret)
{
    switch (field->type) {
    case MR_FIELD_STRING:
        return decode_string(d, field, in, at, ret);
    case MR_FIELD_STRINGS:
        return decode_strings(d, field, in, at, ret);
    case MR_FIELD_INT:
        return decode_int(d, field, in, at, ret);
    case MR_FIELD_BOOL:
        return decode_bool(d, field, in, at, ret);
    case MR_FIELD_SOURCE:
        return decode_source(d, field, in, at, ret);
    case MR_FIELD_OBJECT:
        if (!json_object_is_type(in, json_type_object))
            return refuse_type(d, field, at, in);
        return decode_object(d, field->fields, in, at, ret);
    }
    return -EINVAL;
}

static bool knows(const struct mr_field *fields, const char *key)
{
    while (fields->name && strcmp(fields->name, key) != 0)
        fields++;
    return fields->name != NULL;
}

/* Adds a deep copy of what the table does not know. */
static int copy_unknown(const struct mr_field *fields, struct json_object *from,
                        struct json_object *to)
{
    json_object_object_foreach(from, key, value)
    {
        struct json_object *copy = NULL;
        if (knows(fields, key))
            continue;
        if (value && json_object_deep_copy(value, &copy, NULL) != 0)
            return -ENOMEM;
        if (json_object_object_add(to, key, copy) != 0) {
            (void)json_object_put(copy);
            return -ENOMEM;
        }
    }
    return 0;
}

static int refuse_unknown(const struct decoder *d, const struct mr_field *fields,
                          struct json_object *in, const char *at)
{
    json_object_object_foreach(in, key, unused)
    {
        const struct mr_field *f = fields;
        (void)unused;
        if (knows(fields, key))
            continue;
        char key_at[POINTER_SIZE];
        char known[200] = "";
        pointer_to(key_at, at, key);
        for (; f->name; f++) {
            size_t len = strlen(known);
            (void)snprintf(known + len, sizeof(known) - len, "%s%s", len ? ", " : "",
                           f->name);
        }
        int r =
            mr_fail_at(d->err, MR_E_UNKNOWN_FIELD, key_at, "unknown field %s", key_at);
        return mr_err_remedy(d->err, r, "known fields here: %s", known);
    }
    return 0;
}

static int decode_member(const struct decoder *d, const struct mr_field *field,
                         struct json_object *in, const char *at, struct json_object **ret)
{
    struct json_object *value = NULL;
    char member_at[POINTER_SIZE];

    *ret = NULL;
    pointer_to(member_at, at, field->name);
    if (json_object_object_get_ex(in, field->name, &value)) /* may be JSON null */
        return decode_value(d, field, value, member_at, ret);
    if (field->fallback) {
        *ret = json_tokener_parse(field->fallback);
        return *ret ? 0 : -ENOMEM;
    }
    if (field->required && !(field->secret && d->mode != MR_DECODE_REQUEST))
        return mr_fail_at(d->err, MR_E_INVALID_SPEC, member_at,
                          "%s is missing: expected %s", member_at, field->expected);
    return 0;
}

/* in is known to be an object. *ret: a new reference. */
static int decode_object(const struct decoder *d, const struct mr_field *fields,
                         struct json_object *in, const char *at, struct json_object **ret)
{
    MR_AUTO_JSON struct json_object *out = json_object_new_object();
    if (!out)
        return -ENOMEM;
    bool row = d->mode == MR_DECODE_ROW;
    int r = row ? 0 : refuse_unknown(d, fields, in, at);
    for (const struct mr_field *f = fields; r == 0 && f->name; f++) {
        struct json_object *value = NULL;
        r = decode_member(d, f, in, at, &value);
        if (r == 0 && value && json_object_object_add(out, f->name, value) != 0) {
            (void)json_object_put(value);
            r = -ENOMEM;
        }
    }
    if (r == 0 && row)
        r = copy_unknown(fields, in, out);
    if (r == 0)
        *ret = mr_take_ptr(out);
    return r;
}

int mr_fields_decode(const struct mr_field *fields, struct json_object *in,
                     enum mr_decode mode, struct json_object **ret, struct mr_err *err)
{
    const struct decoder d = {.mode = mode, .err = err};
    int r = json_object_is_type(in, json_type_object)
                ? decode_object(&d, fields, in, "", ret)
                : mr_fail_at(err, MR_E_INVALID_SPEC, "", "expected a JSON object, got %s",
                             json_type_to_name(json_object_get_type(in)));
    return r == -ENOMEM ? mr_fail(err, MR_E_INTERNAL, ENOMEM, "decode JSON") : r;
}

/* The members' table of an object field, NULL for all others. */
static const struct mr_field *members(const struct mr_field *field,
                                      struct json_object *value)
{
    if (field->type != MR_FIELD_SOURCE)
        return field->fields;
    const struct mr_source_driver *driver =
        mr_source_driver(mr_json_get_string(value, "driver"));
    return driver ? driver->fields : NULL;
}

struct json_object *mr_fields_public(const struct mr_field *fields,
                                     struct json_object *in)
{
    MR_AUTO_JSON struct json_object *out = json_object_new_object();
    for (const struct mr_field *f = fields; out && f->name; f++) {
        struct json_object *value = mr_json_get(in, f->name);
        struct json_object *copy = NULL;
        if (f->secret || f->once || !value)
            continue;
        if (members(f, value))
            copy = mr_fields_public(members(f, value), value);
        else if (json_object_deep_copy(value, &copy, NULL) != 0)
            return NULL;
        if (!copy || json_object_object_add(out, f->name, copy) != 0) {
            (void)json_object_put(copy);
            return NULL;
        }
    }
    if (out && in && copy_unknown(fields, in, out) < 0)
        return NULL;
    return mr_take_ptr(out);
}

/* Is all that the table does not know of a in b as well? */
static bool has_unknown(const struct mr_field *fields, struct json_object *a,
                        struct json_object *b)
{
    json_object_object_foreach(a, key, value)
    {
        struct json_object *other = NULL;
        if (!knows(fields, key) && !(json_object_object_get_ex(b, key, &other) &&
                                     json_object_equal(value, other)))
            return false;
    }
    return true;
}

bool mr_fields_equal(const struct mr_field *fields, struct json_object *a,
                     struct json_object *b)
{
    for (const struct mr_field *f = fields; f->name; f++) {
        struct json_object *x = mr_json_get(a, f->name);
        struct json_object *y = mr_json_get(b, f->name);
        if (f->secret || f->once)
            continue;
        bool same = x && y && members(f, x) ? mr_fields_equal(members(f, x), x, y)
                                            : json_object_equal(x, y);
        if (!same)
            return false;
    }
    return has_unknown(fields, a, b) && has_unknown(fields, b, a);
}
