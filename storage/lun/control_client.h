/* SPDX-License-Identifier: Apache-2.0
 *
 * mooring-lun control SOCKET VERB [KEY=VALUE...]: one request by hand, for operators and
 * tests.
 */
#ifndef MR_STORAGE_LUN_CONTROL_CLIENT_H
#define MR_STORAGE_LUN_CONTROL_CLIENT_H

/* argv: SOCKET, VERB, ... Prints the answer (with "watch": all of them, until the keeper
 * ends). The exit status: 0 when it said ok, 1 when not. */
int mr_control_client_main(int argc, char *const *argv);

#endif
