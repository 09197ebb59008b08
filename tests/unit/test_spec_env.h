/* SPDX-License-Identifier: Apache-2.0
 *
 * Sample specs and decoding for the tests of the spec codec.
 */
#ifndef MR_TESTS_UNIT_TEST_SPEC_ENV_H
#define MR_TESTS_UNIT_TEST_SPEC_ENV_H

#include "tests/unit/unit.h"

#include "storage/base/json.h"
#include "storage/spec.h"

#define ROOT "/var/lib/mooring/volumes"
#define PASSWORD "hunter2-secret"
#define THEIR_PASSWORD "hunter3-secret"

#define ISCSI_SOURCE                                                                     \
    "{'driver': 'iscsi', 'portals': ['127.0.0.1:3260', '[::1]', 'san.example'],"         \
    " 'target': 'iqn.2026-11.example:Disk1', 'lun': 1,"                                  \
    " 'chap': {'username': 'u', 'password': '" PASSWORD "', 'mutual':"                   \
    " {'username': 't', 'password': '" THEIR_PASSWORD "'}}, 'header_digest': 'crc32c',"  \
    " 'replacement_timeout_s': -1, 'fencing': 'reserve', 'preempt': '0x1F'}"
#define ISCSI                                                                            \
    "{'source': " ISCSI_SOURCE ", 'filesystem': {'type': 'xfs', 'format': 'if-blank',"   \
    " 'options': ['noatime']}, 'mount_path': '/srv/pg data', 'read_only': false}"
#define FILE_SOURCE "{'driver': 'file', 'path': '/srv/a.img'}"
#define MINIMAL "{'source': " FILE_SOURCE ", 'filesystem': {'type': 'ext4'}}"

static inline struct mr_spec *decode_ok(const char *text)
{
    MR_AUTO_JSON struct json_object *json = parse_json(text);
    struct mr_spec *spec = NULL;
    struct mr_err err;
    if (mr_spec_decode(json, "vol1", ROOT, &spec, &err) != 0)
        fail_msg("refused: %s: %s", text, err.message);
    return spec;
}

#endif
