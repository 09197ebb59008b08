/* SPDX-License-Identifier: Apache-2.0 */
#include "api/problem.h"

#include <stdio.h>

#include "storage/base/json.h"

static const struct {
    unsigned short status;
    bool retryable;
} table[] = {
    [MR_E_INTERNAL] = {500, false},
    [MR_E_INVALID_REQUEST] = {400, false},
    [MR_E_UNKNOWN_FIELD] = {422, false},
    [MR_E_INVALID_SPEC] = {422, false},
    [MR_E_PATH_NOT_ALLOWED] = {422, false},
    [MR_E_NOT_FOUND] = {404, false},
    [MR_E_METHOD_NOT_ALLOWED] = {405, false},
    [MR_E_BODY_TOO_LARGE] = {413, false},
    [MR_E_UNSUPPORTED_MEDIA_TYPE] = {415, false},
    [MR_E_VOLUME_NOT_FOUND] = {404, false},
    [MR_E_OPERATION_NOT_FOUND] = {404, false},
    [MR_E_SPEC_CONFLICT] = {409, false},
    [MR_E_SOURCE_IN_USE] = {409, false},
    [MR_E_MOUNT_PATH_BUSY] = {409, false},
    [MR_E_OPERATION_PENDING] = {409, true},
    [MR_E_CHAP_REFUSED] = {502, false},
    [MR_E_TARGET_NOT_FOUND] = {502, false},
    [MR_E_LUN_NOT_FOUND] = {502, false},
    [MR_E_PORTAL_UNREACHABLE] = {502, true},
    [MR_E_TARGET_TIMEOUT] = {504, true},
    [MR_E_NOT_BLANK] = {409, false},
    [MR_E_WRONG_FILESYSTEM] = {409, false},
    [MR_E_FILESYSTEM_UNSUPPORTED] = {422, false},
    [MR_E_DATA_NOT_WRITTEN] = {409, false},
    [MR_E_DEVICE_ERROR] = {502, true},
    [MR_E_DEVICE_MISMATCH] = {409, false},
    [MR_E_DEVICE_HELD] = {409, true},
    [MR_E_ORPHAN] = {409, false},
    [MR_E_DETACH_CANCELLED] = {409, false},
    [MR_E_RECOVERING] = {503, true},
    [MR_E_WEDGED] = {409, true},
    [MR_E_JOURNAL_UNAVAILABLE] = {503, true},
    [MR_E_FENCED] = {409, false},
    [MR_E_SHUTTING_DOWN] = {503, true},
    [MR_E_NOT_DETACHING] = {409, false},
    [MR_E_HOLDER_NOT_FOUND] = {409, false},
    [MR_E_LOSS_NOT_ACCEPTED] = {409, false},
    [MR_E_ACTION_UNSUPPORTED] = {422, false},
    [MR_E_TOO_MANY_REQUESTS] = {503, true},
};
/* A code appended to the list does not compile without a line here; a test looks for
 * holes (status 0). */
_Static_assert(sizeof(table) / sizeof(table[0]) == MR_CODE_COUNT, "map every mr_code");

unsigned mr_problem_status(enum mr_code code)
{
    return table[code].status;
}

bool mr_problem_retryable(enum mr_code code)
{
    return table[code].retryable;
}

unsigned mr_problem_retry_after_s(enum mr_code code)
{
    return table[code].status == 503 || code == MR_E_OPERATION_PENDING ? 1 : 0;
}

static void set_text(struct json_object *problem, const char *key, const char *text)
{
    if (text && text[0])
        mr_json_set_text(problem, key, text);
}

struct json_object *mr_problem_document(const struct mr_err *err,
                                        const struct mr_problem_context *context)
{
    struct json_object *problem = json_object_new_object();
    const char *slug = mr_code_slug(err->code);
    char type[64];

    if (!problem)
        return NULL;
    (void)snprintf(type, sizeof(type), "/problems/%s", slug);
    mr_json_set_string(problem, "type", type);
    mr_json_set_string(problem, "title", mr_code_title(err->code));
    mr_json_set_int(problem, "status", mr_problem_status(err->code));
    set_text(problem, "detail",
             err->message[0] ? err->message : mr_code_title(err->code));
    mr_json_set_string(problem, "code", slug);
    mr_json_set_bool(problem, "retryable", mr_problem_retryable(err->code));
    set_text(problem, "step", err->step);
    set_text(problem, "pointer", err->pointer);
    set_text(problem, "remedy", err->remedy);
    /* That which is in the way, never the one that is asked for. */
    bool names_other =
        err->code == MR_E_SOURCE_IN_USE || err->code == MR_E_MOUNT_PATH_BUSY;
    set_text(problem, "volume",
             err->volume[0] || names_other ? err->volume : context->volume);
    set_text(problem, "operation", context->operation);
    if (context->residue || err->residue != MR_RESIDUE_UNKNOWN)
        mr_json_set_string(problem, "residue", mr_residue_name(err->residue));
    if (json_object_is_type(context->holders, json_type_array) &&
        json_object_array_length(context->holders) > 0)
        mr_json_set(problem, "holders", json_object_get(context->holders));
    if (context->progress)
        mr_json_set(problem, "progress", json_object_get(context->progress));
    return problem;
}
