/* SPDX-License-Identifier: Apache-2.0
 *
 * Attach and detach as the journal sees them: eight records for each cycle, a few cycles
 * at once. journal_cycles DIR CYCLES HISTORY_MIB; 0 MiB: nothing is ever removed. Half of
 * the cycles are of 100 volumes that come again and again, half of volumes that never do,
 * and whose tombstones are dropped when there are 1,000 later ones. Ends with one line:
 * cycles, bytes of file and log at most, longest time from a record to its durability,
 * the same of 99 % of them, sum of seconds.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "storage/base/clock.h"
#include "storage/base/json.h"
#include "storage/base/loop.h"
#include "storage/journal.h"

#define AT_ONCE 4
#define SAME_VOLUMES 100
#define PROOFS_KEPT 1000
#define SAMPLE_EVERY 64 /* cycles */
#define BUCKETS 4096    /* of the times: 10 us each */
#define BUCKET_NS 10000

static const char *const events[] = {"attach_intent", "mapped", "mounted",   "attached",
                                     "unmounted",     "held",   "unmapping", "detached"};
#define EVENTS (sizeof(events) / sizeof(events[0]))

struct run {
    struct mr_loop *loop;
    struct mr_journal *journal;
    const char *dir;
    long cycles;
    long begun;
    long ended;
    int64_t same[SAME_VOLUMES];
    int64_t tombstones[PROOFS_KEPT];
    size_t tombstone_count;
    int64_t db_bytes;
    int64_t log_bytes;
    int64_t longest_ns;
    long times[BUCKETS + 1];
    long records;
};

struct cycle {
    struct run *run;
    int64_t number;
    bool is_same;
    char id[32];
    char operation[32];
    size_t next; /* of events */
    int64_t since_ns;
};

static struct json_object *document;

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t size_of(const char *dir, const char *name)
{
    char path[4096];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return stat(path, &st) == 0 ? st.st_size : 0;
}

static void sample(struct run *run)
{
    run->db_bytes = larger(run->db_bytes, size_of(run->dir, "journal.db"));
    run->log_bytes = larger(run->log_bytes, size_of(run->dir, "journal.db-wal"));
}

static void count_time(struct run *run, int64_t ns)
{
    int64_t bucket = ns / BUCKET_NS;
    run->longest_ns = larger(run->longest_ns, ns);
    run->times[bucket < BUCKETS ? bucket : BUCKETS]++;
    run->records++;
}

static void on_durable(void *ctx, int rc, const struct mr_err *error);

static void append(struct cycle *cycle)
{
    const struct mr_record record = {
        .volume_number = cycle->number,
        .volume_id = cycle->id,
        .state = cycle->next + 1 < EVENTS ? "attaching" : "absent",
        .volume = document,
        .operation_id = cycle->operation,
        .operation = document,
        .event = events[cycle->next],
        .detail = cycle->next % 2 ? document : NULL,
    };
    cycle->since_ns = mr_now_ns();
    mr_journal_append(cycle->run->journal, &record, on_durable, cycle);
}

static void begin(struct cycle *cycle)
{
    struct run *run = cycle->run;
    long at = run->begun++;

    cycle->next = 0;
    cycle->is_same = at % 2 == 0;
    (void)snprintf(cycle->operation, sizeof(cycle->operation), "op-%016lx", at);
    (void)snprintf(cycle->id, sizeof(cycle->id), "%s-%ld",
                   cycle->is_same ? "same" : "new",
                   cycle->is_same ? at / 2 % SAME_VOLUMES : at);
    cycle->number = cycle->is_same ? run->same[at / 2 % SAME_VOLUMES]
                                   : mr_journal_number(run->journal);
    append(cycle);
}

static void bury(struct run *run, int64_t number)
{
    size_t slot = run->tombstone_count++ % PROOFS_KEPT;
    if (run->tombstone_count > PROOFS_KEPT)
        mr_journal_drop(run->journal, run->tombstones[slot], NULL, NULL);
    run->tombstones[slot] = number;
}

static void on_durable(void *ctx, int rc, const struct mr_err *error)
{
    struct cycle *cycle = ctx;
    struct run *run = cycle->run;

    if (rc < 0)
        errx(1, "%s", error->message);
    count_time(run, mr_now_ns() - cycle->since_ns);
    if (++cycle->next < EVENTS) {
        append(cycle);
        return;
    }
    if (!cycle->is_same)
        bury(run, cycle->number);
    if (++run->ended % SAMPLE_EVERY == 0)
        sample(run);
    if (run->begun < run->cycles)
        begin(cycle);
    else if (run->ended == run->cycles)
        mr_loop_stop(run->loop);
}

static int64_t percentile_ns(const struct run *run, long percent)
{
    long left = run->records * percent / 100;
    size_t bucket = 0;
    while (bucket < BUCKETS && (left -= run->times[bucket]) > 0)
        bucket++;
    return bucket < BUCKETS ? ((int64_t)bucket + 1) * BUCKET_NS : run->longest_ns;
}

/* As large as those of a real volume. */
static struct json_object *make_document(void)
{
    char text[400];
    struct json_object *json = json_object_new_object();
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    mr_json_set_string(json, "spec", text);
    return json;
}

int main(int argc, char **argv)
{
    static struct run run;
    static struct cycle cycles[AT_ONCE];
    struct mr_err error;

    if (argc != 4)
        errx(2, "usage: journal_cycles DIR CYCLES HISTORY_MIB");
    run.dir = argv[1];
    run.cycles = strtol(argv[2], NULL, 10);
    const struct mr_journal_retention keep = {
        .max_age_ms = 30LL * 24 * 3600 * 1000,
        .max_bytes = strtol(argv[3], NULL, 10) << 20,
    };
    document = make_document();
    if (mr_loop_new(&run.loop, &error) < 0 ||
        mr_journal_open(run.loop, run.dir, &run.journal, &error) < 0)
        errx(1, "%s", error.message);
    if (keep.max_bytes > 0)
        mr_journal_retain(run.journal, &keep);
    for (size_t i = 0; i < SAME_VOLUMES; i++)
        run.same[i] = mr_journal_number(run.journal);
    int64_t start_ns = mr_now_ns();
    for (size_t i = 0; i < AT_ONCE; i++) {
        cycles[i].run = &run;
        begin(&cycles[i]);
    }
    if (mr_loop_run(run.loop, &error) < 0)
        errx(1, "%s", error.message);
    sample(&run);
    (void)printf("%ld %lld %lld %.3f %.3f %.1f\n", run.ended, (long long)run.db_bytes,
                 (long long)run.log_bytes, (double)run.longest_ns / MR_NS_PER_MS,
                 (double)percentile_ns(&run, 99) / MR_NS_PER_MS,
                 (double)(mr_now_ns() - start_ns) / MR_NS_PER_S);
    mr_journal_close(run.journal);
    mr_loop_free(run.loop);
    (void)json_object_put(document);
    return fflush(stdout) == 0 ? 0 : 1;
}
