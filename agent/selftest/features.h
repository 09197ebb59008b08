/* SPDX-License-Identifier: Apache-2.0
 *
 * What the running kernel offers to tell whether a device is held, and by whom. Each is
 * tried; versions are not read.
 */
#ifndef MR_AGENT_SELFTEST_FEATURES_H
#define MR_AGENT_SELFTEST_FEATURES_H

#include <stdbool.h>
#include <stddef.h>

struct mr_feature {
    const char *what;
    const char *without; /* what is lost when it is missing */
    bool (*present)(void);
};

/* NULL past the end. */
const struct mr_feature *mr_feature(size_t index);
/* Is a mounted device refused to an exclusive open? The promise rests on it. */
bool mr_feature_exclusive_open(const char *mounted_node);

#endif
