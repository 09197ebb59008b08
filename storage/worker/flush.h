/* SPDX-License-Identifier: Apache-2.0
 *
 * The flush before an umount, and what it found out. syncfs(2) tells of a lost write
 * once: from then on nobody can ask the kernel (lib/errseq.c, fs/sync.c). Who dies
 * between that answer and its record would take it along, and the next flush say that all
 * is well. So while syncfs(2) runs a note is kept in the volume's lock file, which its
 * next worker has, too. It is the operation's: another operation begins when the end of
 * this one, and what it found, is in the journal.
 *
 * Nothing else may write back before: not only sb->s_wb_err tells once. Who waits for the
 * commit of ext4's journal, or for the device's own pages (AS_EIO), takes the error away;
 * BLKFLSBUF (block/ioctl.c) does both and says nothing.
 */
#ifndef MR_STORAGE_WORKER_FLUSH_H
#define MR_STORAGE_WORKER_FLUSH_H

#include "storage/base/err.h"
#include "storage/identity.h"

/* Writes all that is dirty in the mounted file system. lock_fd: of the volume's lock
 * file, locked by us; operation: the one that asks. With -1 or NULL no note is kept.
 * 0: it is written, or nothing of ours is mounted there; -EIO or another errno with
 * DATA_NOT_WRITTEN: something was lost, now or in an earlier flush of this operation, or
 * that one was cut off, and nobody can tell any more. May block. */
int mr_flush(int lock_fd, const char *operation, const struct mr_mount_record *record,
             struct mr_err *err);

#endif
