/* SPDX-License-Identifier: Apache-2.0
 *
 * The volume spec: what a caller asks for. One codec for the API, the journal and the
 * messages to workers. Validation of form only: nothing here touches the file system (the
 * worker's driver checks paths). Pure functions, any thread.
 */
#ifndef MR_STORAGE_SPEC_H
#define MR_STORAGE_SPEC_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>

#include "storage/base/err.h"

#define MR_VOLUME_ID_MAX 128

/* Owned by mr_spec_free(). Strings are borrowed from `full`. */
struct mr_spec {
    struct json_object *full;    /* normalised: defaults filled in, secrets included */
    const char *driver;          /* "file", "iscsi" */
    struct json_object *source;  /* full.source */
    const char *fs_type;         /* "xfs", "ext4" */
    bool format_if_blank;        /* filesystem.format: "if-blank"; else "never" */
    struct json_object *options; /* filesystem.options, array of strings */
    const char *mount_path;      /* absolute */
    bool read_only;
};

/* [A-Za-z0-9][A-Za-z0-9._-]{0,127} */
bool mr_volume_id_valid(const char *id);

/* Decodes and validates a spec as PUT /volumes/{id} takes it, fills in the defaults
 * (mount_path = default_root "/" id; both may be NULL: then mount_path must be there).
 * `full` decodes back to an equal spec. Every unknown field is refused by name with a
 * pointer; no message repeats a value that could be secret. json is borrowed. Returns 0
 * and a new spec in *ret, or -EINVAL with MR_E_UNKNOWN_FIELD, MR_E_INVALID_SPEC or
 * MR_E_FILESYSTEM_UNSUPPORTED, or -ENOMEM. */
int mr_spec_decode(struct json_object *json, const char *id, const char *default_root,
                   struct mr_spec **ret, struct mr_err *err);
/* The same for what mr_spec_public() made: secrets may be missing, mount_path is there.
 * Such a spec is good for verifying and detaching, not for mapping. */
int mr_spec_decode_public(struct json_object *json, struct mr_spec **ret,
                          struct mr_err *err);
/* The same for a row of the journal, which a newer version may have written: what that
 * has added is kept, and equal to nothing that a caller can ask for here; values are
 * taken as they are (spec_fields.h). Refused are a driver that is not known here and
 * other types than expected. */
int mr_spec_decode_row(struct json_object *json, struct mr_spec **ret,
                       struct mr_err *err);
/* NULL is fine. */
void mr_spec_free(struct mr_spec *spec);

/* The spec without secrets and without what one request asks for once (fields marked
 * `secret` or `once` in the codec's table), for answers, journal and logs; decodes back
 * with mr_spec_decode_public(). New reference, NULL when out of memory. */
struct json_object *mr_spec_public(const struct mr_spec *spec);

/* Same spec = everything but what is secret or for once. */
bool mr_spec_equal(const struct mr_spec *a, const struct mr_spec *b);

/* A key that names the source before it was opened, for the one-source-once rule:
 * "iscsi:IQN:LUN", or "path:/srv/a.img" for files (the driver later gives the real one by
 * device and inode). dst holds MR_KEY_TEXT bytes of identity.h. Returns 0 or
 * -ENAMETOOLONG. */
int mr_spec_source_key(const struct mr_spec *spec, char *dst, size_t size);

#endif
