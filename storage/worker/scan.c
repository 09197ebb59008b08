/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/log.h"
#include "storage/base/msg.h"
#include "storage/identity.h"
#include "storage/protocol.h"
#include "storage/worker/scan_parse.h"
#include "storage/worker/scan_state.h"

#define MR_SCAN_DEFAULT_MS 8000
#define MR_SCAN_TARGETS_MAX 100000
#define MR_SCAN_ENVELOPE 1024 /* bytes of a message that are no rows */
#define MR_INIT_PID_NS                                                                   \
    "pid:[4026531836]" /* include/linux/proc_ns.h PROC_PID_INIT_INO                      \
                        */

/* The recorded device may have ended and its numbers may be in use again. */
static bool is_replaced(const struct mr_scan_target *target)
{
    char text[32];

    ssize_t len = mr_sysfs_block_attr(major(target->disk), minor(target->disk), "diskseq",
                                      text, sizeof(text));
    return target->diskseq > 0 && len > 0 && strtoull(text, NULL, 10) != target->diskseq;
}

struct add_dev {
    struct mr_scan *scan;
    struct mr_scan_target *target;
};

static void add_dev(void *ctx, dev_t dev)
{
    const struct add_dev *add = ctx;
    struct mr_scan *scan = add->scan;
    struct mr_scan_dev *devs =
        reallocarray(scan->devs, scan->dev_count + 1, sizeof(*devs));

    if (!devs) {
        scan->complete = false;
        return;
    }
    scan->devs = devs;
    devs[scan->dev_count++] = (struct mr_scan_dev){.dev = dev, .target = add->target};
}

static void read_target(struct mr_scan *scan, struct mr_scan_target *target,
                        struct json_object *json)
{
    static struct mr_mount_record own; /* large */
    const char *path = mr_json_get_string(json, "mount_path");
    const char *node = mr_json_get_string(json, "node");

    mr_mount_record_from_json(&own, mr_json_get(json, "own_mount"));
    *target = (struct mr_scan_target){
        .volume = mr_json_get_string(json, "volume"),
        .node = node ? node : "",
        .mount_path = path ? path : "",
        .disk = makedev((unsigned)mr_json_get_int(json, "major", 0),
                        (unsigned)mr_json_get_int(json, "minor", 0)),
        .diskseq = (uint64_t)mr_json_get_int(json, "diskseq", 0),
        .held = mr_json_get_bool(json, "held", false),
        .complete = true,
    };
    int rc = mr_mount_old_id(&own.mount, &target->own_mount);
    if (rc < 0 && rc != -ENOENT) {
        target->complete = false;
        if (asprintf(&target->own_place, "%s/%s", strcmp(own.root, "/") ? own.root : "",
                     own.path) < 0)
            target->own_place = NULL;
    }
    if (target->disk == 0 || is_replaced(target)) {
        target->replaced = true;
        target->complete = false;
        return;
    }
    struct add_dev add = {.scan = scan, .target = target};
    add_dev(&add, target->disk);
    mr_scan_partitions(target->disk, add_dev, &add);
}

/* False when there is not enough memory to begin. */
static bool read_command(struct mr_scan *scan, struct json_object *command)
{
    struct json_object *targets = mr_json_get(command, "targets");
    int64_t budget_ms = mr_json_get_int(command, "deadline_ms", MR_SCAN_DEFAULT_MS);
    size_t count = json_object_is_type(targets, json_type_array)
                       ? json_object_array_length(targets)
                       : 0;

    if (budget_ms < 0 || budget_ms > INT32_MAX)
        budget_ms = MR_SCAN_DEFAULT_MS;
    scan->deadline_ns = mr_now_ns() + budget_ms * MR_NS_PER_MS;
    if (count > MR_SCAN_TARGETS_MAX)
        return false;
    scan->targets = calloc(count + 1, sizeof(*scan->targets));
    if (!scan->targets)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct json_object *json = json_object_array_get_idx(targets, i);
        if (mr_json_get_string(json, "volume"))
            read_target(scan, &scan->targets[scan->target_count++], json);
    }
    if (scan->dev_count > 0)
        qsort(scan->devs, scan->dev_count, sizeof(*scan->devs), mr_scan_compare_devs);
    return true;
}

/* By fds of our own: what foreign ones are is told by their device. */
static void find_kinds(struct mr_scan *scan, int socket_fd)
{
    MR_AUTO_CLOSE int event_fd = eventfd(0, EFD_CLOEXEC);
    struct stat st;

    if (fstat(socket_fd, &st) == 0)
        scan->sockfs = st.st_dev;
    if (event_fd >= 0 && fstat(event_fd, &st) == 0) {
        scan->anon = st.st_dev;
        scan->anon_shared = st.st_ino;
    }
    if (scan->sockfs == 0 || scan->anon == 0)
        scan->complete = false;
}

/* Who we are, and whether we can see everybody. */
static void find_self(struct mr_scan *scan)
{
    char link[64] = "";
    struct statx sx;

    if (readlink("/proc/self/ns/pid", link, sizeof(link) - 1) < 0 ||
        strcmp(link, MR_INIT_PID_NS) != 0)
        scan->complete = false; /* processes outside of our pid namespace are hidden */
    if (mr_scan_statx(AT_FDCWD, "/proc/self/ns/mnt", &sx) == 0) {
        scan->nsfs = makedev(sx.stx_dev_major, sx.stx_dev_minor);
        scan->own_space = sx.stx_ino;
    } else {
        scan->complete = false;
    }
    if (mr_scan_statx(AT_FDCWD, "/proc/self/exe", &sx) < 0)
        scan->complete = false; /* then everybody may be one of ours */
}

/* Puts a process to a mount in a foreign namespace: the first one in there, else one that
 * keeps it alive. In our own everybody would do as well as anybody. The texts stay the
 * owner's and the space's. */
static void name_mount(struct mr_scan *scan, struct mr_holder *row,
                       struct mr_scan_owner *owner)
{
    struct mr_scan_space *space = mr_scan_space(scan, row->mount_ns);

    if (!space || row->pid != 0 || row->mount_ns == 0)
        return;
    row->processes = space->processes;
    bool inside = space->pid != 0;
    if (row->mount_ns == scan->own_space || (!inside && space->pinned_by == 0))
        return;
    row->only_pins = !inside;
    row->pid = inside ? space->pid : space->pinned_by;
    row->tid = inside ? space->tid : 0;
    row->start_time = inside ? space->start_time : space->pin_start_time;
    row->comm = inside ? space->comm : space->pin_comm;
    mr_scan_read_owner(row->pid, owner);
    mr_scan_set_owner(row, owner);
}

/* The rows to be shown. 0 or a negative errno; *ret is to be cleared either way. */
static int collect(struct mr_scan *scan, const struct mr_scan_target *target,
                   struct mr_holders *ret)
{
    static struct mr_scan_owner owner; /* large */
    const struct mr_holders *from =
        mr_scan_wants_candidates(target) ? &target->candidates : &target->holders;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < from->count; i++) {
        struct mr_holder row = from->rows[i];
        name_mount(scan, &row, &owner);
        rc = mr_holders_add(ret, &row);
    }
    return rc;
}

static int send_target(struct mr_scan *scan, struct mr_scan_target *target,
                       int channel_fd, struct mr_err *err)
{
    bool complete = scan->complete && target->complete;
    struct mr_holders shown = {0};

    if (!target->replaced && is_replaced(target)) {
        mr_holders_clear(&target->holders); /* they may hold the new device */
        mr_holders_clear(&target->candidates);
        complete = false;
    }
    if (collect(scan, target, &shown) < 0)
        complete = false;
    struct json_object *rows =
        mr_holders_to_json(&shown, MR_MSG_MAX - MR_SCAN_ENVELOPE, &complete);
    mr_holders_clear(&shown);
    MR_AUTO_JSON struct json_object *message = json_object_new_object();
    mr_json_set_string(message, "scan", target->volume);
    mr_json_set_bool(message, "complete", complete && rows);
    mr_json_set(message, "holders", rows);
    return mr_msg_send(channel_fd, message, -1, 0, err);
}

static int send_all(struct mr_scan *scan, int channel_fd, int64_t started_ns,
                    struct mr_err *err)
{
    MR_AUTO_JSON struct json_object *done = json_object_new_object();
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < scan->target_count; i++)
        rc = send_target(scan, &scan->targets[i], channel_fd, err);
    mr_json_set_bool(done, "done", true);
    mr_json_set_int(done, "elapsed_ms", (mr_now_ns() - started_ns) / MR_NS_PER_MS);
    return rc < 0 ? rc : mr_msg_send(channel_fd, done, -1, 0, err);
}

static void scan_done(struct mr_scan *scan)
{
    for (size_t i = 0; i < scan->target_count; i++) {
        mr_holders_clear(&scan->targets[i].holders);
        mr_holders_clear(&scan->targets[i].candidates);
        free(scan->targets[i].own_place);
    }
    for (size_t i = 0; i < scan->overlay_count; i++)
        free(scan->overlays[i].point);
    free(scan->overlays);
    for (size_t i = 0; i < scan->socket_count; i++)
        free(scan->sockets[i].path);
    free(scan->sockets);
    free(scan->net_spaces);
    free(scan->mount_ids);
    free(scan->targets);
    free(scan->devs);
    free(scan->spaces);
    free(scan->views);
    free(scan->node_fs);
}

static void run(struct mr_scan *scan)
{
    mr_scan_mounts(scan);
    mr_scan_block(scan);
    mr_scan_exports(scan);
    mr_scan_processes(scan);
}

int mr_scan_main(int channel_fd, int fanotify_fd)
{
    MR_AUTO_JSON struct json_object *command = NULL;
    struct mr_scan scan = {.complete = true, .fanotify_fd = fanotify_fd};
    struct mr_err err = {0};

    int rc = mr_msg_recv(channel_fd, &command, NULL, 0, &err);
    if (rc == 0)
        return 0; /* the agent is gone */
    int64_t started_ns = mr_now_ns();
    if (rc > 0) {
        const char *cmd = mr_json_get_string(command, "cmd");
        rc = cmd && strcmp(cmd, "scan") == 0 && read_command(&scan, command)
                 ? 0
                 : mr_fail(&err, MR_E_INTERNAL, EINVAL, "not a scan command");
    }
    if (rc == 0) {
        find_kinds(&scan, channel_fd);
        find_self(&scan);
        run(&scan);
        rc = send_all(&scan, channel_fd, started_ns, &err);
    }
    if (rc < 0 && rc != -EPIPE) /* nobody listens any more */
        mr_log(MR_LOG_ERR, "holder scan failed: %s", err.message);
    scan_done(&scan);
    return rc < 0;
}
