/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/base/msg.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/json.h"

#define MR_MSG_DEPTH 16

int mr_msg_pair(int ret_fds[2], struct mr_err *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_fds) != 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "socketpair");
    for (int i = 0; i < 2; i++) {
        int size = 2 * MR_MSG_MAX;
        /* Past net.core.wmem_max only with CAP_NET_ADMIN; the default of 208 KiB holds
         * one message too. */
        if (setsockopt(ret_fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) != 0)
            (void)setsockopt(ret_fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
    return 0;
}

int mr_msg_send(int fd, struct json_object *json, int pass_fd, int flags,
                struct mr_err *err)
{
    const char *text = json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN);
    if (!text)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "encode a message");
    size_t len = strlen(text);
    if (len > MR_MSG_MAX)
        return mr_fail(err, MR_E_INTERNAL, EMSGSIZE, "message of %zu bytes", len);

    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof(control));
    char *mutable_text;
    memcpy(&mutable_text, &text, sizeof(text)); /* sendmsg(2) only reads it */
    struct iovec iov = {.iov_base = mutable_text, .iov_len = len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (pass_fd >= 0) {
        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &pass_fd, sizeof(int));
    }
    ssize_t sent;
    do {
        sent = sendmsg(fd, &msg, flags | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? mr_fail(err, MR_E_INTERNAL, errno, "send a message") : 0;
}

/* Takes the passed fds out of msg: keeps at most one, closes the rest. */
static int collect_fd(struct msghdr *msg)
{
    int kept = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (kept < 0)
                kept = fd;
            else
                (void)close(fd);
        }
    }
    return kept;
}

static struct json_object *parse(const char *text, size_t len)
{
    struct json_tokener *tok = json_tokener_new_ex(MR_MSG_DEPTH);
    if (!tok)
        return NULL;
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT);
    struct json_object *json = json_tokener_parse_ex(tok, text, (int)len);
    if (json && json_tokener_get_parse_end(tok) != len) {
        (void)json_object_put(json);
        json = NULL;
    }
    json_tokener_free(tok);
    return json;
}

int mr_msg_recv(int fd, struct json_object **ret, int *ret_fd, int flags,
                struct mr_err *err)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(4 * sizeof(int))];
    } control;
    MR_AUTO_FREE char *text = malloc(MR_MSG_MAX);

    *ret = NULL;
    if (ret_fd)
        *ret_fd = -1;
    if (!text)
        return mr_fail(err, MR_E_INTERNAL, ENOMEM, "receive a message");
    struct iovec iov = {.iov_base = text, .iov_len = MR_MSG_MAX};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = sizeof(control.space),
    };
    ssize_t got;
    do {
        got = recvmsg(fd, &msg, flags | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "receive a message");
    MR_AUTO_CLOSE int passed = collect_fd(&msg);
    if (got == 0)
        return 0;
    if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || (passed >= 0 && !ret_fd))
        return mr_fail(err, MR_E_INTERNAL, EBADMSG,
                       "message too long or with an unexpected fd");
    MR_AUTO_JSON struct json_object *json = parse(text, (size_t)got);
    if (!json_object_is_type(json, json_type_object))
        return mr_fail(err, MR_E_INTERNAL, EBADMSG, "message is no JSON object");
    *ret = mr_take_ptr(json);
    if (ret_fd)
        *ret_fd = mr_take_fd(&passed);
    return 1;
}
