/* SPDX-License-Identifier: Apache-2.0
 *
 * What must not be read from the wire: ambiguous, truncated, oversized and foreign
 * requests.
 */
#include "api_env.h"

/* The requests that libmicrohttpd lets through and another server could read otherwise:
 * each must be refused, and the connection must end with nothing of it read as a second
 * request. */
static void test_ambiguous_framing_ends_the_connection(void **state)
{
    (void)state;
#define SMUGGLED "DELETE /volumes/keep HTTP/1.1\r\nHost: localhost\r\n\r\n"
#define PUT_X                                                                            \
    "PUT /volumes/x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
#define REQUEST(text)                                                                    \
    {                                                                                    \
        text, sizeof(text) - 1                                                           \
    }
    static const struct {
        const char *text;
        size_t bytes;
    } bad[] = {
        REQUEST(PUT_X "Content-Length: 0\r\nContent-Length: 72\r\n\r\n" SPEC SMUGGLED),
        REQUEST(PUT_X "Content-Length: 72\r\nContent-Length: 72\r\n\r\n" SPEC SMUGGLED),
        REQUEST(
            PUT_X
            "Content-Length: 72\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" SMUGGLED),
        REQUEST(PUT_X "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" SMUGGLED),
        REQUEST(PUT_X "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" SMUGGLED),
        REQUEST(
            PUT_X
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        REQUEST(PUT_X "Content-Length : 75\r\n\r\n" SPEC SMUGGLED),
        REQUEST(PUT_X "Content-Length: 2\0\x37\r\n\r\n{}" SMUGGLED),
        REQUEST(PUT_X "X: a\r\n Content-Length: 2\r\n\r\n{}" SMUGGLED),
        REQUEST(PUT_X "X: a\rContent-Length: 2\r\n\r\n{}" SMUGGLED),
        REQUEST("GET /livez HTTP/1.1\r\n\r\n" SMUGGLED),
        REQUEST(
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n" SMUGGLED),
        REQUEST("GET /livez HTTP/1.1\r\nHost: a\0b\r\n\r\n" SMUGGLED),
        REQUEST("GET /livez HTTP/1.1\r\nHost: a\0\r\n\r\n" SMUGGLED),
        REQUEST("GET /livez HTTP/1.1\r\nHost: a\r\nX: b\0c\r\nY: d\r\n\r\n" SMUGGLED),
        REQUEST("GET /livez\0 HTTP/1.1\r\nHost: localhost\r\n\r\n" SMUGGLED),
        REQUEST("GET /livez\0x HTTP/1.1\r\nHost: localhost\r\n\r\n" SMUGGLED),
        REQUEST("GET /livez  HTTP/1.1\r\nHost: localhost\r\n\r\n" SMUGGLED),
        REQUEST("GET  /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" SMUGGLED),
        REQUEST("GET /live z HTTP/1.1\r\nHost: localhost\r\n\r\n" SMUGGLED),
        REQUEST(
            "GET http://localhost/livez HTTP/1.1\r\nHost: localhost\r\n\r\n" SMUGGLED),
        REQUEST("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n" SMUGGLED),
        REQUEST("GET livez HTTP/1.1\r\nHost: localhost\r\n\r\n" SMUGGLED),
        REQUEST("GET /livez HTTP/1.0\r\nTransfer-Encoding: "
                "chunked\r\n\r\n0\r\n\r\n" SMUGGLED),
        REQUEST("GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
                "5\r\n\r\nDELET" SMUGGLED),
    };
    assert_int_equal(ask("PUT", "/volumes/keep", "", SPEC), 201);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int fd = open_unix();
        say(fd, bad[i].text, bad[i].bytes);
        listen_to(fd, false);
        if (answer.status != 400)
            fail_msg("request %zu got %d:\n%s\n->\n%s", i, answer.status, bad[i].text,
                     answer.text);
        if (!is_closed(fd))
            fail_msg("request %zu was answered twice:\n%s", i, bad[i].text);
        (void)close(fd);
    }
    assert_int_equal(ask("GET", "/volumes/keep", "", NULL), 200);
    expect_text("state", "attached");
    assert_int_equal(ask("GET", "/volumes/x", "", NULL), 404);
}

/* Byte by byte, with many fields: the addresses that framing.c compares must hold. */
static void test_slow_and_large_heads_are_read(void **state)
{
    (void)state;
    char head[12000] = "GET /livez HTTP/1.1\r\nHost: localhost\r\n";
    for (int i = 0; i < 100; i++) {
        size_t used = strlen(head);
        (void)snprintf(head + used, sizeof(head) - used, "X-Filler-%d:%*s%080d  \r\n", i,
                       i % 5, "", i);
    }
    strcat(head, "\r\n");
    int fd = open_unix();
    say(fd, head, strlen(head));
    listen_to(fd, false);
    assert_int_equal(answer.status, 200);
    for (size_t i = 0; i < strlen(head); i += 97)
        say(fd, head + i, strlen(head) - i < 97 ? strlen(head) - i : 97);
    listen_to(fd, false);
    assert_int_equal(answer.status, 200);
    static const char tiny[] = "GET /livez HTTP/1.1\nHost:localhost\nA: \nB:\n\n";
    for (size_t i = 0; i < sizeof(tiny) - 1; i++) {
        say(fd, tiny + i, 1);
        (void)poll(NULL, 0, 1);
    }
    listen_to(fd, false);
    assert_int_equal(answer.status, 200);
    /* Two at once. */
    char two[256];
    (void)snprintf(two, sizeof(two), "%s%s", "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n",
                   "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
    say(fd, two, strlen(two));
    listen_to(fd, false);
    expect_text("status", "alive");
    listen_to(fd, false);
    expect_text("status", "ready");
    (void)close(fd);
}

static void test_large_bodies_are_refused(void **state)
{
    (void)state;
    static const char head[] = PUT_X "Content-Length: 65537\r\n\r\n";
    static char blanks[65536];
    char size[32];
    memset(blanks, ' ', sizeof(blanks));
    int fd = open_unix();
    say(fd, head, sizeof(head) - 1);
    listen_to(fd, false);
    assert_int_equal(answer.status, 413);
    expect_code("body-too-large");
    assert_true(is_closed(fd));
    (void)close(fd);

    /* Chunked: no length is announced. */
    static const char chunked[] = PUT_X "Transfer-Encoding: chunked\r\n\r\n";
    (void)snprintf(size, sizeof(size), "%zx\r\n", sizeof(blanks));
    for (int chunks = 1; chunks <= 2; chunks++) {
        fd = open_unix();
        say(fd, chunked, sizeof(chunked) - 1);
        for (int i = 0; i < chunks; i++) {
            say(fd, size, strlen(size));
            say(fd, blanks, sizeof(blanks));
            say(fd, "\r\n", 2);
        }
        say(fd, "0\r\n\r\n", 5);
        listen_to(fd, false);
        assert_int_equal(answer.status,
                         chunks == 1 ? 400 : 413); /* 64 KiB of blanks is no JSON */
        (void)close(fd);
    }
    /* Without end: the connection dies. */
    fd = open_unix();
    say(fd, chunked, sizeof(chunked) - 1);
    for (int i = 0; i < 40; i++) {
        say(fd, size, strlen(size));
        say(fd, blanks, sizeof(blanks));
        say(fd, "\r\n", 2);
    }
    assert_true(is_closed(fd));
    (void)close(fd);
}

static void test_truncated_body_does_nothing(void **state)
{
    (void)state;
    static const char part[] = PUT_X "Content-Length: 72\r\n\r\n{\"source\":";
    int fd = open_unix();
    say(fd, part, sizeof(part) - 1);
    (void)close(fd);
    assert_int_equal(ask("GET", "/volumes/x", "", NULL), 404);
}

static void test_foreign_host_is_refused_on_tcp(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        int status;
    } hosts[] = {
        {"localhost:1", 200},  {"127.0.0.1", 200}, {"[::1]:8", 200},
        {"evil.example", 400}, {"", 400},          {"127.0.0.1.evil.example", 400}};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        char text[128];
        int fd = open_to(&tcp_address, sizeof(tcp_address), AF_INET);
        (void)snprintf(text, sizeof(text), "GET /livez HTTP/1.1\r\nHost: %s\r\n\r\n",
                       hosts[i].host);
        say(fd, text, strlen(text));
        listen_to(fd, false);
        assert_int_equal(answer.status, hosts[i].status);
        (void)close(fd);
    }
    int fd = open_to(&tcp_address, sizeof(tcp_address), AF_INET);
    say(fd, "GET /livez HTTP/1.0\r\n\r\n", 23);
    listen_to(fd, false);
    assert_int_equal(answer.status, 400);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ambiguous_framing_ends_the_connection),
        cmocka_unit_test(test_slow_and_large_heads_are_read),
        cmocka_unit_test(test_large_bodies_are_refused),
        cmocka_unit_test(test_truncated_body_does_nothing),
        cmocka_unit_test(test_foreign_host_is_refused_on_tcp),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
