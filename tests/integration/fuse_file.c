/* SPDX-License-Identifier: Apache-2.0
 *
 * One file, served by FUSE, whose device can be made bad: fuse_file BACKING TARGET mounts
 * it over the regular file TARGET and says "ready N", N being the connection's number in
 * fusectl. Then it obeys lines on stdin, each answered by "ok":
 *   fail BYTES   writes below this offset give EIO
 *   mute         requests are taken and not answered: who waits for them sits in D
 *   well         no fault; what waits is answered now
 * It ends when the file is unmounted, when the connection is aborted, or with stdin. Raw
 * protocol of linux/fuse.h, fuse(4): the mount's root is the file.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_IO (128u << 10)
#define MAX_REQUEST (MAX_IO + 8192u)
#define MAX_WAITING 4096
#define VALID_S 3600 /* attributes never change behind the kernel's back */

static int backing_fd;
static int fuse_fd;
static uint64_t fail_below;
static bool mute;
static void *waiting[MAX_WAITING];
static size_t waiting_count;

static void reply(uint64_t unique, int error, void *body, size_t len)
{
    struct fuse_out_header head = {
        .len = (uint32_t)(sizeof(head) + len), .error = -error, .unique = unique};
    struct iovec iov[2] = {{.iov_base = &head, .iov_len = sizeof(head)},
                           {.iov_base = body, .iov_len = len}};
    /* ENOENT: the request was interrupted; ENODEV: the connection ended. */
    if (writev(fuse_fd, iov, len > 0 ? 2 : 1) < 0 && errno != ENOENT && errno != ENODEV)
        err(1, "write to /dev/fuse");
}

static void initialise(uint64_t unique, const struct fuse_init_in *in)
{
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = in->max_readahead,
        .flags = in->flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO),
        .max_background = 64,
        .congestion_threshold = 48,
        .max_write = MAX_IO,
        .time_gran = 1,
    };
    reply(unique, 0, &out, sizeof(out));
}

static void get_attributes(uint64_t unique)
{
    struct fuse_attr_out out = {.attr_valid = VALID_S};
    struct stat st;
    if (fstat(backing_fd, &st) < 0)
        err(1, "fstat");
    out.attr.ino = FUSE_ROOT_ID;
    out.attr.mode = S_IFREG | 0600;
    out.attr.nlink = 1;
    out.attr.blksize = 4096;
    out.attr.size = (uint64_t)st.st_size;
    out.attr.blocks = (uint64_t)st.st_blocks;
    reply(unique, 0, &out, sizeof(out));
}

static void read_data(uint64_t unique, const struct fuse_read_in *in)
{
    static char data[MAX_IO];
    size_t size = in->size < MAX_IO ? in->size : MAX_IO;
    ssize_t n = pread(backing_fd, data, size, (off_t)in->offset);
    reply(unique, n < 0 ? EIO : 0, data, n < 0 ? 0 : (size_t)n);
}

static void write_data(uint64_t unique, const struct fuse_write_in *in)
{
    struct fuse_write_out out = {.size = in->size};
    bool ok = in->offset >= fail_below &&
              pwrite(backing_fd, in + 1, in->size, (off_t)in->offset) == in->size;
    reply(unique, ok ? 0 : EIO, &out, ok ? sizeof(out) : 0);
}

static void answer(const struct fuse_in_header *head)
{
    const void *body = head + 1;
    struct fuse_open_out opened = {.fh = 1};
    struct fuse_statfs_out statfs = {.st = {.bsize = 4096, .namelen = 255}};
    switch (head->opcode) {
    case FUSE_INIT:
        initialise(head->unique, body);
        break;
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        get_attributes(head->unique);
        break;
    case FUSE_OPEN:
        reply(head->unique, 0, &opened, sizeof(opened));
        break;
    case FUSE_READ:
        read_data(head->unique, body);
        break;
    case FUSE_WRITE:
        write_data(head->unique, body);
        break;
    case FUSE_FSYNC:
    case FUSE_FLUSH:
    case FUSE_RELEASE:
        reply(head->unique, 0, NULL, 0);
        break;
    case FUSE_STATFS:
        reply(head->unique, 0, &statfs, sizeof(statfs));
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break; /* not to be answered */
    default:
        reply(head->unique, ENOSYS, NULL, 0);
    }
}

/* False when the connection has ended. */
static bool take_request(void)
{
    static union {
        struct fuse_in_header head;
        char bytes[MAX_REQUEST];
    } request;
    ssize_t n = read(fuse_fd, &request, sizeof(request));
    if (n < 0)
        return errno == EINTR || errno == EAGAIN || errno == ENOENT;
    if (!mute) {
        answer(&request.head);
        return true;
    }
    if (waiting_count == MAX_WAITING)
        errx(1, "too many requests wait");
    waiting[waiting_count] = malloc((size_t)n);
    if (!waiting[waiting_count])
        err(1, "malloc");
    memcpy(waiting[waiting_count++], &request, (size_t)n);
    return true;
}

/* False when stdin has ended. */
static bool obey(void)
{
    char line[64];
    if (!fgets(line, sizeof(line), stdin))
        return false;
    mute = strcmp(line, "mute\n") == 0;
    fail_below = strncmp(line, "fail ", 5) == 0 ? strtoull(line + 5, NULL, 10) : 0;
    for (size_t i = 0; !mute && i < waiting_count; i++) {
        answer(waiting[i]);
        free(waiting[i]);
    }
    waiting_count = mute ? waiting_count : 0;
    puts("ok");
    return true;
}

static void mount_on(const char *target)
{
    char options[96];
    fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fuse_fd < 0)
        err(1, "open /dev/fuse");
    snprintf(options, sizeof(options),
             "fd=%d,rootmode=100600,user_id=0,group_id=0,allow_other", fuse_fd);
    if (mount("fuse_file", target, "fuse", MS_NOSUID | MS_NODEV, options) < 0)
        err(1, "mount on '%s'", target);
}

/* From mountinfo: a stat of the file would be for us to answer. */
static unsigned connection_number(const char *target)
{
    char line[4096];
    char path[2048];
    unsigned minor;
    FILE *table = fopen("/proc/self/mountinfo", "re");
    while (table && fgets(line, sizeof(line), table)) {
        if (sscanf(line, "%*d %*d 0:%u %*s %2047s", &minor, path) == 2 &&
            strcmp(path, target) == 0) {
            fclose(table);
            return minor;
        }
    }
    errx(1, "'%s' is not in mountinfo", target);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        errx(1, "usage: fuse_file BACKING TARGET");
    setvbuf(stdin, NULL, _IONBF, 0); /* poll must see what fgets has not taken */
    setvbuf(stdout, NULL, _IOLBF, 0);
    backing_fd = open(argv[1], O_RDWR | O_CLOEXEC);
    if (backing_fd < 0)
        err(1, "open '%s'", argv[1]);
    mount_on(argv[2]);
    printf("ready %u\n", connection_number(argv[2]));
    struct pollfd from[2] = {{.fd = fuse_fd, .events = POLLIN},
                             {.fd = STDIN_FILENO, .events = POLLIN}};
    for (;;) {
        if (poll(from, 2, -1) < 0 && errno != EINTR)
            err(1, "poll");
        if ((from[0].revents && !take_request()) || (from[1].revents && !obey()))
            return 0;
    }
}
