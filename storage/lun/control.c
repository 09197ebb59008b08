/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/base/msg.h"

int mr_control_path(char *dst, size_t size, const char *runtime_dir, const char *token)
{
    return mr_format(dst, size, "%s/lun/%s.sock", runtime_dir, token);
}

void mr_control_init(struct mr_control *control)
{
    *control = (struct mr_control){.listen_fd = -1};
    for (size_t i = 0; i < MR_CONTROL_SLOTS; i++)
        control->clients[i].fd = -1;
}

int mr_control_open(struct mr_control *control, const char *runtime_dir,
                    const char *token, struct mr_err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char dir[sizeof(control->path)];
    int fd;
    int r;

    mr_control_init(control);
    if (mr_control_path(control->path, sizeof(control->path), runtime_dir, token) < 0 ||
        mr_format(dir, sizeof(dir), "%s/lun", runtime_dir) < 0)
        return mr_fail(err, MR_E_INTERNAL, ENAMETOOLONG, "control socket below '%s'",
                       runtime_dir);
    r = mr_mkdir_p(dir, 0700);
    if (r < 0)
        return mr_fail(err, MR_E_INTERNAL, -r, "create '%s'", dir);
    memcpy(address.sun_path, control->path, sizeof(address.sun_path));
    (void)unlink(control->path);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "control socket");
    control->listen_fd = fd;
    /* The umask is 077; the mode is set for good measure before anybody can connect. */
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        chmod(control->path, 0600) < 0 || listen(fd, MR_CONTROL_CLIENTS) < 0) {
        r = mr_fail(err, MR_E_INTERNAL, errno, "control socket '%s'", control->path);
        mr_control_close(control);
        mr_control_unlink(control);
        return r;
    }
    return 0;
}

void mr_control_poll(const struct mr_control *control, struct pollfd *fds)
{
    fds[0] = (struct pollfd){.fd = control->listen_fd, .events = POLLIN};
    for (size_t i = 0; i < MR_CONTROL_SLOTS; i++)
        fds[1 + i] = (struct pollfd){.fd = control->clients[i].fd, .events = POLLIN};
}

static void hang_up(struct mr_control_client *client)
{
    mr_close(&client->fd);
    *client = (struct mr_control_client){.fd = -1};
}

void mr_control_answer(struct mr_control_client *client, struct json_object *answer)
{
    client->wait = (struct mr_control_wait){.what = 0};
    if (!answer || mr_msg_send(client->fd, answer, -1, MSG_DONTWAIT, NULL) < 0)
        hang_up(client);
}

static void serve_client(struct mr_control_client *client, mr_control_fn fn, void *ctx)
{
    MR_AUTO_JSON struct json_object *request = NULL;
    MR_AUTO_JSON struct json_object *answer = NULL;
    int r = mr_msg_recv(client->fd, &request, NULL, MSG_DONTWAIT, NULL);

    if (r == -EAGAIN)
        return;
    if (r <= 0) {
        hang_up(client);
        return;
    }
    client->wait = (struct mr_control_wait){.what = 0};
    answer = fn(ctx, client, request);
    if (answer || client->wait.what == 0)
        mr_control_answer(client, answer);
}

/* A free slot, once no more than `most` of this kind are left besides `keep`. */
static struct mr_control_client *make_room(struct mr_control *control, bool watches,
                                           size_t most,
                                           const struct mr_control_client *keep)
{
    struct mr_control_client *oldest = NULL;
    struct mr_control_client *unused = NULL;
    size_t count = 0;

    for (size_t i = 0; i < MR_CONTROL_SLOTS; i++) {
        struct mr_control_client *client = &control->clients[i];

        if (client->fd < 0) {
            unused = client;
        } else if (client != keep && client->watches == watches) {
            count++;
            if (!oldest || client->age < oldest->age)
                oldest = client;
        }
    }
    if (oldest && (count > most || (!unused && !keep))) {
        hang_up(oldest);
        unused = oldest;
    }
    return unused;
}

void mr_control_watch(struct mr_control *control, struct mr_control_client *client)
{
    client->watches = true;
    (void)make_room(control, true, MR_CONTROL_WATCHERS - 1, client);
}

static void accept_client(struct mr_control *control)
{
    struct mr_control_client *client;
    int fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    client = make_room(control, false, MR_CONTROL_CLIENTS - 1, NULL);
    if (!client) { /* not reached: there are more slots than watchers */
        mr_close(&fd);
        return;
    }
    *client = (struct mr_control_client){.fd = fd, .age = control->accepted++};
}

void mr_control_handle(struct mr_control *control, const struct pollfd *fds,
                       mr_control_fn fn, void *ctx)
{
    for (size_t i = 0; i < MR_CONTROL_SLOTS; i++) {
        if (control->clients[i].fd >= 0 && control->clients[i].fd == fds[1 + i].fd &&
            fds[1 + i].revents)
            serve_client(&control->clients[i], fn, ctx);
    }
    if (control->listen_fd >= 0 && fds[0].revents)
        accept_client(control);
}

void mr_control_push(struct mr_control *control, struct json_object *document)
{
    for (size_t i = 0; i < MR_CONTROL_SLOTS; i++) {
        struct mr_control_client *client = &control->clients[i];

        if (client->fd >= 0 && client->watches &&
            mr_msg_send(client->fd, document, -1, MSG_DONTWAIT, NULL) < 0)
            hang_up(client);
    }
}

void mr_control_say_version(struct json_object *answer)
{
    mr_json_set_int(answer, "version", MR_CONTROL_VERSION);
    mr_json_set_int(answer, "oldest", MR_CONTROL_OLDEST);
    mr_json_set_string(answer, "program_version", MR_VERSION);
}

struct json_object *mr_control_error(const char *token, const struct mr_err *err)
{
    struct json_object *answer = json_object_new_object();

    if (!answer)
        return NULL;
    mr_json_set_bool(answer, "ok", false);
    mr_json_set_string(answer, "token", token);
    mr_control_say_version(answer);
    mr_json_set(answer, "error", mr_err_to_json(err));
    return answer;
}

struct json_object *mr_control_refuse(struct json_object *request, const char *token)
{
    bool said = mr_json_get(request, "version") != NULL;
    int64_t version = mr_json_get_int(request, "version", said ? 0 : 1);
    struct mr_err err;

    if (version >= MR_CONTROL_OLDEST && version <= MR_CONTROL_VERSION)
        return NULL;
    (void)mr_fail(
        &err, MR_E_INVALID_REQUEST, EPROTONOSUPPORT,
        "version %lld of the control protocol is not understood: mooring-lun %s "
        "speaks versions %d to %d",
        (long long)version, MR_VERSION, MR_CONTROL_OLDEST, MR_CONTROL_VERSION);
    return mr_control_error(token, &err);
}

void mr_control_close(struct mr_control *control)
{
    for (size_t i = 0; i < MR_CONTROL_SLOTS; i++)
        hang_up(&control->clients[i]);
    mr_close(&control->listen_fd);
}

void mr_control_unlink(const struct mr_control *control)
{
    if (control->path[0])
        (void)unlink(control->path);
}
