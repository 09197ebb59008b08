/* SPDX-License-Identifier: Apache-2.0
 *
 * Which file systems and mount options a spec may ask for: an allow list, because the
 * caller is not root but the mount is. Pure, any thread. Sources: mount(8), xfs(5),
 * ext4(5).
 */
#ifndef MR_STORAGE_FS_OPTIONS_H
#define MR_STORAGE_FS_OPTIONS_H

#include <stdbool.h>

/* "xfs" or "ext4". */
bool mr_fs_type_known(const char *type);
/* One option ("noatime", "commit=30", "suid", "dev", ...), no commas inside. */
bool mr_fs_option_allowed(const char *type, const char *option);
/* Both allowed for type, but only one of them can hold: the same option twice, "discard"
 * and "nodiscard", "commit=5" and "commit=30". */
bool mr_fs_options_conflict(const char *type, const char *a, const char *b);

#endif
