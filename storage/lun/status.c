/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/lun/control.h"

#define KEY_TEXT 19 /* "0x" and 16 digits */

static int64_t read_counter(const _Atomic uint64_t *counter)
{
    return (int64_t)atomic_load_explicit(counter, memory_order_relaxed);
}

static struct json_object *counters_json(const struct mr_page_counters *counters)
{
    const struct {
        const char *name;
        const _Atomic uint64_t *value;
    } all[] = {
        {"reads", &counters->reads},
        {"writes", &counters->writes},
        {"flushes", &counters->flushes},
        {"discards", &counters->discards},
        {"zeroes", &counters->zeroes},
        {"read_bytes", &counters->read_bytes},
        {"written_bytes", &counters->written_bytes},
        {"errors", &counters->errors},
        {"retries", &counters->retries},
        {"unit_attentions", &counters->unit_attentions},
        {"power_on_resets", &counters->power_on_resets},
        {"logins", &counters->logins},
        {"lost_sessions", &counters->lost_sessions},
        {"replayed", &counters->replayed},
        {"resent", &counters->resent},
        {"stalls_ns_max", &counters->stalls_ns_max},
    };
    struct json_object *json = json_object_new_object();

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        mr_json_set_int(json, all[i].name, read_counter(all[i].value));
    return json;
}

static void set_time(struct json_object *json, const char *key, int64_t wall_ms)
{
    char text[MR_TIME_TEXT];

    mr_json_set_string(json, key, wall_ms > 0 ? mr_time_text(wall_ms, text) : NULL);
}

static const char *key_text(uint64_t key, char dst[KEY_TEXT])
{
    (void)snprintf(dst, KEY_TEXT, "0x%016" PRIx64, key);
    return dst;
}

static struct json_object *fencing_json(const struct mr_page *page)
{
    struct json_object *json = json_object_new_object();
    struct json_object *keys = json_object_new_array();
    struct mr_page_fence fence;
    char text[KEY_TEXT];

    (void)mr_page_read_fence(page, &fence);
    for (uint32_t i = 0; i < fence.key_count && i < MR_FENCE_KEYS_MAX; i++)
        (void)json_object_array_add(
            keys, json_object_new_string(key_text(fence.keys[i], text)));
    mr_json_set_string(json, "mode", "reserve");
    mr_json_set_string(json, "key", fence.key ? key_text(fence.key, text) : NULL);
    mr_json_set_bool(json, "registered", fence.registered);
    mr_json_set_string(json, "holder",
                       fence.holder ? key_text(fence.holder, text) : NULL);
    mr_json_set_int(json, "type", fence.type);
    mr_json_set_int(json, "generation", fence.generation);
    mr_json_set(json, "keys", keys);
    set_time(json, "checked_at", fence.checked_wall_ms);
    return json;
}

static void set_portal(struct json_object *json, const struct mr_page *page)
{
    const unsigned portal = atomic_load(&page->portal);
    struct mr_page_portals portals;
    const bool told = atomic_load(&page->known) &&
                      mr_page_read_portals(page, portal / MR_LUN_PORTALS_MAX, &portals) &&
                      portal % MR_LUN_PORTALS_MAX < portals.count;

    mr_json_set_string(json, "portal",
                       told ? portals.at[portal % MR_LUN_PORTALS_MAX] : "");
}

/* How it is with the session: as the server says, or as it is because that does not run.
 */
struct link {
    const char *state;
    int64_t since_wall_ms;
    char reason[MR_PAGE_REASON];
};

static bool is_settled(enum mr_link_state state)
{
    return state == MR_LINK_CUT || state == MR_LINK_MISMATCH || state == MR_LINK_FENCED ||
           state == MR_LINK_STOPPING;
}

int64_t mr_lun_server_late_ms(const struct mr_page *page)
{
    const int64_t due_ns = atomic_load(&page->due_ns);
    const int64_t now_ns = mr_now_ns();

    return due_ns == 0 || due_ns > now_ns ? 0 : (now_ns - due_ns) / MR_NS_PER_MS;
}

static struct link look(const struct mr_lun_status *from)
{
    const struct mr_page *page = from->page;
    const enum mr_link_state state = (enum mr_link_state)atomic_load(&page->state);
    const int64_t late_ms = mr_lun_server_late_ms(page);
    struct link link = {.state = mr_link_state_name(state),
                        .since_wall_ms = atomic_load(&page->state_wall_ms)};

    (void)mr_page_read_text(&page->reason, link.reason);
    if (is_settled(state))
        return link;
    if (from->server == MR_LUN_SERVER_RUNS && late_ms >= MR_LUN_SERVER_LATE_MS) {
        link.state = "unresponsive";
        link.since_wall_ms = mr_wall_ms() - late_ms;
        (void)snprintf(link.reason, sizeof(link.reason),
                       "the server does nothing although it should");
    } else if (from->server != MR_LUN_SERVER_RUNS) {
        const bool restarts = from->server == MR_LUN_SERVER_RESTARTS;

        link.state = restarts ? "restarting" : "unresponsive";
        link.since_wall_ms = from->server_wall_ms;
        (void)snprintf(link.reason, sizeof(link.reason), "the server %s",
                       restarts ? "is started anew" : "was stopped by a signal");
    }
    return link;
}

static struct json_object *transport_json(const struct mr_lun_status *from,
                                          const struct link *link)
{
    const struct mr_page *page = from->page;
    struct json_object *json = json_object_new_object();

    mr_json_set_string(json, "state", link->state);
    set_time(json, "since", link->since_wall_ms);
    if (link->reason[0])
        mr_json_set_text(json, "reason", link->reason);
    set_portal(json, page);
    mr_json_set_int(json, "timeout_ms", atomic_load(&page->timeout_ms));
    mr_json_set_int(json, "replacement_ms", atomic_load(&page->replacement_ms));
    mr_json_set_string(json, "header_digest",
                       from->start->header_digest ? "crc32c" : "none");
    return json;
}

static struct json_object *memory_json(const struct mr_lun_status *from)
{
    const struct mr_page *page = from->page;
    struct json_object *json = json_object_new_object();

    mr_json_set_bool(json, "locked", atomic_load(&page->memory_locked));
    mr_json_set_bool(json, "io_flusher", atomic_load(&page->io_flusher));
    mr_json_set_bool(json, "oom_protected", atomic_load(&page->oom_protected));
    if (from->start->cgroup[0])
        mr_json_set_text(json, "cgroup", from->start->cgroup);
    return json;
}

/* Who speaks. */
static struct json_object *head_json(const struct mr_lun_status *from)
{
    struct json_object *json = json_object_new_object();

    if (!json)
        return NULL;
    mr_control_say_version(json);
    mr_json_set_bool(json, "ok", true);
    mr_json_set_string(json, "token", from->start->token);
    mr_json_set_int(json, "pid", getpid());
    mr_json_set_int(json, "start_time", (int64_t)mr_process_start_time(getpid()));
    return json;
}

static void say_lun(const struct mr_lun_status *from, struct json_object *json)
{
    const struct mr_page *page = from->page;
    const bool known = atomic_load(&page->known);
    const uint64_t size = known ? atomic_load(&page->size_bytes) : 0;

    mr_json_set_string(json, "target", from->start->target);
    mr_json_set_int(json, "lun", from->start->lun);
    set_portal(json, page);
    mr_json_set_int(json, "size_bytes", (int64_t)size);
    mr_json_set_int(json, "block_size", known ? page->facts.block_size : 0);
    mr_json_set_text(json, "serial", known ? page->facts.serial : "");
    mr_json_set_text(json, "wwn", known ? page->facts.wwn : "");
    mr_json_set_bool(json, "writable", known && page->geometry.writable);
}

static void say_server(const struct mr_lun_status *from, struct json_object *json)
{
    mr_json_set_int(json, "server_pid", from->server_pid);
    mr_json_set_int(json, "server_start_time", (int64_t)from->server_start_time);
    mr_json_set_int(json, "servers", atomic_load(&from->page->servers));
    if (from->server_end[0])
        mr_json_set_string(json, "server_end", from->server_end);
    if (from->on_trial)
        mr_json_set_bool(json, "program_on_trial", true);
    mr_json_set_int(json, "fuse_connection", from->fuse_connection);
    mr_json_set_int(json, "opens", atomic_load(&from->page->opens));
}

static struct json_object *stats_json(const struct mr_lun_status *from,
                                      const struct link *link)
{
    struct json_object *json = head_json(from);

    if (!json)
        return NULL;
    mr_json_set_string(json, "state", link->state);
    mr_json_set_int(json, "in_flight", atomic_load(&from->page->in_flight));
    mr_json_set(json, "counters", counters_json(&from->page->counters));
    return json;
}

struct json_object *mr_lun_stats(const struct mr_lun_status *from)
{
    const struct link link = look(from);

    return stats_json(from, &link);
}

struct json_object *mr_lun_status(const struct mr_lun_status *from)
{
    const struct mr_page *page = from->page;
    const struct link link = look(from);
    struct json_object *json = stats_json(from, &link);

    if (!json)
        return NULL;
    say_lun(from, json);
    mr_json_set_bool(json, "cut", atomic_load(&page->state) == MR_LINK_CUT);
    if (strcmp(link.state, mr_link_state_name(MR_LINK_UP)) != 0 && link.reason[0])
        mr_json_set_text(json, "down_reason", link.reason);
    say_server(from, json);
    mr_json_set(json, "transport", transport_json(from, &link));
    if (from->start->reserve)
        mr_json_set(json, "fencing", fencing_json(page));
    mr_json_set(json, "memory", memory_json(from));
    return json;
}
