/* SPDX-License-Identifier: Apache-2.0
 *
 * A run of the journal, and what is found of it when the power went at some point.
 */
#ifndef MR_TESTS_UNIT_POWER_FOUND_H
#define MR_TESTS_UNIT_POWER_FOUND_H

#include "tests/unit/unit.h"

#include <sqlite3.h>
#include <stdbool.h>

#include "storage/base/loop.h"
#include "storage/journal.h"
#include "tests/unit/power_vfs.h"

#define RECORDS 1600
#define VOLUMES 40 /* numbers 1 to 40 */
#define DROPPED 4  /* 1 to 4 are removed */
#define PAD_MAX 1200
#define OLD_RECORDS 300 /* of a journal with schema 1 */
#define WHY_TEXT 300

/* Notes in the record: 1 and up: that record was acknowledged. */
#define NOTE_PRUNING 0
#define NOTE_DROPPED(number) (-(number))

struct run {
    char dir[64];   /* where the journal works */
    char image[64]; /* what is left of it */
    struct mr_loop *loop;
    struct mr_journal *journal;
    struct power_record *record;
    struct mr_timer deadline;
    uint64_t random;
    int volume_of[RECORDS + 1]; /* value -> number; values are the order of the calls */
    int last;                   /* value that was appended last */
    int acked;
    int wanted;
    bool late;
    bool refused;
};

/* What must be there at one point (up to `dropped`), and what was found. */
struct image {
    const struct run *run;
    int acked;
    bool pruning;
    bool dropped[VOLUMES + 1];
    int row[VOLUMES + 1];   /* value of the volume's row, 0: none */
    int first[VOLUMES + 1]; /* value of its first and last line, 0: none */
    int line[VOLUMES + 1];
    int newest; /* value of any row or line */
    char *why;  /* it is not what it must be */
};

/* NULL: it does not open. */
sqlite3 *power_found_open(const char *dir);
/* Opens the image in run->image and compares. 0, or -1 and why. */
int power_found_check(struct image *image);

#endif
