/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers that depend on the server: given when the page shows the deed, or when the time
 * for it is up. */
#include "storage/lun/keeper.h"

#include <errno.h>
#include <stdio.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/json.h"

#define LOOK_MS 10

static bool taken(const struct mr_keeper *k, unsigned bits)
{
    return !(atomic_load(&k->page->orders) & bits);
}

struct json_object *mr_keeper_later(struct mr_control_client *client,
                                    enum mr_keeper_wait what, int64_t seen,
                                    int64_t limit_ms)
{
    client->wait = (struct mr_control_wait){
        .what = what,
        .seen = seen,
        .deadline_ns = mr_now_ns() + limit_ms * MR_NS_PER_MS,
    };
    return NULL;
}

static struct json_object *with_cut(struct mr_keeper *k, bool aborted)
{
    struct json_object *json = mr_keeper_status(k);

    mr_json_set_bool(json, "cut", true);
    if (aborted)
        mr_json_set_bool(json, "aborted", true);
    return json;
}

/* States in which every request fails for good. */
static bool fails_for_good(const struct mr_keeper *k)
{
    const unsigned state = atomic_load(&k->page->state);

    return state == MR_LINK_CUT || state == MR_LINK_MISMATCH || state == MR_LINK_FENCED ||
           state == MR_LINK_STOPPING;
}

static bool handed_over(const struct mr_keeper *k, int64_t from)
{
    return k->server.pid != 0 && k->server.pid != from && k->server.ready &&
           !k->server.on_trial;
}

static bool is_done(const struct mr_keeper *k, const struct mr_control_wait *wait)
{
    switch ((enum mr_keeper_wait)wait->what) {
    case MR_KEEPER_WAIT_CUT:
        return taken(k, MR_ORDER_CUT) && fails_for_good(k);
    case MR_KEEPER_WAIT_FAIL_NOW:
        return atomic_load(&k->page->failed) != (unsigned)wait->seen;
    case MR_KEEPER_WAIT_RESIZE:
        return atomic_load(&k->page->resized) != (unsigned)wait->seen;
    case MR_KEEPER_WAIT_FENCE:
        return atomic_load(&k->page->looked) != (unsigned)wait->seen;
    case MR_KEEPER_WAIT_HAND_OVER:
        return handed_over(k, wait->seen);
    case MR_KEEPER_WAIT_NONE:
        break;
    }
    return false;
}

static struct json_object *with_trial_failed(struct mr_keeper *k)
{
    char why[128];

    (void)snprintf(why, sizeof(why),
                   "the program did not serve (%s): the one before serves on",
                   k->server_end);
    return mr_keeper_refuse(k, EPROTO, why);
}

/* It is not known anew, but it is known. */
static struct json_object *with_old_fence(struct mr_keeper *k, int errnum)
{
    MR_AUTO_JSON struct json_object *status = mr_keeper_status(k);
    struct json_object *json = mr_keeper_refuse(
        k, errnum, "keys and reservation could not be read: this is what was read last");

    mr_json_set(json, "fencing", json_object_get(mr_json_get(status, "fencing")));
    mr_json_set(json, "transport", json_object_get(mr_json_get(status, "transport")));
    return json;
}

static const char *why_not_in_time(const struct mr_keeper *k,
                                   const struct mr_control_wait *wait)
{
    if (wait->what != MR_KEEPER_WAIT_HAND_OVER)
        return "the server did not do it in time";
    if (k->server.pid != wait->seen)
        return "the program has not had a session yet: it is kept if it works";
    return "the server still has requests to finish";
}

static struct json_object *deed(struct mr_keeper *k, const struct mr_control_wait *wait)
{
    const int error = atomic_load(&k->page->resize_error);
    const int look_error = atomic_load(&k->page->look_error);

    if (wait->what == MR_KEEPER_WAIT_CUT)
        return with_cut(k, false);
    if (wait->what == MR_KEEPER_WAIT_RESIZE && error != 0)
        return mr_keeper_refuse(k, error, "the new size cannot be used");
    if (wait->what == MR_KEEPER_WAIT_FENCE && look_error != 0)
        return with_old_fence(k, look_error);
    if (wait->what == MR_KEEPER_WAIT_HAND_OVER && k->trial_failed)
        return with_trial_failed(k);
    return mr_keeper_status(k);
}

static struct json_object *too_late(struct mr_keeper *k,
                                    const struct mr_control_wait *wait)
{
    if (wait->what == MR_KEEPER_WAIT_CUT) {
        mr_keeper_abort(k);
        return with_cut(k, true);
    }
    if (wait->what == MR_KEEPER_WAIT_FENCE)
        return with_old_fence(k, ETIMEDOUT);
    return mr_keeper_refuse(k, ETIMEDOUT, why_not_in_time(k, wait));
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* That an order was taken is not told. */
static int64_t look_again(const struct mr_control_wait *wait)
{
    return wait->what == MR_KEEPER_WAIT_CUT
               ? earlier(wait->deadline_ns, mr_now_ns() + LOOK_MS * MR_NS_PER_MS)
               : wait->deadline_ns;
}

int64_t mr_keeper_check_waits(struct mr_keeper *k)
{
    int64_t next = INT64_MAX;

    for (size_t i = 0; i < MR_CONTROL_SLOTS; i++) {
        struct mr_control_client *client = &k->control.clients[i];
        const struct mr_control_wait wait = client->wait;
        MR_AUTO_JSON struct json_object *answer = NULL;

        if (client->fd < 0 || wait.what == MR_KEEPER_WAIT_NONE)
            continue;
        if (is_done(k, &wait))
            answer = deed(k, &wait);
        else if (mr_now_ns() >= wait.deadline_ns)
            answer = too_late(k, &wait);
        else
            next = earlier(next, look_again(&wait));
        if (answer)
            mr_control_answer(client, answer);
    }
    return next;
}
