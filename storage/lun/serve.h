/* SPDX-License-Identifier: Apache-2.0
 *
 * mooring-lun io: the server. One loop over FUSE, session, the keeper's orders and the
 * clock; started by the keeper with the fds of start.h, once as the first server of a LUN
 * and any number of times as a further one (page->known).
 */
#ifndef MR_STORAGE_LUN_SERVE_H
#define MR_STORAGE_LUN_SERVE_H

/* The whole life; the exit status: before the server is ready one of sysexits(3), then
 * MR_LUN_EXIT_RELEASED or MR_LUN_EXIT_HANDED_OVER. */
int mr_server_main(void);

#endif
