/* SPDX-License-Identifier: Apache-2.0
 *
 * mooring-lun preflight: what an attach of this LUN would meet, in a session of its own
 * that changes nothing. What a prober looks at goes into a sparse file; what is on the
 * LUN is for the worker to tell.
 */
#include "storage/lun/oneshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/json.h"
#include "storage/lun/fence.h"
#include "storage/lun/identify.h"
#include "storage/lun/listing.h"
#include "storage/lun/question.h"
#include "storage/lun/reach.h"
#include "storage/lun/session.h"

#define CONNECT_NS MR_NS_PER_S /* for portals that are not needed */
#define CHUNK_BYTES (128u << 10)

struct look {
    struct mr_lun_start start;
    struct mr_session session;
    struct mr_lun_facts facts;
    struct mr_reach reach[MR_LUN_PORTALS_MAX];
    bool tried[MR_LUN_PORTALS_MAX]; /* to log in */
    int64_t login_ms;               /* at the portal where it worked, -1: at none */
    size_t at;                      /* that portal */
};

/* --- portals and login --- */

/* Of several portals' failures the one that says most is that of the LUN. */
static int weight(enum mr_code code)
{
    if (code == MR_E_PORTAL_UNREACHABLE)
        return 1;
    return code == MR_E_TARGET_TIMEOUT ? 2 : 3;
}

static int log_in(struct look *look, size_t i, int64_t deadline_ns)
{
    const int64_t started_ns = mr_now_ns();
    struct mr_lun_start start = look->start;

    start.portal_count = 1;
    memcpy(start.portals[0], look->reach[i].portal, sizeof(look->reach[i].portal));
    look->tried[i] = true;
    int r = mr_session_open(&look->session, &start, MR_LUN_CHANNEL_FD, deadline_ns,
                            &look->reach[i].err);
    if (r == 0) {
        look->at = i;
        look->login_ms = (mr_now_ns() - started_ns) / MR_NS_PER_MS;
    }
    explicit_bzero(start.password, sizeof(start.password));
    return r;
}

/* As mr_session_open(), but every portal's failure is kept. */
static int open_session(struct look *look, int64_t deadline_ns, struct mr_err *err)
{
    const size_t count = look->start.portal_count;
    const int64_t enough_ns = mr_now_ns() + CONNECT_NS;
    int best = 0;
    int result = -EINVAL;

    mr_reach((const char(*)[256])look->start.portals, count,
             enough_ns < deadline_ns ? enough_ns : deadline_ns, deadline_ns, look->reach);
    for (size_t i = 0; i < count; i++) {
        struct mr_reach *reach = &look->reach[i];
        int r = -EIO;
        if (reach->reachable) {
            int64_t at = mr_now_ns();
            r = log_in(look, i, at + (deadline_ns - at) / (int64_t)(count - i));
        }
        if (r == 0)
            return 0;
        if (weight(reach->err.code) > best) {
            best = weight(reach->err.code);
            *err = reach->err;
            result = r;
        }
        /* More tries with wrong credentials may lock the account. */
        if (r == -ECANCELED || reach->err.code == MR_E_CHAP_REFUSED)
            break;
    }
    return result;
}

static void say_portals(struct look *look, struct json_object *answer)
{
    struct json_object *portals = json_object_new_array();

    for (size_t i = 0; i < look->start.portal_count; i++) {
        struct mr_reach *reach = &look->reach[i];
        struct json_object *json = json_object_new_object();
        bool works = look->login_ms >= 0 && look->at == i;
        reach->err.residue = MR_RESIDUE_NONE; /* nothing is mapped by a look */
        mr_json_set_string(json, "portal", look->start.portals[i]);
        mr_json_set_bool(json, "reachable", reach->reachable);
        mr_json_set(json, "connect_ms",
                    reach->reachable ? json_object_new_int64(reach->connect_ms) : NULL);
        mr_json_set(json, "login_ms",
                    works ? json_object_new_int64(look->login_ms) : NULL);
        mr_json_set(json, "error",
                    (look->tried[i] || !reach->reachable) && !works
                        ? mr_err_to_json(&reach->err)
                        : NULL);
        (void)json_object_array_add(portals, json);
    }
    mr_json_set(answer, "portals", portals);
}

static const char *credentials(const struct look *look, const struct mr_err *err)
{
    if (look->login_ms >= 0)
        return look->start.chap ? "accepted" : "not-needed";
    return err->code == MR_E_CHAP_REFUSED ? "refused" : "unknown";
}

/* --- reading --- */

struct chunk {
    uint64_t block;
    uint32_t bytes;
    uint32_t block_size;
    struct scsi_iovec *iov;
};

static struct scsi_task *send_read(struct mr_session *s, const void *arg)
{
    const struct chunk *chunk = arg;

    return iscsi_read16_iov_task(s->iscsi, s->lun, chunk->block, chunk->bytes,
                                 (int)chunk->block_size, 0, 0, 0, 0, 0, mr_session_answer,
                                 s, chunk->iov, 1);
}

/* The buffer is not zero before: what a target leaves out shall not look blank. */
static int read_chunk(struct look *look, uint64_t offset, size_t bytes, uint8_t *buffer,
                      int64_t deadline_ns, struct mr_err *err)
{
    const struct mr_asker asker = {&look->session, look->start.target, deadline_ns};
    struct scsi_iovec iov = {.iov_base = buffer, .iov_len = bytes};
    const struct chunk chunk = {
        .block = offset / look->facts.block_size,
        .bytes = (uint32_t)bytes,
        .block_size = look->facts.block_size,
        .iov = &iov,
    };
    const struct mr_question question = {
        .name = "READ(16)", .send = send_read, .arg = &chunk};
    struct mr_reply reply;

    memset(buffer, 0xff, bytes);
    int r = mr_ask(&asker, &question, &reply, err);
    if (r == 0 && reply.answer.kind != MR_ANSWER_GOOD)
        r = mr_ask_failed(&asker, &reply, question.name, err);
    return r;
}

static int copy_range(struct look *look, const struct mr_range *range, int fd,
                      int64_t deadline_ns, struct mr_err *err)
{
    const uint64_t limit =
        (uint64_t)look->facts.max_transfer_blocks * look->facts.block_size;
    const size_t step = limit > 0 && limit < CHUNK_BYTES ? (size_t)limit : CHUNK_BYTES;
    MR_AUTO_FREE uint8_t *buffer = malloc(step);
    int r = buffer ? 0 : mr_fail(err, MR_E_INTERNAL, ENOMEM, "read buffer");

    for (uint64_t done = 0; r == 0 && done < range->length; done += step) {
        uint64_t left = range->length - done;
        size_t bytes = left < step ? (size_t)left : step;
        r = read_chunk(look, range->offset + done, bytes, buffer, deadline_ns, err);
        if (r == 0 &&
            pwrite(fd, buffer, bytes, (off_t)(range->offset + done)) != (ssize_t)bytes)
            r = mr_fail(err, MR_E_INTERNAL, errno, "write what was read");
    }
    return r;
}

static int copy_ntfs(struct look *look, int fd, int64_t deadline_ns, struct mr_err *err)
{
    struct mr_range range;
    uint8_t head[512];

    if (pread(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head) ||
        !mr_ntfs_table(head, sizeof(head), look->facts.size_bytes, look->facts.block_size,
                       &range))
        return 0;
    return copy_range(look, &range, fd, deadline_ns, err);
}

/* A sparse file as large as the LUN that nobody can change any more. */
static int copy_content(struct look *look, int64_t deadline_ns, int *ret_fd,
                        struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = memfd_create("lun", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct mr_range ranges[MR_PROBE_RANGES];
    size_t count =
        mr_probe_ranges(look->facts.size_bytes, look->facts.block_size, ranges);
    int r = 0;

    if (fd < 0 || ftruncate(fd, (off_t)look->facts.size_bytes) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "memory for what is read");
    for (size_t i = 0; r == 0 && i < count; i++)
        r = copy_range(look, &ranges[i], fd, deadline_ns, err);
    if (r == 0)
        r = copy_ntfs(look, fd, deadline_ns, err);
    if (r == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        r = mr_fail(err, MR_E_INTERNAL, errno, "seal what was read");
    if (r == 0)
        *ret_fd = mr_take_fd(&fd);
    return r;
}

/* --- the mode --- */

static void say_facts(const struct mr_lun_facts *facts, struct json_object *answer)
{
    mr_json_set_int(answer, "size_bytes", (int64_t)facts->size_bytes);
    mr_json_set_int(answer, "block_size", facts->block_size);
    mr_json_set_string(answer, "serial", facts->serial);
    mr_json_set_string(answer, "wwn", facts->wwn);
    mr_json_set_bool(answer, "thin", facts->thin);
    mr_json_set_bool(answer, "write_protected", facts->write_protected);
}

/* Could the LUN be reserved for us, or, when that is not asked for, at least written? */
static int check_fence(struct look *look, int64_t deadline_ns, struct mr_err *err)
{
    const struct mr_asker asker = {&look->session, look->start.target, deadline_ns};
    const struct mr_fence_ask ask = {
        .key = mr_fence_key(look->start.initiator_name, look->start.token),
        .preempt = look->start.preempt != 0,
        .preempt_key = look->start.preempt,
    };

    if (look->start.reserve)
        return mr_fence_would(&asker, &ask, err);
    return look->start.read_only ? 0 : mr_fence_in_the_way(&asker, err);
}

int mr_preflight(struct json_object *request, int64_t deadline_ns,
                 struct json_object *answer, int *ret_fd, struct mr_err *err)
{
    static struct look look; /* too large for a stack frame */
    struct mr_err why = {0};

    look.login_ms = -1;
    int r = mr_lun_start_decode(request, &look.start, err);
    if (r < 0)
        return r;
    /* An attach gives up after this; reading may take as long again. */
    int64_t ready_ns = mr_now_ns() + look.start.timeout_ms * MR_NS_PER_MS;
    if (ready_ns > deadline_ns)
        ready_ns = deadline_ns;
    r = open_session(&look, ready_ns, &why);
    say_portals(&look, answer);
    mr_json_set_string(answer, "credentials", credentials(&look, &why));
    if (r == 0)
        r = mr_lun_identify(&look.session, look.start.target, ready_ns, &look.facts,
                            &why);
    if (r == 0) {
        struct mr_err unread = {0};
        say_facts(&look.facts, answer);
        int fence = check_fence(&look, ready_ns, &why);
        r = copy_content(&look, deadline_ns, ret_fd, &unread);
        if (fence == 0 && r < 0)
            why = unread;
        r = fence < 0 ? fence : r;
    }
    if (*ret_fd >= 0) /* else it may be lost */
        mr_session_leave(&look.session, deadline_ns);
    else
        mr_session_close(&look.session);
    explicit_bzero(look.start.password, sizeof(look.start.password));
    if (r < 0)
        *err = why;
    return r;
}
