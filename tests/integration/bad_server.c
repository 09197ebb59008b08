/* SPDX-License-Identifier: Apache-2.0
 *
 * A program to hand a LUN over to: it says that it is ready, and then dies, at its first
 * request, or with -DIDLE_MS after so many milliseconds (-1: it only hangs); by a signal,
 * or with -DEXIT_STATUS. Fds: storage/lun/start.h. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHANNEL_FD 3
#define FUSE_FD 5
#define REQUEST_BYTES (2 << 20)

int main(void)
{
    static const char ready[] = "{\"ok\":true}";
    static char request[REQUEST_BYTES];
    struct pollfd fuse = {.fd = FUSE_FD, .events = POLLIN};

    while (recv(CHANNEL_FD, request, sizeof(request), 0) > 0)
        if (send(CHANNEL_FD, ready, strlen(ready), 0) < 0)
            return 1;
#ifdef IDLE_MS
    (void)fuse;
    (void)poll(NULL, 0, IDLE_MS);
#else
    while (read(FUSE_FD, request, sizeof(request)) <= 0)
        (void)poll(&fuse, 1, -1);
#endif
#ifdef EXIT_STATUS
    _exit(EXIT_STATUS);
#endif
    abort();
}
