/* SPDX-License-Identifier: Apache-2.0
 *
 * What is on a device. Blank needs both: libblkid knows nothing there, and head and tail
 * are all zero. Whatever cannot be read or told apart stays unknown.
 */
#include "storage/worker/filesystem.h"

#include <blkid/blkid.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "storage/base/cleanup.h"
#include "storage/base/fault.h"
#include "storage/base/fd.h"
#include "storage/worker/device.h"

#define EDGE_BYTES (2U * 1024 * 1024)
#define CHUNK_BYTES (256U * 1024)
#define PREFETCH_BYTES (512U * 1024)

MR_DEFINE_CLEANUP(blkid, blkid_probe, blkid_free_probe);

enum signature {
    SIGNATURE_UNCLEAR = 0, /* ret->detail says why */
    SIGNATURE_NONE,
    SIGNATURE_ONE,
};

const char *mr_content_name(enum mr_content content)
{
    switch (content) {
    case MR_CONTENT_BLANK:
        return "blank";
    case MR_CONTENT_FORMATTED:
        return "formatted";
    case MR_CONTENT_UNKNOWN:
        break;
    }
    return "unknown";
}

/* Values are text made from a hostile superblock: only harmless characters get through.
 */
static bool copy_value(blkid_probe probe, const char *name, char *dst, size_t size)
{
    const char *value = NULL;
    size_t n = 0;

    dst[0] = '\0';
    if (blkid_probe_lookup_value(probe, name, &value, NULL) != 0 || !value)
        return false;
    for (; *value && n + 1 < size; value++) {
        unsigned char c = (unsigned char)*value;
        dst[n++] = isalnum(c) || c == '-' || c == '_' ? (char)c : '?';
    }
    dst[n] = '\0';
    return n > 0;
}

/* A label is free text: what can be printed gets through. */
static void copy_label(blkid_probe probe, struct mr_probe *ret)
{
    const char *value = NULL;
    size_t n = 0;

    if (blkid_probe_lookup_value(probe, "LABEL", &value, NULL) != 0 || !value)
        return;
    for (; *value && n + 1 < sizeof(ret->label); value++)
        ret->label[n++] = isascii(*value) && isprint(*value) ? *value : '?';
    ret->label[n] = '\0';
}

static void describe(struct mr_probe *ret, const char *usage)
{
    const char *kind = strcmp(usage, "filesystem") == 0 ? " file system"
                       : strcmp(usage, "raid") == 0     ? " member (RAID or volume group)"
                       : strcmp(usage, "crypto") == 0   ? " encrypted volume"
                                                        : " signature";

    (void)snprintf(ret->detail, sizeof(ret->detail), "%s%s%s%s", ret->type, kind,
                   ret->uuid[0] ? ", UUID " : "", ret->uuid);
}

static enum signature read_values(blkid_probe probe, struct mr_probe *ret)
{
    char table[sizeof(ret->type)];
    char usage[32];
    bool has_type = copy_value(probe, "TYPE", ret->type, sizeof(ret->type));
    bool has_table = copy_value(probe, "PTTYPE", table, sizeof(table));

    (void)copy_value(probe, "UUID", ret->uuid, sizeof(ret->uuid));
    (void)copy_value(probe, "USAGE", usage, sizeof(usage));
    copy_label(probe, ret);
    if (has_type && has_table) {
        (void)snprintf(ret->detail, sizeof(ret->detail),
                       "several signatures: %s and a %s partition table", ret->type,
                       table);
        return SIGNATURE_UNCLEAR;
    }
    if (has_table) {
        memcpy(ret->type, table, sizeof(table));
        (void)copy_value(probe, "PTUUID", ret->uuid, sizeof(ret->uuid));
        (void)snprintf(ret->detail, sizeof(ret->detail), "%s partition table", table);
        return SIGNATURE_ONE;
    }
    if (has_type) {
        describe(ret, usage);
        return SIGNATURE_ONE;
    }
    (void)snprintf(ret->detail, sizeof(ret->detail), "libblkid found something nameless");
    return SIGNATURE_UNCLEAR;
}

/* libblkid makes dozens of small reads near both ends: one round trip each on a network
 * device unless they are in the page cache. Advice only. */
static void prefetch(int fd, uint64_t size)
{
    off_t tail = size > PREFETCH_BYTES ? (off_t)(size - PREFETCH_BYTES) : 0;

    (void)posix_fadvise(fd, 0, PREFETCH_BYTES, POSIX_FADV_WILLNEED);
    (void)posix_fadvise(fd, tail, PREFETCH_BYTES, POSIX_FADV_WILLNEED);
}

/* block_size 0: what the kernel says of the device. */
static enum signature find_signature(int fd, uint32_t block_size, struct mr_probe *ret)
{
    MR_CLEANUP(blkid) blkid_probe probe = blkid_new_probe();

    if (!probe || blkid_probe_set_device(probe, fd, 0, 0) != 0 ||
        (block_size != 0 && blkid_probe_set_sectorsize(probe, block_size) != 0) ||
        blkid_probe_enable_superblocks(probe, 1) != 0 ||
        blkid_probe_set_superblocks_flags(
            probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_UUID | BLKID_SUBLKS_VERSION |
                       BLKID_SUBLKS_LABEL | BLKID_SUBLKS_USAGE) != 0 ||
        blkid_probe_enable_partitions(probe, 1) != 0) {
        (void)snprintf(ret->detail, sizeof(ret->detail),
                       "libblkid cannot probe the device");
        return SIGNATURE_UNCLEAR;
    }
    errno = 0;
    switch (blkid_do_safeprobe(probe)) {
    case 0:
        return read_values(probe, ret);
    case 1:
        return SIGNATURE_NONE;
    case -2:
        (void)snprintf(ret->detail, sizeof(ret->detail), "several signatures");
        return SIGNATURE_UNCLEAR;
    default:
        ret->read_errno = errno > 0 ? errno : EIO;
        (void)snprintf(ret->detail, sizeof(ret->detail),
                       "libblkid cannot read the device");
        return SIGNATURE_UNCLEAR;
    }
}

/* True when all of [from, to) was read and is zero; else ret->detail says what is there.
 */
static bool range_is_zero(int fd, uint64_t from, uint64_t to, struct mr_probe *ret)
{
    MR_AUTO_FREE unsigned char *chunk = malloc(CHUNK_BYTES);

    if (!chunk) {
        (void)snprintf(ret->detail, sizeof(ret->detail), "out of memory");
        return false;
    }
    for (uint64_t at = from; at < to; at += CHUNK_BYTES) {
        size_t want = to - at < CHUNK_BYTES ? (size_t)(to - at) : CHUNK_BYTES;
        ssize_t n = mr_pread_all(fd, chunk, want, (off_t)at);
        if (n < 0 || (size_t)n != want) {
            ret->read_errno = n < 0 ? (int)-n : EIO;
            (void)snprintf(ret->detail, sizeof(ret->detail),
                           "cannot read at offset %" PRIu64 ": %s", at,
                           n < 0 ? strerror((int)-n) : "short read");
            return false;
        }
        for (size_t i = 0; i < want; i++) {
            if (chunk[i] != 0) {
                (void)snprintf(ret->detail, sizeof(ret->detail),
                               "non-zero byte at offset %" PRIu64, at + i);
                return false;
            }
        }
    }
    return true;
}

static bool edges_are_zero(int fd, uint64_t size, struct mr_probe *ret)
{
    uint64_t head = size < EDGE_BYTES ? size : EDGE_BYTES;
    uint64_t tail = size - head < EDGE_BYTES ? head : size - EDGE_BYTES;

    return range_is_zero(fd, 0, head, ret) && range_is_zero(fd, tail, size, ret);
}

static void look(int fd, uint64_t size, uint32_t block_size, struct mr_probe *ret)
{
    switch (find_signature(fd, block_size, ret)) {
    case SIGNATURE_ONE:
        ret->content = MR_CONTENT_FORMATTED;
        break;
    case SIGNATURE_NONE:
        if (edges_are_zero(fd, size, ret)) {
            ret->content = MR_CONTENT_BLANK;
            (void)snprintf(ret->detail, sizeof(ret->detail), "blank");
        }
        break;
    case SIGNATURE_UNCLEAR:
        break;
    }
}

int mr_filesystem_probe_file(int fd, uint32_t block_size, struct mr_probe *ret,
                             struct mr_err *err)
{
    struct stat st;

    *ret = (struct mr_probe){0};
    if (fstat(fd, &st) < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "size of the file");
    look(fd, (uint64_t)st.st_size, block_size, ret);
    return 0;
}

int mr_filesystem_probe(const struct mr_identity *identity, struct mr_probe *ret,
                        struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = -1;
    uint64_t size = 0;

    *ret = (struct mr_probe){0};
    int r = mr_device_open(identity, O_RDONLY, &fd, err);
    if (r == 0)
        r = mr_fault_fail("worker", "check", "inside", err);
    if (r < 0)
        return r;
    if (ioctl(fd, BLKGETSIZE64, &size) < 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, errno, "size of '%s'", identity->node);
    if (size == 0) {
        (void)snprintf(ret->detail, sizeof(ret->detail), "the device has no size");
        return 0;
    }
    prefetch(fd, size);
    look(fd, size, 0, ret);
    /* Was it this device all the time? */
    r = mr_device_check(identity, fd, err);
    if (r < 0)
        *ret = (struct mr_probe){0};
    return r;
}

int mr_filesystem_is(const struct mr_identity *identity, const char *type,
                     const char *uuid, bool *ret, struct mr_err *err)
{
    char name[sizeof((struct mr_probe){0}.type)];
    char *only[] = {name, NULL}; /* libblkid takes no const */
    char found[sizeof((struct mr_probe){0}.uuid)];
    MR_AUTO_CLOSE int fd = -1;

    *ret = false;
    if (mr_format(name, sizeof(name), "%s", type) < 0)
        return mr_fail(err, MR_E_FILESYSTEM_UNSUPPORTED, EINVAL, "file system '%.32s'",
                       type);
    int r = mr_device_open(identity, O_RDONLY, &fd, err);
    if (r < 0)
        return r;
    MR_CLEANUP(blkid) blkid_probe probe = blkid_new_probe();
    if (!probe || blkid_probe_set_device(probe, fd, 0, 0) != 0 ||
        blkid_probe_enable_superblocks(probe, 1) != 0 ||
        blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_UUID) !=
            0 ||
        blkid_probe_filter_superblocks_type(probe, BLKID_FLTR_ONLYIN, only) != 0)
        return mr_fail(err, MR_E_DEVICE_ERROR, 0, "libblkid cannot probe '%s'",
                       identity->node);
    *ret = blkid_do_safeprobe(probe) == 0 &&
           copy_value(probe, "UUID", found, sizeof(found)) &&
           strcasecmp(found, uuid) == 0;
    return 0;
}
