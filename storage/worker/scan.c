/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
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

static int compare_devs(const void *a, const void *b)
{
    const struct mr_scan_dev *left = a;
    const struct mr_scan_dev *right = b;

    return left->dev < right->dev ? -1 : left->dev > right->dev;
}

struct mr_scan_target *mr_scan_find_dev(const struct mr_scan *scan, dev_t dev)
{
    const struct mr_scan_dev key = {.dev = dev};

    if (scan->dev_count == 0)
        return NULL;
    const struct mr_scan_dev *found =
        bsearch(&key, scan->devs, scan->dev_count, sizeof(key), compare_devs);
    return found ? found->target : NULL;
}

static bool lies_on(const struct mr_scan_target *target, const char *path)
{
    if (mr_path_below(path, target->mount_path))
        return true;
    for (size_t i = 0; i < target->holders.count; i++) {
        const struct mr_holder *row = &target->holders.rows[i];
        if (row->kind == MR_HOLDER_MOUNT_COPY && row->path &&
            mr_path_below(path, row->path))
            return true;
    }
    return false;
}

struct mr_scan_target *mr_scan_find_path(const struct mr_scan *scan, const char *path)
{
    for (size_t i = 0; i < scan->target_count; i++)
        if (!scan->targets[i].replaced && lies_on(&scan->targets[i], path))
            return &scan->targets[i];
    return NULL;
}

void mr_scan_add(struct mr_scan_target *target, const struct mr_holder *row)
{
    if (mr_holders_add(&target->holders, row) < 0)
        target->complete = false;
}

bool mr_scan_late(struct mr_scan *scan)
{
    bool late = mr_now_ns() >= scan->deadline_ns;

    if (late)
        scan->complete = false;
    return late;
}

void mr_scan_missed(struct mr_scan *scan, int errnum)
{
    if (errnum != ENOENT && errnum != ESRCH)
        scan->complete = false;
}

struct mr_scan_space *mr_scan_space(struct mr_scan *scan, uint64_t inode)
{
    for (size_t i = 0; i < scan->space_count; i++)
        if (scan->spaces[i].inode == inode)
            return &scan->spaces[i];
    struct mr_scan_space *spaces =
        reallocarray(scan->spaces, scan->space_count + 1, sizeof(*spaces));
    if (!spaces) {
        scan->complete = false;
        return NULL;
    }
    scan->spaces = spaces;
    spaces[scan->space_count] = (struct mr_scan_space){.inode = inode};
    return &spaces[scan->space_count++];
}

int mr_scan_statx(int dirfd, const char *path, struct statx *ret)
{
    const int flags =
        AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | (*path == '\0' ? AT_EMPTY_PATH : 0);

    return statx(dirfd, path, flags, 0, ret) < 0 ? -errno : 0;
}

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
        .own_mount = own.mount.unique ? mr_scan_old_mount_id(own.mount.id) : own.mount.id,
        .complete = true,
    };
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
        qsort(scan->devs, scan->dev_count, sizeof(*scan->devs), compare_devs);
    return true;
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
    if (mr_scan_statx(AT_FDCWD, "/proc/self/exe", &sx) == 0) {
        scan->exe_dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
        scan->exe_inode = sx.stx_ino;
    }
    if (readlink("/proc/self/exe", scan->exe, sizeof(scan->exe) - 1) < 0)
        scan->exe[0] = '\0';
}

/* Puts a process to a mount: the first one in its namespace, else one that keeps the
 * namespace alive. The row is the list's own. */
static void name_mount(struct mr_scan *scan, struct mr_holder *row)
{
    const struct mr_scan_space *space = mr_scan_space(scan, row->mount_ns);
    char cgroup[4096];
    char container[65];

    if (!space || row->pid != 0 || (space->pid == 0 && space->pinned_by == 0))
        return;
    bool inside = space->pid != 0;
    row->pid = inside ? space->pid : space->pinned_by;
    row->tid = inside ? space->tid : 0;
    row->start_time = inside ? space->start_time : space->pin_start_time;
    row->processes = space->processes;
    row->comm = mr_holder_text(inside ? space->comm : space->pin_comm);
    mr_scan_cgroup(row->pid, cgroup, sizeof(cgroup), container);
    row->cgroup = *cgroup ? mr_holder_text(cgroup) : NULL;
    row->container = *container ? mr_holder_text(container) : NULL;
}

static int send_target(struct mr_scan *scan, struct mr_scan_target *target,
                       int channel_fd, struct mr_err *err)
{
    bool complete = scan->complete && target->complete;

    if (!target->replaced && is_replaced(target)) {
        mr_holders_clear(&target->holders); /* they may hold the new device */
        complete = false;
    }
    for (size_t i = 0; i < target->holders.count; i++)
        if (target->holders.rows[i].mount_ns != 0)
            name_mount(scan, &target->holders.rows[i]);
    struct json_object *rows =
        mr_holders_to_json(&target->holders, MR_MSG_MAX - MR_SCAN_ENVELOPE, &complete);
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
    for (size_t i = 0; i < scan->target_count; i++)
        mr_holders_clear(&scan->targets[i].holders);
    free(scan->targets);
    free(scan->devs);
    free(scan->spaces);
    free(scan->views);
    free(scan->node_fs);
}

int mr_scan_main(int channel_fd)
{
    MR_AUTO_JSON struct json_object *command = NULL;
    struct mr_scan scan = {.complete = true};
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
        find_self(&scan);
        mr_scan_mounts(&scan);
        mr_scan_block(&scan);
        mr_scan_processes(&scan);
        rc = send_all(&scan, channel_fd, started_ns, &err);
    }
    if (rc < 0)
        mr_log(MR_LOG_ERR, "holder scan failed: %s", err.message);
    scan_done(&scan);
    return rc < 0;
}
