/* SPDX-License-Identifier: Apache-2.0
 *
 * The power goes while the journal is at work, at any point, as power_vfs.h simulates it.
 * What is found afterwards opens, is sound, has all that was said to be durable, and of
 * the rest a first part without holes. MOORING_POWER_IMAGES: how many images; they are
 * made from MOORING_POWER_SEED, which is printed. (Which records share a commit depends
 * on time, too: the same seed makes the same kind of run, not the same one.)
 */
#include "tests/unit/unit.h"

#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

#include "storage/base/clock.h"
#include "storage/base/json.h"
#include "tests/unit/power_found.h"

#define IMAGES 1000

/* --- a run --- */

static void remove_files(const char *dir)
{
    DIR *stream = opendir(dir);
    char path[400];
    assert_non_null(stream);
    for (struct dirent *d = readdir(stream); d; d = readdir(stream)) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, d->d_name);
        if (d->d_name[0] != '.')
            assert_int_equal(unlink(path), 0);
    }
    (void)closedir(stream);
}

/* In memory where possible: what is synced here is of no interest. */
static void make_dir(char dir[64], const char *name)
{
    const char *base = access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(dir, 64, "%s/mr-power-%s-XXXXXX", base, name);
    assert_non_null(mkdtemp(dir));
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static uint64_t seed(void)
{
    static uint64_t value;
    if (value == 0) {
        value = number_from("MOORING_POWER_SEED", (uint64_t)mr_wall_ms());
        print_message("MOORING_POWER_SEED=%llu\n", (unsigned long long)value);
    }
    return value;
}

static int setup(void **state)
{
    struct run *run = calloc(1, sizeof(*run));
    assert_non_null(run);
    run->random = seed() * 2 + 1;
    make_dir(run->dir, "run");
    make_dir(run->image, "image");
    assert_int_equal(mr_loop_new(&run->loop, NULL), 0);
    *state = run;
    return 0;
}

static int teardown(void **state)
{
    struct run *run = *state;
    mr_journal_close(run->journal);
    if (run->record)
        power_record_free(run->record);
    mr_loop_free(run->loop);
    remove_files(run->dir);
    remove_files(run->image);
    assert_int_equal(rmdir(run->dir), 0);
    assert_int_equal(rmdir(run->image), 0);
    free(run);
    return 0;
}

static unsigned any(struct run *run, unsigned below)
{
    return (unsigned)(power_random(&run->random) % below);
}

static void open_journal(struct run *run)
{
    struct mr_err err;
    if (mr_journal_open(run->loop, run->dir, &run->journal, &err) != 0)
        fail_msg("open: %s", err.message);
}

static void close_journal(struct run *run)
{
    mr_journal_close(run->journal);
    run->journal = NULL;
}

static void on_deadline(void *ctx)
{
    struct run *run = ctx;
    run->late = true;
    mr_loop_stop(run->loop);
}

static void on_ack(void *ctx, int rc, const struct mr_err *err)
{
    struct run *run = ctx;
    (void)err;
    run->refused |= rc != 0;
    power_vfs_note(++run->acked); /* they come in the order of the calls */
    if (run->acked >= run->wanted)
        mr_loop_stop(run->loop);
}

static void run_loop(struct run *run)
{
    mr_timer_init(&run->deadline, run->loop, on_deadline, run);
    mr_timer_set(&run->deadline, mr_now_ns() + 30 * MR_NS_PER_S);
    assert_int_equal(mr_loop_run(run->loop, NULL), 0);
    mr_timer_cancel(&run->deadline);
    assert_false(run->late);
    assert_false(run->refused);
}

static struct json_object *document(struct run *run, int value, unsigned pad_max)
{
    static char pad[PAD_MAX + 1];
    struct json_object *doc = json_object_new_object();
    memset(pad, 'a' + value % 26, sizeof(pad));
    pad[any(run, pad_max)] = '\0';
    mr_json_set_int(doc, "value", value);
    mr_json_set_string(doc, "pad", pad);
    return doc;
}

static void append(struct run *run, int number)
{
    int value = ++run->last;
    char id[16];
    char operation_id[16];
    MR_AUTO_JSON struct json_object *doc = document(run, value, 300);
    MR_AUTO_JSON struct json_object *detail = document(run, value, PAD_MAX);

    assert_true(value <= RECORDS);
    run->volume_of[value] = number;
    (void)snprintf(id, sizeof(id), "vol%d", number);
    (void)snprintf(operation_id, sizeof(operation_id), "op%d", value);
    mr_journal_append(run->journal,
                      &(struct mr_record){
                          .volume_number = number,
                          .volume_id = id,
                          .state = "attaching",
                          .volume = doc,
                          .operation_id = operation_id,
                          .operation = doc,
                          .event = "line",
                          .detail = detail,
                      },
                      on_ack, run);
}

/* So many records to volumes from `lowest` on, in batches of 1 to 6, some of which are
 * queued while others are being written. */
static void work(struct run *run, int records, int lowest)
{
    for (int i = 0; i < records;) {
        for (unsigned batch = 1 + any(run, 6); batch > 0 && i < records; batch--, i++)
            append(run, lowest + (int)any(run, (unsigned)(VOLUMES + 1 - lowest)));
        run->wanted = run->last - (int)any(run, 3);
        if (run->acked < run->wanted)
            run_loop(run);
    }
    run->wanted = run->last;
    if (run->acked < run->wanted)
        run_loop(run);
}

static void on_dropped(void *ctx, int rc, const struct mr_err *err)
{
    struct run *run = ctx;
    (void)err;
    run->refused |= rc != 0;
    mr_loop_stop(run->loop);
}

static void drop(struct run *run, int number)
{
    mr_journal_drop(run->journal, number, on_dropped, run);
    run_loop(run);
    power_vfs_note(NOTE_DROPPED(number));
}

/* All that a journal does in its life: it is made, written to beyond several checkpoints,
 * closed and opened again, pruned, rid of volumes. */
static void live(struct run *run, enum power_lie lie)
{
    run->record = power_vfs_start(run->dir, lie);
    open_journal(run);
    work(run, 500, 1);
    close_journal(run);
    open_journal(run);
    work(run, 700, DROPPED + 1);
    power_vfs_note(NOTE_PRUNING);
    mr_journal_retain(run->journal, &(struct mr_journal_retention){.max_age_ms = 0,
                                                                   .max_bytes = 1 << 20});
    for (int number = 1; number <= DROPPED; number++) {
        work(run, 20, DROPPED + 1);
        drop(run, number);
    }
    work(run, 150, DROPPED + 1);
    close_journal(run);
    power_vfs_stop(run->record);
}

/* --- the images of a run --- */

static void take_note(struct image *image, int note)
{
    if (note > 0)
        image->acked = note;
    else if (note == NOTE_PRUNING)
        image->pruning = true;
    else
        image->dropped[-note] = true;
}

/* Half of them anywhere, half right behind an acknowledgement: nothing that came later
 * can hide what was lost. */
static size_t choose_point(struct run *run)
{
    size_t length = power_record_length(run->record);
    size_t at = (size_t)(power_random(&run->random) % length);
    int note = 0;
    if (any(run, 2) == 0)
        while (at + 1 < length && !power_record_note(run->record, at, &note))
            at++;
    return at + 1;
}

static int by_size(const void *a, const void *b)
{
    size_t x = *(const size_t *)a;
    size_t y = *(const size_t *)b;
    return (x > y) - (x < y);
}

/* Returns how many images are not what they must be; why the first of them is not. */
static size_t look_at_images(struct run *run, size_t count, char why[WHY_TEXT])
{
    size_t *points = calloc(count, sizeof(*points));
    struct power_disk *disk = power_disk_new(run->record);
    struct image seen = {.run = run, .acked = run->volume_of[0]};
    size_t bad = 0;
    size_t at = 0;

    assert_non_null(points);
    for (size_t i = 0; i < count; i++)
        points[i] = choose_point(run);
    qsort(points, count, sizeof(*points), by_size);
    for (size_t i = 0; i < count; i++) {
        char text[WHY_TEXT] = "";
        int note = 0;
        for (; at < points[i]; at++)
            if (power_record_note(run->record, at, &note))
                take_note(&seen, note);
        power_disk_advance(disk, at);
        power_disk_image(disk, power_random(&run->random), run->image);
        struct image image = seen;
        image.why = text;
        if (power_found_check(&image) != 0 && bad++ == 0)
            (void)snprintf(why, WHY_TEXT, "at %zu of %zu: %.200s", at,
                           power_record_length(run->record), text);
        remove_files(run->image);
    }
    power_disk_free(disk);
    free(points);
    return bad;
}

static size_t images(void)
{
    return (size_t)number_from("MOORING_POWER_IMAGES", IMAGES);
}

static void assert_all_sound(struct run *run, size_t count)
{
    char why[WHY_TEXT];
    size_t bad = look_at_images(run, count, why);
    if (bad > 0)
        fail_msg("%zu of %zu images, the first %s", bad, count, why);
}

/* --- tests --- */

/* The run was what live() says. */
static void assert_lived(struct run *run)
{
    sqlite3_stmt *stmt = NULL;
    sqlite3 *db = power_found_open(run->dir);
    assert_int_equal(
        sqlite3_prepare_v2(db, "SELECT count(*), min(seq) FROM history", -1, &stmt, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    assert_true(sqlite3_column_int(stmt, 0) >= 1000);
    assert_true(sqlite3_column_int(stmt, 1) > 1); /* pruned */
    (void)sqlite3_finalize(stmt);
    (void)sqlite3_close(db);
    /* More than the two checkpoints of closing it. */
    assert_true(power_record_syncs(run->record, "journal.db") > 4);
    assert_true(power_record_syncs(run->record, "journal.db-wal") > 300);
}

static void test_when_the_power_goes_nothing_is_lost_that_was_said(void **state)
{
    struct run *run = *state;
    live(run, POWER_HONEST);
    assert_lived(run);
    assert_all_sound(run, images());
}

/* A journal of schema 1 as the version before this one left it. */
static void make_old(struct run *run)
{
    static const char schema[] =
        "PRAGMA journal_mode = WAL;"
        "CREATE TABLE volume(number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL,"
        " state TEXT NOT NULL, doc TEXT NOT NULL, updated_at INTEGER NOT NULL);"
        "CREATE TABLE operation(id TEXT PRIMARY KEY NOT NULL,"
        " volume INTEGER NOT NULL REFERENCES volume(number), doc TEXT NOT NULL,"
        " updated_at INTEGER NOT NULL);"
        "CREATE TABLE history(seq INTEGER PRIMARY KEY AUTOINCREMENT,"
        " volume INTEGER NOT NULL REFERENCES volume(number), operation TEXT,"
        " at INTEGER NOT NULL, event TEXT NOT NULL, detail TEXT);"
        "CREATE INDEX history_volume ON history(volume, seq);"
        "PRAGMA user_version = 1; BEGIN";
    char path[100];
    sqlite3 *db = NULL;

    (void)snprintf(path, sizeof(path), "%s/journal.db", run->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, schema, NULL, NULL, NULL), SQLITE_OK);
    while (run->last < OLD_RECORDS) {
        int value = ++run->last;
        int number = 1 + (int)any(run, VOLUMES);
        run->volume_of[value] = number;
        char *sql = sqlite3_mprintf(
            "INSERT INTO volume VALUES(%d, 'vol%d', 'attaching', '{\"value\":%d}', 1)"
            " ON CONFLICT(number) DO UPDATE SET doc = excluded.doc;"
            "INSERT INTO operation VALUES('op%d', %d, '{\"value\":%d}', 1);"
            "INSERT INTO history(volume, operation, at, event, detail)"
            " VALUES(%d, 'op%d', 1, 'line', '{\"value\":%d,\"pad\":\"%.*c\"}')",
            number, number, value, value, number, value, number, value, value,
            (int)any(run, PAD_MAX), 'x');
        assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
        sqlite3_free(sql);
    }
    assert_int_equal(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    run->acked = run->last;
    run->volume_of[0] = run->last; /* all of that was there before the record begins */
}

static void test_when_the_power_goes_in_a_migration_nothing_is_lost(void **state)
{
    struct run *run = *state;
    make_old(run);
    run->record = power_vfs_start(run->dir, POWER_HONEST);
    open_journal(run);
    work(run, 40, 1);
    close_journal(run);
    power_vfs_stop(run->record);
    assert_all_sound(run, images() / 4 + 1);
}

/* The test can fail: a disk that does not do what it was asked loses something, and that
 * is seen. */
static void assert_lie_is_seen(struct run *run, enum power_lie lie, const char *how)
{
    char why[WHY_TEXT] = "";
    live(run, lie);
    size_t bad = look_at_images(run, 50, why);
    print_message("%zu of 50 images, the first %s\n", bad, why);
    assert_true(bad > 0);
    assert_non_null(strstr(why, how));
}

static void test_a_log_that_is_not_synced_loses_what_was_said(void **state)
{
    assert_lie_is_seen(*state, POWER_LOG_UNSYNCED, "was acknowledged");
}

static void test_a_database_that_is_not_synced_is_lost(void **state)
{
    assert_lie_is_seen(*state, POWER_DATABASE_UNSYNCED, "");
}

#define POWER_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        POWER_TEST(test_when_the_power_goes_nothing_is_lost_that_was_said),
        POWER_TEST(test_when_the_power_goes_in_a_migration_nothing_is_lost),
        POWER_TEST(test_a_log_that_is_not_synced_loses_what_was_said),
        POWER_TEST(test_a_database_that_is_not_synced_is_lost),
    };
    power_vfs_register();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
