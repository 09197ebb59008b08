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

bool mr_page_read(struct mr_request *req, struct mr_page *ret)
{
    *ret = (struct mr_page){.after = req->query[MR_LIST_PAGE_TOKEN]};
    if (!mr_page_limit(req, LIMIT_DEFAULT, LIMIT_MAX, &ret->limit))
        return false;
    if (!ret->after || mr_volume_id_valid(ret->after))
        return true;
    mr_reply_fail(req, MR_E_INVALID_REQUEST, "query parameter 'page_token' is malformed");
    return false;
}

void mr_page_volumes(struct mr_request *req, const struct mr_page *page)
{
    MR_AUTO_JSON struct json_object *json = json_object_new_object();
    struct json_object *items = json_object_new_array();
    struct mr_volume *volume = mr_engine_next(req->api->engine, page->after);
    const char *last = NULL;

    mr_json_set(json, "items", items);
    for (unsigned left = page->limit; volume && left > 0; left--) {
        (void)json_object_array_add(items, mr_volume_document(volume));
        last = mr_volume_id(volume);
        volume = mr_engine_next(req->api->engine, last);
    }
    mr_json_set_string(json, "next_page_token", volume ? last : NULL);
    mr_reply_json(req, MHD_HTTP_OK, mr_take_ptr(json));
}

static const char *id_at(struct json_object *list, size_t i)
{
    const char *id = mr_json_get_string(json_object_array_get_idx(list, i), "id");
    return id ? id : "";
}

struct json_object *mr_page_cut(const struct mr_page *page, struct json_object *list)
{
    MR_AUTO_JSON struct json_object *json = json_object_new_object();
    MR_AUTO_JSON struct json_object *items = json_object_new_array();
    size_t i = 0;

    if (!json || !items || !json_object_is_type(list, json_type_array))
        return NULL;
    size_t count = json_object_array_length(list);
    while (i < count && page->after && strcmp(id_at(list, i), page->after) <= 0)
        i++;
    for (unsigned left = page->limit; i < count && left > 0; i++, left--)
        (void)json_object_array_add(items,
                                    json_object_get(json_object_array_get_idx(list, i)));
    mr_json_set(json, "items", mr_take_ptr(items));
    mr_json_set_string(json, "next_page_token", i < count ? id_at(list, i - 1) : NULL);
    return mr_take_ptr(json);
}
