/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/selftest/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/options.h"
#include "agent/selftest/features.h"
#include "agent/selftest/report.h"
#include "agent/selftest/rig.h"
#include "agent/selftest/round.h"
#include "storage/base/log.h"

/* For how long it is held: three times what a free detach takes, within these bounds. */
#define HOLD_MS_MIN 250
#define HOLD_MS_MAX 3000

struct run {
    struct mr_rig rig;
    struct mr_trial trial;
    unsigned volumes; /* that were made so far */
    struct mr_tally tally;
    int64_t hold_ms;
    char left[512]; /* what could not be taken away */
    char **names;   /* of holders, borrowed from argv */
    int name_count;
};

static bool is_wanted(const struct run *run, const char *name)
{
    for (int i = 0; i < run->name_count; i++)
        if (strcmp(run->names[i], name) == 0)
            return true;
    return run->name_count == 0;
}

static int new_volume(struct run *run, const char *fs_type, struct mr_err *err)
{
    return mr_trial_init(&run->trial, &run->rig, fs_type, ++run->volumes, err);
}

/* One round and its line. False when there is no point in going on. */
static bool play(struct run *run, const struct mr_hold_kind *kind)
{
    struct mr_round round = {.trial = &run->trial, .kind = kind, .hold_ms = run->hold_ms};
    struct mr_err err;

    mr_round_run(&round);
    mr_report_round(&round, &run->tally);
    if (!kind) {
        run->hold_ms = 3 * round.noticed_ms;
        if (run->hold_ms < HOLD_MS_MIN)
            run->hold_ms = HOLD_MS_MIN;
        if (run->hold_ms > HOLD_MS_MAX)
            run->hold_ms = HOLD_MS_MAX;
    }
    /* What a failed round left behind shall not fail the next one. */
    if (round.verdict == MR_VERDICT_FAILED &&
        new_volume(run, run->trial.fs_type, &err) < 0) {
        mr_report_skipped("all others", err.message, &run->tally);
        return false;
    }
    return !run->rig.signal && (kind || round.verdict == MR_VERDICT_PASSED);
}

static void play_all(struct run *run)
{
    const struct mr_hold_family *family;

    for (size_t f = 0; (family = mr_hold_family(f)); f++) {
        bool titled = false;
        for (size_t i = 0; i < family->count; i++) {
            if (!is_wanted(run, family->kinds[i].name))
                continue;
            if (!titled)
                mr_report_family(family->title);
            titled = true;
            if (!play(run, &family->kinds[i]))
                return;
        }
    }
}

static bool has_program(const char *name)
{
    static const char *const dirs[] = {"/usr/sbin", "/sbin", "/usr/local/sbin"};
    char path[64];

    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dirs[i], name);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

/* The same promise on the other file system, for those that depend on it. */
static void play_xfs(struct run *run)
{
    static const char *const names[] = {"mount-copy", "fsmount", "frozen",
                                        "stacked-mount"};
    const size_t count = sizeof(names) / sizeof(names[0]);
    bool wanted = false;
    struct mr_err err;

    for (size_t i = 0; i < count; i++)
        wanted = wanted || is_wanted(run, names[i]);
    if (run->rig.signal || !wanted)
        return;
    mr_report_head("xfs");
    if (!has_program("mkfs.xfs")) {
        mr_report_skipped("all of them", "there is no mkfs.xfs", &run->tally);
        return;
    }
    if (new_volume(run, "xfs", &err) < 0) {
        mr_report_skipped("all of them", err.message, &run->tally);
        return;
    }
    if (!play(run, NULL))
        return;
    for (size_t i = 0; i < count; i++)
        if (is_wanted(run, names[i]) && !play(run, mr_hold_find(names[i])))
            return;
}

/* Attached and detached once: does an exclusive open work as it must? */
static int look_at_machine(struct run *run, struct mr_err *err)
{
    int rc = mr_trial_attach(&run->trial, err);
    if (rc < 0)
        return rc;
    mr_report_machine(mr_feature_exclusive_open(run->trial.device.node));
    rc = mr_trial_begin_detach(&run->trial, err);
    return rc < 0 ? rc : mr_trial_await_end(&run->trial, err);
}

static int run_all(struct run *run, struct mr_err *err)
{
    int rc = mr_rig_start(&run->rig, err);
    if (rc == 0)
        rc = new_volume(run, "ext4", err);
    if (rc == 0)
        rc = look_at_machine(run, err);
    if (rc == 0) {
        mr_report_legend();
        mr_report_head("ext4");
        if (play(run, NULL))
            play_all(run);
        play_xfs(run);
    }
    mr_trial_done(&run->trial);
    mr_rig_stop(&run->rig, run->left, sizeof(run->left));
    return rc;
}

static int check_names(const struct run *run)
{
    for (int i = 0; i < run->name_count; i++)
        if (!mr_hold_find(run->names[i]))
            return -1;
    return 0;
}

int mr_selftest_run(int argc, char **argv)
{
    static struct run run; /* too large for the stack */
    struct mr_err err;

    run.names = argv;
    run.name_count = argc;
    if (check_names(&run) < 0)
        return MR_EXIT_USAGE;
    (void)setenv("MOORING_LOG", "err", 0); /* of the workers: this is a table */
    mr_log_init("mooring-selftest");
    int rc = run_all(&run, &err);
    if (run.rig.signal)
        (void)printf("\ninterrupted%s\n", run.left[0] ? "" : "; nothing was left behind");
    if (run.left[0])
        (void)printf("\nleft behind, and to be taken away by hand: %s\n", run.left);
    if (run.rig.signal)
        return 128 + run.rig.signal;
    if (rc < 0) {
        (void)fprintf(stderr, "mooring-selftest: %s\n", err.message);
        return MR_EXIT_SYSTEM;
    }
    mr_report_verdict(&run.tally);
    if (run.tally.failed > 0)
        return MR_EXIT_BROKEN;
    return run.tally.held > 0 ? MR_EXIT_OK : MR_EXIT_SYSTEM;
}
