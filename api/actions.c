/* SPDX-License-Identifier: Apache-2.0
 *
 * What an operator asks for while a detach waits: to end a hold, or to give up waiting.
 * Decides only whether the request makes sense; whether it is allowed now, and what it
 * does, the engine decides.
 */
#include <stdio.h>
#include <string.h>

#include "api/internal.h"
#include "storage/base/json.h"
#include "storage/spec_fields.h"

#define HOLDERS_MAX 200

static bool signal_known(const char *name)
{
    return strcmp(name, "TERM") == 0 || strcmp(name, "KILL") == 0;
}

static const struct mr_field action_fields[] = {
    {.name = "action",
     .type = MR_FIELD_STRING,
     .required = true,
     .min = 1,
     .max = 32,
     .expected = "the name of an action"},
    {.name = "holders",
     .type = MR_FIELD_STRINGS,
     .min = 1,
     .max = 64,
     .min_count = 1,
     .max_count = HOLDERS_MAX,
     .expected = "1 to 200 different ids of holders"},
    {.name = "signal",
     .type = MR_FIELD_STRING,
     .min = 1,
     .max = 32,
     .check = signal_known,
     .expected = "TERM or KILL"},
    {.name = "accept_data_loss",
     .type = MR_FIELD_BOOL,
     .fallback = "false",
     .expected = "true or false"},
    {0},
};

/* No C1 control characters (U+0080 to U+009F); the codec refuses the others. */
static bool printable(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (c[0] == 0xc2 && c[1] < 0xa0)
            return false;
    return true;
}

static const struct mr_field forget_fields[] = {
    {.name = "reason",
     .type = MR_FIELD_STRING,
     .min = 1,
     .max = 256,
     .check = printable,
     .expected = "a string of 1 to 256 bytes without control characters"},
    {0},
};

static int refuse_action(struct mr_err *err)
{
    char names[200] = "";

    for (unsigned i = 0; i < MR_ACTION_COUNT; i++) {
        size_t used = strlen(names);
        (void)snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "",
                       mr_action_name((enum mr_action)i));
    }
    return mr_fail_at(err, MR_E_INVALID_SPEC, "/action", "/action: expected one of: %s",
                      names);
}

/* Fills *ret with what is borrowed from json. Only what the fields say to each other:
 * each by itself was checked. */
static int read_action(struct json_object *json, struct mr_action_request *ret,
                       struct mr_err *err)
{
    const char *name = mr_json_get_string(json, "action");
    int rc = 0;

    *ret = (struct mr_action_request){
        .action = mr_action_from_name(name),
        .holders = mr_json_get(json, "holders"),
        .signal = mr_json_get_string(json, "signal"),
        .accept_data_loss = mr_json_get_bool(json, "accept_data_loss", false),
    };
    if (ret->action == MR_ACTION_COUNT)
        return refuse_action(err);
    if (mr_action_needs_holders(ret->action) && !ret->holders) {
        rc = mr_fail_at(err, MR_E_INVALID_SPEC, "/holders",
                        "/holders is missing: '%s' acts on the holders that are given",
                        name);
        return mr_err_remedy(err, rc,
                             "give the ids of those rows of GET /volumes/ID/holders that "
                             "have '%s' among their actions",
                             name);
    }
    if (!mr_action_needs_holders(ret->action) && ret->holders) {
        rc = mr_fail_at(err, MR_E_INVALID_SPEC, "/holders",
                        "/holders: '%s' acts on the volume as a whole", name);
        return mr_err_remedy(err, rc, "leave /holders out");
    }
    if (ret->signal && ret->action != MR_ACTION_SIGNAL) {
        rc = mr_fail_at(err, MR_E_INVALID_SPEC, "/signal", "/signal: '%s' sends none",
                        name);
        return mr_err_remedy(err, rc, "leave /signal out, or use the action 'signal'");
    }
    return 0;
}

void mr_handle_action_post(struct mr_request *req)
{
    struct mr_action_request request;
    struct mr_err err;

    if (!mr_reply_id_valid(req))
        return;
    MR_AUTO_JSON struct json_object *json = mr_body_decode(req, action_fields, &err);
    if (!json || read_action(json, &request, &err) < 0) {
        mr_reply_problem(req, &err);
        return;
    }
    MR_AUTO_JSON struct json_object *caller = mr_caller(req);
    if (!mr_wait_place(req))
        return;
    request.caller = caller;
    mr_wait_answer(req,
                   mr_engine_act(req->api->engine, req->param, &request,
                                 mr_wait_on_answer, req, &err),
                   &err, &mr_wait_limit_action);
}

void mr_handle_forget_post(struct mr_request *req)
{
    struct mr_err err;

    if (!mr_reply_id_valid(req))
        return;
    MR_AUTO_JSON struct json_object *json = mr_body_decode(req, forget_fields, &err);
    if (!json) {
        mr_reply_problem(req, &err);
        return;
    }
    MR_AUTO_JSON struct json_object *caller = mr_caller(req);
    if (!mr_wait_place(req))
        return;
    mr_wait_answer(req,
                   mr_engine_forget(req->api->engine, req->param,
                                    mr_json_get_string(json, "reason"), caller,
                                    mr_wait_on_answer, req, &err),
                   &err, &mr_wait_limit_journal);
}
