/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket, as the keeper sees it: versions, and who is served, who gives way.
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "storage/base/json.h"
#include "storage/base/msg.h"
#include "storage/lun/control.h"

#define TOKEN "00112233445566778899aabbccddeeff"

static struct json_object *refuse(const char *text)
{
    MR_AUTO_JSON struct json_object *request = parse_json(text);

    return mr_control_refuse(request, TOKEN);
}

static void assert_fine(const char *text)
{
    MR_AUTO_JSON struct json_object *refusal = refuse(text);

    if (refusal)
        fail_msg("%s: %s", text, json_object_to_json_string(refusal));
}

static void assert_refused(const char *text)
{
    MR_AUTO_JSON struct json_object *refusal = refuse(text);
    char range[40];

    if (!refusal)
        fail_msg("%s was not refused", text);
    (void)snprintf(range, sizeof(range), "versions %d to %d", MR_CONTROL_OLDEST,
                   MR_CONTROL_VERSION);
    const char *message = mr_json_get_string(mr_json_get(refusal, "error"), "message");
    assert_non_null(message);
    assert_non_null(strstr(message, range));
    assert_false(mr_json_get_bool(refusal, "ok", true));
    assert_int_equal(mr_json_get_int(refusal, "version", 0), MR_CONTROL_VERSION);
    assert_int_equal(mr_json_get_int(refusal, "oldest", 0), MR_CONTROL_OLDEST);
    assert_string_equal(mr_json_get_string(refusal, "token"), TOKEN);
}

static void test_request_of_an_older_agent_is_understood(void **state)
{
    (void)state;
    assert_fine("{'cmd': 'status'}");
    assert_fine("{'version': 1, 'cmd': 'status'}");
}

static void test_request_in_our_version_is_understood(void **state)
{
    (void)state;
    assert_fine("{'version': 2, 'cmd': 'cut'}");
    assert_fine("{'version': 3, 'cmd': 'watch'}");
}

static void test_request_out_of_the_range_is_refused(void **state)
{
    (void)state;
    assert_refused("{'version': 4, 'cmd': 'status'}");
    assert_refused("{'version': 9223372036854775807, 'cmd': 'status'}");
    assert_refused("{'version': 0, 'cmd': 'status'}");
    assert_refused("{'version': -1, 'cmd': 'status'}");
    assert_refused("{'version': '2', 'cmd': 'status'}");
    assert_refused("{'version': {}, 'cmd': 'status'}");
}

/* --- clients --- */

static struct mr_control control;
static char dir[] = "/tmp/mr-control-XXXXXX";

static int before(void **state)
{
    struct mr_err err;

    (void)state;
    strcpy(dir + sizeof(dir) - 7, "XXXXXX");
    return mkdtemp(dir) ? mr_control_open(&control, dir, TOKEN, &err) : -1;
}

static int after(void **state)
{
    char path[60];

    (void)state;
    mr_control_close(&control);
    mr_control_unlink(&control);
    (void)snprintf(path, sizeof(path), "%s/lun", dir);
    return rmdir(path) == 0 && rmdir(dir) == 0 ? 0 : -1;
}

/* "later" waits, "never" gets nothing, the rest an echo. */
static struct json_object *answer(void *ctx, struct mr_control_client *client,
                                  struct json_object *request)
{
    const char *cmd = mr_json_get_string(request, "cmd");

    if (cmd && strcmp(cmd, "watch") == 0)
        mr_control_watch(ctx, client);
    if (cmd && strcmp(cmd, "later") == 0)
        client->wait.what = 1;
    if (cmd && (strcmp(cmd, "later") == 0 || strcmp(cmd, "never") == 0))
        return NULL;
    return json_object_get(request);
}

/* All that is to be handled now. */
static void handle(void)
{
    struct pollfd fds[MR_CONTROL_FDS];

    for (;;) {
        mr_control_poll(&control, fds);
        if (poll(fds, MR_CONTROL_FDS, 0) <= 0)
            return;
        mr_control_handle(&control, fds, answer, &control);
    }
}

static int connect_client(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    memcpy(address.sun_path, control.path, sizeof(address.sun_path));
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    handle();
    return fd;
}

static void ask(int fd, const char *cmd)
{
    MR_AUTO_JSON struct json_object *request = json_object_new_object();

    mr_json_set_string(request, "cmd", cmd);
    assert_int_equal(mr_msg_send(fd, request, -1, 0, NULL), 0);
    handle();
}

enum heard {
    HUNG_UP,
    SAID,
    NOTHING
};

static enum heard hear(int fd)
{
    MR_AUTO_JSON struct json_object *json = NULL;
    int r = mr_msg_recv(fd, &json, NULL, MSG_DONTWAIT, NULL);

    return r == 1 ? SAID : r == -EAGAIN ? NOTHING : HUNG_UP;
}

static void test_oldest_client_gives_way(void **state)
{
    int fds[MR_CONTROL_CLIENTS + 1];

    (void)state;
    for (size_t i = 0; i <= MR_CONTROL_CLIENTS; i++)
        fds[i] = connect_client();
    assert_int_equal(hear(fds[0]), HUNG_UP);
    for (size_t i = 1; i <= MR_CONTROL_CLIENTS; i++) {
        ask(fds[i], "x");
        assert_int_equal(hear(fds[i]), SAID);
    }
    for (size_t i = 0; i <= MR_CONTROL_CLIENTS; i++)
        (void)close(fds[i]);
    handle();
}

static void test_watchers_are_not_driven_out_by_clients(void **state)
{
    MR_AUTO_JSON struct json_object *news = json_object_new_object();
    int watchers[MR_CONTROL_WATCHERS + 1];

    (void)state;
    for (size_t i = 0; i <= MR_CONTROL_WATCHERS; i++) {
        watchers[i] = connect_client();
        ask(watchers[i], "watch");
        assert_int_equal(hear(watchers[i]), SAID);
    }
    assert_int_equal(hear(watchers[0]), HUNG_UP); /* by another watcher */
    for (int i = 0; i < 20; i++)
        (void)close(connect_client());
    int clients[MR_CONTROL_CLIENTS + 2];
    for (size_t i = 0; i < MR_CONTROL_CLIENTS + 2; i++)
        clients[i] = connect_client();
    mr_control_push(&control, news);
    for (size_t i = 1; i <= MR_CONTROL_WATCHERS; i++)
        assert_int_equal(hear(watchers[i]), SAID);
    for (size_t i = 0; i < MR_CONTROL_CLIENTS + 2; i++)
        (void)close(clients[i]);
    for (size_t i = 0; i <= MR_CONTROL_WATCHERS; i++)
        (void)close(watchers[i]);
}

static void test_watcher_that_does_not_read_is_hung_up_on(void **state)
{
    MR_AUTO_JSON struct json_object *news = json_object_new_object();
    int fd = connect_client();

    (void)state;
    ask(fd, "watch");
    for (int i = 0; i < 10000; i++)
        mr_control_push(&control, news);
    int said = 0;
    enum heard last;
    while ((last = hear(fd)) == SAID)
        said++;
    assert_int_equal(last, HUNG_UP);
    assert_in_range(said, 2, 9999);
    (void)close(fd);
}

static void test_answer_may_come_later(void **state)
{
    MR_AUTO_JSON struct json_object *json = json_object_new_object();
    int fd = connect_client();
    int other = connect_client();

    (void)state;
    ask(fd, "later");
    assert_int_equal(hear(fd), NOTHING);
    ask(other, "never");
    assert_int_equal(hear(other), HUNG_UP);
    struct mr_control_client *client = NULL;
    for (size_t i = 0; i < MR_CONTROL_SLOTS; i++)
        if (control.clients[i].wait.what == 1)
            client = &control.clients[i];
    assert_non_null(client);
    mr_control_answer(client, json);
    assert_int_equal(hear(fd), SAID);
    assert_int_equal(client->wait.what, 0);
    (void)close(fd);
    (void)close(other);
}

#define CLIENT_TEST(test) cmocka_unit_test_setup_teardown(test, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_of_an_older_agent_is_understood),
        cmocka_unit_test(test_request_in_our_version_is_understood),
        cmocka_unit_test(test_request_out_of_the_range_is_refused),
        CLIENT_TEST(test_oldest_client_gives_way),
        CLIENT_TEST(test_watchers_are_not_driven_out_by_clients),
        CLIENT_TEST(test_watcher_that_does_not_read_is_hung_up_on),
        CLIENT_TEST(test_answer_may_come_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
