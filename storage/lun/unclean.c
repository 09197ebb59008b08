/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/unclean.h"

#include <unistd.h>

#define AT 256 /* behind the token of worker/source_lock.c */

bool mr_unclean_read(int lock_fd)
{
    char mark = 0;

    return lock_fd >= 0 && (pread(lock_fd, &mark, 1, AT) < 0 || mark != 0);
}

void mr_unclean_write(int lock_fd, bool unclean)
{
    const char mark = unclean ? 1 : 0;

    if (lock_fd >= 0 && unclean != mr_unclean_read(lock_fd)) {
        ssize_t n = pwrite(lock_fd, &mark, 1, AT);

        (void)n;
    }
}
