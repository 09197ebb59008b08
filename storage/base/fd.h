/* SPDX-License-Identifier: Apache-2.0
 *
 * Small files, paths and random bytes. Everything opened is close-on-exec.
 */
#ifndef MR_STORAGE_BASE_FD_H
#define MR_STORAGE_BASE_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads at most size-1 bytes of a small text file (proc, sysfs) relative to dirfd, adds a
 * NUL and cuts trailing white space. Returns the length or a negative errno. */
ssize_t mr_read_text(int dirfd, const char *path, char *dst, size_t size);
/* The whole file (at most max bytes) as a NUL-terminated heap string in *ret, caller
 * frees. Returns the length or a negative errno (-EFBIG when longer than max). */
ssize_t mr_read_file(int dirfd, const char *path, size_t max, char **ret);
/* Writes all bytes. Returns 0 or a negative errno. */
int mr_write_all(int fd, const void *data, size_t len);
/* pread until len bytes or end of file. Returns the count or a negative errno. */
ssize_t mr_pread_all(int fd, void *dst, size_t len, off_t offset);
/* mkdir -p of an absolute path, missing parts get mode. Returns 0 or a negative errno. */
int mr_mkdir_p(const char *path, mode_t mode);
/* snprintf that says whether it fitted: 0, or -ENAMETOOLONG. */
int mr_format(char *dst, size_t size, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Random bytes as lower-case hex; dst holds 2 * bytes + 1. Returns 0 or a negative errno.
 */
int mr_random_hex(size_t bytes, char *dst);
/* Field 22 of /proc/PID/stat (clock ticks since boot): with the pid it names a process
 * for the life of a boot. 0 when there is no such process. */
uint64_t mr_process_start_time(pid_t pid);
/* Writes the decimal text of one sysfs attribute such as "7:3". Kernel names only: a
 * helper for
 * "/sys/dev/block/MAJOR:MINOR/ATTR". Returns the length or a negative errno. */
ssize_t mr_sysfs_block_attr(uint32_t major, uint32_t minor, const char *attr, char *dst,
                            size_t size);

#endif
