/* SPDX-License-Identifier: Apache-2.0
 *
 * The volumes' lock files: STATE/locks/NUMBER.lock, which workers take. Those of volumes
 * that the journal has forgotten are removed at the start; numbers are never used again.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/engine_internal.h"

MR_DEFINE_CLEANUP(dir, DIR *, (void)closedir);

int mr_lock_file_path(const struct mr_volume *volume, char *dst, size_t size)
{
    return mr_format(dst, size, "%s/locks/%lld.lock", volume->engine->config->state_dir,
                     (long long)volume->number);
}

/* 0 when it is no name of a lock file. */
static int64_t number_of(const char *name)
{
    char *end = NULL;

    errno = 0;
    long long number = strtoll(name, &end, 10);
    return errno == 0 && end != name && strcmp(end, ".lock") == 0 ? number : 0;
}

static int by_number(const void *a, const void *b)
{
    const int64_t *left = a;
    const int64_t *right = b;
    return *left < *right ? -1 : *left > *right;
}

void mr_lock_files_sweep(const struct mr_engine *engine)
{
    char path[PATH_MAX];
    MR_AUTO_FREE int64_t *known = calloc(engine->volume_count + 1, sizeof(*known));

    if (!known ||
        mr_format(path, sizeof(path), "%s/locks", engine->config->state_dir) < 0)
        return;
    for (size_t i = 0; i < engine->volume_count; i++)
        known[i] = engine->volumes[i]->number;
    qsort(known, engine->volume_count, sizeof(*known), by_number);
    MR_CLEANUP(dir) DIR *dir = opendir(path);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        int64_t number = number_of(entry->d_name);
        if (number > 0 &&
            !bsearch(&number, known, engine->volume_count, sizeof(*known), by_number))
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    }
}
