/* SPDX-License-Identifier: Apache-2.0
 *
 * Any JSON into mr_spec_decode(). What it accepts must decode back to an equal spec, with
 * and without its secrets; what it refuses must say why.
 */
#include <json-c/json.h>
#include <stdint.h>
#include <stdlib.h>

#include "storage/base/json.h"
#include "storage/identity.h"
#include "storage/spec.h"

/* Not assert(): must hold in every build type. */
static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check_accepted(const struct mr_spec *spec)
{
    char key[MR_KEY_TEXT];
    struct mr_spec *again = NULL;
    struct mr_spec *bare = NULL;
    MR_AUTO_JSON struct json_object *public = mr_spec_public(spec);

    require(spec->driver && spec->fs_type && spec->mount_path &&
            spec->mount_path[0] == '/');
    require(mr_spec_decode(spec->full, NULL, NULL, &again, NULL) == 0);
    require(json_object_equal(spec->full, again->full) && mr_spec_equal(spec, again));
    require(mr_spec_decode_public(public, &bare, NULL) == 0);
    require(mr_spec_equal(spec, bare));
    struct json_object *chap = mr_json_get(bare->source, "chap");
    require(!mr_json_get(chap, "password"));
    require(!mr_json_get(mr_json_get(chap, "mutual"), "password"));
    require(!mr_json_get(bare->source, "preempt"));
    (void)mr_spec_source_key(spec, key, sizeof(key));
    mr_spec_free(again);
    mr_spec_free(bare);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_tokener *tokener = size <= 65536 ? json_tokener_new() : NULL;
    if (!tokener)
        return 0;
    MR_AUTO_JSON struct json_object *json =
        json_tokener_parse_ex(tokener, (const char *)data, (int)size);
    json_tokener_free(tokener);

    struct mr_err err = {0};
    struct mr_spec *spec = NULL;
    if (mr_spec_decode(json, "vol", "/var/lib/mooring/volumes", &spec, &err) == 0)
        check_accepted(spec);
    else
        require(!spec && err.message[0]);
    mr_spec_free(spec);
    return 0;
}
