/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/start.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/base/json.h"

static int bad(struct mr_err *err, const char *key)
{
    return mr_fail(err, MR_E_INVALID_REQUEST, EINVAL, "start message: bad '%s'", key);
}

/* A non-empty text that fits. */
static int get_text(struct json_object *json, const char *key, char *dst, size_t size,
                    struct mr_err *err)
{
    mr_json_copy_string(json, key, dst, size);
    return dst[0] ? 0 : bad(err, key);
}

static int get_portals(struct json_object *json, struct mr_lun_start *ret,
                       struct mr_err *err)
{
    struct json_object *list = mr_json_get(json, "portals");
    size_t count;

    if (!json_object_is_type(list, json_type_array))
        return bad(err, "portals");
    count = json_object_array_length(list);
    if (count == 0 || count > MR_LUN_PORTALS_MAX)
        return bad(err, "portals");
    for (size_t i = 0; i < count; i++) {
        struct json_object *item = json_object_array_get_idx(list, i);
        const char *text;

        if (!json_object_is_type(item, json_type_string))
            return bad(err, "portals");
        text = json_object_get_string(item);
        if (!*text || strlen(text) >= sizeof(ret->portals[i]))
            return bad(err, "portals");
        strcpy(ret->portals[i], text);
    }
    ret->portal_count = count;
    return 0;
}

static int get_mutual(struct json_object *chap, struct mr_lun_start *ret,
                      struct mr_err *err)
{
    struct json_object *mutual = mr_json_get(chap, "mutual");
    int r;

    if (!mutual)
        return 0;
    r = get_text(mutual, "username", ret->mutual_username, sizeof(ret->mutual_username),
                 err);
    if (r == 0)
        r = get_text(mutual, "password", ret->mutual_password,
                     sizeof(ret->mutual_password), err);
    ret->mutual = r == 0;
    return r;
}

static int get_chap(struct json_object *json, struct mr_lun_start *ret,
                    struct mr_err *err)
{
    struct json_object *chap = mr_json_get(json, "chap");
    int r;

    if (!chap)
        return 0;
    r = get_text(chap, "username", ret->username, sizeof(ret->username), err);
    if (r == 0)
        r = get_text(chap, "password", ret->password, sizeof(ret->password), err);
    if (r == 0)
        r = get_mutual(chap, ret, err);
    ret->chap = r == 0;
    return r;
}

/* One of two words; without the member it is the first. */
static int get_choice(struct json_object *json, const char *key, const char *no,
                      const char *yes, bool *ret, struct mr_err *err)
{
    const char *text = mr_json_get_string(json, key);

    *ret = text && strcmp(text, yes) == 0;
    return *ret || (text ? strcmp(text, no) == 0 : !mr_json_get(json, key))
               ? 0
               : bad(err, key);
}

int mr_lun_key_parse(const char *text, uint64_t *ret)
{
    size_t digits = 0;

    if (text && strncmp(text, "0x", 2) == 0)
        digits = strspn(text + 2, "0123456789abcdefABCDEF");
    if (digits < 1 || digits > 16 || text[2 + digits] != '\0')
        return -EINVAL;
    *ret = strtoull(text, NULL, 16);
    return *ret == 0 ? -EINVAL : 0;
}

static int get_fencing(struct json_object *json, struct mr_lun_start *ret,
                       struct mr_err *err)
{
    int r = get_choice(json, "fencing", "off", "reserve", &ret->reserve, err);

    if (r == 0 && mr_json_get(json, "preempt") &&
        (!ret->reserve ||
         mr_lun_key_parse(mr_json_get_string(json, "preempt"), &ret->preempt) < 0))
        r = bad(err, "preempt");
    return r;
}

/* The times and the number, which are plain. */
static int check_numbers(struct json_object *json, struct mr_lun_start *ret,
                         struct mr_err *err)
{
    int64_t lun = mr_json_get_int(json, "lun", -1);

    if (lun < 0 || lun > UINT16_MAX)
        return bad(err, "lun");
    if (ret->timeout_ms < MR_LUN_TIMEOUT_MIN_MS ||
        ret->timeout_ms > MR_LUN_TIMEOUT_MAX_MS)
        return bad(err, "timeout_ms");
    if (ret->replacement_ms < -1 || ret->replacement_ms > MR_LUN_REPLACEMENT_MAX_MS)
        return bad(err, "replacement_ms");
    ret->lun = (uint16_t)lun;
    return 0;
}

static int get_isid(struct json_object *json, struct mr_lun_start *ret,
                    struct mr_err *err)
{
    const char *digits = mr_json_get_string(json, "isid");

    if (!digits)
        digits = ret->token;
    else if (strlen(digits) != MR_ISID_DIGITS ||
             strspn(digits, "0123456789abcdef") != MR_ISID_DIGITS)
        return bad(err, "isid");
    memcpy(ret->isid, digits, MR_ISID_DIGITS); /* a token has more of them */
    return 0;
}

int mr_lun_start_decode(struct json_object *json, struct mr_lun_start *ret,
                        struct mr_err *err)
{
    int r;

    *ret = (struct mr_lun_start){
        .timeout_ms = mr_json_get_int(json, "timeout_ms", 0),
        .replacement_ms = mr_json_get_int(json, "replacement_ms", MR_LUN_REPLACEMENT_MS),
        .read_only = mr_json_get_bool(json, "read_only", false),
    };
    r = get_text(json, "token", ret->token, sizeof(ret->token), err);
    if (r == 0 && !mr_token_valid(ret->token)) /* a file name and the ISID */
        r = bad(err, "token");
    if (r == 0)
        r = get_text(json, "runtime_dir", ret->runtime_dir, sizeof(ret->runtime_dir),
                     err);
    if (r == 0)
        r = get_text(json, "target", ret->target, sizeof(ret->target), err);
    if (r == 0)
        r = get_text(json, "initiator_name", ret->initiator_name,
                     sizeof(ret->initiator_name), err);
    if (r == 0)
        r = get_portals(json, ret, err);
    if (r == 0)
        r = get_chap(json, ret, err);
    if (r == 0)
        r = get_choice(json, "header_digest", "none", "crc32c", &ret->header_digest, err);
    if (r == 0)
        r = get_fencing(json, ret, err);
    if (r == 0)
        r = get_isid(json, ret, err);
    mr_json_copy_string(json, "cgroup", ret->cgroup, sizeof(ret->cgroup));
    mr_json_copy_string(json, "cgroup_problem", ret->cgroup_problem,
                        sizeof(ret->cgroup_problem));
    return r == 0 ? check_numbers(json, ret, err) : r;
}

void mr_lun_isid(const char *digits, uint32_t *ret_random, uint32_t *ret_qualifier)
{
    char part[7] = "";

    memcpy(part, digits, 6);
    *ret_random = (uint32_t)strtoul(part, NULL, 16);
    memcpy(part, digits + 6, 4);
    part[4] = '\0';
    *ret_qualifier = (uint32_t)strtoul(part, NULL, 16);
}
