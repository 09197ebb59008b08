/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/flush.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "storage/base/fault.h"
#include "storage/worker/mounter.h"

#define NOTE_TEXT 128

/* What an earlier flush of this operation left: */
enum past {
    PAST_NONE = 0,
    PAST_BEGUN, /* its worker died, with the kernel's answer or before it */
    PAST_LOST,
};

static enum past read_note(int lock_fd, const char *operation)
{
    char text[NOTE_TEXT + 1] = "";
    char begun[NOTE_TEXT];
    char lost[NOTE_TEXT];

    if (lock_fd < 0 || !operation || pread(lock_fd, text, NOTE_TEXT, 0) <= 0)
        return PAST_NONE;
    (void)snprintf(begun, sizeof(begun), "%s flush begun\n", operation);
    (void)snprintf(lost, sizeof(lost), "%s flush lost\n", operation);
    return strcmp(text, begun) == 0  ? PAST_BEGUN
           : strcmp(text, lost) == 0 ? PAST_LOST
                                     : PAST_NONE;
}

/* Best effort: on a file system that takes nothing any more the detach is not to fail. In
 * the page cache it outlives us, and a reboot ends the attachment anyway. */
static void write_note(int lock_fd, const char *operation, const char *what)
{
    char text[NOTE_TEXT];

    if (lock_fd < 0 || !operation)
        return;
    int len = what ? snprintf(text, sizeof(text), "%s flush %s\n", operation, what) : 0;
    if (len > 0 && (size_t)len < sizeof(text))
        (void)!pwrite(lock_fd, text, (size_t)len, 0);
    (void)!ftruncate(lock_fd, len);
}

static int fail_past(enum past past, struct mr_err *err)
{
    int r = mr_fail(err, MR_E_DATA_NOT_WRITTEN, EIO, "%s",
                    past == PAST_LOST
                        ? "syncfs reported an error to a worker that died then"
                        : "a worker died while it asked whether all was written, which "
                          "the kernel tells once");

    return mr_err_remedy(err, r,
                         "what was written last may be lost; detach all the same with "
                         "accept_data_loss=true");
}

int mr_flush(int lock_fd, const char *operation, const struct mr_mount_record *record,
             struct mr_err *err)
{
    enum past past = read_note(lock_fd, operation);

    if (past != PAST_NONE) {
        (void)mr_mounter_sync(record, err); /* written is better than not */
        return fail_past(past, err);
    }
    (void)mr_fault("worker", "flush", "before");
    write_note(lock_fd, operation, "begun");
    int r = mr_mounter_sync(record, err);
    (void)mr_fault("worker", "flush", "inside");
    bool lost = r < 0 && err->code == MR_E_DATA_NOT_WRITTEN;
    write_note(lock_fd, operation, lost ? "lost" : NULL);
    (void)mr_fault("worker", "flush", "after");
    return r;
}
