/* SPDX-License-Identifier: Apache-2.0
 *
 * One file volume by the bare system calls: bind a loop device, mount; arm, syncfs,
 * umount, wait for the end of the super block, claim, clear. The same order of things as
 * the agent's, without agent, HTTP, journal, worker or checks.
 */
#include "bare.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

struct volume {
    const char *type;
    char image[256];
    char mount_path[256];
    char node[32];
    bool may_be_held; /* say "drain" while it is */
    int64_t umount_ns;
};

static int bind_free(int control, const struct loop_config *config, char node[32])
{
    for (;;) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            err(1, "find a free loop device");
        (void)snprintf(node, 32, "/dev/loop%d", number);
        int fd = open(node, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            err(1, "open '%s'", node);
        if (ioctl(fd, LOOP_CONFIGURE, config) == 0)
            return fd;
        if (errno != EBUSY)
            err(1, "bind '%s'", node);
        (void)close(fd);
    }
}

static void attach(struct volume *volume)
{
    struct loop_config config = {.info.lo_flags = LO_FLAGS_DIRECT_IO};
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int backing = open(volume->image, O_RDWR | O_CLOEXEC);

    if (control < 0 || backing < 0 || flock(backing, LOCK_EX | LOCK_NB) < 0 ||
        fsync(backing) < 0)
        err(1, "open '%s'", volume->image);
    config.fd = (__u32)backing;
    int fd = bind_free(control, &config, volume->node);
    if (mount(volume->node, volume->mount_path, volume->type, MS_NOSUID | MS_NODEV,
              NULL) < 0)
        err(1, "mount '%s' on '%s'", volume->node, volume->mount_path);
    (void)close(fd);
    (void)close(backing);
    (void)close(control);
}

/* Returns an inotify fd that tells the end of the super block. */
static int arm(const struct volume *volume)
{
    int inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

    if (inotify < 0 || inotify_add_watch(inotify, volume->mount_path, IN_UNMOUNT) < 0)
        err(1, "watch '%s'", volume->mount_path);
    return inotify;
}

static void flush(const struct volume *volume)
{
    int root = open(volume->mount_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (root < 0 || syncfs(root) < 0)
        err(1, "syncfs of '%s'", volume->mount_path);
    (void)close(root);
}

static void wait_unmount(int inotify)
{
    struct pollfd event = {.fd = inotify, .events = POLLIN};

    if (poll(&event, 1, (int)(MR_GIVE_UP_NS / 1000000)) != 1)
        errx(1, "no IN_UNMOUNT");
}

/* EBUSY of a umount is a short path reference of somebody else. */
static void unmount(struct volume *volume)
{
    int64_t started_ns = mr_bare_now_ns();

    while (umount2(volume->mount_path, UMOUNT_NOFOLLOW) < 0) {
        if (errno != EBUSY || mr_bare_now_ns() - started_ns > MR_GIVE_UP_NS)
            err(1, "umount '%s'", volume->mount_path);
        mr_bare_sleep_ns(MR_BACKOFF_FIRST_NS);
    }
    volume->umount_ns = mr_bare_now_ns() - started_ns;
}

/* An fd, or a negative errno. */
static int try_claim(const struct volume *volume)
{
    int fd = open(volume->node, O_RDONLY | O_EXCL | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

static int claim(struct volume *volume, int inotify)
{
    int64_t wait_ns = MR_BACKOFF_FIRST_NS;
    int fd = try_claim(volume);

    if (fd == -EBUSY && volume->may_be_held) {
        mr_bare_say("drain");
        wait_unmount(inotify);
        fd = try_claim(volume);
    }
    int64_t deadline_ns = mr_bare_now_ns() + MR_GIVE_UP_NS;
    while (fd == -EBUSY && mr_bare_now_ns() < deadline_ns) {
        mr_bare_sleep_ns(wait_ns);
        wait_ns = wait_ns * 3 / 2;
        if (wait_ns > MR_BACKOFF_CAP_NS)
            wait_ns = MR_BACKOFF_CAP_NS;
        fd = try_claim(volume);
    }
    if (fd < 0) {
        errno = -fd;
        err(1, "claim '%s'", volume->node);
    }
    return fd;
}

static void wait_gone(const struct volume *volume, const char *backing)
{
    int64_t deadline_ns = mr_bare_now_ns() + MR_GIVE_UP_NS;
    int64_t wait_ns = MR_BACKOFF_FIRST_NS;

    while (!mr_bare_gone(volume->node, backing)) {
        if (mr_bare_now_ns() > deadline_ns)
            errx(1, "'%s' stays bound", volume->node);
        mr_bare_sleep_ns(wait_ns);
        wait_ns = wait_ns * 3 / 2;
    }
}

static void detach(struct volume *volume)
{
    char backing[512];
    int inotify = arm(volume);

    flush(volume);
    unmount(volume);
    int fd = claim(volume, inotify);
    if (flock(fd, LOCK_EX) < 0) /* keeps udev from opening it now */
        err(1, "lock '%s'", volume->node);
    mr_bare_backing(volume->node, backing);
    if (ioctl(fd, LOOP_CLR_FD) < 0)
        err(1, "release '%s'", volume->node);
    (void)close(fd);
    wait_gone(volume, backing);
    (void)close(inotify);
}

/* Who opens the node just when we let go of it closes it last, and then the image is let
 * go of a moment after sysfs has said so (drivers/block/loop.c __loop_clr_fd()). Not
 * timed: the next attach may be somebody else's. */
static void wait_unlocked(const struct volume *volume)
{
    int fd = open(volume->image, O_RDWR | O_CLOEXEC);

    if (fd < 0 || flock(fd, LOCK_EX) < 0)
        err(1, "lock '%s'", volume->image);
    (void)close(fd);
}

/* "attach" -> "NODE NS"; "detach" -> "drain" while it is held, then "NS UMOUNT_NS". */
void mr_bare_volume(char **argument)
{
    struct volume volume = {.type = argument[0], .may_be_held = true};
    const char *order;

    (void)snprintf(volume.image, sizeof(volume.image), "%s", argument[1]);
    (void)snprintf(volume.mount_path, sizeof(volume.mount_path), "%s", argument[2]);
    while (mr_bare_order(&order)) {
        int64_t started_ns = mr_bare_now_ns();
        if (strcmp(order, "attach") == 0) {
            attach(&volume);
            mr_bare_say("%s %jd", volume.node, (intmax_t)(mr_bare_now_ns() - started_ns));
        } else {
            detach(&volume);
            int64_t took_ns = mr_bare_now_ns() - started_ns;
            wait_unlocked(&volume);
            mr_bare_say("%jd %jd", (intmax_t)took_ns, (intmax_t)volume.umount_ns);
        }
    }
}

static void *detach_thread(void *argument)
{
    detach(argument);
    return NULL;
}

static void detach_together(struct volume *volumes, size_t count)
{
    pthread_t *threads = calloc(count, sizeof(*threads));

    for (size_t i = 0; i < count; i++)
        if (!threads ||
            pthread_create(&threads[i], NULL, detach_thread, &volumes[i]) != 0)
            errx(1, "pthread_create");
    for (size_t i = 0; i < count; i++)
        (void)pthread_join(threads[i], NULL);
    free(threads);
}

/* Volumes DIRECTORY/N.img on DIRECTORY/N. "together" or "one-by-one" -> "NS" for all
 * detaches; the attaches before are not timed. */
void mr_bare_at_once(char **argument)
{
    size_t count = strtoul(argument[2], NULL, 10);
    struct volume *volumes = calloc(count, sizeof(*volumes));
    const char *order;

    if (!volumes)
        err(1, "calloc");
    for (size_t i = 0; i < count; i++) {
        volumes[i].type = argument[0];
        (void)snprintf(volumes[i].image, sizeof(volumes[i].image), "%s/%zu.img",
                       argument[1], i);
        (void)snprintf(volumes[i].mount_path, sizeof(volumes[i].mount_path), "%s/%zu",
                       argument[1], i);
    }
    while (mr_bare_order(&order)) {
        bool together = strcmp(order, "together") == 0;
        for (size_t i = 0; i < count; i++)
            attach(&volumes[i]);
        int64_t started_ns = mr_bare_now_ns();
        if (together)
            detach_together(volumes, count);
        for (size_t i = 0; !together && i < count; i++)
            detach(&volumes[i]);
        int64_t took_ns = mr_bare_now_ns() - started_ns;
        for (size_t i = 0; i < count; i++)
            wait_unlocked(&volumes[i]);
        mr_bare_say("%jd", (intmax_t)took_ns);
    }
    free(volumes);
}
