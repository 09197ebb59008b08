/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/initiator.h"
#include "agent/listen.h"
#include "agent/options.h"
#include "storage/base/clock.h"

#define MS_PER_DAY (24 * 3600 * 1000LL)

static char dir[] = "/tmp/mr-config-XXXXXX";
static char file[64];
static struct mr_config config;
static struct mr_err err;

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    (void)snprintf(file, sizeof(file), "%s/conf", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(file);
    return rmdir(dir);
}

static int load_bytes(const char *text, size_t bytes)
{
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(text, 1, bytes, out), bytes);
    assert_int_equal(fclose(out), 0);
    mr_config_done(&config);
    memset(&config, 0, sizeof(config));
    return mr_config_load(file, true, &config, &err);
}

static int load(const char *text)
{
    return load_bytes(text, strlen(text));
}

static int done(void **state)
{
    (void)state;
    mr_config_done(&config);
    memset(&config, 0, sizeof(config));
    return 0;
}

/* The error names this line of the file and this text, and says what to do. */
static void refused(const char *text, unsigned line, const char *what)
{
    char place[96];
    assert_true(load(text) < 0);
    (void)snprintf(place, sizeof(place), "%s:%u: ", file, line);
    if (strncmp(err.message, place, strlen(place)) != 0)
        fail_msg("'%s' does not begin with '%s'", err.message, place);
    if (!strstr(err.message, what))
        fail_msg("'%s' does not name '%s'", err.message, what);
    assert_true(strlen(err.remedy) > 0);
}

static void test_empty_file_means_defaults(void **state)
{
    (void)state;
    assert_int_equal(load(""), 0);
    assert_int_equal(config.mount_roots.count, 1);
    assert_string_equal(config.mount_roots.path[0], MR_MOUNT_ROOT);
    assert_string_equal(config.file_roots.path[0], MR_FILE_ROOT);
    assert_int_equal(config.iscsi_timeout_ns, 10 * MR_NS_PER_S);
    assert_int_equal(config.worker_deadline_ns, 60 * MR_NS_PER_S);
    assert_int_equal(config.format_deadline_ns, 3600 * MR_NS_PER_S);
    assert_int_equal(config.history_age_ms, 30 * MS_PER_DAY);
    assert_int_equal(config.history_bytes, 64 << 20);
    assert_int_equal(config.proofs_kept, 1000);
    assert_string_equal(config.initiator_name, "");
}

static void test_all_keys_are_read(void **state)
{
    (void)state;
    assert_int_equal(
        load("# comment\n; comment\n"
             "[mount]\nroots = /a  /b\t/c \n"
             "  [file]\n\troots=/d\r\n"
             "[iscsi]\ninitiator_name = iqn.2026-11.org.example:a;b-is-not-one\n"),
        -EINVAL);
    assert_int_equal(load("# comment\n; comment\n"
                          "[mount]\nroots = /a  /b\t/c \n"
                          "  [file]\n\troots=/d\r\n"
                          "[iscsi]\ninitiator_name = iqn.2026-11.org.example:a\n"
                          "timeout_seconds = 3\n"
                          "[worker]\ndeadline_seconds=5\nformat_deadline_seconds=6\n"
                          "[journal]\nhistory_days = 3650\nhistory_mib = 65536\n"
                          "proofs_kept = 1"),
                     0);
    assert_int_equal(config.mount_roots.count, 3);
    assert_string_equal(config.mount_roots.path[2], "/c");
    assert_int_equal(config.file_roots.count, 1);
    assert_string_equal(config.file_roots.path[0], "/d");
    assert_string_equal(config.initiator_name, "iqn.2026-11.org.example:a");
    assert_int_equal(config.iscsi_timeout_ns, 3 * MR_NS_PER_S);
    assert_int_equal(config.worker_deadline_ns, 5 * MR_NS_PER_S);
    assert_int_equal(config.format_deadline_ns, 6 * MR_NS_PER_S);
    assert_int_equal(config.history_age_ms, 3650 * MS_PER_DAY);
    assert_int_equal(config.history_bytes, 65536LL << 20);
    assert_int_equal(config.proofs_kept, 1);
}

static void test_long_lines_are_read(void **state)
{
    (void)state;
    char text[4096] = "[mount]\nroots =";
    char path[160];
    memset(path, 'a', sizeof(path));
    path[0] = ' ';
    path[1] = '/';
    path[sizeof(path) - 1] = '\0';
    for (int i = 0; i < 16; i++)
        strcat(text, path);
    assert_int_equal(load(text), 0);
    assert_int_equal(config.mount_roots.count, 16);
    assert_string_equal(config.mount_roots.path[15], path + 1);
    strcat(text, " /one-too-many");
    refused(text, 2, "too many");
}

static void test_unknown_things_are_refused_by_line(void **state)
{
    (void)state;
    refused("[mount]\nroot = /a\n", 2, "'root'");
    refused("\n\n[mounts]\n", 3, "[mounts]");
    refused("[mount]\nroots = /a\nroots = /b\n", 3, "'roots' is repeated");
    refused("[mount]\nroots = /a\n[mount]\nroots = /b\n", 4, "repeated");
    refused("roots = /a\n", 1, "'roots'");
    refused("[mount\nroots = /a\n", 1, "[mount");
    refused("[mount]\nroots = /a\n  /b\n", 3, "neither");
    refused("[mount]\nnonsense\n", 2, "neither");
}

static void test_bad_values_are_refused_by_line(void **state)
{
    (void)state;
    refused("[mount]\nroots = a\n", 2, "'a'");
    refused("[mount]\nroots = /a b\n", 2, "'b'");
    refused("[mount]\nroots =\n", 2, "no path");
    refused("[iscsi]\ntimeout_seconds = 0\n", 2, "'0'");
    refused("[iscsi]\ntimeout_seconds = 601\n", 2, "'601'");
    refused("[iscsi]\ntimeout_seconds = -1\n", 2, "'-1'");
    refused("[iscsi]\ntimeout_seconds = 5s\n", 2, "'5s'");
    refused("[iscsi]\ntimeout_seconds =\n", 2, "''");
    refused("[iscsi]\ntimeout_seconds = 99999999999999999999\n", 2, "999");
    refused("[worker]\ndeadline_seconds = 3601\n", 2, "'3601'");
    refused("[journal]\nhistory_days = 0\n", 2, "'0'");
    refused("[journal]\nhistory_days = 3651\n", 2, "'3651'");
    refused("[journal]\nhistory_mib = 65537\n", 2, "'65537'");
    refused("[journal]\nproofs_kept = 0\n", 2, "'0'");
    refused("[journal]\nproofs_kept = 100001\n", 2, "'100001'");
    refused("[iscsi]\ninitiator_name = host\n", 2, "'host'");
    assert_true(load_bytes("[mount]\n\0", 9) < 0);
}

static void test_absent_file(void **state)
{
    (void)state;
    assert_int_equal(mr_config_load("/nonexistent/conf", true, &config, &err), -ENOENT);
    assert_int_equal(mr_config_load("/nonexistent/conf", false, &config, &err), 0);
    assert_int_equal(config.mount_roots.count, 1);
}

static void test_roots_are_resolved(void **state)
{
    (void)state;
    char text[512];
    char link[128];
    char real[PATH_MAX];
    (void)snprintf(link, sizeof(link), "%s/link", dir);
    assert_int_equal(symlink(dir, link), 0);
    assert_non_null(realpath(dir, real));
    (void)snprintf(text, sizeof(text),
                   "[mount]\nroots = %s/\n[file]\nroots = %s/../..%s\n", link, dir, dir);
    assert_int_equal(load(text), 0);
    assert_int_equal(mr_config_resolve_roots(&config, false, &err), 0);
    assert_int_equal(unlink(link), 0);
    assert_string_equal(config.mount_roots.path[0], real);
    assert_string_equal(config.file_roots.path[0], real);
}

static void test_bad_roots_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"/", "/nonexistent-root", "/proc/self/exe",
                                      "/tmp/.."};
    char text[128];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        (void)snprintf(text, sizeof(text), "[mount]\nroots = %s\n", bad[i]);
        assert_int_equal(load(text), 0);
        assert_true(mr_config_resolve_roots(&config, true, &err) < 0);
        assert_non_null(strstr(err.message, bad[i]));
        assert_true(strlen(err.remedy) > 0);
    }
}

static void test_initiator_name_of_open_iscsi_is_taken(void **state)
{
    (void)state;
    char name[224];
    assert_int_equal(
        mr_initiator_from_text("## a comment\nGenerateName=yes\r\n"
                               "InitiatorName=iqn.1993-08.org.debian:01:ab\r\n",
                               name, sizeof(name)),
        0);
    assert_string_equal(name, "iqn.1993-08.org.debian:01:ab");
    assert_int_equal(mr_initiator_from_text("#InitiatorName=iqn.x\nGenerateName=yes",
                                            name, sizeof(name)),
                     -ENOENT);
    assert_int_equal(
        mr_initiator_from_text("InitiatorName=nonsense\n", name, sizeof(name)), -EINVAL);
    assert_int_equal(
        mr_initiator_from_text("InitiatorName=iqn.a b\n", name, sizeof(name)), -EINVAL);
    assert_int_equal(mr_initiator_from_text("InitiatorName=\n", name, sizeof(name)),
                     -EINVAL);
}

static void test_initiator_name_is_stable(void **state)
{
    (void)state;
    char one[224];
    char two[224];
    assert_int_equal(mr_initiator_find(dir, false, one, sizeof(one), &err), 0);
    assert_true(mr_initiator_name_valid(one));
    if (access("/etc/machine-id", R_OK) == 0) {
        assert_int_equal(mr_initiator_find(dir, false, two, sizeof(two), &err), 0);
        assert_string_equal(one, two);
    }
}

static int parse(struct mr_options *options, char *const *arguments)
{
    char *argv[16] = {(char[]){"mooringd"}};
    int argc = 1;
    for (; arguments[argc - 1]; argc++)
        argv[argc] = arguments[argc - 1];
    return mr_options_parse(argc, argv, options, &err);
}

#define ARGS(...) ((char *[]){__VA_ARGS__, NULL})

static void test_options_are_parsed(void **state)
{
    (void)state;
    struct mr_options options;
    assert_int_equal(
        parse(&options,
              ARGS((char[]){"--listen"}, (char[]){"unix:/a"},
                   (char[]){"--listen=127.0.0.1:0"}, (char[]){"--insecure-loopback"},
                   (char[]){"--state-dir=/s"}, (char[]){"--config"}, (char[]){"c"})),
        0);
    assert_int_equal(options.listen_count, 2);
    assert_string_equal(options.listen[1], "127.0.0.1:0");
    assert_true(options.insecure_loopback);
    assert_string_equal(options.state_dir, "/s");
    assert_string_equal(options.runtime_dir, "/run/mooring");
    assert_string_equal(options.config_file, "c");
    assert_int_equal(options.mode, MR_MODE_RUN);
    assert_int_equal(parse(&options, ARGS((char[]){"--selftest"})), 0);
    assert_int_equal(options.mode, MR_MODE_SELFTEST);
}

static void test_wrong_options_are_refused(void **state)
{
    (void)state;
    struct mr_options options;
    assert_int_equal(parse(&options, ARGS((char[]){"--nonsense"})), -EINVAL);
    assert_non_null(strstr(err.message, "--nonsense"));
    assert_int_equal(parse(&options, ARGS((char[]){"--config"})), -EINVAL);
    assert_int_equal(parse(&options, ARGS((char[]){"--state-dir"}, (char[]){"rel"})),
                     -EINVAL);
    assert_int_equal(parse(&options, ARGS((char[]){"argument"})), -EINVAL);
    assert_int_equal(parse(&options, ARGS((char[]){"--version=1"})), -EINVAL);
    assert_int_equal(parse(&options, ARGS((char[]){"--selftest=all"})), -EINVAL);
    assert_int_equal(parse(&options, ARGS((char[]){"-v"})), -EINVAL);
}

static enum mr_exit check(const char *address, bool insecure)
{
    struct mr_options options = {
        .listen = {address}, .listen_count = 1, .insecure_loopback = insecure};
    enum mr_exit code = MR_EXIT_OK;
    int rc = mr_listen_check(&options, &code, &err);
    return rc == 0 ? MR_EXIT_OK : code;
}

static void test_listen_addresses_are_checked(void **state)
{
    (void)state;
    static const char *const usage[] = {"",
                                        "foo",
                                        "unix:",
                                        "unix:rel",
                                        "127.0.0.1",
                                        "127.0.0.1:",
                                        ":80",
                                        "127.0.0.1:x",
                                        "[::1]",
                                        "[::1:80",
                                        "[127.0.0.1:80",
                                        "example.org:80",
                                        "127.0.0.1:65536",
                                        "127.0.0.1:-1"};
    for (size_t i = 0; i < sizeof(usage) / sizeof(usage[0]); i++)

        assert_int_equal(check(usage[i], true), MR_EXIT_USAGE);
    assert_int_equal(check("unix:/run/a.sock", false), MR_EXIT_OK);
    assert_int_equal(check("127.0.0.1:0", true), MR_EXIT_OK);
    assert_int_equal(check("localhost:80", true), MR_EXIT_OK);
    assert_int_equal(check("[::1]:80", true), MR_EXIT_OK);
    assert_int_equal(check("127.0.0.1:0", false), MR_EXIT_CONFIG);
    assert_non_null(strstr(err.remedy, "--insecure-loopback"));
    assert_int_equal(check("0.0.0.0:80", true), MR_EXIT_CONFIG);
    assert_int_equal(check("[::]:80", true), MR_EXIT_CONFIG);
    assert_int_equal(check("10.0.0.1:80", true), MR_EXIT_CONFIG);
    char too_long[128] = "unix:/";
    memset(too_long + 6, 'a', 107);
    assert_int_equal(check(too_long, false), MR_EXIT_USAGE);
    too_long[5 + 107] = '\0';
    assert_int_equal(check(too_long, false), MR_EXIT_OK);
}

#define TEST(name) cmocka_unit_test_teardown(name, done)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_empty_file_means_defaults),
        TEST(test_all_keys_are_read),
        TEST(test_long_lines_are_read),
        TEST(test_unknown_things_are_refused_by_line),
        TEST(test_bad_values_are_refused_by_line),
        TEST(test_absent_file),
        TEST(test_roots_are_resolved),
        TEST(test_bad_roots_are_refused),
        TEST(test_initiator_name_of_open_iscsi_is_taken),
        TEST(test_initiator_name_is_stable),
        TEST(test_options_are_parsed),
        TEST(test_wrong_options_are_refused),
        TEST(test_listen_addresses_are_checked),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
