/* SPDX-License-Identifier: Apache-2.0
 *
 * Power loss for SQLite: a VFS that records every write, truncation, sync, creation and
 * removal below one directory, and a disk that replays the record and is cut off at any
 * point. What was synced is there; of the rest any part may be: single sectors of 512
 * bytes, in any order, torn out of one write, a size without its data, names lost or come
 * back.
 */
#ifndef MR_TESTS_UNIT_POWER_VFS_H
#define MR_TESTS_UNIT_POWER_VFS_H

#include <stddef.h>
#include <stdint.h>

/* What the disk does instead of what it was asked. */
enum power_lie {
    POWER_HONEST = 0,
    POWER_LOG_UNSYNCED,      /* syncs of the write-ahead log do nothing */
    POWER_DATABASE_UNSYNCED, /* those of the database */
};

struct power_record;

/* Makes the recording VFS the default one of this process. Once. */
void power_vfs_register(void);
/* Begins to record what happens to files in dir. Those that are there are durable. One
 * record at a time. */
struct power_record *power_vfs_start(const char *dir, enum power_lie lie);
/* Puts a note into the record: this has happened by now. Any thread. */
void power_vfs_note(int note);
/* No file of dir may be open any more. */
void power_vfs_stop(struct power_record *record);
void power_record_free(struct power_record *record);

/* The number of things in the record: the power can go before or after each. */
size_t power_record_length(const struct power_record *record);
/* *ret_note when there is one at this place. */
int power_record_note(const struct power_record *record, size_t at, int *ret_note);

/* How often this file was synced. */
size_t power_record_syncs(const struct power_record *record, const char *name);

struct power_disk;

struct power_disk *power_disk_new(const struct power_record *record);
void power_disk_free(struct power_disk *disk);
/* Replays up to (not including) `at`; only forwards. */
void power_disk_advance(struct power_disk *disk, size_t at);
/* Writes into dir, which is empty, what may be found when the power went now. The same
 * seed makes the same image. */
void power_disk_image(const struct power_disk *disk, uint64_t seed, const char *dir);

/* 64 random bits: xorshift64*. *state is not 0. */
uint64_t power_random(uint64_t *state);

#endif
