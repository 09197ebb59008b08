/* SPDX-License-Identifier: Apache-2.0
 *
 * The configuration file: INI, read once at start, strict. What it allows is in a const
 * table, each key with its range; errors name file and line and say what to do.
 */
#ifndef MR_AGENT_CONFIG_H
#define MR_AGENT_CONFIG_H

#include <stdbool.h>

#include "storage/base/err.h"
#include "storage/config.h"

#define MR_CONFIG_FILE "/etc/mooring/mooring.conf"
#define MR_MOUNT_ROOT "/var/lib/mooring/volumes"
#define MR_FILE_ROOT "/var/lib/mooring/images"

/* Fills the configured part of *config (roots as written, initiator_name "" when it is
 * not set) from path and the defaults. must_exist false: an absent file means the
 * defaults. Returns 0 or -EINVAL / -errno with *err: exit with MR_EXIT_CONFIG. In every
 * case mr_config_done() frees. */
int mr_config_load(const char *path, bool must_exist, struct mr_config *config,
                   struct mr_err *err);

/* Replaces the roots by their resolved paths. create: a missing default root is made
 * (0755). A missing other root is an error, as is "/". Returns like mr_config_load(). */
int mr_config_resolve_roots(struct mr_config *config, bool create, struct mr_err *err);

void mr_config_done(struct mr_config *config);

#endif
