/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/control_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/lun/control.h"
#include "storage/lun/exits.h"

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    MR_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path));
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    return mr_take_fd(&fd);
}

/* "KEY=VALUE", where a number is a number. */
static bool add_argument(struct json_object *request, const char *text)
{
    const char *equals = strchr(text, '=');
    char key[40] = "";
    char *end = NULL;
    long long number;

    if (!equals || equals == text || equals - text >= (ptrdiff_t)sizeof(key))
        return false;
    memcpy(key, text, (size_t)(equals - text));
    errno = 0;
    number = strtoll(equals + 1, &end, 10);
    if (equals[1] && *end == '\0' && errno == 0)
        mr_json_set_int(request, key, number);
    else
        mr_json_set_string(request, key, equals + 1);
    return true;
}

static int ask(int fd, struct json_object *request, bool watch)
{
    bool ok = false;
    struct mr_err err;
    int r = mr_msg_send(fd, request, -1, 0, &err);

    while (r == 0) {
        MR_AUTO_JSON struct json_object *answer = NULL;

        r = mr_msg_recv(fd, &answer, NULL, 0, &err);
        if (r <= 0)
            break;
        ok = mr_json_get_bool(answer, "ok", false);
        (void)printf("%s\n",
                     json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PRETTY |
                                                                JSON_C_TO_STRING_SPACED));
        (void)fflush(stdout);
        r = watch && ok ? 0 : 1;
    }
    if (r < 0)
        (void)fprintf(stderr, "mooring-lun: %s\n", err.message);
    else if (r == 0)
        (void)fprintf(stderr, "mooring-lun: the keeper hung up\n");
    return r == 1 && ok ? 0 : 1;
}

int mr_control_client_main(int argc, char *const *argv)
{
    MR_AUTO_JSON struct json_object *request = json_object_new_object();
    bool usable = argc >= 2;

    for (int i = 2; i < argc && usable; i++)
        usable = add_argument(request, argv[i]);
    if (!usable) {
        (void)fprintf(stderr, "usage: mooring-lun control SOCKET VERB [KEY=VALUE...]\n");
        return MR_EXIT_USAGE;
    }
    mr_json_set_int(request, "version", MR_CONTROL_VERSION);
    mr_json_set_string(request, "cmd", argv[1]);
    MR_AUTO_CLOSE int fd = connect_to(argv[0]);
    if (fd < 0) {
        (void)fprintf(stderr, "mooring-lun: connect '%s': %s\n", argv[0], strerror(-fd));
        return MR_EXIT_UNAVAILABLE;
    }
    return ask(fd, request, strcmp(argv[1], "watch") == 0);
}
