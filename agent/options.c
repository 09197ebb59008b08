/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/options.h"

#include <errno.h>
#include <getopt.h>

enum option_id {
    OPTION_CONFIG = 1,
    OPTION_LISTEN,
    OPTION_STATE_DIR,
    OPTION_RUNTIME_DIR,
    OPTION_CHECK_CONFIG,
    OPTION_INSECURE_LOOPBACK,
    OPTION_VERSION,
    OPTION_HELP,
    OPTION_DUMP_ROUTES,
    OPTION_SELFTEST,
};

static const struct option long_options[] = {
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"state-dir", required_argument, NULL, OPTION_STATE_DIR},
    {"runtime-dir", required_argument, NULL, OPTION_RUNTIME_DIR},
    {"check-config", no_argument, NULL, OPTION_CHECK_CONFIG},
    {"insecure-loopback", no_argument, NULL, OPTION_INSECURE_LOOPBACK},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, OPTION_HELP},
    {"dump-routes", no_argument, NULL, OPTION_DUMP_ROUTES},
    {"selftest", no_argument, NULL, OPTION_SELFTEST},
    {NULL, 0, NULL, 0},
};

static int refuse(struct mr_err *err, const char *value, const char *what)
{
    int rc = mr_fail_at(err, MR_E_INVALID_REQUEST, "", "'%s' %s", value, what);
    return mr_err_remedy(err, rc, "see mooringd --help");
}

static int absolute(const char *value, const char **ret, struct mr_err *err)
{
    *ret = value;
    return value[0] == '/' ? 0 : refuse(err, value, "is not an absolute path");
}

static int take(struct mr_options *options, int id, struct mr_err *err)
{
    switch (id) {
    case OPTION_CONFIG:
        options->config_file = optarg;
        return 0;
    case OPTION_LISTEN:
        if (options->listen_count == MR_LISTEN_MAX)
            return refuse(err, optarg, "is one --listen too many");
        options->listen[options->listen_count++] = optarg;
        return 0;
    case OPTION_STATE_DIR:
        return absolute(optarg, &options->state_dir, err);
    case OPTION_RUNTIME_DIR:
        return absolute(optarg, &options->runtime_dir, err);
    case OPTION_CHECK_CONFIG:
        options->mode = MR_MODE_CHECK_CONFIG;
        return 0;
    case OPTION_INSECURE_LOOPBACK:
        options->insecure_loopback = true;
        return 0;
    case OPTION_VERSION:
        options->mode = MR_MODE_VERSION;
        return 0;
    case OPTION_HELP:
        options->mode = MR_MODE_HELP;
        return 0;
    case OPTION_DUMP_ROUTES:
        options->mode = MR_MODE_DUMP_ROUTES;
        return 0;
    case OPTION_SELFTEST:
        options->mode = MR_MODE_SELFTEST;
        return 0;
    default:
        return -EINVAL;
    }
}

int mr_options_parse(int argc, char **argv, struct mr_options *ret, struct mr_err *err)
{
    *ret = (struct mr_options){
        .state_dir = "/var/lib/mooring",
        .runtime_dir = "/run/mooring",
    };
    opterr = 0;
    optind = 1;
    for (;;) {
        /* getopt_long(3) moves optind past the option it could not read. */
        const char *current = optind < argc ? argv[optind] : "";
        int id = getopt_long(argc, argv, "+:", long_options, NULL);
        if (id == -1)
            break;
        if (id == ':')
            return refuse(err, current, "needs a value");
        if (id == '?')
            return refuse(err, current, "is not an option, or needs no value");
        int rc = take(ret, id, err);
        if (rc < 0)
            return rc;
    }
    if (optind < argc)
        return refuse(err, argv[optind], "is not expected here");
    return 0;
}

void mr_options_help(FILE *out)
{
    (void)fputs(
        "Usage: mooringd [OPTION]...\n"
        "Attach volumes over a REST API and detach them only when nothing holds them.\n\n"
        "  --config FILE         configuration (default /etc/mooring/mooring.conf)\n"
        "  --listen ADDRESS      unix:PATH or HOST:PORT, may be repeated\n"
        "                        (default unix:RUNTIME/agent.sock)\n"
        "  --state-dir DIR       journal and locks (default /var/lib/mooring)\n"
        "  --runtime-dir DIR     sockets (default /run/mooring)\n"
        "  --check-config        read the configuration, then exit\n"
        "  --insecure-loopback   allow plain HTTP on a loopback TCP address\n"
        "  --selftest            hold a small volume in every known way, detach it, and\n"
        "                        show that each holder is seen; then exit\n"
        "  --dump-routes         print the routes of the API, then exit\n"
        "  --version             print the version, then exit\n"
        "  --help                print this text, then exit\n\n"
        "Exit status: 0 ok, 1 the self test failed, 64 usage, 71 system error,\n"
        "78 configuration error.\n",
        out);
}
