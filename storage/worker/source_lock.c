/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/source_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"

#define RETRY_NS (20 * MR_NS_PER_MS)

static int lock(int fd, int64_t deadline_ns)
{
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK || mr_now_ns() >= deadline_ns)
            return -errno;
        mr_sleep_ns(RETRY_NS);
    }
    return 0;
}

static void read_holder(int fd, char holder[MR_TOKEN_TEXT])
{
    ssize_t len = mr_pread_all(fd, holder, MR_TOKEN_TEXT - 1, 0);

    holder[len > 0 ? len : 0] = '\0';
    if (!mr_token_valid(holder))
        holder[0] = '\0';
}

int mr_source_lock(const char *runtime_dir, const char *key, const char *token,
                   int64_t wait_ms, int *ret_fd, char holder[MR_TOKEN_TEXT],
                   struct mr_err *err)
{
    const size_t len = strlen(token);
    char path[PATH_MAX];

    holder[0] = '\0';
    if (mr_format(path, sizeof(path), "%s/lun", runtime_dir) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "lock below '%s'", runtime_dir);
    int r = mr_mkdir_p(path, 0700);
    if (r == 0)
        r = mr_format(path, sizeof(path), "%s/lun/%016" PRIx64 ".lock", runtime_dir,
                      mr_text_hash(key, strlen(key)));
    if (r < 0)
        return mr_fail(err, MR_E_INTERNAL, -r, "lock below '%s'", runtime_dir);
    MR_AUTO_CLOSE int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "open '%s'", path);
    r = lock(fd, mr_now_ns() + wait_ms * MR_NS_PER_MS);
    if (r == -EWOULDBLOCK)
        read_holder(fd, holder);
    if (r < 0)
        return mr_fail(err, r == -EWOULDBLOCK ? MR_E_SOURCE_IN_USE : MR_E_INTERNAL, -r,
                       "lock '%s'", path);
    if (pwrite(fd, token, len, 0) != (ssize_t)len)
        return mr_fail(err, MR_E_INTERNAL, EIO, "write '%s'", path);
    *ret_fd = mr_take_fd(&fd);
    return 0;
}

int mr_source_look(const char *runtime_dir, const char *key, char holder[MR_TOKEN_TEXT],
                   struct mr_err *err)
{
    char path[PATH_MAX];

    holder[0] = '\0';
    if (mr_format(path, sizeof(path), "%s/lun/%016" PRIx64 ".lock", runtime_dir,
                  mr_text_hash(key, strlen(key))) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "lock below '%s'", runtime_dir);
    MR_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? 0
                               : mr_fail(err, MR_E_INTERNAL, errno, "open '%s'", path);
    if (flock(fd, LOCK_SH | LOCK_NB) == 0)
        return 0; /* and given back */
    if (errno != EWOULDBLOCK)
        return mr_fail(err, MR_E_INTERNAL, errno, "lock '%s'", path);
    read_holder(fd, holder);
    return mr_fail(err, MR_E_SOURCE_IN_USE, EWOULDBLOCK, "lock '%s'", path);
}
