/* SPDX-License-Identifier: Apache-2.0
 *
 * A mooring-worker that does nothing: it answers from scripts. STATE/fake/CMD holds a
 * JSON array of replies, used one after the other (the last one stays); a reply may hold
 * "exit" (status), "sleep_ms" or be an error. Without a script everything succeeds; a
 * scan (script "scan": {"complete", "holders", "sleep_ms"}, and "scan-held" for targets
 * known to be held) finds nobody; a look (script "look": what every volume is answered)
 * finds all as it was, a search nothing. STATE/fake/log gets one line per command (and
 * one for the key that its spec wants to be preempted), but for scans, surveys and
 * examinations, whose time nobody knows. It finds STATE beside the directory that it was
 * started from.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/protocol.h"

#define IDENTITY                                                                         \
    "{\"node\":\"/dev/"                                                                  \
    "loop9\",\"major\":7,\"minor\":9,\"diskseq\":42,\"size_bytes\":4096,"                \
    "\"block_size\":512,\"source_key\":\"file:1:2:3\"}"

static char dir[4096];

static const struct {
    const char *command;
    const char *reply;
} defaults[] = {
    {"inspect", "{\"found\":false,\"mounted\":\"absent\"}"},
    {"map", "{\"identity\":" IDENTITY "}"},
    {"identify", "{\"identity\":" IDENTITY "}"},
    {"check", "{\"content\":\"blank\",\"detail\":\"all zero\"}"},
    {"format", "{}"},
    {"mount", "{\"mount\":{\"id\":77,\"unique\":true,\"major\":7,\"minor\":9,"
              "\"root\":\"/r\",\"path\":\"v\",\"created\":1}}"},
    {"unmount", "{\"result\":\"unmounted\"}"},
    {"claim", "{\"result\":\"claimed\",\"unmap\":\"deferred\"}"},
    {"keep", "{\"result\":\"kept\"}"},
    {"unmap", "{\"result\":\"gone\",\"evidence\":{\"exclusive_open\":true,\"diskseq\":42,"
              "\"gone\":\"diskseq changed\"}}"},
    {"look", "{\"found\":true,\"mounted\":\"present\"}"},
    {"search", "{\"complete\":true,\"orphans\":[]}"},
    {"examine", "{\"frozen\":\"no\"}"},
    {"act", "{\"results\":[]}"},
    {"gone", "{\"result\":\"gone\",\"evidence\":{\"exclusive_open\":false,\"gone\":\"no "
             "backing\"}}"},
};

static void write_log(const char *command)
{
    char path[4200];
    char line[128];
    (void)snprintf(path, sizeof(path), "%s/log", dir);
    (void)snprintf(line, sizeof(line), "%s\n", command);
    MR_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || mr_write_all(fd, line, strlen(line)) < 0)
        exit(9);
}

/* The next scripted reply, or the default one. New reference. */
static struct json_object *next_reply(const char *command)
{
    char path[4200];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, command);
    MR_AUTO_JSON struct json_object *script = json_object_from_file(path);
    if (json_object_is_type(script, json_type_array) &&
        json_object_array_length(script) > 0) {
        struct json_object *reply = json_object_get(json_object_array_get_idx(script, 0));
        if (json_object_array_length(script) > 1) {
            (void)json_object_array_del_idx(script, 0, 1);
            (void)json_object_to_file(path, script);
        }
        return reply;
    }
    for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++)
        if (strcmp(defaults[i].command, command) == 0)
            return json_tokener_parse(defaults[i].reply);
    return json_object_new_object();
}

/* Comes when it comes. */
static bool is_timeless(const char *command)
{
    return strcmp(command, "examine") == 0 || strcmp(command, "look") == 0 ||
           strcmp(command, "search") == 0;
}

/* What a look says of each target. */
static void fill_look(struct json_object *reply, struct json_object *targets)
{
    struct json_object *volumes = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(targets); i++) {
        struct json_object *seen = NULL;
        struct json_object *target = json_object_array_get_idx(targets, i);
        if (json_object_deep_copy(reply, &seen, NULL) != 0)
            exit(9);
        mr_json_set_string(seen, "volume", mr_json_get_string(target, "volume"));
        (void)json_object_array_add(volumes, seen);
    }
    mr_json_set(reply, "volumes", volumes);
}

static void answer(struct json_object *message)
{
    const char *command = mr_json_get_string(message, "cmd");
    struct json_object *spec = mr_json_get(message, "spec");
    const char *preempt = mr_json_get_string(mr_json_get(spec, "source"), "preempt");
    char told[64];
    if (!command)
        exit(9);
    if (!is_timeless(command))
        write_log(command);
    if (preempt) {
        (void)snprintf(told, sizeof(told), "preempt=%s", preempt);
        write_log(told);
    }
    MR_AUTO_JSON struct json_object *reply = next_reply(command);
    if (mr_json_get(reply, "sleep_ms"))
        mr_sleep_ns(mr_json_get_int(reply, "sleep_ms", 0) * MR_NS_PER_MS);
    if (mr_json_get(reply, "hang_up_ms")) { /* as a process that hangs while it exits */
        (void)close(MR_WORKER_CHANNEL_FD);
        mr_sleep_ns(mr_json_get_int(reply, "hang_up_ms", 0) * MR_NS_PER_MS);
        _exit(0);
    }
    if (mr_json_get(reply, "exit"))
        _exit((int)mr_json_get_int(reply, "exit", 0));
    if (strcmp(command, "look") == 0)
        fill_look(reply, mr_json_get(message, "targets"));
    mr_json_set_string(reply, "reply", command);
    mr_json_set_bool(reply, "ok", mr_json_get(reply, "error") == NULL);
    (void)mr_msg_send(MR_WORKER_CHANNEL_FD, reply, -1, 0, NULL);
}

/* Every target gets the same answer. */
static void scan(struct json_object *message)
{
    struct json_object *targets = mr_json_get(message, "targets");
    MR_AUTO_JSON struct json_object *script = next_reply("scan");
    MR_AUTO_JSON struct json_object *own = next_reply("scan-held");
    struct json_object *for_held = mr_json_get(own, "holders") ? own : script;
    MR_AUTO_JSON struct json_object *done = json_object_new_object();

    mr_sleep_ns(mr_json_get_int(script, "sleep_ms", 0) * MR_NS_PER_MS);
    for (size_t i = 0; i < json_object_array_length(targets); i++) {
        MR_AUTO_JSON struct json_object *answer = json_object_new_object();
        struct json_object *target = json_object_array_get_idx(targets, i);
        bool held = mr_json_get_bool(target, "held", false);
        struct json_object *rows = mr_json_get(held ? for_held : script, "holders");
        mr_json_set_string(answer, "scan", mr_json_get_string(target, "volume"));
        mr_json_set_bool(answer, "complete", mr_json_get_bool(script, "complete", true));
        mr_json_set(answer, "holders",
                    rows ? json_object_get(rows) : json_object_new_array());
        (void)mr_msg_send(MR_WORKER_CHANNEL_FD, answer, -1, 0, NULL);
    }
    mr_json_set_bool(done, "done", true);
    (void)mr_msg_send(MR_WORKER_CHANNEL_FD, done, -1, 0, NULL);
}

static bool serve_one(void)
{
    MR_AUTO_JSON struct json_object *message = NULL;
    if (mr_msg_recv(MR_WORKER_CHANNEL_FD, &message, NULL, 0, NULL) <= 0)
        return false;
    const char *command = mr_json_get_string(message, "cmd");
    if (command && strcmp(command, "scan") == 0)
        scan(message);
    else
        answer(message);
    return true;
}

int main(int argc, char **argv)
{
    const char *libexec = strstr(argv[0], "/libexec/");
    bool volume = argc == 3 && strcmp(argv[1], "volume") == 0;
    bool survey = argc == 2 && strcmp(argv[1], "survey") == 0;

    if (!libexec || argc < 2)
        return 64;
    (void)snprintf(dir, sizeof(dir), "%.*s/state/fake", (int)(libexec - argv[0]),
                   argv[0]);
    if (!volume && !survey)
        return serve_one() ? 0 : 1;
    MR_AUTO_JSON struct json_object *ready = json_object_new_object();
    mr_json_set_string(ready, "event", "ready");
    if (volume)
        (void)mr_msg_send(MR_WORKER_CHANNEL_FD, ready, -1, 0, NULL);
    while (serve_one())
        ;
    return 0;
}
