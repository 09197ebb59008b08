/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/scan_parse.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* Where the id of the container begins, or NULL. */
static const char *find_id(const char *cgroup)
{
    static const char hex[] = "0123456789abcdef";
    const char *found = NULL;

    for (const char *p = cgroup; *p;) {
        size_t len = strspn(p, hex);
        /* "pod1234" and the like: a run inside of a word is no id of its own. */
        bool alone = (p == cgroup || !isalnum((unsigned char)p[-1])) &&
                     !isalnum((unsigned char)p[len]);
        if (len == MR_CONTAINER_ID_LEN && alone)
            found = p;
        p += len ? len : 1;
    }
    return found;
}

/* v2: of the v2 hierarchy, and not its root. */
static bool is_better(const char *path, bool v2, const char *best, bool best_v2)
{
    bool container = find_id(path) != NULL;

    if (container != (find_id(best) != NULL))
        return container;
    if (v2 != best_v2)
        return v2;
    return strlen(path) > strlen(best);
}

const char *mr_parse_cgroup(char *text)
{
    const char *best = "";
    bool best_v2 = false;

    for (char *line; (line = strsep(&text, "\n"));) {
        const char *path = strchr(line, ':');
        path = path ? strchr(path + 1, ':') : NULL;
        bool v2 = strncmp(line, "0::", 3) == 0 && strcmp(line, "0::/") != 0;
        if (!path || !is_better(path + 1, v2, best, best_v2))
            continue;
        best = path + 1;
        best_v2 = v2;
    }
    return best;
}

bool mr_container_id(const char *cgroup, char ret[MR_CONTAINER_ID_LEN + 1])
{
    const char *id = find_id(cgroup);

    if (!id)
        return false;
    memcpy(ret, id, MR_CONTAINER_ID_LEN);
    ret[MR_CONTAINER_ID_LEN] = '\0';
    return true;
}

static bool ends_with(const char *text, size_t len, const char *end)
{
    size_t end_len = strlen(end);

    return len >= end_len && memcmp(text + len - end_len, end, end_len) == 0;
}

const char *mr_container_runtime(const char *cgroup)
{
    static const char *const known[][2] = {
        {"/docker-", "docker"},
        {"/docker/", "docker"},
        {"/libpod-", "podman"},
        {"/libpod-conmon-", "podman"},
        {"/cri-containerd-", "containerd"},
        {":cri-containerd:", "containerd"}, /* runc without systemd */
        {"/crio-", "cri-o"},
        {"/crio-conmon-", "cri-o"},
    };
    const char *id = find_id(cgroup);

    for (size_t i = 0; id && i < sizeof(known) / sizeof(known[0]); i++)
        if (ends_with(cgroup, (size_t)(id - cgroup), known[i][0]))
            return known[i][1];
    return NULL;
}

bool mr_cgroup_unit(const char *cgroup, char *dst, size_t size)
{
    const char *id = find_id(cgroup);
    bool found = false;

    for (const char *p = cgroup; *p;) {
        p += strspn(p, "/");
        size_t len = strcspn(p, "/");
        bool is_unit = (len > 8 && ends_with(p, len, ".service")) ||
                       (len > 6 && ends_with(p, len, ".scope"));
        bool of_container = id && id >= p && id < p + len;
        /* A name that the kernel uses, too, gets a "_" in front (systemd
         * cg_escape()). */
        size_t skip = *p == '_';
        if (is_unit && !of_container && len - skip < size) {
            (void)snprintf(dst, size, "%.*s", (int)(len - skip), p + skip);
            found = true;
        }
        p += len;
    }
    return found;
}
