/* SPDX-License-Identifier: Apache-2.0
 *
 * The pure part; the rest is tested over real sockets by test_api_server.c and
 * tests/integration/test_http.py.
 */
#include "tests/unit/unit.h"

#include "api/framing.h"

static void test_loopback_hosts_are_known(void **state)
{
    (void)state;
    static const char *const good[] = {"localhost",   "LOCALHOST:80", "127.0.0.1",
                                       "127.1.2.3:8", "[::1]",        "[::1]:65535",
                                       "localhost:"};
    static const char *const bad[] = {"",
                                      "evil.example",
                                      "localhost.evil.example",
                                      "127.0.0.1.evil.example",
                                      "127.0.0.1.5",
                                      "128.0.0.1",
                                      "localhost:80x",
                                      "[::1]x",
                                      "[::2]",
                                      "[::1",
                                      "::1",
                                      "0.0.0.0",
                                      "127.0.0.1:80:80",
                                      "user@localhost",
                                      "localhost ",
                                      "10.0.0.1"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(mr_host_is_loopback(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(mr_host_is_loopback(bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loopback_hosts_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
