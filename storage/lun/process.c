/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/process.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/log.h"

/* What a hostile target may make libiscsi allocate on top of what is there at the start.
 */
#define GROWTH_BYTES (256ull << 20)
/* CPU time of one turn of the loop; a turn takes milliseconds. */
#define STUCK_CPU_S 10
#define CHUNK_BYTES (64 * 1024)

void mr_process_isolate(void)
{
    static const int ignored[] = {SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGUSR1, SIGUSR2};

    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        (void)signal(ignored[i], SIG_IGN);
    (void)umask(077);
    if (chdir("/") < 0)
        mr_log(MR_LOG_WARNING, "chdir: %s", strerror(errno));
    /* A core dump would hold the CHAP secret and the volume's data. */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    (void)clearenv();
    /* A mute name server must not use up the time that the target has: resolv.conf(5). */
    (void)setenv("RES_OPTIONS", "timeout:1 attempts:2", 1);
}

void mr_process_hold_mounts(void)
{
    if (open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC) < 0)
        mr_log(MR_LOG_WARNING, "open '/proc/self/ns/mnt': %s", strerror(errno));
}

bool mr_process_follow(int channel_fd)
{
    struct ucred parent;
    socklen_t len = sizeof(parent);

    /* Asked after the prctl: one that ended in between is not our parent then. */
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 &&
           getsockopt(channel_fd, SOL_SOCKET, SO_PEERCRED, &parent, &len) == 0 &&
           parent.pid == getppid();
}

/* Grows the heap once, touched, and never lets it shrink. */
static void warm_heap(size_t bytes)
{
    void *chunks = NULL; /* each begins with the address of the one before */

    (void)mallopt(M_ARENA_MAX, 1);
    (void)mallopt(M_MMAP_MAX, 0);
    (void)mallopt(M_TRIM_THRESHOLD, 1024 * 1024 * 1024);
    for (size_t done = 0; done < bytes; done += CHUNK_BYTES) {
        void *chunk = malloc(CHUNK_BYTES);

        if (!chunk)
            break;
        memset(chunk, 0, CHUNK_BYTES);
        memcpy(chunk, &chunks, sizeof(chunks));
        chunks = chunk;
    }
    while (chunks) {
        void *chunk = chunks;

        memcpy(&chunks, chunk, sizeof(chunks));
        free(chunk);
    }
}

static int protect_from_oom(void)
{
    MR_AUTO_CLOSE int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, "-1000", 5) == 5 ? 0 : -errno;
}

void mr_process_protect(size_t heap_bytes, struct mr_process_protection *ret)
{
    warm_heap(heap_bytes);
    *ret = (struct mr_process_protection){
        .locked = mlockall(MCL_CURRENT | MCL_FUTURE) == 0,
        .io_flusher = prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0,
        .oom_protected = protect_from_oom() == 0,
    };
}

void mr_process_limit(void)
{
    MR_AUTO_CLOSE int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    char text[64] = "";
    struct rlimit limit;

    if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
        return;
    limit.rlim_cur =
        strtoull(text, NULL, 10) * (rlim_t)sysconf(_SC_PAGESIZE) + GROWTH_BYTES;
    limit.rlim_max = limit.rlim_cur;
    (void)setrlimit(RLIMIT_AS, &limit);
}

void mr_process_watchdog(int64_t now_ns)
{
    static int64_t armed_ns;
    const struct itimerval limit = {.it_value = {.tv_sec = STUCK_CPU_S}};

    if (armed_ns != 0 && now_ns - armed_ns < MR_NS_PER_S)
        return;
    armed_ns = now_ns;
    (void)setitimer(ITIMER_PROF, &limit, NULL);
}

void mr_process_quiet(void)
{
    MR_AUTO_CLOSE int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
        (void)close(STDERR_FILENO);
}

int mr_process_poll_ms(int64_t now_ns, int64_t until_ns)
{
    int64_t ms;

    if (until_ns == INT64_MAX)
        return -1;
    ms = (until_ns - now_ns + MR_NS_PER_MS - 1) / MR_NS_PER_MS;
    if (ms < 0)
        return 0;
    return ms < 60000 ? (int)ms : 60000;
}
