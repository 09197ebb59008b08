/* SPDX-License-Identifier: Apache-2.0
 *
 * What a person reads: one line per holder as it comes, and the verdict.
 */
#ifndef MR_AGENT_SELFTEST_REPORT_H
#define MR_AGENT_SELFTEST_REPORT_H

#include <stdbool.h>

#include "agent/selftest/round.h"

struct mr_tally {
    unsigned passed;
    unsigned failed;
    unsigned skipped;
    unsigned broken; /* of the failed: the device was not waited for */
    unsigned held;   /* of the passed: somebody held it; the rest is for comparison */
    unsigned named;  /* of those: by a row of the agent */
};

/* Machine and kernel. */
void mr_report_machine(bool exclusive_open);
/* What the columns mean. */
void mr_report_legend(void);
/* The head of a table. */
void mr_report_head(const char *fs_type);
void mr_report_family(const char *title);
/* One line, counted. */
void mr_report_round(const struct mr_round *round, struct mr_tally *tally);
/* A line about what was not played at all, counted as one. */
void mr_report_skipped(const char *what, const char *why, struct mr_tally *tally);
/* The verdict, and the numbers behind it. */
void mr_report_verdict(const struct mr_tally *tally);

#endif
