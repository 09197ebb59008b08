/* SPDX-License-Identifier: Apache-2.0
 *
 * The volume spec as tables: every field's name, type, limits and checks, and whether it
 * is secret. The codec (spec.c) knows no field by name that it does not have to. A new
 * driver is one more table here. Constant data and pure functions, any thread.
 *
 * Versions: specs are kept in journals, which an older mooringd may have to read (an
 * upgrade that is taken back), and a newer one will. So a field that was released keeps
 * its name, type, meaning and fallback for ever; a new one is not required, and its
 * fallback means what was done before there was the field. What a version does not know
 * it keeps, shows, and takes for a difference: such a volume can be looked at and
 * detached, but neither verified nor mapped again.
 */
#ifndef MR_STORAGE_SPEC_FIELDS_H
#define MR_STORAGE_SPEC_FIELDS_H

#include <json-c/json.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/base/err.h"

#define MR_FIELD_TEXT_MAX PATH_MAX /* any normalised string, with its NUL */

enum mr_field_type {
    MR_FIELD_STRING,
    MR_FIELD_STRINGS, /* array of different strings, at most `count` */
    MR_FIELD_INT,
    MR_FIELD_BOOL,
    MR_FIELD_OBJECT, /* with `fields` */
    MR_FIELD_SOURCE, /* object whose fields depend on its member "driver" */
};

struct mr_field {
    const char *name;     /* NULL ends a table */
    const char *expected; /* for messages: "an integer from 0 to 65535" */
    enum mr_field_type type;
    bool required;
    bool secret; /* never in journal, logs and answers */
    bool once;   /* a wish of one request: neither journalled, answered nor compared */
    int64_t min; /* bytes of a string, value of an integer */
    int64_t max;
    size_t min_count; /* elements of an array */
    size_t max_count;
    bool (*check)(const char *text);
    void (*normalise)(const char *text, char dst[MR_FIELD_TEXT_MAX]); /* after check */
    const char *fallback; /* JSON text of the default, or NULL */
    enum mr_code code;    /* of a failed check; 0: MR_E_INVALID_SPEC */
    const struct mr_field *fields;
};

struct mr_source_driver {
    const char *name;
    const struct mr_field *fields;
    /* See mr_spec_source_key(). */
    int (*key)(struct json_object *source, char *dst, size_t size);
    /* Fields that contradict each other in a decoded source; NULL: none can. */
    int (*check)(struct json_object *source, struct mr_err *err);
};

extern const struct mr_field mr_spec_fields[];

/* NULL when there is none of that name (or name is NULL). */
const struct mr_source_driver *mr_source_driver(const char *name);
/* "file, iscsi"; cut at size. Returns dst. */
const char *mr_source_driver_names(char *dst, size_t size);

/* Whose word it is that is decoded. */
enum mr_decode {
    MR_DECODE_REQUEST = 0, /* a caller's: all is checked */
    MR_DECODE_PUBLIC,      /* the same, but secrets may be missing */
    MR_DECODE_ROW, /* a journal's: the same, and it may be of a newer version. Only
                      types are checked, and unknown members are kept */
};

/* Decodes in by the table: *ret is a new object in the table's order, with defaults
 * filled in and strings normalised. Errors as for mr_spec_decode(). */
int mr_fields_decode(const struct mr_field *fields, struct json_object *in,
                     enum mr_decode mode, struct json_object **ret, struct mr_err *err);
/* A deep copy of a decoded object without the fields that are secret or for once; what is
 * unknown is neither (secrets are in no journal). NULL when out of memory. */
struct json_object *mr_fields_public(const struct mr_field *fields,
                                     struct json_object *in);
/* Two decoded objects agree in everything but what is secret or for once, whatever the
 * order of their keys; also in what is unknown. */
bool mr_fields_equal(const struct mr_field *fields, struct json_object *a,
                     struct json_object *b);

/* Absolute and normalised: no "", "." or ".." parts, no trailing slash, shorter than
 * PATH_MAX, parts at most NAME_MAX bytes. "/" itself is not valid. */
bool mr_path_valid(const char *path);

#endif
