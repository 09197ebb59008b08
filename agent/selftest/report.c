/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/selftest/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "agent/selftest/features.h"

#define WHAT_WIDTH 48

static void feature(const char *what, bool present, const char *without)
{
    (void)printf("  %-52s %s%s\n", what,
                 present ? "yes" : "no: ", present ? "" : without);
}

void mr_report_machine(bool exclusive_open)
{
    struct utsname name;
    const struct mr_feature *one;

    if (uname(&name) == 0)
        (void)printf("Mooring " MR_VERSION " on %s %s, %s, %d CPUs\n\n", name.sysname,
                     name.release, name.machine, get_nprocs());
    (void)puts("What this kernel offers");
    feature("a claim that a mount refuses: open(2) with O_EXCL", exclusive_open,
            "nothing can be promised");
    for (size_t i = 0; (one = mr_feature(i)); i++)
        feature(one->what, one->present(), one->without);
    (void)fflush(stdout);
}

void mr_report_legend(void)
{
    (void)puts("\nEach holder is built on a small volume, which is then detached.\n"
               "  held      nothing was unmapped, or said to be free, until it let go\n"
               "  named as  what the agent says; '?': it may be this one\n"
               "  seen by   unmount: umount(2) says busy; drain: umount(2) is done, and "
               "the device still held\n"
               "  noticed   from letting go to the end of the detach");
}

void mr_report_head(const char *fs_type)
{
    char title[64];

    (void)snprintf(title, sizeof(title), "a volume with %s, held by", fs_type);
    (void)printf("\n  %-*s  %-4s  %-26s  %-8s  %s\n", WHAT_WIDTH, title, "held",
                 "named as", "seen by", "noticed");
}

void mr_report_family(const char *title)
{
    (void)printf("%s\n", title);
}

static void passed(const struct mr_round *round, struct mr_tally *tally)
{
    bool holds = round->kind && round->kind->effect != MR_HOLD_NOTHING;

    tally->passed++;
    tally->held += holds ? 1 : 0;
    tally->named += holds && round->named[0] ? 1 : 0;
    (void)printf("  %-*s  %-4s  %-26s  %-8s  %5" PRId64 " ms\n", WHAT_WIDTH,
                 round->kind ? round->kind->what : "nobody, for comparison",
                 holds ? "yes" : "-",
                 round->named[0] ? round->named
                 : holds         ? "held, but not named"
                                 : "-",
                 round->step[0] ? round->step : "-", round->noticed_ms);
}

void mr_report_round(const struct mr_round *round, struct mr_tally *tally)
{
    const char *what = round->kind ? round->kind->what : "nobody, for comparison";

    switch (round->verdict) {
    case MR_VERDICT_PASSED:
        passed(round, tally);
        break;
    case MR_VERDICT_FAILED:
        tally->failed++;
        tally->broken += round->broken ? 1 : 0;
        (void)printf("  %-*s  %-4s  FAILED: %s\n", WHAT_WIDTH, what,
                     round->broken ? "NO" : "?", round->why);
        break;
    case MR_VERDICT_SKIPPED:
        mr_report_skipped(what, round->why, tally);
        break;
    case MR_VERDICT_UNKNOWN:
        break;
    }
    (void)fflush(stdout);
}

void mr_report_skipped(const char *what, const char *why, struct mr_tally *tally)
{
    tally->skipped++;
    (void)printf("  %-*s  %-4s  skipped: %s\n", WHAT_WIDTH, what, "-", why);
    (void)fflush(stdout);
}

void mr_report_verdict(const struct mr_tally *tally)
{
    if (tally->broken > 0)
        (void)puts("\nTHE PROMISE DOES NOT HOLD: a device was let go while it was held.");
    else if (tally->failed > 0)
        (void)puts(
            "\nTHE PROMISE IS NOT PROVEN: nothing was unmapped while it was held,\n"
            "but not every round went as it should.");
    else if (tally->held == 0)
        (void)puts("\nNOTHING WAS TESTED: there was no holder, so nothing is proven.");
    else
        (void)puts("\nThe promise holds on this kernel: nothing was unmapped while it "
                   "was held,\n"
                   "and every detach ended by itself when its holder let go.");
    (void)printf("%u held, %u of them named\n", tally->held, tally->named);
    (void)printf("%u passed, %u failed, %u skipped\n", tally->passed, tally->failed,
                 tally->skipped);
}
