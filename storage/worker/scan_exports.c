/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_state.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/worker/scan_parse.h"

#define MR_EXPORTS_MAX (16UL * 1024 * 1024)

/* The kernel says no more than a path. It means the volume for certain while that is
 * mounted there; later it may have been another file system. */
static void look_at_path(struct mr_scan *scan, enum mr_holder_kind kind, char *path)
{
    const struct mr_holder row = {.kind = kind, .path = path};
    struct mr_scan_target *target = mr_scan_find_path_in(scan, scan->own_space, path);

    if (target) {
        mr_scan_add(target, &row);
        return;
    }
    target = mr_scan_find_path(scan, path);
    if (target)
        mr_scan_add_maybe(target, &row);
}

static void each_line(struct mr_scan *scan, int dirfd, const char *path,
                      enum mr_holder_kind kind, char *(*parse)(char *line))
{
    MR_AUTO_FREE char *text = NULL;

    ssize_t len = mr_read_file(dirfd, path, MR_EXPORTS_MAX, &text);
    if (len < 0)
        mr_scan_missed(scan, (int)-len);
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *found = parse(line);
        if (found)
            look_at_path(scan, kind, found);
    }
}

/* Only where tracefs is mounted: a walk into debugfs would mount it. */
static void scan_uprobes(struct mr_scan *scan)
{
    static const char *const places[] = {"/sys/kernel/tracing",
                                         "/sys/kernel/debug/tracing"};

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        MR_AUTO_CLOSE int dir = open(places[i], O_PATH | O_CLOEXEC);
        struct statfs fs;
        if (dir < 0 || fstatfs(dir, &fs) < 0 || fs.f_type != TRACEFS_MAGIC)
            continue;
        each_line(scan, dir, "uprobe_events", MR_HOLDER_UPROBE, mr_parse_uprobe);
        return;
    }
}

/* Device nodes are looked up on devtmpfs; any other path is compared as text only. */
static void look_at_backing(struct mr_scan *scan, char *path)
{
    struct mr_scan_target *target = NULL;
    const struct mr_holder row = {
        .kind = MR_HOLDER_TARGET_EXPORT, .path = path, .device = path};
    struct statx sx;

    if (mr_path_below(path, "/dev") && mr_scan_statx(AT_FDCWD, path, &sx) == 0 &&
        S_ISBLK(sx.stx_mode))
        target = mr_scan_find_dev(scan, makedev(sx.stx_rdev_major, sx.stx_rdev_minor));
    for (size_t i = 0; !target && i < scan->target_count; i++)
        if (!scan->targets[i].replaced && strcmp(path, scan->targets[i].node) == 0)
            target = &scan->targets[i];
    if (target)
        mr_scan_add(target, &row);
    else
        look_at_path(scan, MR_HOLDER_TARGET_EXPORT, path);
}

/* One that is switched off has nothing open. */
static bool is_enabled(const char *attribute)
{
    char path[PATH_MAX];
    char text[16];

    const char *end = strrchr(attribute, '/');
    if (mr_format(path, sizeof(path), "%.*s/enable", (int)(end - attribute), attribute) <
            0 ||
        mr_read_text(AT_FDCWD, path, text, sizeof(text)) < 0)
        return true;
    return strcmp(text, "0") != 0;
}

static void scan_backings(struct mr_scan *scan, const char *pattern)
{
    glob_t found = {0};

    int rc = glob(pattern, GLOB_NOSORT, NULL, &found);
    if (rc != 0 && rc != GLOB_NOMATCH)
        scan->complete = false;
    for (size_t i = 0; rc == 0 && i < found.gl_pathc && !mr_scan_late(scan); i++) {
        char path[PATH_MAX];
        const char *attribute = found.gl_pathv[i];
        ssize_t len = mr_read_text(AT_FDCWD, attribute, path, sizeof(path));
        if (len < 0)
            mr_scan_missed(scan, (int)-len);
        else if (*path == '/' && is_enabled(attribute))
            look_at_backing(scan, path);
    }
    globfree(&found);
}

void mr_scan_exports(struct mr_scan *scan)
{
    scan_uprobes(scan);
    /* One and the same table (fs/nfsd/nfsctl.c): the second needs no mount. */
    each_line(scan, AT_FDCWD, "/proc/fs/nfs/exports", MR_HOLDER_NFS_EXPORT,
              mr_parse_export);
    each_line(scan, AT_FDCWD, "/proc/fs/nfsd/exports", MR_HOLDER_NFS_EXPORT,
              mr_parse_export);
    scan_backings(scan, "/sys/kernel/config/nvmet/subsystems/*/namespaces/*/device_path");
    scan_backings(scan, "/sys/kernel/config/target/core/*/*/udev_path");
}
