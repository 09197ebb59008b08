/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_state.h"

#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/worker/scan_parse.h"

#define MR_CGROUP_MAX (64UL * 1024)
#define MR_PASSWD_LINES_MAX 10000

MR_DEFINE_CLEANUP(file, FILE *, (void)fclose);

/* By the file alone: the name service may wait for a server. */
static void find_user(uid_t uid, char *dst, size_t size)
{
    MR_CLEANUP(file) FILE *file = fopen("/etc/passwd", "re");
    int lines = 0;

    for (const struct passwd *entry;
         file && lines++ < MR_PASSWD_LINES_MAX && (entry = fgetpwent(file));) {
        if (entry->pw_uid != uid)
            continue;
        (void)snprintf(dst, size, "%s", entry->pw_name);
        return;
    }
}

static void read_user(pid_t pid, struct mr_scan_owner *owner)
{
    char path[64];
    char text[4096];
    unsigned uid;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", pid);
    ssize_t len = mr_read_text(AT_FDCWD, path, text, sizeof(text));
    const char *line = len > 0 ? strstr(text, "\nUid:") : NULL;
    if (!line || sscanf(line, " Uid: %*u %u", &uid) != 1) /* real, effective */
        return;
    owner->has_uid = true;
    owner->uid = uid;
    find_user(uid, owner->user, sizeof(owner->user));
}

static void read_cgroup(pid_t pid, struct mr_scan_owner *owner)
{
    MR_AUTO_FREE char *text = NULL;
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
    if (mr_read_file(AT_FDCWD, path, MR_CGROUP_MAX, &text) < 0)
        return;
    const char *cgroup = mr_parse_cgroup(text);
    (void)snprintf(owner->cgroup, sizeof(owner->cgroup), "%s", cgroup);
    (void)mr_container_id(cgroup, owner->container);
    (void)mr_cgroup_unit(cgroup, owner->unit, sizeof(owner->unit));
    const char *runtime = mr_container_runtime(cgroup);
    (void)snprintf(owner->runtime, sizeof(owner->runtime), "%s", runtime ? runtime : "");
}

void mr_scan_read_owner(pid_t pid, struct mr_scan_owner *ret)
{
    *ret = (struct mr_scan_owner){.known = true};
    read_user(pid, ret);
    read_cgroup(pid, ret);
}

static char *or_null(char *text)
{
    return *text ? text : NULL;
}

void mr_scan_set_owner(struct mr_holder *row, struct mr_scan_owner *owner)
{
    row->has_uid = owner->has_uid;
    row->uid = owner->uid;
    row->user = or_null(owner->user);
    row->cgroup = or_null(owner->cgroup);
    row->container = or_null(owner->container);
    row->runtime = or_null(owner->runtime);
    row->unit = or_null(owner->unit);
}
