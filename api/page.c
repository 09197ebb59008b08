/* SPDX-License-Identifier: Apache-2.0
 *
 * Lists, a page at a time: {items, next_page_token}.
 */
#include <string.h>

#include "api/internal.h"
#include "storage/base/json.h"

#define LIMIT_DEFAULT 100
#define LIMIT_MAX 200 /* the core serialises a page in one go */

bool mr_page_limit(struct mr_request *req, unsigned fallback, unsigned max, unsigned *ret)
{
    const char *text = req->query[MR_LIST_LIMIT];
    unsigned limit = 0;

    *ret = fallback;
    if (!text)
        return true;
    for (const char *c = text; *c >= '0' && *c <= '9' && limit <= max; c++)
        limit = limit * 10 + (unsigned)(*c - '0');
    if (strspn(text, "0123456789") != strlen(text) || limit < 1 || limit > max) {
        mr_reply_fail(req, MR_E_INVALID_REQUEST,
                      "query parameter 'limit' is not in 1..%u", max);
        return false;
    }
    *ret = limit;
    return true;
}

void mr_page_reply(struct mr_request *req,
                   struct mr_volume *(*next)(struct mr_engine *engine, const char *after),
                   struct json_object *(*document)(const struct mr_volume *volume))
{
    const char *after = req->query[MR_LIST_PAGE_TOKEN];
    unsigned limit = 0;

    if (!mr_page_limit(req, LIMIT_DEFAULT, LIMIT_MAX, &limit))
        return;
    if (after && !mr_volume_id_valid(after)) {
        mr_reply_fail(req, MR_E_INVALID_REQUEST,
                      "query parameter 'page_token' is malformed");
        return;
    }
    MR_AUTO_JSON struct json_object *page = json_object_new_object();
    struct json_object *items = json_object_new_array();
    struct mr_volume *volume = next(req->api->engine, after);
    mr_json_set(page, "items", items);
    for (; volume && limit > 0; limit--) {
        (void)json_object_array_add(items, document(volume));
        after = mr_volume_id(volume);
        volume = next(req->api->engine, after);
    }
    mr_json_set_string(page, "next_page_token", volume ? after : NULL);
    mr_reply_json(req, MHD_HTTP_OK, mr_take_ptr(page));
}
