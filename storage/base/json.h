/* SPDX-License-Identifier: Apache-2.0
 *
 * Typed access to json-c objects that come from outside or from another process: every
 * getter checks the type first and never follows a NULL (json_object_object_foreach on a
 * non-object is undefined behaviour). Setters abort nothing: when memory runs out the key
 * is left out.
 */
#ifndef MR_STORAGE_BASE_JSON_H
#define MR_STORAGE_BASE_JSON_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/base/cleanup.h"

MR_DEFINE_CLEANUP(json, struct json_object *, (void)json_object_put);
#define MR_AUTO_JSON MR_CLEANUP(json)

/* The member, or NULL when json is no object or has no such key. Borrowed. */
struct json_object *mr_json_get(struct json_object *json, const char *key);
/* Borrowed text, or NULL when the member is missing, no string, or has a NUL inside. */
const char *mr_json_get_string(struct json_object *json, const char *key);
int64_t mr_json_get_int(struct json_object *json, const char *key, int64_t fallback);
bool mr_json_get_bool(struct json_object *json, const char *key, bool fallback);
/* Elements of the member: 0 when it is missing or no array. */
size_t mr_json_count(struct json_object *json, const char *key);
/* One of them, borrowed; NULL when there is none. */
struct json_object *mr_json_at(struct json_object *json, const char *key, size_t i);
/* Copies the text, "" when mr_json_get_string() gives NULL or it does not fit. */
void mr_json_copy_string(struct json_object *json, const char *key, char *dst,
                         size_t size);

/* value NULL sets JSON null. */
void mr_json_set_string(struct json_object *json, const char *key, const char *value);
/* Text of any origin (file names, targets, cut messages): what is no UTF-8 becomes '?'.
 */
void mr_json_set_text(struct json_object *json, const char *key, const char *text);
void mr_json_set_int(struct json_object *json, const char *key, int64_t value);
void mr_json_set_bool(struct json_object *json, const char *key, bool value);
/* Takes the reference of value, NULL sets JSON null. */
void mr_json_set(struct json_object *json, const char *key, struct json_object *value);

#endif
