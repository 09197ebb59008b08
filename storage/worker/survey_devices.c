/* SPDX-License-Identifier: Apache-2.0
 *
 * Bound loop devices whose diskseq nobody knows: do they carry our mark? Asking one may
 * hang for ever when its backing file is on a mute server (LOOP_GET_STATUS64 asks the
 * file for its attributes), so children do it. They take the devices one after the other;
 * one that hangs keeps a child, and another child goes on with the rest.
 */
#include "storage/worker/survey.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"
#include "storage/base/json.h"
#include "storage/worker/driver.h"
#include "storage/worker/loopdev.h"

#define SUSPECTS_MAX 4096
#define ASKERS_MAX 16
#define STALL_NS (100 * MR_NS_PER_MS) /* without an answer: another child goes on */
#define PATIENCE_NS MR_NS_PER_S       /* without an answer: no more will come */
#define BACKING_BYTES_MAX (2UL * PATH_MAX)
#define TURN_OFFSET ((off_t)1 << 60) /* of a record lock on the node */
#define TURN_TRIES 10
#define TURN_RETRY_NS (10 * MR_NS_PER_MS)

struct suspect {
    char name[32];
    char *backing_file; /* NULL: cannot be read */
    bool on_lun;
};

struct suspects {
    const struct mr_search *search;
    struct suspect *list;
    size_t count;
    bool complete;
};

enum slot_state {
    SLOT_EMPTY = 0, /* not asked, or it has not answered */
    SLOT_BOUND,
    SLOT_UNBOUND,
    SLOT_FAILED,
};

struct slot {
    _Atomic enum slot_state state; /* written last */
    struct mr_loop_answer answer;
};

/* Shared with the children. */
struct board {
    atomic_size_t next; /* the next one to ask */
    struct slot slots[];
};

struct asking {
    const struct suspects *suspects;
    struct board *board;
    int wake_read; /* a byte for every answer */
    int wake_write;
    pid_t children[ASKERS_MAX];
    size_t child_count;
};

/* --- which ones --- */

static uint64_t diskseq_of(const char *name)
{
    char path[64];
    char text[32];

    if (mr_format(path, sizeof(path), "/sys/block/%s/diskseq", name) < 0 ||
        mr_read_text(AT_FDCWD, path, text, sizeof(text)) <= 0)
        return 0;
    return strtoull(text, NULL, 10);
}

/* The path as the kernel sees it, to the last byte. */
static char *backing_of(const char *name)
{
    char path[80];
    char *text = NULL;

    if (mr_format(path, sizeof(path), "/sys/block/%s/loop/backing_file", name) < 0)
        return NULL;
    ssize_t len = mr_read_file(AT_FDCWD, path, BACKING_BYTES_MAX, &text);
    if (len > 0 && text[len - 1] == '\n')
        text[len - 1] = '\0';
    return text;
}

static bool collect(void *ctx, const char *name)
{
    struct suspects *suspects = ctx;
    struct suspect suspect = {.on_lun = false};

    if (mr_search_knows_device(suspects->search, diskseq_of(name)))
        return true;
    if (suspects->count == SUSPECTS_MAX ||
        mr_format(suspect.name, sizeof(suspect.name), "%s", name) < 0) {
        suspects->complete = false;
        return true;
    }
    struct suspect *bigger =
        realloc(suspects->list, (suspects->count + 1) * sizeof(suspect));
    if (!bigger) {
        suspects->complete = false;
        return false;
    }
    suspects->list = bigger;
    suspect.backing_file = backing_of(name);
    /* A file that is mounted nowhere has the path "/". */
    suspect.on_lun = suspect.backing_file && strcmp(suspect.backing_file, "/") == 0;
    suspects->list[suspects->count++] = suspect;
    return true;
}

/* Those that can be trusted to answer come first. */
static int compare_suspects(const void *a, const void *b)
{
    return (int)((const struct suspect *)a)->on_lun -
           (int)((const struct suspect *)b)->on_lun;
}

/* --- a child --- */

/* A child of an earlier search that still hangs on this device shows itself by a lock:
 * one is enough. Any other lock there is over in a moment. */
static bool take_turn(int fd)
{
    for (int i = 0; i < TURN_TRIES; i++) {
        struct flock turn = {.l_type = F_WRLCK, .l_start = TURN_OFFSET, .l_len = 1};
        if (fcntl(fd, F_OFD_GETLK, &turn) == 0 && turn.l_type == F_UNLCK) {
            turn.l_type = F_RDLCK;
            return fcntl(fd, F_OFD_SETLK, &turn) == 0;
        }
        mr_sleep_ns(TURN_RETRY_NS);
    }
    return false;
}

static enum slot_state ask(const char *name, struct mr_loop_answer *ret)
{
    MR_AUTO_CLOSE int fd = mr_loop_open(name, NULL);

    if (fd < 0)
        return fd == -ENXIO ? SLOT_UNBOUND : SLOT_FAILED;
    if (!take_turn(fd))
        return SLOT_FAILED;
    int r = mr_loop_ask(fd, name, ret, NULL);
    if (r < 0)
        return SLOT_FAILED;
    return r > 0 ? SLOT_BOUND : SLOT_UNBOUND;
}

/* It may outlive us by far: it keeps nothing open that somebody could wait for. */
static _Noreturn void run_child(const struct asking *asking)
{
    const int wake_fd = STDIN_FILENO;
    struct board *board = asking->board;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dup2(asking->wake_write, wake_fd) < 0 || close_range(STDOUT_FILENO, ~0U, 0) < 0)
        _exit(1);
    for (;;) {
        size_t i = atomic_fetch_add(&board->next, 1);
        if (i >= asking->suspects->count)
            _exit(0);
        struct slot *slot = &board->slots[i];
        atomic_store(&slot->state, ask(asking->suspects->list[i].name, &slot->answer));
        if (write(wake_fd, "", 1) < 0)
            continue; /* full: then there is something to wake up from */
    }
}

/* --- asking --- */

static void start_child(struct asking *asking)
{
    pid_t pid = fork();
    if (pid == 0)
        run_child(asking);
    if (pid > 0)
        asking->children[asking->child_count++] = pid;
}

static bool all_answered(const struct asking *asking)
{
    for (size_t i = 0; i < asking->suspects->count; i++)
        if (atomic_load(&asking->board->slots[i].state) == SLOT_EMPTY)
            return false;
    return true;
}

/* Waits for a byte, at most until then. */
static bool wait_answer(const struct asking *asking, int64_t until_ns)
{
    struct pollfd wake = {.fd = asking->wake_read, .events = POLLIN};
    int64_t left_ms = (until_ns - mr_now_ns() + MR_NS_PER_MS - 1) / MR_NS_PER_MS;
    char bytes[256];

    return left_ms > 0 && poll(&wake, 1, (int)left_ms) > 0 &&
           read(asking->wake_read, bytes, sizeof(bytes)) > 0;
}

/* Until all have answered, or no more answers come. */
static void wait_all(struct asking *asking, int64_t deadline_ns)
{
    int64_t progress_ns = mr_now_ns();

    while (!all_answered(asking)) {
        bool help = atomic_load(&asking->board->next) < asking->suspects->count &&
                    asking->child_count < ASKERS_MAX;
        int64_t until_ns = progress_ns + (help ? STALL_NS : PATIENCE_NS);
        if (until_ns > deadline_ns)
            until_ns = deadline_ns;
        if (!wait_answer(asking, until_ns)) {
            if (!help || mr_now_ns() >= deadline_ns)
                return;
            start_child(asking);
        }
        progress_ns = mr_now_ns();
    }
}

/* Those that hang in the kernel end when their server answers or dies, at the latest; our
 * own end makes them nobody's children. */
static void end_children(struct asking *asking)
{
    for (size_t i = 0; i < asking->child_count; i++) {
        (void)kill(asking->children[i], SIGKILL);
        (void)waitpid(asking->children[i], NULL, WNOHANG);
    }
}

/* --- what they say --- */

static bool has_suffix(const char *text, const char *suffix)
{
    size_t len = strlen(text);
    size_t tail = strlen(suffix);

    return len >= tail && strcmp(text + len - tail, suffix) == 0;
}

static void take_file(struct mr_orphan *orphan, const struct mr_loop_answer *answer)
{
    const char *path = orphan->backing_file;

    (void)mr_file_source_key(orphan->identity.source_key, answer->file_dev,
                             answer->file_inode);
    if (!path || has_suffix(path, " (deleted)"))
        return;
    struct json_object *json = json_object_new_object();
    mr_json_set_string(json, "driver", "file");
    mr_json_set_string(json, "path", path);
    orphan->source = mr_search_source(json, NULL);
}

/* What its server said before stays. */
static void take_device(struct mr_orphan *orphan, struct suspect *suspect,
                        const struct mr_loop_answer *answer)
{
    struct mr_identity lun = orphan->identity;

    orphan->identity = answer->identity;
    orphan->identity.lun_pid = lun.lun_pid;
    orphan->identity.lun_start_time = lun.lun_start_time;
    memcpy(orphan->identity.serial, lun.serial, sizeof(lun.serial));
    memcpy(orphan->identity.wwn, lun.wwn, sizeof(lun.wwn));
    memcpy(orphan->identity.source_key, lun.source_key, sizeof(lun.source_key));
    orphan->on_lun |= suspect->on_lun;
    orphan->backing_file = mr_take_ptr(suspect->backing_file);
    if (!orphan->on_lun)
        take_file(orphan, answer);
}

static void take_answer(struct mr_search *search, struct suspect *suspect,
                        const struct slot *slot)
{
    enum slot_state state = atomic_load(&slot->state);
    char token[MR_TOKEN_TEXT];

    if (state == SLOT_EMPTY || state == SLOT_FAILED)
        search->complete = false;
    if (state != SLOT_BOUND ||
        !mr_mark_read(slot->answer.file_name, search->runtime_dir, token))
        return;
    struct mr_orphan *orphan = mr_search_orphan(search, token);
    if (!orphan)
        return;
    if (orphan->identity.diskseq != 0)
        search->complete = false; /* somebody forged a second one */
    else
        take_device(orphan, suspect, &slot->answer);
}

static int ask_all(struct mr_search *search, struct suspects *suspects)
{
    const size_t size = sizeof(struct board) + suspects->count * sizeof(struct slot);
    int pair[2];

    qsort(suspects->list, suspects->count, sizeof(*suspects->list), compare_suspects);
    if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    MR_AUTO_CLOSE int wake_read = pair[0];
    MR_AUTO_CLOSE int wake_write = pair[1];
    void *board =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        return -ENOMEM;
    struct asking asking = {
        .suspects = suspects,
        .board = board,
        .wake_read = wake_read,
        .wake_write = wake_write,
    };
    start_child(&asking);
    wait_all(&asking, search->deadline_ns);
    end_children(&asking);
    for (size_t i = 0; i < suspects->count; i++)
        take_answer(search, &suspects->list[i], &asking.board->slots[i]);
    (void)munmap(board, size);
    return 0;
}

void mr_search_devices(struct mr_search *search)
{
    struct suspects suspects = {.search = search, .complete = true};

    if (mr_loop_each(collect, &suspects, NULL) < 0 || !suspects.complete)
        search->complete = false;
    if (suspects.count > 0 && ask_all(search, &suspects) < 0)
        search->complete = false;
    for (size_t i = 0; i < suspects.count; i++)
        free(suspects.list[i].backing_file);
    free(suspects.list);
}
